"""GULP from moments against ridge regressions on the rows in float64, a published value, identities, limits."""
import numpy as np
import pytest

from aspects.correlations.gulp import Gulp
from aspects.measure import measure_arrays


def oracle(acts, lambdas=(0.0, 0.01)):
  """The n x n matrices that turn targets into predictions, H = X (X'X / n + lambda)^-1 X' / n: d is |H_x - H_y|_F."""
  out = {}
  for strength in lambdas:
    smooth = []
    for x in acts.values():
      x = np.asarray(x, np.float64) - np.asarray(x, np.float64).mean(0)
      x, n = x * np.sqrt(len(x)) / np.linalg.norm(x), len(x)
      inverse = np.linalg.pinv(x.T @ x / n, rcond=1e-9, hermitian=True) if strength == 0 else np.linalg.inv(
          x.T @ x / n + strength * np.eye(x.shape[1]))
      smooth.append(x @ inverse @ x.T / n)
    d = np.array([[np.linalg.norm(a - b) for b in smooth] for a in smooth])
    out |= {f'gulp_distance_lambda_{strength:g}': d, f'gulp_squared_distance_lambda_{strength:g}': d ** 2}
  return out


def layers(rows=300, offset=0., seed=0):
  rng = np.random.default_rng(seed)
  common = rng.normal(size=(rows, 6))
  return {f'layer.{i}': (common @ rng.normal(size=(6, d)) + noise * rng.normal(size=(rows, d))
                         + offset * rng.normal(size=d)).astype(np.float32)
          for i, (d, noise) in enumerate(((8, .3), (12, 1.), (5, 2.)))}


def test_value_on_which_other_repositories_agree():
  """Which is the squared distance without regularisation: 50 - 2 * 25 times the mean squared canonical correlation."""
  rng = np.random.RandomState(0)
  acts = {'x': rng.uniform(size=(30, 25)), 'y': rng.uniform(size=(30, 25))}
  found = measure_arrays(Gulp(('*',)), acts, batch_size=16)
  np.testing.assert_allclose(found.gulp_squared_distance_lambda_0[0, 1], 7.0849928684, atol=2e-5)
  np.testing.assert_allclose(found.gulp_squared_distance_lambda_0[0, 1], 50 - 50 * 0.8583001426, atol=2e-5)


@pytest.mark.parametrize('offset', (0., 1e4))
def test_equals_predictions_of_the_rows(offset):
  acts = layers(offset=offset)
  found = measure_arrays(Gulp(('*',), lambdas=(0., .01, 1.)), acts, batch_size=64)
  for form, value in oracle(acts, (0., .01, 1.)).items():
    np.testing.assert_allclose(found[form], value, rtol=1e-5, atol=1e-5, err_msg=form)


def test_bounds_the_difference_of_ridge_predictions():
  """For any target of norm 1, fitted on either layer."""
  acts, rng = layers(rows=80), np.random.default_rng(1)
  bound = measure_arrays(Gulp(('*',)), acts)['gulp_distance_lambda_0.01'].values[0, 1]
  guesses = []
  target = rng.normal(size=(80, 200))
  target /= np.linalg.norm(target, axis=0)
  for x in list(acts.values())[:2]:
    x = np.float64(x) - np.float64(x).mean(0)
    penalty = 0.01 * (x ** 2).sum()
    guesses.append(x @ np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ target))
  worst = np.linalg.norm(guesses[0] - guesses[1], axis=0).max()
  assert 0.1 * bound < worst <= bound


def test_large_regularisation_is_the_distance_of_gram_matrices():
  acts = layers()
  found = measure_arrays(Gulp(('*',), lambdas=(1e4,)), acts)['gulp_squared_distance_lambda_10000'].values
  x = [np.float64(v) - np.float64(v).mean(0) for v in acts.values()]
  grams = [v @ v.T / (v ** 2).sum() for v in x]
  expected = [[((k - l) ** 2).sum() for l in grams] for k in grams]
  np.testing.assert_allclose(found * 1e8, expected, rtol=1e-3, atol=1e-5)


def test_obeys_the_triangle_inequality():
  rng = np.random.default_rng(2)
  acts = {str(k): rng.normal(size=(20, d)) ** 3 for k, d in enumerate(rng.integers(1, 7, 12))}
  found = measure_arrays(Gulp(('*',)), acts)
  for form in ('gulp_distance_lambda_0', 'gulp_distance_lambda_0.01'):
    d = found[form].values
    assert (d[:, None] <= d[:, :, None] + d.T[None] + 1e-4).all(), form


def test_duplicated_constant_and_too_many_units():
  x = layers()['layer.0']
  with pytest.warns(UserWarning, match=r"\['constant'\] do not vary"):
    found = measure_arrays(Gulp(('*',)), {'x': x, 'more': np.concatenate([x, x, 0 * x + 7], 1), 'constant': 0 * x + .1})
  np.testing.assert_allclose(found.gulp_distance_lambda_0[:2, :2], 0, atol=5e-3)
  assert np.isnan(found.to_dataarray()[:, 2]).all()
  rng = np.random.default_rng(4)
  wide = {'wide': rng.normal(size=(10, 30)), 'narrow': rng.normal(size=(10, 3))}
  found = measure_arrays(Gulp(('*',)), wide)
  np.testing.assert_allclose(found.gulp_squared_distance_lambda_0[0, 1], 9 - 3, atol=1e-4)
  np.testing.assert_allclose(found['gulp_distance_lambda_0.01'], oracle(wide)['gulp_distance_lambda_0.01'], atol=1e-4)


def test_wrong_fields_and_too_few_rows():
  for fields, message in ((dict(lambdas=(-1.,)), r'lambdas \(-1.0,\)'), (dict(tolerance=0), 'ratio of eigenvalues')):
    with pytest.raises(ValueError, match=message):
      Gulp(**fields)
  with pytest.raises(ValueError, match='at least 2 rows, got 1'):
    measure_arrays(Gulp(('*',)), {'x': np.ones((1, 3))})
