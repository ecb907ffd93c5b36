"""Adaptive bins and kernel bounds against counting and double loops, their limits, and what they are invariant to."""
import collections
import math

import numpy as np
import pytest

from aspects import measure
from aspects.claims import spec
from aspects.depth.ebab_information import EbabInformation, adaptive_bins, mi_binned, mi_kde
from aspects.depth.information_plane import InformationPlane

CONFIG = 'configs/depth/ebab_information.py'


def counted(items):
  """H in bits by counting hashable items."""
  items = list(items)
  return -sum(c / len(items) * math.log2(c / len(items)) for c in collections.Counter(items).values())


def kernel_excess(rows, variance, scale):
  """-mean log2 of the mean kernel, one pair of rows at a time."""
  total = 0.
  for a in rows:
    total -= math.log2(sum(math.exp(-((a - b) ** 2).sum() / (scale * variance)) for b in rows) / len(rows))
  return total / len(rows)


def oracle(acts, labels, bins=30, noise=.1, apart=0.):
  """{variable: [site]}: the rank of a value among the distinct ones says its bin; kernels by double loops."""
  out = collections.defaultdict(list)
  for x in acts.values():
    x = x.astype(np.float64)
    distinct = sorted(set(x.ravel().tolist()) - {apart})
    count = min(bins, len(distinct))
    slot = {value: max(k for k in range(count) if rank >= k * len(distinct) // count)
            for rank, value in enumerate(distinct)}
    rows = [tuple('apart' if value == apart else slot[value] for value in row) for row in x.tolist()]
    groups = [np.flatnonzero(labels == y) for y in np.unique(labels)]
    out['ixt'].append(counted(rows))
    out['ity'].append(counted(rows) - sum(len(g) / len(x) * counted(rows[i] for i in g) for g in groups))
    for name, scale in (('lower', 8), ('upper', 2)):
      variance = noise ** 2 * abs(x).max()
      whole = kernel_excess(x, variance, scale)
      out[f'kde_ixt_{name}'].append(whole)
      out[f'kde_ity_{name}'].append(whole - sum(len(g) / len(x) * kernel_excess(x[g], variance, scale) for g in groups))
  return dict(out)


def of(acts, labels=None, **fields):
  labels = np.zeros(len(next(iter(acts.values()))), np.int32) if labels is None else labels
  return measure.measure_arrays(EbabInformation(('*',), classes=4, **fields), acts, labels, batch_size=64)


def layers(n=90, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 4, n).astype(np.int32)
  return {f'resid_post.{i}': np.maximum(rng.normal(size=(n, d)) + .5 * labels[:, None] - 1, 0).astype(np.float32)
          for i, d in enumerate((4, 2, 1))}, labels


@pytest.mark.parametrize('bins,noise', [(30, .1), (3, 1.)])
def test_equals_counting_and_double_loops(bins, noise):
  acts, labels = layers()
  found = of(acts, labels, bins=bins, noise=noise)
  for name, value in oracle(acts, labels, bins, noise).items():
    np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


# --- bins -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('n,bins', [(60, 30), (100, 7), (31, 30)])
def test_bins_hold_equally_many_distinct_values(n, bins):
  x = np.exp(np.random.default_rng(0).normal(size=n))
  rows = np.concatenate([x, np.repeat(x[:3], 40), np.zeros(50)])[:, None]      # repeats and zeros move no edge
  edges = adaptive_bins(rows, bins)
  held = np.bincount(np.searchsorted(edges, x), minlength=bins)
  assert len(edges) == bins - 1 and held.sum() == n and np.ptp(held) <= 1
  np.testing.assert_array_equal(edges, adaptive_bins(x[:, None], bins))


def test_fewer_values_than_bins_have_a_bin_each_and_none_no_edge():
  x = np.array([[0., 3.], [1., 3.], [0., 2.]])
  np.testing.assert_array_equal(adaptive_bins(x, 30), [1.5, 2.5])
  assert adaptive_bins(np.zeros((4, 2)), 30).size == 0
  assert mi_binned(np.zeros((4, 2)), adaptive_bins(np.zeros((4, 2))), np.arange(4)) == (0, 0)


def test_the_zeros_of_a_relu_have_a_bin_of_their_own():
  """A unit that is off for some rows and barely on for others tells them apart, however few bins there are."""
  x = np.concatenate([np.zeros(8), np.full(8, 1e-9), np.full(8, 5.)])[:, None]
  y = np.repeat([0, 1, 2], 8)
  np.testing.assert_allclose(mi_binned(x, adaptive_bins(x, 2), y), np.log2(3))
  np.testing.assert_allclose(mi_binned(x, adaptive_bins(x, 1), y).ixt, np.log2(3) - 2 / 3)


def test_bins_follow_any_increasing_map_that_keeps_zero():
  acts, labels = layers(seed=1)
  x = acts['resid_post.0'].astype(np.float64)
  whole = mi_binned(x, adaptive_bins(x, 5), labels)
  for moved in (1e3 * x, np.expm1(x)):
    assert mi_binned(moved, adaptive_bins(moved, 5), labels) == whole


# --- kernel bounds --------------------------------------------------------------------------------------------------

def test_far_clusters_are_known_to_both_bounds():
  """K far clusters of equal rows: I(X;T) = log2 K from below and from above, and I(T;Y) what they say of the label."""
  x = np.repeat(100. * np.eye(8), 5, 0)
  y = np.repeat(np.arange(8) // 4, 5)
  np.testing.assert_allclose(mi_kde(x, y, .5), [3, 3, 1, 1], atol=1e-9)


def test_bounds_hold_the_information_of_a_mixture_of_two():
  """Two Gaussians: the entropy of the mixture by quadrature lies between the bounds."""
  grid = np.linspace(-20, 20, 40001)
  normal = lambda z: np.exp(-z ** 2 / 2) / np.sqrt(2 * np.pi)
  for gap in (.5, 2., 5.):
    p = (normal(grid) + normal(grid - gap)) / 2
    with np.errstate(divide='ignore', invalid='ignore'):
      entropy = -np.where(p > 0, p * np.log2(p), 0).sum() * (grid[1] - grid[0])
    information = entropy - .5 * np.log2(2 * np.pi * np.e)
    found = mi_kde(np.array([[0.], [gap]]), np.zeros(2, int), 1., adaptive=False)
    assert found.ixt_lower < information < found.ixt_upper


def test_noise_that_follows_the_activations_and_noise_that_does_not():
  x, y = np.random.default_rng(0).normal(size=(30, 2)), np.zeros(30, int)
  most = abs(x).max()
  np.testing.assert_allclose(mi_kde(x, y, .3), mi_kde(x, y, .3 * np.sqrt(most), adaptive=False), rtol=1e-12)
  assert mi_kde(10 * x, y, .3).ixt_upper > mi_kde(x, y, .3).ixt_upper            # the variance grows as |x|, not |x|^2
  assert mi_kde(0 * x, y) == (0, 0, 0, 0)


def test_a_large_mean_costs_no_digits():
  x, y = np.random.default_rng(1).normal(size=(40, 3)), np.arange(40) % 2
  np.testing.assert_allclose(mi_kde(x + 1e6, y, .5, adaptive=False), mi_kde(x, y, .5, adaptive=False), rtol=1e-8)


# --- the measure ----------------------------------------------------------------------------------------------------

def test_kernel_bounds_take_fewer_rows_and_say_so():
  acts, labels = layers(200)
  found, whole = of(acts, labels, kernel_size=32), of(acts, labels)
  assert found.rows == 200 and found.rows_kernel == 32 and whole.rows_kernel == 200
  np.testing.assert_array_equal(found.ixt, whole.ixt)
  assert (found.kde_ixt_upper <= 5 + 1e-12).all() and found.kde_ixt_upper[0] < whole.kde_ixt_upper[0]


def test_values_that_are_not_finite_are_named():
  with pytest.warns(UserWarning, match=r"\['bad'\]"):
    found = of({'bad': np.full((8, 2), np.nan, np.float32), 'fine': np.eye(8, 2, dtype=np.float32)})
  for name in found:
    np.testing.assert_array_equal(np.isnan(found[name]), [True, False])


def test_a_wrong_field_and_no_rows_are_told():
  with pytest.raises(ValueError, match='noise 0.0 must be above 0'):
    EbabInformation(noise=0.)
  with pytest.raises(ValueError, match='need rows, got 0'):
    measure.measure_arrays(EbabInformation(('*',), classes=2), {'x': np.ones((4, 2), np.float32)},
                           np.zeros(4, np.int32), weight=np.zeros(4, np.float32))


# --- the claim ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('scale', ['claim', 'smoke', 'full'])
def test_arms_differ_by_their_decay_alone_and_have_both_estimators(scale):
  claim = spec.load(CONFIG, scale)
  decays = {name: claim.arm(name)['learning']['decay'] for name in claim.arms}
  assert decays == {'plain': 0., 'decay': .2, 'placebo': .2 / 1000}
  for name in claim.arms:
    arm = claim.arm(name)
    assert {**arm, 'learning': {**arm['learning'], 'decay': 0.}} == claim.arm('plain')
  measures = claim.arm('plain')['measures']
  assert measures['ebab']['name'] == 'depth/ebab_information' and measures['fixed']['span'] == (-1., 1.)


def test_fixed_bins_see_nothing_of_a_relu_beyond_their_range_and_adaptive_bins_all():
  """What the claim compares: beyond 1 all values of a ReLU are one state of the fixed bins."""
  x = 5 + np.random.default_rng(2).uniform(size=(64, 2)).astype(np.float32)
  fixed = measure.measure_arrays(InformationPlane(('*',), classes=2), {'x': x}, np.zeros(64, np.int32))
  assert fixed.ixt == 0 and of({'x': x}).ixt > 5
