"""Shares of active units against counting, and the three kinds of unit that a mean density hides."""
import numpy as np
import pytest

from aspects import measure
from aspects.locality.density import Density


def oracle(acts, threshold=0.):
  """{variable: value} by counting over all rows; layers narrower than the widest end in NaN."""
  share = [np.array([(unit > threshold).mean() for unit in x.reshape(-1, x.shape[-1]).T]) for x in acts.values()]
  wide = lambda rows: np.array([np.concatenate([r, np.full(max(map(len, share)) - len(r), np.nan)]) for r in rows])
  return {'density': [s.mean() for s in share], 'density_live': [s[s > 0].mean() for s in share],
          'dead': [(s == 0).mean() for s in share], 'always': [(s == 1).mean() for s in share],
          'density_unit': wide(share), 'profile': wide([np.sort(s)[::-1] for s in share])}


def examples(n=300, t=3, seed=0):
  rng = np.random.default_rng(seed)
  first, second = rng.normal(size=(n, t, 8)), rng.normal(size=(n, t, 5))
  first[..., 0] = 0                                      # dead
  first[..., 1] = -abs(first[..., 1])                    # dead, below the threshold
  first[..., 2] = 1 + abs(first[..., 2])                 # always active
  first[..., 3] -= 3                                     # sparse
  return {f'channel_act.{i}': x.astype(np.float32) for i, x in enumerate((first, second))}


@pytest.mark.parametrize('threshold', [0., .5])
def test_equals_counting(threshold):
  acts = examples()
  found = measure.measure_arrays(Density(threshold=threshold), acts, batch_size=128)
  for name, value in oracle(acts, threshold).items():
    np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)
  assert ('null_symmetric' in found) == ('null' in found.density.attrs) == (threshold == 0)


def test_dead_units_are_apart_from_sparse_ones():
  found = measure.measure_arrays(Density(), examples()).sel(site='channel_act.0')
  assert found.dead == 2 / 8 and found.always == 1 / 8
  unit = found.density_unit
  assert (unit[:2] == 0).all() and unit[2] == 1 and 0 < unit[3] < .02
  np.testing.assert_allclose(found.density_live, found.density / (6 / 8), rtol=1e-12)


def test_symmetric_pre_activations_are_half_active():
  rng = np.random.default_rng(1)
  x = np.maximum(rng.normal(size=(4000, 50)), 0).astype(np.float32)
  found = measure.measure_arrays(Density(('*',)), {'x': x})
  np.testing.assert_allclose(found.density, found.null_symmetric, atol=4 * .5 / np.sqrt(x.size))


def test_a_layer_of_dead_units_has_no_live_density():
  found = measure.measure_arrays(Density(('*',)), {'x': np.zeros((10, 4), np.float32)})
  assert found.density == 0 and found.dead == 1 and np.isnan(found.density_live)


def test_invariances_both_ways():
  rng = np.random.default_rng(2)
  x = np.maximum(rng.normal(size=(300, 6)), 0) * np.arange(1, 7)
  turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
  moved = {'as it is': x, 'permutation': x[:, rng.permutation(6)], 'rotation': x @ turn, 'scale': 7 * x,
           'translation': x + rng.normal(size=(1, 6)), 'linear': x @ rng.normal(size=(6, 6))}
  found = measure.measure_arrays(Density(('*',)), {s: v.astype(np.float32) for s, v in moved.items()})
  lifted = measure.measure_arrays(Density(('*',), .5), {s: v.astype(np.float32) for s, v in moved.items()})
  for one, result in ((Density(), found), (Density(threshold=.5), lifted)):
    for name, declared in one.invariant.items():
      for move in list(moved)[1:]:
        same = np.allclose(result[name].sel(site=move), result[name].sel(site='as it is'), rtol=1e-12, atol=0)
        assert same == (move in declared), (name, move, one.threshold)


def test_no_rows_is_an_error():
  with pytest.raises(ValueError, match='needs a row of data'):
    measure.measure_arrays(Density(('*',)), {'x': np.zeros((4, 2), np.float32)}, weight=np.zeros(4, np.float32))
