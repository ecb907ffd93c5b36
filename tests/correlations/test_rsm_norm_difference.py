"""RSM norm differences from moments against n x n matrices in float64; closed forms and limits."""
import numpy as np
import pytest
from sklearn import metrics

from aspects.correlations.rsm_norm_difference import RsmNormDifference
from aspects.measure import measure_arrays
from tests.brute import mix

NAME = 'rsm_norm_difference_'


def oracle(acts, size=512, seed=0):
  """Matrices over all rows; Euclidean distances over the rows that draw the least hashes."""
  x = [np.asarray(v, np.float64) - np.asarray(v, np.float64).mean(0) for v in acts.values()]
  n = len(x[0])
  kept = np.argsort(mix(np.arange(n), 0, seed))[:size]
  matrices = {
      'linear': [v @ v.T for v in x],
      'squared_euclidean': [np.triu(((v[:, None] - v[None]) ** 2).sum(2)) for v in x],
      'euclidean': [np.triu(metrics.pairwise_distances(v[kept])) for v in x]}
  return {NAME + kind: np.array([[np.linalg.norm(a - b) for b in each] for a in each])
          for kind, each in matrices.items()}


def layers(rows=200, offset=0., seed=0):
  rng = np.random.default_rng(seed)
  common = rng.normal(size=(rows, 6))
  return {f'layer.{i}': (common @ rng.normal(size=(6, d)) + noise * rng.normal(size=(rows, d))
                         + offset * rng.normal(size=d)).astype(np.float32)
          for i, (d, noise) in enumerate(((8, .3), (12, 1.), (5, 2.)))}


@pytest.mark.parametrize('offset', (0., 1e4))
def test_equals_matrices_of_all_rows(offset):
  acts = layers(offset=offset)
  found = measure_arrays(RsmNormDifference(('*',), size=50), acts, batch_size=64)
  for form, value in oracle(acts, size=50).items():
    np.testing.assert_allclose(found[form], value, rtol=1e-5, atol=1e-5 * value.max(), err_msg=form)
  assert found.attrs['sampled'] == 50 and found.attrs['rows'] == 200 and 'at most 50' in found.attrs['sample']


def test_two_rows_by_hand():
  """Rows 3 apart and 5 apart: distances 3 and 5; Gram matrices (9 / 4) [1 -1; -1 1] and (25 / 4) [1 -1; -1 1]."""
  found = measure_arrays(RsmNormDifference(('*',)), {'x': np.array([[0.], [3.]]), 'y': np.array([[0., 7], [3, 11]])})
  for form, value in (('linear', 8), ('squared_euclidean', 16), ('euclidean', 2)):
    np.testing.assert_allclose(found[NAME + form], [[0, value], [value, 0]], rtol=1e-6, err_msg=form)


def test_euclidean_is_the_value_of_llm_repsim():
  """Which is not centred, takes each pair once and the norm of the vector; ReSi takes another, see the module."""
  rng = np.random.RandomState(0)
  x, y = rng.uniform(size=(30, 25)), rng.uniform(size=(30, 25))
  found = measure_arrays(RsmNormDifference(('*',)), {'x': x, 'y': y})[NAME + 'euclidean'][0, 1]
  each = [metrics.pairwise_distances(v)[np.triu_indices(30, 1)] for v in (x, y)]
  np.testing.assert_allclose(found, np.linalg.norm(each[0] - each[1]), rtol=1e-6)


def test_a_distance_between_matrices():
  acts = layers()
  found = measure_arrays(RsmNormDifference(('*',)), acts | {'doubled': 2 * acts['layer.0']})
  for variable in found.values():
    d = variable.values
    assert (d[:, None] <= d[:, :, None] + d.T[None] + 1e-5 * d.max()).all(), variable.name
  x = acts['layer.0'] - acts['layer.0'].mean(0, dtype=np.float64)
  np.testing.assert_allclose(found[NAME + 'linear'][0, 3], 3 * np.linalg.norm(x @ x.T), rtol=1e-5)


def test_constant_layers_and_too_few_rows():
  x = layers()['layer.0']
  with pytest.warns(UserWarning, match=r"\['constant'\] do not vary"):
    found = measure_arrays(RsmNormDifference(('*',)), {'x': x, 'constant': 0 * x + .1})
  assert np.isfinite(found.to_dataarray()).all()
  x = x - x.mean(0, dtype=np.float64)
  np.testing.assert_allclose(found[NAME + 'linear'][0, 1], np.linalg.norm(x @ x.T), rtol=1e-5)
  with pytest.raises(ValueError, match='at least 2 rows, got 1'):
    measure_arrays(RsmNormDifference(('*',)), {'x': x[:1]})
  with pytest.raises(ValueError, match="site 'y' has activations that are not finite"):
    measure_arrays(RsmNormDifference(('*',)), {'x': x[:2], 'y': np.array([[1.], [np.nan]])})
