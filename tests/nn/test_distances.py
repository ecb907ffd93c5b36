"""Dissimilarities against scipy's loops over pairs, near and equal rows, and rows without a direction."""
import numpy as np
import pytest
from scipy import spatial

from aspects.nn import distances

NAMES = {'euclidean': 'euclidean', 'squared_euclidean': 'sqeuclidean', 'correlation': 'correlation',
         'cosine': 'cosine'}


@pytest.mark.parametrize('kind', distances.KINDS)
@pytest.mark.parametrize('shape', ((2, 3), (30, 4), (12, 70)))
def test_against_loops(kind, shape):
  x = np.random.default_rng(0).normal(size=shape) + 3
  found = distances.dissimilarity(x, kind)
  np.testing.assert_allclose(found, spatial.distance.cdist(x, x, NAMES[kind]), rtol=1e-10, atol=1e-13)
  np.testing.assert_array_equal(found, found.T)
  np.testing.assert_array_equal(np.diag(found), 0)


def test_far_rows_keep_their_distances():
  x = np.random.default_rng(1).integers(-8, 8, (20, 5)) / 8
  for kind in ('euclidean', 'squared_euclidean'):
    near, far = (distances.dissimilarity(x + offset, kind) for offset in (0, 2. ** 30))
    np.testing.assert_allclose(far, near, atol=1e-12)


def test_equal_rows_are_at_zero_and_near_ones_are_not():
  x = np.random.default_rng(2).normal(size=(9, 5)) * [1, 1, 1, 1, 1e3]
  x[4] = x[1]
  x[7] = x[1] * (1 + 1e-5)
  for kind in distances.KINDS:
    found = distances.dissimilarity(x, kind)
    assert found[1, 4] == found[4, 1] == 0 < found[1, 2]
  assert distances.dissimilarity(x, 'euclidean')[1, 7] > 0
  np.testing.assert_allclose(distances.dissimilarity(x, 'cosine')[1, 7], 0, atol=1e-13)


def test_small_angles_keep_their_digits():
  """1 - cos of an angle of 1e-4 is 5e-9, to which 1 - s is right to 1e-8 only."""
  x = np.array([[1., 0], [np.cos(1e-4), np.sin(1e-4)], [0, 1], [-1, 0]])
  np.testing.assert_allclose(distances.dissimilarity(x, 'cosine')[0, 1], 1e-8 / 2 - 1e-16 / 24, rtol=1e-7)


def test_rows_without_direction_are_at_one_from_all_others():
  x = np.random.default_rng(3).normal(size=(5, 4))
  x[1], x[3] = 0, 7.1
  cosine, correlation = (distances.dissimilarity(x, kind) for kind in ('cosine', 'correlation'))
  np.testing.assert_array_equal(cosine[1], [1, 0, 1, 1, 1])
  np.testing.assert_array_equal(correlation[[1, 3]], [[1, 0, 1, 1, 1], [1, 1, 1, 0, 1]])
  np.testing.assert_array_equal(distances.directions(x, 'correlation')[1], [False, True, False, True, False])


def test_ranks_do_not_see_rounding():
  np.testing.assert_array_equal(np.unique(distances.for_ranks(np.array([.1 + .2, .3, 1.]))), [.3, 1])
  np.testing.assert_array_equal(distances.for_ranks(np.zeros(3)), 0)


def test_entries_above_the_diagonal_go_by_rows():
  np.testing.assert_array_equal(distances.upper(np.arange(9).reshape(3, 3)), [1, 2, 5])


def test_vectors_that_do_not_vary_have_no_cosine():
  v = distances.deviations(np.array([[.1] * 3, [1, 2, 3]]))
  np.testing.assert_array_equal(v, [[0, 0, 0], [-1, 0, 1]])
  np.testing.assert_array_equal(np.isnan(distances.cosines(v)), [[True, True], [True, False]])
