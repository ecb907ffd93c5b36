"""Distance correlation against sums over pairs and triples, published values, limits under independence."""
import itertools

import numpy as np
import pytest
from scipy import spatial

from aspects.correlations.cka import normalised
from aspects.correlations.distance_correlation import DistanceCorrelation
from aspects.measure import measure_arrays

BIASED, DEBIASED = 'distance_correlation_biased', 'distance_correlation_squared_debiased'


def oracle(acts):
  """Both forms from the expectations that define them: E ab + E a E b - 2 E ab', over all or over distinct rows."""
  d = [spatial.distance.cdist(*[np.asarray(x, np.float64)] * 2) for x in acts.values()]
  n = len(d[0])
  def biased(a, b):
    return (a * b).mean() + a.mean() * b.mean() - 2 * (a.mean(0) * b.mean(0)).mean()
  def unbiased(a, b):
    pairs, path = (a * b).sum(), (a.sum(0) * b.sum(0)).sum() - (a * b).sum()
    apart = a.sum() * b.sum() - 4 * path - 2 * pairs
    return (pairs / n / (n - 1) + apart / n / (n - 1) / (n - 2) / (n - 3) - 2 * path / n / (n - 1) / (n - 2))
  each = {}
  for name, covariance in ((BIASED, biased), (DEBIASED, unbiased)):
    c = np.array([[covariance(a, b) for b in d] for a in d])
    each[name] = c / np.sqrt(np.outer(np.diag(c), np.diag(c)))
  return {BIASED: np.sqrt(each[BIASED]), DEBIASED: each[DEBIASED]}


def measured(acts, **fields):
  return measure_arrays(DistanceCorrelation(('*',), **fields), acts)


def layers(n=30, offset=0.):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(n, 4))
  acts = {'x': x, 'square': x[:, :2] ** 2, 'y': rng.normal(size=(n, 40))}
  return {s: (v + offset).astype(np.float32) for s, v in acts.items()}


def test_the_oracle_is_the_average_over_distinct_rows():
  d = [spatial.distance.cdist(x, x) for x in layers(6).values()]
  mean = lambda value, size: np.mean([value(*i) for i in itertools.permutations(range(6), size)])
  c = np.array([[mean(lambda i, j: a[i, j] * b[i, j], 2) + mean(lambda i, j, k, l: a[i, j] * b[k, l], 4)
                 - 2 * mean(lambda i, j, k: a[i, j] * b[i, k], 3) for b in d] for a in d])
  np.testing.assert_allclose(oracle(layers(6))[DEBIASED], normalised(c), rtol=1e-8)


@pytest.mark.parametrize('offset', (0., 1e4))
def test_both_forms(offset):
  acts = layers(offset=offset)
  found = measured(acts)
  for name, value in oracle(acts).items():
    np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-9, err_msg=name)
  assert found.attrs['rows'] == 30


def test_dependence_that_no_linear_map_sees():
  x = np.random.default_rng(1).normal(size=(400, 1))
  found = measured({'x': x, 'square': x ** 2, 'y': np.random.default_rng(2).normal(size=(400, 1))})
  assert abs(np.corrcoef(x[:, 0], x[:, 0] ** 2)[0, 1]) < 0.2
  assert found[DEBIASED].sel(site='x', other='square') > 0.15 > 10 * abs(found[DEBIASED].sel(site='x', other='y'))


def test_independent_layers():
  """The debiased mean is 0 to four errors; the biased one nears 1 as units grow (Szekely & Rizzo 2013)."""
  rng = np.random.default_rng(3)
  wide = measured({str(i): rng.normal(size=(60, 2000)) for i in range(6)})
  above = np.triu_indices(6, 1)
  debiased = wide[DEBIASED].values[above]
  assert abs(debiased.mean()) < 4 * debiased.std() / np.sqrt(15) and debiased.min() < 0
  assert wide[BIASED].values[above].min() > 0.95


def test_massive_and_repeated_units():
  acts = layers()
  x = acts['x']
  found = measured({'x': x, 'doubled': np.concatenate([x, x], 1), 'with constants': np.concatenate([x, 0 * x + 7], 1),
                    'large': x * 2. ** 60})
  for form in (BIASED, DEBIASED):
    np.testing.assert_allclose(found[form], 1, atol=1e-9)


def test_a_layer_that_does_not_vary_and_fewest_rows():
  x = np.random.default_rng(4).normal(size=(16, 3))
  with pytest.warns(UserWarning, match=r"\['constant'\] do not vary over the 16 rows"):
    found = measured({'x': x, 'constant': 0 * x + 5.1})
  for form in (BIASED, DEBIASED):
    np.testing.assert_array_equal(np.isnan(found[form]), [[False, True], [True, True]])
  measured({'x': x[:4]})
  with pytest.raises(ValueError, match='distance correlation needs at least 4 rows, got 3'):
    measured({'x': x[:3]})
