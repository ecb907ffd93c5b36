"""Permutation Procrustes against every permutation of the units, one by one, in float64; closed forms and limits."""
import itertools

import numpy as np
import pytest

from aspects.correlations.permutation_procrustes import PermutationProcrustes
from aspects.correlations.procrustes import Procrustes
from aspects.measure import measure_arrays

NAME = 'permutation_procrustes_'


def oracle(acts):
  """Units are really moved, into the order that `best` finds."""
  x = [np.asarray(v, np.float64) - np.asarray(v, np.float64).mean(0) for v in acts.values()]
  width = max(v.shape[1] for v in x)
  x = [np.pad(v, ((0, 0), (0, width - v.shape[1]))) for v in x]
  out = {NAME + form: np.zeros((len(x),) * 2) for form in ('angular_score', 'angular_distance', 'euclidean_distance')}
  for i, a in enumerate(x):
    for j, b in enumerate(x):
      moved = a[:, best(a, b)] if i != j else a
      cosine = (moved * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
      out[NAME + 'angular_score'][i, j] = cosine
      out[NAME + 'angular_distance'][i, j] = np.arccos(np.clip(cosine, -1, 1)) if i != j else 0
      out[NAME + 'euclidean_distance'][i, j] = np.linalg.norm(moved - b)
  return out


def best(a, b):
  """An order of the units of a: by brute force up to 6 units, else by the auction of Bertsekas (1979)."""
  gain = b.T @ a                                     # of unit j of b, given unit i of a
  d = len(gain)
  if d <= 6:
    return max(itertools.permutations(range(d)), key=lambda p: gain[np.arange(d), list(p)].sum())
  gain = gain / np.abs(gain).max()
  price, owner, order = np.zeros(d), np.full(d, -1), np.full(d, -1)
  for step in (1e-1, 1e-3, 1e-5, 1e-7):              # optimal to d times the last step
    owner[:], order[:] = -1, -1
    while (order < 0).any():
      j = int(np.argmax(order < 0))
      value = gain[j] - price
      first = int(np.argmax(value))
      second = np.partition(value, -2)[-2]
      price[first] += value[first] - second + step
      if owner[first] >= 0:
        order[owner[first]] = -1
      owner[first], order[j] = j, first
  return order


def layers(rows=300, offset=0., seed=0):
  rng = np.random.default_rng(seed)
  common = rng.normal(size=(rows, 6))
  return {f'layer.{i}': (common @ rng.normal(size=(6, d)) + noise * rng.normal(size=(rows, d))
                         + offset * rng.normal(size=d)).astype(np.float32)
          for i, (d, noise) in enumerate(((6, .3), (4, 1.), (5, 2.)))}


@pytest.mark.parametrize('offset', (0., 1e2, 1e4))
def test_equals_every_permutation_of_the_units(offset):
  acts = layers(offset=offset)
  found = measure_arrays(PermutationProcrustes(('*',)), acts, batch_size=64)
  for form, value in oracle(acts).items():
    np.testing.assert_allclose(found[form], value, rtol=1e-5, atol=1e-5, err_msg=form)


def test_units_in_another_order_are_found():
  rng = np.random.default_rng(1)
  x = rng.normal(size=(200, 40)) * rng.uniform(.5, 2, 40)
  acts = {'x': x, 'shuffled': x[:, rng.permutation(40)] + 5, 'twice': 2 * x}
  found = measure_arrays(PermutationProcrustes(('*',)), acts)
  np.testing.assert_allclose(found[NAME + 'angular_score'], 1, atol=1e-6)
  size = np.linalg.norm(x - x.mean(0))
  np.testing.assert_allclose(found[NAME + 'euclidean_distance'][2], [size, size, 0], rtol=1e-5)


def test_units_against_their_negatives_are_unmatched_where_padding_is_left():
  """One unit and its negative: opposite, an angle of pi; with a second unit to spare, orthogonal."""
  x = np.random.default_rng(0).normal(size=(50, 1))
  found = measure_arrays(PermutationProcrustes(('*',)), {'x': x, 'minus': -x, 'pair': np.concatenate([-x, 0 * x], 1)})
  np.testing.assert_allclose(found[NAME + 'angular_score'], [[1, -1, 0], [-1, 1, 1], [0, 1, 1]], atol=1e-6)


def test_never_smaller_than_procrustes_and_a_metric():
  rng = np.random.default_rng(2)
  acts = {str(k): rng.normal(size=(12, d)) ** 3 for k, d in enumerate(rng.integers(1, 7, 12))}
  found, rotated = (measure_arrays(m(('*',)), acts) for m in (PermutationProcrustes, Procrustes))
  for form in ('angular_distance', 'euclidean_distance'):
    d = found[NAME + form].values
    assert (d >= rotated[f'procrustes_{form}'].values - 1e-5).all()
    assert (d[:, None] <= d[:, :, None] + d.T[None] + 1e-5).all(), form


def test_constant_units_and_layers():
  x = layers()['layer.0']
  with pytest.warns(UserWarning, match=r"\['constant'\] do not vary"):
    found = measure_arrays(PermutationProcrustes(('*',)), {
        'x': x, 'more': np.concatenate([0 * x + 7, x], 1), 'constant': 0 * x + .1})
  np.testing.assert_allclose(found[NAME + 'angular_score'][:2, :2], 1, atol=1e-6)
  assert np.isnan(found[NAME + 'angular_score'][2]).all()


def test_more_units_than_rows_and_too_few_rows():
  rng = np.random.default_rng(4)
  acts = {'wide': rng.normal(size=(4, 6)), 'narrow': rng.normal(size=(4, 3))}
  found = measure_arrays(PermutationProcrustes(('*',)), acts)
  np.testing.assert_allclose(found[NAME + 'angular_score'], oracle(acts)[NAME + 'angular_score'], atol=1e-6)
  with pytest.raises(ValueError, match='at least 2 rows, got 1'):
    measure_arrays(PermutationProcrustes(('*',)), {'x': rng.normal(size=(1, 3))})
