"""Shift Procrustes against maps that are really rolled and rotated in float64; planted shifts, limits, the stream."""
import itertools

import jax
import numpy as np
import pytest
import scipy.linalg

from aspects.correlations.procrustes import Procrustes
from aspects.correlations.shift_procrustes import ShiftProcrustes, best, wrapped
from aspects.measure import measure_arrays
from aspects.statistics.shift_covariance import ShiftCovariance
from tests.brute import same

NAME = 'shift_procrustes_'


def oracle(acts):
  """Every shift: roll, flatten positions into rows, rotate, compare; the first that is best, shortest first."""
  x = [as_map(v) for v in acts.values()]
  names = [NAME + form for form in ('angular_score', 'angular_distance', 'euclidean_distance')]
  out = {name: np.zeros((len(x),) * 2) for name in (*names, 'shift_rows', 'shift_columns')}
  for i, a in enumerate(x):
    for j, b in enumerate(x):
      width, moves = max(a.shape[-1], b.shape[-1]), []
      for down, right in itertools.product(*(range(-((s - 1) // 2), s // 2 + 1) for s in a.shape[1:3])):
        pair = [v.reshape(-1, v.shape[-1]) for v in (a, np.roll(b, (down, right), (1, 2)))]
        u, v = (np.pad(v, ((0, 0), (0, width - v.shape[1]))) for v in pair)
        turned = u @ scipy.linalg.orthogonal_procrustes(u, v)[0] if i != j or down or right else u
        moves.append(((turned * v).sum(), down, right, np.linalg.norm(turned - v)))
      top = max(moves)[0]
      inner, down, right, apart = min((m for m in moves if m[0] >= top * (1 - 1e-6)), key=lambda m: np.hypot(*m[1:3]))
      score = inner / np.linalg.norm(a) / np.linalg.norm(b)
      values = (score, np.arccos(min(score, 1)) if i != j else 0, apart, down, right)
      for name, value in zip(out, values):
        out[name][i, j] = value
  return out


def as_map(x):
  """[N, H, W, D], centred by channel; tokens as a square."""
  x = np.asarray(x, np.float64)
  if x.ndim < 4:
    side = int(round(np.sqrt(x.shape[1]))) if x.ndim == 3 else 1
    x = x.reshape(len(x), side, side, x.shape[-1])
  return x - x.mean((0, 1, 2))


def layers(n=24, height=3, width=4, offset=0., seed=0):
  """Three layers of maps, of different numbers of channels; the second is the first, moved, rotated and with noise."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(n, height, width, 5)) * np.geomspace(.3, 2, 5)
  y = np.roll(x, (1, -1), (1, 2)) @ rng.normal(size=(5, 6)) + .5 * rng.normal(size=(n, height, width, 6))
  z = x[..., :2] + y[..., :2] + rng.normal(size=(n, height, width, 2))
  return {f'layer.{i}': (v + offset * rng.normal(size=v.shape[-1])).astype(np.float32) for i, v in enumerate((x, y, z))}


@pytest.mark.parametrize('offset', (0., 1e2, 1e4))
def test_equals_maps_that_are_rolled_and_rotated(offset):
  acts = layers(offset=offset)
  found = measure_arrays(ShiftProcrustes(('*',)), acts, batch_size=10)
  for form, value in oracle(acts).items():
    # 1e4 deviations away one step of float32 is 1e-3 deviations, and the rows of both hold it; angles take its root
    np.testing.assert_allclose(found[form], value, rtol=1e-5, atol=1e-5, err_msg=form)
  assert found.shift_rows[0, 1] == -1 and found.shift_columns[0, 1] == 1
  assert found.attrs['rows'] == 24 * 12 and (found.attrs['height'], found.attrs['width']) == (3, 4)


def test_a_layer_that_moved_is_found_where_procrustes_finds_another():
  rng = np.random.default_rng(1)
  x = rng.normal(size=(40, 5, 5, 3)) * [1, 2, 3]
  moved = 2 * np.roll(x, (2, -1), (1, 2)) @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + 7
  acts = {'x': x, 'moved': moved}
  found = measure_arrays(ShiftProcrustes(('*',)), acts)
  np.testing.assert_allclose(found[NAME + 'angular_score'], 1, atol=1e-6)
  np.testing.assert_array_equal(found.shift_rows, [[0, -2], [2, 0]])
  np.testing.assert_array_equal(found.shift_columns, [[0, 1], [-1, 0]])
  still = {s: v.reshape(-1, 3) for s, v in acts.items()}
  assert measure_arrays(Procrustes(('*',)), still).procrustes_angular_score[0, 1] < 0.2
  rolled = np.roll(moved, (int(found.shift_rows[0, 1]), int(found.shift_columns[0, 1])), (1, 2))
  still = measure_arrays(Procrustes(('*',)), {'x': x.reshape(-1, 3), 'rolled': rolled.reshape(-1, 3)})
  np.testing.assert_allclose(still.procrustes_angular_score, 1, atol=1e-6)


def test_tokens_are_squares_in_reading_order_and_rows_maps_of_one_position():
  acts = layers(height=3, width=3)
  whole = measure_arrays(ShiftProcrustes(('*',)), acts)
  tokens = measure_arrays(ShiftProcrustes(('*',)), {s: v.reshape(24, 9, -1) for s, v in acts.items()})
  for form in whole:
    np.testing.assert_array_equal(tokens[form], whole[form])
  classed = {s: np.concatenate([np.full((24, 2, v.shape[-1]), 9e9), v.reshape(24, 9, -1)], 1) for s, v in acts.items()}
  classed = measure_arrays(ShiftProcrustes(('*',), class_tokens=2), classed)
  for form in whole:
    np.testing.assert_array_equal(classed[form], whole[form])
  assert classed.attrs['class_tokens'] == 2
  rows = {s: v.reshape(-1, v.shape[-1]) for s, v in acts.items()}
  found, expected = (measure_arrays(m(('*',)), rows) for m in (ShiftProcrustes, Procrustes))
  for form in ('angular_score', 'angular_distance', 'euclidean_distance'):
    np.testing.assert_allclose(found[NAME + form], expected[f'procrustes_{form}'], rtol=1e-6, atol=1e-6)
  assert not found.shift_rows.any()


def test_maps_without_a_preferred_shift_stay():
  """Maps that are equal at all positions have the same score for every shift."""
  flat = np.repeat(np.random.default_rng(3).normal(size=(20, 1, 1, 3)), 16, 1).reshape(20, 4, 4, 3)
  found = measure_arrays(ShiftProcrustes(('*',)), {'x': flat, 'y': flat[..., ::-1]})
  assert not found.shift_rows.any() and not found.shift_columns.any()


def test_distances_obey_the_triangle_inequality():
  rng = np.random.default_rng(2)
  acts = {str(k): rng.normal(size=(6, 2, 3, d)) ** 3 for k, d in enumerate(rng.integers(1, 4, 8))}
  found = measure_arrays(ShiftProcrustes(('*',)), acts)
  for form in ('angular_distance', 'euclidean_distance'):
    d = found[NAME + form].values
    assert (d[:, None] <= d[:, :, None] + d.T[None] + 1e-5).all(), form


def test_the_shift_that_is_kept_is_the_best_of_all():
  rng = np.random.default_rng(4)
  cross = rng.normal(size=(4, 5, 3, 6)) * rng.uniform(.5, 1, (4, 5, 1, 1))
  nuclear = np.linalg.svd(cross, compute_uv=False).sum(-1)
  s = np.unravel_index(nuclear.argmax(), nuclear.shape)
  value, move = best(cross)
  np.testing.assert_allclose(value, nuclear.max())
  assert move == tuple(wrapped(-v, size) for v, size in zip(s, (4, 5)))
  assert [wrapped(v, 4) for v in range(-2, 4)] == [2, -1, 0, 1, 2, -1]


def test_the_stream_is_the_same_however_the_maps_come():
  acts, n = layers(n=32), 32
  acts = {s: acts[s] for s in ('layer.0', 'layer.1')}
  batch = {'weight': np.ones(n, np.float32), 'index': np.arange(n)}
  statistic = ShiftCovariance(tuple(acts))
  x = {s: as_map(v) for s, v in acts.items()}
  cross = {(a, b): np.array([[np.einsum('nhwd,nhwe->de', x[a], np.roll(x[b], (-down, -right), (1, 2)))
                              for right in range(4)] for down in range(3)]) for a, b in
           (('layer.0', 'layer.0'), ('layer.0', 'layer.1'), ('layer.1', 'layer.1'))}
  update, merge = jax.jit(statistic.update), jax.jit(statistic.merge)
  start = statistic.init({s: v[:8] for s, v in acts.items()})
  part = lambda *rows: ({s: v[slice(*rows)] for s, v in acts.items()}, {f: v[slice(*rows)] for f, v in batch.items()})
  def run(*starts):
    state = start
    for k in starts:
      state = update(state, *part(k, k + 8))
    return state
  hidden = {s: np.concatenate([v[24:], np.full_like(v[:24], np.nan)]) for s, v in acts.items()}
  nothing = {'weight': (np.arange(n) < 8).astype(np.float32), 'index': np.arange(n)}
  mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  placed = jax.device_put((acts, batch), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data')))
  ways = {'split': run(0, 8, 16, 24), 'merged': merge(run(0, 8), run(16, 24)), 'whole': update(start, acts, batch),
          'padded': update(run(0, 8, 16), hidden, nothing), 'sharded': update(start, *placed)}
  for how, state in ways.items():
    found = statistic.finish(jax.device_get(state))
    assert found.n == 32 * 12
    same(found.cross, cross, how, rtol=2e-6)


def test_examples_with_masked_positions_do_not_count():
  acts = {s: v.reshape(24, 9, -1) for s, v in layers(height=3, width=3).items()}
  mask = np.ones((24, 9), np.float32)
  mask[::4, 5] = 0
  hidden = {s: np.where(mask[..., None] > 0, v, np.nan) for s, v in acts.items()}
  statistic = ShiftCovariance(tuple(acts))
  batch = {'weight': np.ones(24, np.float32), 'mask': mask}
  found = statistic.finish(statistic.update(statistic.init(acts), hidden, batch))
  whole = {s: v[mask.min(1) > 0] for s, v in acts.items()}
  expected = statistic.finish(statistic.update(statistic.init(whole), whole, {'weight': np.ones(18, np.float32)}))
  assert found.n == 18 * 9
  same(found.cross, expected.cross, rtol=2e-6)


def test_what_is_refused_and_layers_that_do_not_vary():
  x = np.random.default_rng(4).normal(size=(8, 4, 4, 2))
  with pytest.raises(ValueError, match=r"different sizes .*'x': \(4, 4\), 'y': \(2, 2\).*choose sites of one stage"):
    measure_arrays(ShiftProcrustes(('*',)), {'x': x, 'y': x[:, :2, :2]})
  with pytest.raises(ValueError, match=r"site 'x': .* \(8, 5, 2\) with 0 class tokens is no map.*with class_tokens"):
    measure_arrays(ShiftProcrustes(('*',)), {'x': x[:, 0, :].repeat(2, 1)[:, :5]})
  with pytest.raises(ValueError, match='class_tokens -1'):
    ShiftProcrustes(class_tokens=-1)
  with pytest.raises(ValueError, match='at least 2 rows, got 1'):
    measure_arrays(ShiftProcrustes(('*',)), {'x': np.ones((1, 3))})
  with pytest.raises(ValueError, match="site 'y' has activations that are not finite"):
    measure_arrays(ShiftProcrustes(('*',)), {'x': x, 'y': np.where(x > 1, np.inf, x)})
  with pytest.warns(UserWarning, match=r"\['constant'\] do not vary over the 128 rows"):
    found = measure_arrays(ShiftProcrustes(('*',)), {'x': x, 'constant': 0 * x + 3})
  for variable in found.values():
    np.testing.assert_array_equal(np.isnan(variable), [[False, True], [True, True]], err_msg=variable.name)
