"""The logit lens against norm and head by hand in float64, and against the network itself behind its last layer."""
import dataclasses

import jax
import numpy as np
import pytest
import scipy.special

from aspects import measure
from aspects.net import Net
from aspects.net import to_scanned
from aspects.representations.logit_lens import LogitLens
from aspects.sites import forward
from tests import fill

VOCAB, TOKENS, N = 11, 5, 24


class Stream:
  """Batches of a dict of arrays."""

  def __init__(self, fields, size=8):
    self.fields, self.size = fields, size

  def batch(self, k):
    return {n: v[k * self.size:(k + 1) * self.size] for n, v in self.fields.items()}

  def __len__(self):
    return len(self.fields['weight']) // self.size


def text(masked=True):
  rng = np.random.default_rng(0)
  words = lambda: rng.integers(0, VOCAB, (N, TOKENS))
  fields = dict(input=words(), label=words(), index=np.arange(N))
  fields = {n: v.astype(np.int32) for n, v in fields.items()} | {'weight': (np.arange(N) < N - 3).astype(np.float32)}
  if masked:
    fields['mask'] = (np.arange(TOKENS)[None] < rng.integers(1, TOKENS + 1, (N, 1))).astype(np.float32)
  return fields


def language_model(norm='layer', scan=False, **head):
  return Net(outputs=VOCAB, depth=3, width=8, embed=dict(name='tokens', vocab=VOCAB, length=TOKENS),
             head=dict(name='unembed', **head), mixer=dict(name='attention', heads=2, causal=True),
             channel=dict(name='mlp', ratio=2.0), norm=dict(name=norm), stack=dict(name='plain', scan=scan))


def ended(x, params, norm, cap):
  """Logits of streams x [N, D] in float64: norm, map, cap."""
  gain = params['norm']['affine']
  if norm == 'layer':
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x ** 2).mean(-1, keepdims=True) + 1e-5) * gain['scale'] + gain['bias']
  else:
    x = x / np.sqrt((x ** 2).mean(-1, keepdims=True) + 1e-6) * gain['scale']
  tied = 'logits_map' not in params.get('head', {})
  z = x @ (params['embedder']['token']['embedding'].T if tied else params['head']['logits_map']['kernel'])
  return cap * np.tanh(z / cap) if cap else z


def oracle(streams, logits, label, params, norm='layer', cap=None):
  """{variable: [site]} of streams {site: [N, D]} and the network's logits [N, V], row by row in float64."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  logits = np.asarray(logits, np.float64)
  p, top = scipy.special.softmax(logits, -1), logits.argmax(-1)
  out = {name: [] for name in ('kl', 'nll', 'accuracy', 'agreement', 'entropy', 'rank')}
  for x in streams.values():
    z = ended(np.asarray(x, np.float64), params, norm, cap)
    q = scipy.special.softmax(z, -1)
    values = [scipy.special.rel_entr(p, q).sum(-1).mean(), -np.log(q[np.arange(len(q)), label]).mean(),
              (z.argmax(-1) == label).mean(), (z.argmax(-1) == top).mean(), scipy.special.entr(q).sum(-1).mean(),
              np.mean([1 + (row > row[t]).sum() for row, t in zip(z, top)])]
    for name, value in zip(out, values):
      out[name].append(value)
  return out


def check(found, expected):
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize('norm, head', [('layer', {}), ('rms', {'tied': True}), ('layer', {'soft_cap': 3.0})])
def test_every_layer_by_hand(norm, head):
  net, fields = language_model(norm, **head), text()
  variables = fill.variables(net, fields['input'][:1])
  measures = {'one': LogitLens(('embed', 'resid_mid.1', 'resid_post.*')),
              'three': LogitLens(('embed', 'resid_mid.1', 'resid_post.*'), batch_size=3)}
  found = measure.measure_network(net, variables, Stream(fields), measures)
  names = found['one'].site.values.tolist()
  assert names == ['embed', 'resid_post.0', 'resid_mid.1', 'resid_post.1', 'resid_post.2']
  logits, acts = forward(net, variables, fields['input'], fields['mask'], record=names)
  rows = fields['weight'][:, None] * fields['mask'] > 0
  streams = {s: np.asarray(acts[s])[rows] for s in names}
  expected = oracle(streams, np.asarray(logits)[rows], fields['label'][rows], variables['params'], norm,
                    head.get('soft_cap'))
  assert expected['kl'][0] > 0.05 and expected['rank'][0] > 1.5
  check(found['one'], expected)
  check(found['three'], expected)


@pytest.mark.parametrize('scan', (False, True))
def test_the_last_layer_is_the_network(scan):
  net, fields = language_model(scan=scan), text(masked=False)
  plain = language_model()
  variables = fill.variables(plain, fields['input'][:1])
  variables = {'params': to_scanned(variables['params'])} if scan else variables
  found = measure.measure_network(net, variables, Stream(fields), LogitLens())
  logits = np.asarray(net.apply(variables, fields['input']), np.float64)[fields['weight'] > 0]
  label = fields['label'][fields['weight'] > 0]
  log_p = scipy.special.log_softmax(logits, -1)
  last = found.isel(site=-1)
  assert abs(last.kl) < 1e-6 and last.agreement == 1 and last['rank'] == 1
  np.testing.assert_allclose(last.nll, -np.take_along_axis(log_p, label[..., None], -1).mean(), rtol=1e-6)
  np.testing.assert_allclose(last.accuracy, (logits.argmax(-1) == label).mean(), rtol=1e-6)
  np.testing.assert_allclose(last.entropy, scipy.special.entr(np.exp(log_p)).sum(-1).mean(), rtol=1e-6)
  assert (found.kl[:-1] > 0.01).all()


def test_a_fold_is_its_examples_alone():
  """Both folds together, by their rows, are the whole."""
  net, fields = language_model(), text()
  variables = fill.variables(net, fields['input'][:1])
  parts = {fold: LogitLens(fold=fold) for fold in ('fit', 'held', 'all')}
  found = measure.measure_network(net, variables, Stream(fields), parts)
  rows = {fold: ds.attrs['rows'] for fold, ds in found.items()}
  assert 0 < rows['held'] < rows['fit'] and rows['held'] + rows['fit'] == rows['all']
  for name in found['all']:
    whole = sum(rows[fold] * found[fold][name] for fold in ('fit', 'held')) / rows['all']
    np.testing.assert_allclose(whole, found['all'][name], rtol=1e-5, atol=1e-6)


def test_without_labels_there_are_no_scores():
  net, fields = language_model(), text()
  del fields['label']
  variables = fill.variables(net, fields['input'][:1])
  found = measure.measure_network(net, variables, Stream(fields), LogitLens())
  assert list(found) == ['kl', 'agreement', 'entropy', 'rank']


def test_layers_before_the_end_are_not_run_again():
  """Of an unrolled network the compiler keeps the end alone: a lens costs less than a block beyond the network."""
  net, fields = language_model(), Stream(text(masked=False)).batch(0)
  variables = fill.variables(net, fields['input'][:1])
  program = measure.bind(net, variables, fields, {'lens': LogitLens(('resid_post.0',))})
  flops = lambda f, *args: jax.jit(f).lower(*args).compile().cost_analysis()['flops']
  network = flops(net.apply, variables, fields['input'])
  assert flops(program.update, program.init(), variables, fields) - network < network / 3


@pytest.mark.parametrize('fields, message', [
    ({'sites': ('resid.*',)}, 'no site matches'), ({'sites': ('q.*',)}, r"cannot read 'q.0' \(5, 2, 4\)"),
    ({'fold': 'third'}, "fold 'third' is not one of")])
def test_what_is_refused(fields, message):
  net, batch = language_model(), Stream(text()).batch(0)
  variables = jax.eval_shape(net.init, jax.random.key(0), batch['input'])
  with pytest.raises(ValueError, match=message):
    measure.bind(net, variables, batch, {'lens': LogitLens(**fields)})


def test_no_rows_in_a_fold():
  net, fields = language_model(), text()
  variables = fill.variables(net, fields['input'][:1])
  with pytest.raises(ValueError, match="a lens needs a row of data in fold 'all'"):
    measure.measure_network(net, variables, Stream(fields | {'weight': 0 * fields['weight']}), LogitLens())
  assert dataclasses.replace(LogitLens(), fold='fit') != LogitLens()
