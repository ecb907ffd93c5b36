"""Blocks of cross-moments, what counts as varying, and maps filled from pairs."""
import numpy as np
import pytest

from aspects.nn import cross_moments
from aspects.statistics.cross_covariance import CrossMoments


def made(**scatter):
  blocks = {tuple(k): np.array(v, np.float64) for k, v in scatter.items()}
  return CrossMoments(10., {'a': np.array([0., 1e4]), 'b': np.array([3.])}, blocks, None)


def test_blocks_in_any_order():
  cross = made(aa=[[4, 1], [3, 5]], ab=[[1], [2]], bb=[[7]])
  np.testing.assert_array_equal(cross_moments.scatter(cross, 'b', 'a'), [[1, 2]])
  np.testing.assert_array_equal(cross_moments.scatter(cross, 'a', 'a'), [[4, 2], [2, 5]])


def test_the_rounding_of_a_constant_is_no_variance():
  """A unit at 1e4 with deviations of 1e-13 of that is constant; one step of float32 in one of its rows is not."""
  rounding = made(aa=[[4, 1e-6], [1e-6, 10 * (1e-13 * 1e4) ** 2]], ab=[[1], [2]], bb=[[0]])
  np.testing.assert_array_equal(cross_moments.variance(rounding, 'a'), [4, 0])
  np.testing.assert_array_equal(cross_moments.scatter(rounding, 'a', 'a'), [[4, 0], [0, 0]])
  step = (6e-8 * 1e4) ** 2
  moved = made(aa=[[0, 0], [0, step]], ab=[[0], [0]], bb=[[1]])
  np.testing.assert_array_equal(cross_moments.variance(moved, 'a'), [0, step])
  with pytest.warns(UserWarning, match=r"\['b'\] do not vary over the 10 rows: so it goes"):
    assert cross_moments.varying(rounding, 'so it goes') == {'a': True, 'b': False}


def test_what_is_not_finite_names_its_site():
  with pytest.raises(ValueError, match="site 'b' has activations that are not finite"):
    cross_moments.scatter(made(aa=[[1, 0], [0, 1]], ab=[[1], [np.nan]], bb=[[np.inf]]), 'a', 'b')
  with pytest.raises(ValueError, match='these need at least 4 rows, got 3; use more examples'):
    cross_moments.enough(3., 4, 'these need')


def test_maps_are_filled_in_both_directions():
  order = {'p': 0, 'q': 1, 'r': 2}
  def function(a, b):
    assert order[a] <= order[b], 'each pair once, in order'
    return (10 * order[a] + order[b], 0), (10 * order[b] + order[a], 1)
  found = cross_moments.fill(order, function, ('there', 'side'), {'p': True, 'q': False, 'r': True})
  np.testing.assert_array_equal(found['there'], [[0, np.nan, 2], [np.nan] * 3, [20, np.nan, 22]])
  np.testing.assert_array_equal(found['side'], [[0, np.nan, 0], [np.nan] * 3, [1, np.nan, 0]])
  out = cross_moments.maps(order, found, {'there': dict(long_name='x'), 'side': dict(long_name='y', figure='none')},
                           title='t')
  assert out['there'].attrs == dict(units='1', figure='map', long_name='x') and out['side'].attrs['figure'] == 'none'
  assert out['there'].dims == ('site', 'other') and out.attrs == dict(aspect='correlations', title='t')
