"""Laws of all placements: `Module(norm, branch, depth)(x, sublayers, layer) -> [B, T, D]`, in every file of the folder.

They hold for every combination with the parts of the families `norms` and `branches`."""
import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from aspects import net
from aspects import plugin
from aspects import sites
from tests import fill

PLACEMENTS, NORMS = plugin.examples('placements'), plugin.examples('norms')
BRANCHES = [None, *plugin.examples('branches')]
COMBINATIONS = [*itertools.product(PLACEMENTS, NORMS, [None]),
                *itertools.product(PLACEMENTS, [{'name': 'layer'}], BRANCHES[1:])]
B, T, D, LAYER = 2, 4, 8, 2
each = pytest.mark.parametrize('case', range(len(COMBINATIONS)), ids=str)
each_placement = pytest.mark.parametrize('case', range(0, len(PLACEMENTS) * len(NORMS), len(NORMS)), ids=str)


def block(case, mixer=True, channel=True, dtype='float32'):
  placement, norm, branch = COMBINATIONS[case]
  return net.Block(mixer={'name': 'attention', 'heads': 2} if mixer else None,
                   channel={'name': 'gated_mlp', 'ratio': 1.0} if channel else None, norm=norm, placement=placement,
                   branch=branch, depth=4, dtype=dtype)


def run(module, x, record=('*',), **changes):
  """(params, output, {site: value}) of a block, not compiled: all combinations share their operations."""
  inputs = (x, jnp.asarray(LAYER), None, jnp.arange(T))
  params = {**fill.variables(module, *inputs)['params'], **changes}
  out, acts = sites.record_sites(module, {'params': params}, inputs, record, {}, {})
  return params, out, acts


@functools.cache
def whole(case):
  return run(block(case), fill.normal(1, B, T, D))


def normed(case, params, name, x):
  """`x` [B, T, D] through the norm `name` of the block, applied by itself."""
  module = plugin.build('norms', COMBINATIONS[case][1])
  return module.apply({'params': params['residual'][name]}, x, jnp.asarray(LAYER))


def behind(case, params, name, x):
  """What stands on a sum: the norm of that name or, without one, a rectifier."""
  return normed(case, params, name, x) if name in params.get('residual', {}) else jnp.maximum(x, 0)


def wirings(case, params, slot, acts):
  """[(what the sublayer reads, what it writes)]: a second norm stands on what is written, or beside the first."""
  stream = acts['resid_mid'] if slot == 'channel' and 'resid_mid' in acts else acts['resid_pre']
  if slot == 'channel' and 'mixer_out' not in acts:  # what the mixer gives is not added: the channel reads it
    stream = acts['mixer_raw']
  raw, second = acts[f'{slot}_raw'], f'{slot}_norm_out'
  first = normed(case, params, f'{slot}_norm', stream) if f'{slot}_norm' in params['residual'] else stream
  if second not in params['residual']:
    return [(first, raw)]
  return [(first, normed(case, params, second, raw)), (normed(case, params, second, first), raw)]


@each
def test_the_stream_is_the_sum_of_what_is_added(case):
  _, out, acts = whole(case)
  np.testing.assert_array_equal(acts['resid_post'], out)
  if 'channel_sum' in acts:                        # a norm on the stream follows each addition
    np.testing.assert_array_equal(acts['resid_pre'] + acts['mixer_out'], acts['mixer_sum'])
    np.testing.assert_array_equal(acts['resid_mid'] + acts['channel_out'], acts['channel_sum'])
  else:
    added = [acts[name] for name in ('mixer_out', 'channel_out') if name in acts]
    np.testing.assert_array_equal(sum(added, acts['resid_pre']), out)
    assert added
    if 'resid_mid' in acts:
      np.testing.assert_array_equal(acts['resid_pre'] + acts['mixer_out'], acts['resid_mid'])


@each
def test_the_norms_stand_where_the_sites_say(case):
  params, _, acts = whole(case)
  if 'channel_sum' in acts:
    pairs = (('mixer_norm', 'mixer_sum', 'resid_mid'), ('channel_norm', 'channel_sum', 'resid_post'))
    np.testing.assert_array_equal(acts['mixer_in'], acts['resid_pre'])
    np.testing.assert_array_equal(acts['channel_in'], acts['resid_mid'])
  else:
    pairs = ()
    for slot in ('mixer', 'channel'):
      read = [np.allclose(acts[f'{slot}_in'], first, rtol=1e-6, atol=1e-6) for first,
              _ in wirings(case, params, slot, acts)]
      assert sum(read) == 1, f'{slot}_in is what {sum(read)} of {len(read)} wirings give'
  for name, before, after in pairs:
    np.testing.assert_allclose(behind(case, params, name, acts[before]), acts[after], atol=1e-6)


@each
def test_raw_is_the_sublayer_alone(case):
  params, _, acts = whole(case)
  alone = {'mixer': plugin.build('mixers', {'name': 'attention', 'heads': 2}),
           'channel': plugin.build('channels', {'name': 'gated_mlp', 'ratio': 1.0})}
  for slot, module in alone.items():
    expected = module.apply({'params': params[slot]}, acts[f'{slot}_in'])
    np.testing.assert_allclose(acts[f'{slot}_raw'], expected, atol=1e-6)


@each
def test_what_is_added_is_raw_through_norm_and_branch(case):
  params, _, acts = whole(case)
  for slot in [slot for slot in ('mixer', 'channel') if f'{slot}_out' in acts]:
    y = acts[f'{slot}_raw']
    if 'channel_sum' not in acts:
      y, = (written for read, written in wirings(case, params, slot, acts)
            if np.allclose(acts[f'{slot}_in'], read, rtol=1e-6, atol=1e-6))
    if COMBINATIONS[case][2]:
      branch = plugin.build('branches', COMBINATIONS[case][2], depth=4)
      y = branch.apply({'params': params.get('residual', {}).get(f'{slot}_branch', {})}, y, jnp.asarray(LAYER))
    np.testing.assert_allclose(acts[f'{slot}_out'], y, atol=1e-6)


@each_placement
def test_a_sublayer_left_out_leaves_its_sites_out(case):
  _, out, acts = run(block(case, mixer=False), fill.normal(1, B, T, D))
  assert 'resid_mid' not in acts and not [n for n in acts if n.startswith('mixer')]
  np.testing.assert_array_equal(acts['resid_post'], out)
  np.testing.assert_array_equal(acts['resid_pre'] + acts['channel_out'], acts.get('channel_sum', out))


@each_placement
def test_low_precision(case):
  _, out, acts = run(block(case, dtype='bfloat16'), fill.normal(1, B, T, D).astype(jnp.bfloat16))
  assert {str(a.dtype) for a in acts.values()} == {'bfloat16'}
  exact = whole(case)[1]
  assert np.abs(out.astype(jnp.float32) - exact).max() < 0.1 * np.abs(exact).max()


def test_a_block_without_resid_mid_refuses_the_name():
  module = block(next(i for i in range(len(COMBINATIONS)) if 'resid_mid' not in whole(i)[2]))
  with pytest.raises(ValueError, match="no site matches 'resid_mid'"):
    run(module, fill.normal(1, B, T, D), record=('resid_mid',))
