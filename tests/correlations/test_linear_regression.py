"""Regression from moments against least squares on the rows in float64, published values, closed forms, limits."""
import numpy as np
import pytest
from sklearn import linear_model, metrics

from aspects.correlations.linear_regression import LinearRegression
from aspects.measure import measure_arrays
from tests.brute import mix


def oracle(acts, ridge=0.0):
  """scikit-learn's regressions, fitted on the examples whose hash is odd."""
  x = [np.asarray(v, np.float64) - np.asarray(v, np.float64).mean(0) for v in acts.values()]
  every = np.arange(len(x[0]))
  second = mix(every, 7) % 2 == 0
  out = {}
  for name, fit, score in (('', ~second, second), ('_in_sample', every, every)):
    values = np.zeros((len(x), len(x)))
    for i, a in enumerate(x):
      penalty = ridge * a[fit].var(0).mean() * len(a[fit])
      for j, b in enumerate(x):
        model = linear_model.Ridge(alpha=penalty) if ridge else linear_model.LinearRegression()
        guess = model.fit(a[fit], b[fit]).predict(a[score])
        values[i, j] = metrics.r2_score(b[score], guess, multioutput='variance_weighted')
    out[f'linear_regression_r2{name}'] = values
  return out


def layers(rows=300, offset=0., seed=0):
  rng = np.random.default_rng(seed)
  common = rng.normal(size=(rows, 6))
  return {f'layer.{i}': (common @ rng.normal(size=(6, d)) + noise * rng.normal(size=(rows, d))
                         + offset * rng.normal(size=d)).astype(np.float32)
          for i, (d, noise) in enumerate(((8, .3), (12, 1.), (5, 2.)))}


def check(acts, tolerance, **fields):
  found = measure_arrays(LinearRegression(('*',), **fields), acts, batch_size=64)
  for form, value in oracle(acts, **fields).items():
    np.testing.assert_allclose(found[form], value, rtol=0, atol=tolerance, err_msg=form)
  return found


def test_value_on_which_other_repositories_agree():
  """X predicted from Y, in sample; n = 30 and d = 25, so that half of the rows are fitted exactly and carry nothing."""
  rng = np.random.RandomState(0)
  x, y = rng.uniform(size=(30, 25)), rng.uniform(size=(30, 25))
  with pytest.warns(UserWarning, match='predicted without error'):
    found = measure_arrays(LinearRegression(('*',)), {'x': x, 'y': y})
  np.testing.assert_allclose(found.linear_regression_r2_in_sample.sel(site='y', other='x'), 0.8634248159, atol=1e-6)
  assert found.linear_regression_r2.sel(site='y', other='x') < 0.1


@pytest.mark.parametrize('offset', (0., 1e4))
@pytest.mark.parametrize('ridge', (0., .1))
def test_equals_regressions_on_the_rows(offset, ridge):
  found = check(layers(offset=offset), 1e-5, ridge=ridge)
  assert not np.allclose(found.linear_regression_r2, found.linear_regression_r2.T, atol=1e-3)
  assert found.attrs['rows_fitted'] + found.attrs['rows_scored'] == 300


def test_linear_maps_are_found_and_lost_directions_are_not():
  """Two of four independent units of one variance: they are read off exactly, and hold half of the four."""
  x = np.random.default_rng(0).normal(size=(4000, 4))
  x = np.linalg.qr(x - x.mean(0))[0]
  found = measure_arrays(LinearRegression(('*',)), {'x': x, 'part': x[:, :2] @ [[2., 1.], [1., 3.]] + 7})
  np.testing.assert_allclose(found.linear_regression_r2[0], 1, atol=1e-5)
  np.testing.assert_allclose(found.linear_regression_r2_in_sample[1, 0], .5, atol=1e-5)


def test_independent_rows():
  """In sample R2 is d / (n - 1) by chance; on other rows it is negative, -d / n1 to first order."""
  rng = np.random.default_rng(5)
  acts = {str(i): rng.normal(size=(201, 20)) for i in range(6)}
  found = measure_arrays(LinearRegression(('*',)), acts)
  off = ~np.eye(6, dtype=bool)
  np.testing.assert_allclose(found.linear_regression_r2_in_sample.values[off].mean(), 20 / 200, rtol=.05)
  carried = found.linear_regression_r2.values[off].mean()
  np.testing.assert_allclose(carried, -20 / (found.attrs['rows_fitted'] - 22), rtol=.15)


def test_duplicated_constant_and_massive_units():
  acts = layers()
  x, y = acts['layer.0'], acts['layer.1']
  massive = np.where(np.arange(12) == 3, 1e4, 1).astype(np.float32)
  with pytest.warns(UserWarning, match=r"\['constant'\] do not vary over the rows of both halves"):
    found = measure_arrays(LinearRegression(('*',)), {
        'x': x, 'doubled': np.concatenate([x, x, 0 * x + 7], 1), 'y': y, 'massive': y * massive,
        'constant': 0 * x + .1})
  expected = oracle({'x': x, 'y': y})
  for form, value in expected.items():
    np.testing.assert_allclose(found[form].sel(site=['x', 'doubled'], other='y'), value[0, 1], atol=1e-4, err_msg=form)
    np.testing.assert_allclose(found[form].sel(site=['y', 'massive'], other='x'), value[1, 0], atol=1e-4, err_msg=form)
    assert np.isnan(found[form].sel(other='constant')).all()


def test_more_units_than_rows_get_the_shortest_solution():
  rng = np.random.default_rng(4)
  acts = {'wide': rng.normal(size=(40, 60)), 'narrow': rng.normal(size=(40, 3))}
  with pytest.warns(UserWarning, match=r"\['wide'\] have as many directions as the"):
    found = measure_arrays(LinearRegression(('*',)), acts)
  np.testing.assert_allclose(found.linear_regression_r2_in_sample.sel(site='wide'), 1, atol=1e-4)
  np.testing.assert_allclose(found.linear_regression_r2[0, 0], oracle(acts)['linear_regression_r2'][0, 0], atol=.05)


def test_wrong_fields_and_too_few_rows():
  for fields, message in ((dict(ridge=-1), 'ridge -1'), (dict(tolerance=0), 'ratio of eigenvalues')):
    with pytest.raises(ValueError, match=message):
      LinearRegression(**fields)
  with pytest.raises(ValueError, match='each half of a regression needs at least 2 rows, got'):
    measure_arrays(LinearRegression(('*',)), {'x': np.ones((3, 2))})
