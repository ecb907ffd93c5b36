"""Skipped layers against closed forms of a linear residual network, and against one forward call a skip."""
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from aspects import edits
from aspects import measure
from aspects.depth.skip import Skip, SkipEffects
from aspects.sites import forward, tag

DEPTH, WIDTH, CLASSES, TOKENS = 3, 5, 6, 4


class Layer(nn.Module):
  """x + A x, then + B of that: two linear sublayers."""

  @nn.compact
  def __call__(self, x, _):
    for slot in ('mixer_out', 'channel_out'):
      x = x + tag(self, slot, nn.Dense(WIDTH, use_bias=False, name=f'{slot}_map')(x))
    return tag(self, 'resid_post', x), None


class Linear(nn.Module):
  scan: bool = False
  head: bool = True

  @nn.compact
  def __call__(self, x):
    if self.scan:
      axes = {'params': 0, 'intermediates': 0, 'edits': 0}
      x, _ = nn.scan(Layer, variable_axes=axes, split_rngs={'params': True}, length=DEPTH)(name='block')(x, None)
    for i in range(0 if self.scan else DEPTH):
      x, _ = Layer(name=f'block_{i}')(x, None)
    return tag(self, 'logits', nn.Dense(CLASSES, name='head')(x)) if self.head else x


class Stream:
  """Batches of a dict of arrays."""

  def __init__(self, fields, size=6):
    self.fields, self.size = fields, size

  def batch(self, k):
    return {n: v[k * self.size:(k + 1) * self.size] for n, v in self.fields.items()}

  def __len__(self):
    return len(self.fields['weight']) // self.size


@pytest.fixture(scope='module')
def case():
  rng = np.random.default_rng(0)
  fields = dict(input=rng.normal(size=(24, TOKENS, WIDTH)), label=rng.integers(0, CLASSES, (24, TOKENS)),
                mask=(np.arange(TOKENS)[None] < rng.integers(1, TOKENS + 1, (24, 1))), weight=np.ones(24),
                index=np.arange(24))
  fields = {n: v.astype(np.int32 if n in ('label', 'index') else np.float32) for n, v in fields.items()}
  fields['weight'][-4:] = 0
  fields['input'][fields['mask'] == 0] = np.nan
  variables = Linear().init(jax.random.key(0), fields['input'][:1])
  scanned = dict(variables['params'])
  scanned['block'] = jax.tree.map(lambda *x: jnp.stack(x), *(scanned.pop(f'block_{i}') for i in range(DEPTH)))
  return fields, variables, {'params': scanned}


def oracle(fields, variables, groups, slots=('mixer_out', 'channel_out')):
  """{variable: value} from products of matrices in float64; weights here are 0 or 1."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables['params'])
  rows = (fields['weight'][:, None] * fields['mask']) > 0
  x, label = np.asarray(fields['input'], np.float64)[rows], fields['label'][rows]
  def run(skipped):
    streams, y = [], x
    for i in range(DEPTH):
      for slot in ('mixer_out', 'channel_out'):
        y = y + (0 if i in skipped and slot in slots else y @ params[f'block_{i}'][f'{slot}_map']['kernel'])
      streams.append(y)
    return streams, y @ params['head']['kernel'] + params['head']['bias']
  norm = lambda v: np.sqrt((v ** 2).sum(-1))
  score = lambda z: -scipy.special.log_softmax(z, -1)[np.arange(len(label)), label].mean()
  right = lambda z: (z.argmax(-1) == label).mean()
  streams, z = run(())
  out = {k: [] for k in ('kl', 'logit_change', 'flipped', 'loss_increase', 'accuracy_drop', 'stream_change')}
  for group in groups:
    others, other = run(group)
    p, q = scipy.special.softmax(z, -1), scipy.special.softmax(other, -1)
    for k, v in dict(kl=scipy.special.rel_entr(p, q).sum(-1).mean(), logit_change=(norm(other - z) / norm(z)).mean(),
                     flipped=(z.argmax(-1) != other.argmax(-1)).mean(), loss_increase=score(other) - score(z),
                     accuracy_drop=right(z) - right(other),
                     stream_change=[(norm(b - a) / norm(a)).mean() for a, b in zip(streams, others)]).items():
      out[k].append(v)
  return out


def check(found, expected):
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7, err_msg=name)


def test_linear_network_unrolled_scanned_and_grouped(case):
  fields, variables, scanned = case
  measures = {'each': Skip(), 'groups': Skip(groups=((0, 1), (2,), (0, 2), (1,), (0,)), batch_size=3),
              'mixers': Skip(slots=('mixer_out',), batch_size=1)}
  unrolled = measure.measure_network(Linear(), variables, Stream(fields), measures)
  rolled = measure.measure_network(Linear(scan=True), scanned, Stream(fields), measures)
  for found in (unrolled, rolled):
    check(found['each'], oracle(fields, variables, [(0,), (1,), (2,)]))
    check(found['groups'], oracle(fields, variables, measures['groups'].groups))
    check(found['mixers'], oracle(fields, variables, [(0,), (1,), (2,)], ('mixer_out',)))
  assert unrolled['groups'].skipped.values.tolist() == ['0+1', '2', '0+2', '1', '0']
  # nothing before the skipped layer moves, bit for bit
  np.testing.assert_array_equal(np.tril(unrolled['each'].stream_change, -1), 0)
  assert (unrolled['each'].stream_change.values[np.triu_indices(DEPTH)] > 0).all()


def test_equals_one_forward_call_a_skip(case):
  fields, variables, _ = case
  x = np.nan_to_num(fields['input'], nan=1.)
  plain = {'input': x, 'weight': np.ones(24, np.float32), 'index': fields['index']}
  found = measure.measure_network(Linear(), variables, Stream(plain, 24), Skip())
  record = ('resid_post.*', 'logits')
  _, before = forward(Linear(), variables, x, record=record)
  for layer in range(DEPTH):
    skip = {f'{slot}.{layer}': edits.Skip() for slot in ('mixer_out', 'channel_out')}
    _, after = forward(Linear(), variables, x, record=record, edits=skip)
    norm = lambda v: np.linalg.norm(v, axis=-1)
    change = {s: (norm(after[s] - before[s]) / norm(before[s])).mean() for s in before}
    np.testing.assert_allclose(found.logit_change[layer], change.pop('logits'), rtol=2e-6)
    np.testing.assert_allclose(found.stream_change[layer], list(change.values()), rtol=2e-6)
  assert 'loss_increase' not in found and 'kl' in found


def test_network_without_logits_reports_its_streams(case):
  fields, variables, _ = case
  fields = fields | {'input': np.nan_to_num(fields['input'], nan=1.)}
  found = measure.measure_network(Linear(head=False), variables, Stream(fields), Skip())
  assert list(found.data_vars) == ['stream_change'] and found.attrs['headline'] == 'stream_change'
  expected = oracle(fields, variables, [(0,), (1,), (2,)])
  np.testing.assert_allclose(found.stream_change, expected['stream_change'], rtol=1e-5)


def specs(*names):
  return {n: jax.ShapeDtypeStruct((2, TOKENS, WIDTH), np.float32) for n in names}


@pytest.mark.parametrize('fields, names, message', [
    ({}, ('resid_post.0',), 'no layer has mixer_out or channel_out'),
    ({'groups': ((0, 4),)}, ('resid_post.0', 'mixer_out.0'), r'layer 4 of groups cannot be skipped; .* can: \[0\]'),
    ({'sites': ('stream.*',)}, ('resid_post.0', 'mixer_out.0'), 'no site matches')])
def test_errors_say_the_way_out(fields, names, message):
  with pytest.raises(ValueError, match=message):
    Skip(**fields).needs(specs(*names))


def test_layers_have_what_they_have():
  """A layer without a mixer is skipped by its channel alone; groups follow the order of layers, not of names."""
  names = ['resid_post.10', 'channel_out.10', 'resid_post.9', 'channel_out.9', 'mixer_out.9', 'channel_out_norm']
  groups = Skip().needs(specs(*names))['effects'].groups
  assert groups == (('9', ('channel_out.9', 'mixer_out.9')), ('10', ('channel_out.10',)))


def test_labels_of_another_shape_are_refused(case):
  fields, variables, _ = case
  with pytest.raises(ValueError, match=r'labels \(6,\) do not match logits \(6, 4, 6\)'):
    measure.measure_network(Linear(), variables, Stream(fields | {'label': fields['label'][:, 0]}), Skip())


def test_no_rows_is_an_error():
  statistic = SkipEffects((('0', ('mixer_out.0',)),), ('resid_post.0',), None)
  with pytest.raises(ValueError, match='need a row of data'):
    statistic.finish(statistic.init(specs('resid_post.0')))


def test_arrays_alone_are_refused():
  with pytest.raises(ValueError, match='use measure_network'):
    measure.measure_arrays(Skip(), {n: np.zeros((4, WIDTH), np.float32) for n in ('resid_post.0', 'mixer_out.0')})
