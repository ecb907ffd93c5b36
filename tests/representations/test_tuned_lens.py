"""The tuned lens: the logit lens at identity, a planted map that is found, a trained model whose divergence falls."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from aspects import measure
from aspects import stats
from aspects.net import Net
from aspects.representations.logit_lens import LogitLens
from aspects.representations.tuned_lens import train_translators
from aspects.representations.tuned_lens import TunedLens
from aspects.sites import forward
from aspects.statistics import lens
from tests import fill

VOCAB, TOKENS, N, WIDTH = 9, 6, 40, 8


class Stream:
  """Batches of a dict of arrays."""

  def __init__(self, fields, size=20):
    self.fields, self.size = fields, size

  def batch(self, k):
    return {n: v[k * self.size:(k + 1) * self.size] for n, v in self.fields.items()}

  def __len__(self):
    return len(self.fields['weight']) // self.size


@pytest.fixture(scope='module')
def case():
  """A network of random weights, whose blocks turn the stream, and texts."""
  net = Net(outputs=VOCAB, depth=2, width=WIDTH, embed=dict(name='tokens', vocab=VOCAB, length=TOKENS),
            head=dict(name='unembed'), mixer=dict(name='attention', heads=2, causal=True), channel=dict(name='mlp'))
  rng = np.random.default_rng(0)
  words = lambda: rng.integers(0, VOCAB, (N, TOKENS))
  fields = dict(input=words(), label=words(), index=np.arange(N))
  fields = {n: v.astype(np.int32) for n, v in fields.items()} | {'weight': np.ones(N, np.float32)}
  return net, fill.variables(net, fields['input'][:1]), fields


def oracle(streams, maps, params, logits):
  """{'kl': [site]} of streams {site: [N, D]} after x + x W + b, norm and head, in float64."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  p, out = scipy.special.softmax(np.asarray(logits, np.float64), -1), []
  for k, x in enumerate(streams.values()):
    x = np.asarray(x, np.float64)
    x = x + x @ np.asarray(maps.weight[k], np.float64) + np.asarray(maps.bias[k], np.float64)
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x ** 2).mean(-1, keepdims=True) + 1e-5)
    affine = params['norm']['affine']
    z = (x * affine['scale'] + affine['bias']) @ params['head']['logits_map']['kernel']
    out.append(scipy.special.rel_entr(p, scipy.special.softmax(z, -1)).sum(-1).mean())
  return {'kl': out}


def test_training_lessens_the_divergence_of_examples_it_has_not_seen(case, tmp_path):
  net, variables, fields = case
  maps = train_translators(net, variables, Stream(fields), steps=200, learning_rate=3e-3, batch_size=2)
  path = str(tmp_path / 'maps.npz')
  lens.save(maps, path)
  tuned, identity, fit = TunedLens(translators=path, batch_size=2), TunedLens(), LogitLens(fold='held')
  found = measure.measure_network(net, variables, Stream(fields), {'tuned': tuned, 'none': identity, 'logit': fit})
  # at identity it is the logit lens, bit for bit
  for name in found['logit']:
    np.testing.assert_array_equal(found['none'][name], found['logit'][name])
    if name in ('kl', 'nll'):
      np.testing.assert_array_equal(found['tuned'][f'{name}_untuned'], found['logit'][name])
  assert found['tuned'].kl[0] < 0.7 * found['logit'].kl[0]
  # the map of the last layer has nothing to gain
  assert abs(found['tuned'].kl[-1]) < 1e-5 and np.abs(maps.weight[-1]).max() < 0.01 * np.abs(maps.weight[0]).max()
  held = np.asarray(stats.mix(jnp.arange(N), 5)) % 5 == 0
  logits, acts = forward(net, variables, fields['input'][held], record=maps.sites)
  streams = {s: np.asarray(x).reshape(-1, WIDTH) for s, x in acts.items()}
  expected = oracle(streams, maps, variables['params'], np.asarray(logits).reshape(-1, VOCAB))
  np.testing.assert_allclose(found['tuned'].kl, expected['kl'], rtol=1e-4, atol=2e-6)


def test_examples_that_are_held_back_teach_nothing(case):
  """Other texts in fold `held` leave the maps as they are, bit for bit; in fold `fit` they do not."""
  net, variables, fields = case
  held = np.asarray(stats.mix(jnp.arange(N), 5)) % 5 == 0
  def trained(rows):
    inputs = np.where(rows[:, None], (fields['input'] + 1) % VOCAB, fields['input'])
    return train_translators(net, variables, Stream(fields | {'input': inputs}, N), ('resid_post.0',), steps=3)
  plain = trained(np.zeros(N, bool))
  np.testing.assert_array_equal(trained(held).weight, plain.weight)
  assert np.abs(trained(~held).weight - plain.weight).max() > 1e-4


def test_layers_do_not_touch_one_another(case):
  net, variables, fields = case
  both = train_translators(net, variables, Stream(fields), ('embed', 'resid_post.0'), steps=5)
  one = train_translators(net, variables, Stream(fields), ('resid_post.0',), steps=5)
  np.testing.assert_allclose(both.weight[1], one.weight[0], atol=1e-6)
  assert both.weight.shape == (2, WIDTH, WIDTH) and both.bias.shape == (2, WIDTH)
  assert np.abs(both.weight[0]).max() > 1e-3


def test_no_step_is_the_identity(case):
  net, variables, fields = case
  maps = train_translators(net, variables, Stream(fields), steps=0)
  assert not maps.weight.any() and not maps.bias.any() and maps.sites == ('resid_post.0', 'resid_post.1')


def test_what_is_refused(case, tmp_path):
  net, variables, fields = case
  path = str(tmp_path / 'maps.npz')
  lens.save(lens.Translators(('resid_post.0',), np.zeros((1, 4, 4)), np.zeros((1, 4))), path)
  with pytest.raises(ValueError, match=r"holds translators of \('resid_post.0',\), width 4; the streams here are"):
    measure.bind(net, variables, Stream(fields).batch(0), {'lens': TunedLens(translators=path)})
  with pytest.raises(ValueError, match="cannot read 'q.0'"):
    train_translators(net, variables, Stream(fields), ('q.0',), steps=1)
