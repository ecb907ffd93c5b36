"""Published values of measures on samples, and identities between them.

`uniform_pair`: similarity-repository, on which independent repositories agree; `normal_pair`: the demo of Kornblith et
al. 2019. All are given in float64; what is measured has float32 rows, which is what the tolerances are.
"""
import numpy as np
import pytest

from aspects.correlations.cka import Cka
from aspects.correlations.cka_rbf import CkaRbf
from aspects.correlations.distance_correlation import DistanceCorrelation
from aspects.correlations.neighbours import Neighbours
from aspects.correlations.rsa import Rsa
from aspects.measure import measure_arrays


def uniform_pair():
  rng = np.random.RandomState(0)
  return {'x': rng.uniform(size=(30, 25)), 'y': rng.uniform(size=(30, 25))}


def normal_pair():
  rng = np.random.RandomState(1337)
  x = rng.randn(100, 10)
  return {'x': x, 'y': rng.randn(100, 10) + x}


def value(measure, name, acts):
  return float(measure_arrays(measure, acts)[name].sel(site='x', other='y'))


@pytest.mark.parametrize('estimator, expected', (('gretton', 0.8940267986), ('song', 0.0676394158),
                                                 ('lange', 0.2646042302)))
def test_cka_with_a_gaussian_kernel_of_width_one(estimator, expected):
  measure = CkaRbf(('*',), fraction=None, sigma=1., estimators=(estimator,))
  np.testing.assert_allclose(value(measure, f'cka_rbf_sigma_{estimator}', uniform_pair()), expected, atol=2e-7)


def test_cka_with_half_the_median():
  measure = CkaRbf(('*',), fraction=0.5, estimators=('gretton',))
  np.testing.assert_allclose(value(measure, 'cka_rbf_median_gretton', normal_pair()), 0.65483, atol=5e-6)


@pytest.mark.parametrize('rdm, compare, expected', (
    ('correlation', 'pearson', 0.0035062460), ('correlation', 'spearman', -0.0040927957),
    ('correlation', 'tau_a', -0.0020022247), ('squared_euclidean', 'cosine', 0.9510853545)))
def test_rsa(rdm, compare, expected):
  """Without ties tau-a is the tau-b of the repositories."""
  found = value(Rsa(('*',), rdm=(rdm,), compare=(compare,)), f'rsa_{rdm}_{compare}', uniform_pair())
  np.testing.assert_allclose(found, expected, atol=1e-8)


def test_distance_correlation():
  found = value(DistanceCorrelation(('*',)), 'distance_correlation_biased', uniform_pair())
  np.testing.assert_allclose(found, 0.8852696524, atol=1e-7)


def test_the_whitened_cosine_of_squared_distances_is_linear_cka():
  found = value(Rsa(('*',), compare=('cosine_cov',)), 'rsa_squared_euclidean_cosine_cov', uniform_pair())
  np.testing.assert_allclose(found, 0.4893427391, atol=1e-7)
  np.testing.assert_allclose(found, value(Cka(('*',)), 'cka_linear_gretton', uniform_pair()), atol=1e-7)


def test_cka_of_distances_is_distance_correlation():
  """The whitened cosine of Euclidean distances is CKA of minus the distance: the square of distance correlation."""
  square = value(Rsa(('*',), rdm=('euclidean',), compare=('cosine_cov',)), 'rsa_euclidean_cosine_cov', uniform_pair())
  found = value(DistanceCorrelation(('*',)), 'distance_correlation_biased', uniform_pair())
  np.testing.assert_allclose(found ** 2, square, rtol=1e-12)


def test_neighbours_of_unit_rows_are_the_same_by_cosine_and_distance():
  acts = {s: x / np.linalg.norm(x, axis=1, keepdims=True) for s, x in uniform_pair().items()}
  found = {m: measure_arrays(Neighbours(('*',), metric=m), acts) for m in ('cosine', 'euclidean')}
  for form in ('mutual_knn', 'jaccard', 'rank_similarity'):
    a, b = (found[m][f'{form}_{m}_score'] for m in found)
    np.testing.assert_array_equal(a, b)
