"""RSA against scipy's distances and the covariance of distances written out, published values, identities, limits."""
import itertools

import numpy as np
import pytest
from scipy import spatial
from scipy import stats

from aspects.correlations.cka import Cka
from aspects.correlations.rsa import COMPARE
from aspects.correlations.rsa import Rsa
from aspects.measure import measure_arrays
from aspects.nn.distances import KINDS

METRIC = {'euclidean': 'euclidean', 'squared_euclidean': 'sqeuclidean', 'correlation': 'correlation',
          'cosine': 'cosine'}


def noise_covariance(n):
  """V = (C C') o (C C') for the contrasts C [m, n] of all pairs of n conditions (Diedrichsen et al. 2020)."""
  contrast = np.array([np.eye(n)[i] - np.eye(n)[j] for i, j in itertools.combinations(range(n), 2)])
  return (contrast @ contrast.T) ** 2


def whitened(d, e):
  """Cosine in the metric of the inverse covariance, by conjugate gradients on V = 2 + B B' without building it."""
  n = int(np.sqrt(2 * len(d))) + 1
  i, j = np.triu_indices(n, 1)
  def times(v):
    sums = np.bincount(i, v, n) + np.bincount(j, v, n)
    return 2 * v + sums[i] + sums[j]
  def solve(v):
    x, r = np.zeros_like(v), v.copy()
    p = r.copy()
    for _ in range(12):                                  # V has three distinct eigenvalues
      if r @ r <= 1e-28 * (v @ v):
        break
      step = r @ r / (p @ times(p))
      x, new = x + step * p, r - step * times(p)
      p, r = new + (new @ new) / (r @ r) * p, new
    return x
  return d @ solve(e) / np.sqrt((d @ solve(d)) * (e @ solve(e)))


def tau_a(d, e):
  """From scipy's tau-b, whose denominator leaves out ties."""
  pairs = len(d) * (len(d) - 1) / 2
  free = [pairs - sum(c * (c - 1) / 2 for c in np.unique(v, return_counts=True)[1]) for v in (d, e)]
  return stats.kendalltau(d, e)[0] * np.sqrt(free[0] * free[1]) / pairs


def cosine(d, e):
  return d @ e / np.linalg.norm(d) / np.linalg.norm(e)


FORMS = {'pearson': lambda d, e: np.corrcoef(d, e)[0, 1], 'spearman': lambda d, e: stats.spearmanr(d, e)[0],
         'tau_a': tau_a, 'cosine': cosine, 'cosine_cov': whitened,
         'corr_cov': lambda d, e: whitened(d - d.mean(), e - e.mean())}


def oracle(acts, rdm=('squared_euclidean', 'correlation'), compare=('spearman', 'cosine_cov')):
  """Distances by scipy, every pair of layers on its own."""
  out = {}
  for kind in rdm:
    d = [spatial.distance.pdist(np.asarray(x, np.float64), METRIC[kind]) for x in acts.values()]
    for form in compare:
      value = np.eye(len(d))
      for i, j in itertools.combinations_with_replacement(range(len(d)), 2):
        value[i, j] = value[j, i] = FORMS[form](d[i], d[j])
      out[f'rsa_{kind}_{form}'] = value
  return out


def measured(acts, labels=None, **fields):
  return measure_arrays(Rsa(('*',), **{'rdm': KINDS, 'compare': COMPARE, **fields}), acts, labels)


def check(acts, tolerance, **fields):
  found = measured(acts, **fields)
  expected = oracle(acts, fields.pop('rdm', KINDS), fields.pop('compare', COMPARE))
  assert list(found) == list(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)
  return found


def layers(n=24, offset=0.):
  rng = np.random.default_rng(0)
  common = rng.normal(size=(n, 5))
  return {f'layer.{i}': (common @ rng.normal(size=(5, d)) + rng.normal(size=(n, d)) + offset).astype(np.float32)
          for i, d in enumerate((7, 30, 4))}


def test_every_dissimilarity_and_comparison():
  check(layers(), 1e-9)


def test_far_means():
  """10^4 deviations away, the rows being what float32 keeps of them; correlation and cosine look at what is left."""
  check(layers(offset=1e4), 1e-6)
  near, far = (measured({s: np.round(x * 64) / 64 + o for s, x in layers().items()}) for o in (0, 8192))
  for kind in ('euclidean', 'squared_euclidean'):
    for form in COMPARE:
      np.testing.assert_allclose(far[f'rsa_{kind}_{form}'], near[f'rsa_{kind}_{form}'], atol=1e-9)


def test_the_covariance_of_distances_is_that_of_noise():
  """V of the contrasts is 2 + B B', and is what squared distances of noise patterns vary by."""
  n, m = 5, 10
  i, j = np.triu_indices(n, 1)
  incidence = np.eye(n)[i] + np.eye(n)[j]
  np.testing.assert_array_equal(noise_covariance(n), 2 * np.eye(m) + incidence @ incidence.T)
  d, e = np.random.default_rng(0).uniform(1, 2, size=(2, m))
  inverse = np.linalg.inv(noise_covariance(n))
  expected = d @ inverse @ e / np.sqrt((d @ inverse @ d) * (e @ inverse @ e))
  np.testing.assert_allclose(whitened(d, e), expected, rtol=1e-10)
  x = np.random.default_rng(1).normal(size=(200000, n))
  np.testing.assert_allclose(np.cov(((x[:, i] - x[:, j]) ** 2).T) / 2, noise_covariance(n), atol=0.15)


def test_whitened_cosine_of_squared_distances_is_linear_cka():
  acts = layers(60)
  np.testing.assert_allclose(measured(acts).rsa_squared_euclidean_cosine_cov,
                             measure_arrays(Cka(('*',)), acts).cka_linear_gretton, atol=1e-6)


def test_monotone_maps_of_distances_change_no_ranks():
  found = measured(layers(40))
  for form in ('spearman', 'tau_a'):
    np.testing.assert_array_equal(found[f'rsa_euclidean_{form}'], found[f'rsa_squared_euclidean_{form}'])


def test_ties_and_equal_rows():
  """Equal rows have distance 0 to the last digit; distances that differ by rounding alone are ties."""
  rng = np.random.default_rng(2)
  acts = {'signs': rng.integers(0, 2, (20, 3)) * .1, 'y': np.repeat(rng.normal(size=(10, 5)), 2, 0)}
  found = measured(acts, rdm=('squared_euclidean',), compare=('spearman', 'tau_a'))
  d = [spatial.distance.pdist(x.astype(np.float32).astype(float), 'sqeuclidean').round(10) for x in acts.values()]
  for form in ('spearman', 'tau_a'):
    expected = [[FORMS[form](a, b) for a in d] for b in d]
    np.testing.assert_allclose(found[f'rsa_squared_euclidean_{form}'], expected, atol=1e-12, err_msg=form)
  ties = [sum(c * (c - 1) for c in np.unique(v, return_counts=True)[1]) / 190 / 189 for v in d]
  np.testing.assert_allclose(np.diag(found.rsa_squared_euclidean_tau_a), 1 - np.array(ties), atol=1e-12)


def test_conditions_may_be_labels():
  rng = np.random.default_rng(3)
  label = np.repeat([0, 2, 3, 5], 6)
  acts = {s: rng.normal(size=(24, 4)) for s in 'ab'}
  found = measured(acts, label, conditions='label', classes=6)
  means = {s: np.stack([x.astype(np.float32)[label == c].mean(0, dtype=float) for c in (0, 2, 3, 5)])
           for s, x in acts.items()}
  for name, value in oracle(means, KINDS, COMPARE).items():
    np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)
  with pytest.raises(ValueError, match=r'at least 3 conditions, got the labels \[0, 1\]'):
    measured(acts, label % 2 + (label == 3) * 0, conditions='label', classes=6)


def test_nothing_to_compare_is_named():
  x = np.random.default_rng(4).normal(size=(12, 3))
  with pytest.warns(UserWarning, match=r"\['constant'\] have dissimilarities that do not vary"):
    found = measured({'x': x, 'constant': 0 * x + [1, 2, 3]})
  for name in found:
    np.testing.assert_array_equal(np.isnan(found[name]), [[False, True], [True, True]], err_msg=name)
  simplex = {'x': x, 'simplex': np.eye(12)}
  with pytest.warns(UserWarning, match=r"\['simplex'\] have dissimilarities that do not vary"):
    found = measured(simplex, rdm=('euclidean',))
  np.testing.assert_array_equal([bool(np.isnan(found[f'rsa_euclidean_{c}'][0, 1])) for c in COMPARE],
                                [True, True, True, False, False, True])


def test_rows_without_direction():
  x = np.random.default_rng(5).normal(size=(12, 3))
  dead = np.where(np.arange(12)[:, None] == 4, 0, x)
  with pytest.warns(UserWarning, match=r"\['dead'\] have rows of length zero"):
    found = measured({'x': x, 'dead': dead}, rdm=('cosine',), compare=('pearson',))
  d = spatial.distance.squareform(spatial.distance.pdist(x.astype(np.float32), 'cosine'))
  e = d.copy()
  e[4] = e[:, 4] = 1
  above = np.triu_indices(12, 1)
  np.testing.assert_allclose(found.rsa_cosine_pearson[0, 1], np.corrcoef(d[above], e[above])[0, 1], atol=1e-7)


def test_the_sample_is_said():
  acts = layers(80)
  found = measured(acts, size=30, rdm=('cosine',), compare=('pearson',))
  assert found.attrs['rows'] == 30 and 'at most 30 rows' in found.attrs['sample']
  assert not np.allclose(found.rsa_cosine_pearson, measured(acts, size=30, seed=1, rdm=('cosine',)).rsa_cosine_pearson)


def test_fewest_rows_and_wrong_fields():
  x = np.random.default_rng(6).normal(size=(3, 4))
  check({'x': x, 'y': x[:, :2] ** 3}, 1e-6, rdm=('euclidean', 'squared_euclidean'))
  with pytest.raises(ValueError, match='RSA needs at least 3 rows, got 2'):
    measured({'x': x[:2]})
  with pytest.raises(ValueError, match="site 'x' has activations that are not finite"):
    measured({'x': np.where(np.eye(3, 4) > 0, np.inf, x)})
  for fields, message in ((dict(rdm=('euclid',)), 'rdm .*not a tuple of some of euclidean'),
                          (dict(compare='pearson'), 'compare .*not a tuple'), (dict(conditions='site'), 'conditions')):
    with pytest.raises(ValueError, match=message):
      Rsa(**fields)
