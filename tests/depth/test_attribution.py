"""Direct attribution: everything adds up to the logit; heads and neurons by the weights, in float64."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import measure
from aspects.depth.attribution import Attribution
from aspects.depth.attribution import shares
from aspects.net import Net
from aspects.net import to_scanned
from aspects.sites import forward
from tests import fill

VOCAB, TOKENS, N, WIDTH, HEADS, DEPTH = 7, 5, 12, 8, 2, 2


class Stream:
  """Batches of a dict of arrays."""

  def __init__(self, fields, size=6):
    self.fields, self.size = fields, size

  def batch(self, k):
    return {n: v[k * self.size:(k + 1) * self.size] for n, v in self.fields.items()}

  def __len__(self):
    return len(self.fields['weight']) // self.size


def text():
  rng = np.random.default_rng(0)
  words = lambda: rng.integers(0, VOCAB, (N, TOKENS))
  fields = dict(input=words(), label=words(), index=np.arange(N))
  weight = (np.arange(N) < N - 2).astype(np.float32)
  return {n: v.astype(np.int32) for n, v in fields.items()} | {'weight': weight}


def network(norm='layer', placement='pre', scan=False, channel='mlp', head=None):
  return Net(outputs=VOCAB, depth=DEPTH, width=WIDTH, embed=dict(name='tokens', vocab=VOCAB, length=TOKENS),
             head=dict(head or dict(name='unembed')), mixer=dict(name='attention', heads=HEADS, causal=True),
             channel=dict(name=channel, ratio=2.0), norm=dict(name=norm), placement=dict(name=placement),
             stack=dict(name='plain', scan=scan))


def rows(net, variables, fields, part):
  """(plan, Shares) of a batch, with the logits."""
  specs = measure.bind(net, variables, fields, {}).specs
  plan = part.needs(specs)['sums']
  rerun = lambda edits, record: forward(net, variables, fields['input'], record=record, edits=edits)
  logits, acts = forward(net, variables, fields['input'], record=plan.sites)
  return jax.jit(functools.partial(shares, plan, rerun=rerun))(acts, fields), np.asarray(logits, np.float64)


def number(logits, label, against):
  """The attributed number [R] of logits [R, V]."""
  own = logits[np.arange(len(label)), label]
  return own - {'mean': logits.mean(-1), None: 0}[against] if against in ('mean', None) else own - logits[:, against]


@pytest.mark.parametrize('norm, placement, channel, against', [
    ('layer', 'pre', 'mlp', None), ('rms', 'pre', 'gated_mlp', 'mean'), ('layer', 'parallel', 'mlp', 3),
    ('layer', 'peri', 'mlp', 'mean')])
def test_everything_adds_up_to_the_logit(norm, placement, channel, against):
  net, fields = network(norm, placement, channel=channel), text()
  variables = fill.variables(net, fields['input'][:1])
  found, logits = rows(net, variables, fields, Attribution(against))
  expected = number(logits.reshape(-1, VOCAB), fields['label'].reshape(-1), against)
  np.testing.assert_allclose(found.logit, expected, atol=1e-5)
  total = sum(np.asarray(x, np.float64) for x in found.components.values())
  np.testing.assert_allclose(total, expected, atol=1e-5 * np.abs(expected).max())
  assert len(found.components) == 2 + 2 * DEPTH and set(found.parts) == {
      f'{s}.{i}' for s in ('z', 'channel_act') for i in range(DEPTH)}


def test_heads_and_neurons_make_their_sublayer():
  """Without biases nothing is lacking, also where what is added is normalised."""
  for placement in ('pre', 'peri'):
    net, fields = network(placement=placement), text()
    variables = fill.variables(net, fields['input'][:1])
    without = lambda path, x: 0 * x if path[-1].key == 'bias' else x
    found, _ = rows(net, jax.tree_util.tree_map_with_path(without, variables), fields, Attribution())
    for name, parts in found.parts.items():
      whole = found.components[name.replace('z.', 'mixer_out.').replace('channel_act.', 'channel_out.')]
      np.testing.assert_allclose(parts.sum(-1), whole, atol=1e-5 * np.abs(whole).max())
      assert np.abs(found.constants[name]).max() < 1e-5 * np.abs(whole).max()


def oracle(acts, params, label):
  """{variable: array} of a pre-norm network with layer norm, against None, from its weights in float64."""
  params, acts = (jax.tree.map(lambda x: np.asarray(x, np.float64), tree) for tree in (params, acts))
  last = acts[f'resid_post.{DEPTH - 1}']
  sd = np.sqrt(((last - last.mean(-1, keepdims=True)) ** 2).mean(-1, keepdims=True) + 1e-5)
  affine, kernel = params['norm']['affine'], params['head']['logits_map']['kernel']
  column = kernel.T[label]                                                             # [B, T, D]
  def along(y):
    y = (y - y.mean(-1, keepdims=True)) / (sd if y.ndim == 3 else sd[..., None, :])
    return (y * affine['scale'] * (column if y.ndim == 3 else column[..., None, :])).sum(-1)
  out = {'contribution': [along(acts['embed'])], 'head_contribution': [], 'neuron_contribution': []}
  for i in range(DEPTH):
    block = params['stage_0'][f'block_{i}']
    heads = np.einsum('bthd,hde->bthe', acts[f'z.{i}'], block['mixer']['heads']['out']['kernel'])
    neurons = acts[f'channel_act.{i}'][..., None] * block['channel']['out']['kernel']
    out['contribution'] += [along(acts[f'{s}_out.{i}']) for s in ('mixer', 'channel')]
    out['head_contribution'].append(along(heads))
    out['neuron_contribution'].append(along(neurons))
  out['contribution'].append((column * affine['bias']).sum(-1))
  return {k: np.stack(v) for k, v in out.items()}


@pytest.mark.parametrize('scan', (False, True))
def test_components_heads_and_neurons_by_their_weights(scan):
  net, fields = network(), text()
  variables = fill.variables(net, fields['input'][:1])
  _, acts = forward(net, variables, fields['input'], record=('*',))
  expected = oracle(acts, variables['params'], fields['label'])
  where = variables if not scan else {'params': to_scanned(variables['params'])}
  found = measure.measure_network(network(scan=scan), where, Stream(fields), Attribution(None))
  for name, each in expected.items():
    each = each[:, fields['weight'] > 0]
    np.testing.assert_allclose(found[name], each.mean((1, 2)), rtol=1e-4, atol=2e-6, err_msg=name)
    size = name.replace('contribution', 'magnitude')
    np.testing.assert_allclose(found[size], np.abs(each).mean((1, 2)), rtol=1e-4, atol=2e-6, err_msg=size)
  assert found.component.values.tolist() == ['embed', 'mixer_out.0', 'channel_out.0', 'mixer_out.1', 'channel_out.1',
                                             'constant']
  assert found.site.values.tolist() == ['mixer_out.0', 'mixer_out.1']
  assert found.channel.values.tolist() == ['channel_out.0', 'channel_out.1']
  assert found.error < 1e-5 and abs(found.contribution.sum() - found.logit) < 1e-5


def test_a_classifier_adds_up_over_its_tokens():
  net = Net(outputs=4, depth=2, width=WIDTH, embed=dict(name='patches', size=2), head=dict(name='classify'),
            mixer=dict(name='attention', heads=2), channel=dict(name='mlp'))
  fields = {'input': fill.normal(1, N, 4, 6, 1), 'label': jnp.arange(N) % 4, 'weight': jnp.ones(N)}
  variables = fill.variables(net, fields['input'][:1])
  found, logits = rows(net, variables, fields, Attribution('mean'))
  expected = number(logits, np.arange(N) % 4, 'mean')
  np.testing.assert_allclose(sum(found.components.values()), expected, atol=1e-5 * np.abs(expected).max())
  assert found.parts['z.1'].shape == (N, 2) and found.parts['channel_act.0'].shape == (N, 4 * WIDTH)


def test_a_head_that_is_not_linear_shows_as_an_error():
  """A soft cap c: the sum is the logit z before the cap, and the error the mean of |z - c tanh(z / c)|."""
  plain, fields = network('rms'), text()
  capped = network('rms', head=dict(name='unembed', soft_cap=0.5))
  variables = fill.variables(plain, fields['input'][:1])
  found = measure.measure_network(capped, variables, Stream(fields), Attribution(None, ()))
  exact = measure.measure_network(plain, variables, Stream(fields), Attribution(None, ()))
  np.testing.assert_allclose(found.contribution, exact.contribution, rtol=1e-4, atol=1e-5)
  rows = fields['weight'] > 0
  logits = np.asarray(plain.apply(variables, fields['input']), np.float64)[rows].reshape(-1, VOCAB)
  z = number(logits, fields['label'][rows].reshape(-1), None)
  np.testing.assert_allclose(found.error, np.abs(z - 0.5 * np.tanh(z / 0.5)).mean(), rtol=1e-4)
  assert exact.error < 1e-5 < 0.01 < found.error


@pytest.mark.parametrize('fields, message', [
    ({'parts': ('heads',)}, "no parts 'heads' of a sublayer; head, neuron"),
    ({'against': 'median'}, "against is 'median'")])
def test_wrong_fields(fields, message):
  with pytest.raises(ValueError, match=message):
    Attribution(**fields)


def test_what_is_refused():
  fields = text()
  bound = lambda net, part=Attribution(), **more: measure.bind(
      net, jax.eval_shape(net.init, jax.random.key(0), fields['input']), {**fields, **more}, {'a': part})
  with pytest.raises(ValueError, match="the stream of a post-norm network is no sum: 'mixer_sum.0'"):
    bound(network(placement='post'))
  with pytest.raises(ValueError, match='against is 7; this network has outputs 0 to 6'):
    bound(network(), Attribution(7))
  with pytest.raises(ValueError, match='these batches have no integer labels'):
    bound(network(), label=fields['weight'])
  with pytest.raises(ValueError, match=r'labels \(12,\) do not match logits'):
    bound(network(), label=fields['label'][:, 0])
