"""2NN and Gride from loops over rows and maxima of the likelihood, values of DADApy, closed forms and limits."""
import numpy as np
import pytest
from scipy import optimize

from aspects.features.intrinsic_dimension import IntrinsicDimension, gride, neighbour_distances, slope
from aspects.measure import measure_arrays

# 'tests/2gaussians_in_2d.npy' of DADApy (sissa-data-science/DADApy, Apache-2.0): 100 points in two dimensions, rounded
# to 10^-5, which is their unit here
TWO_GAUSSIANS = '''
  -143199 -191739 -282153 -198108 -208203 -295716 -98603 -373028 -141126 -161568 -99029 -300531 -189859 17116
  -133793 -189942 -146084 -191382 19090 -101636 -208561 -174767 -239080 -79015 -340610 -360474 -54129 15312 -153170
  -188726 -134273 -264705 -182876 -196109 -137344 -355800 -250703 -115500 -267559 -299336 4207 -196188 -257892
  -369237 -127065 -130086 -229876 -310223 -202455 -283586 -294209 -210321 -305139 -175335 -139201 -283963 -336825
  -43872 -294027 -265994 -178698 -140063 -225632 -153921 -240099 -297117 -57368 48844 -30403 -185819 -16656 -164430
  -247729 -153362 -209439 -298312 -289832 -119795 -384653 -139586 -362958 -412118 -383885 -3324 -219623 -191342
  -58074 -106582 -339151 -113099 -181582 -234168 -197571 -72019 -288597 -159911 -200966 -379716 -280225 -180679
  329734 300133 259721 118472 380121 221524 99363 181710 289625 200762 288686 310369 240053 114230 213545 204517
  385935 37368 186518 141591 233511 -43756 311492 201375 15530 163889 260896 40855 200322 94253 144401 202674 218345
  152926 227280 281798 172109 343157 346221 157130 136216 33583 187343 163656 277905 49034 172261 296874 126964
  123764 55306 462057 125253 69965 119615 122570 173061 282537 170168 107718 54866 202186 204254 353093 209245
  190099 94935 169405 156153 162984 104074 253833 185755 179965 28595 249364 248702 116087 299012 63524 197813
  172879 68283 218970 370257 206763 153698 244702 210572 202776 157446 342198 245636 147133 189200 125913 139171
  135927 86569 277728
'''


def oracle(acts, discard=0.1, most_neighbours=64):
  """All estimates and errors: sorted distances, lstsq, the likelihood's maximum and curvature by differences."""
  out, n = {}, min(map(len, acts.values()))
  scales = [2 ** i for i in range(12) if 2 ** (i + 1) <= min(most_neighbours, n - 1)]
  for x in acts.values():
    x = np.asarray(x, np.float64)
    far = np.sort([np.linalg.norm(x - row, axis=1) for row in x], axis=1)      # [:, 0] is the row itself
    found = dict(zip(('two_nn_linear', 'two_nn_linear_error'), line(far[:, 2] / far[:, 1], discard)))
    found['two_nn_likelihood'] = (n - 1) / np.log(far[:, 2] / far[:, 1]).sum()
    found['two_nn_likelihood_error'] = found['two_nn_likelihood'] / np.sqrt(n - 2)
    many = [most_likely(far[:, 2 * k] / far[:, k], k) for k in scales]
    found['gride'], found['gride_error'] = np.transpose(many)
    found['gride_distance'] = [(far[:, k].mean() + far[:, 2 * k].mean()) / 2 for k in scales]
    found['distinct_rows'] = len(x)
    for name, v in found.items():
      out.setdefault(name, []).append(v)
  return {name: np.array(v) for name, v in out.items()}


def line(mu, discard):
  n = len(mu)
  kept = int(n * (1 - discard))
  y = -np.log(1 - np.arange(1, kept + 1) / n)
  fit = lambda t: np.linalg.lstsq(t[:, None], y)[0][0]
  # exponential order statistics: mean sum of 1 / (n - j + 1) to i, covariance sum of its square to the smaller of two
  terms = [1 / (n - j) for j in range(kept)]
  mean = np.array([sum(terms[:i + 1]) for i in range(kept)])
  squares = np.cumsum(np.square(terms))
  covariance = squares[np.minimum.outer(np.arange(kept), np.arange(kept))]
  gradient = optimize.approx_fprime(mean, fit, 1e-6)
  return fit(np.sort(np.log(mu))[:kept]), fit(np.sort(np.log(mu))[:kept]) / fit(mean) * np.sqrt(
      gradient @ covariance @ gradient)


def most_likely(mu, k):
  """The density of mu is proportional to d (mu^d - 1)^(k - 1) mu^(-(2k - 1) d - 1); log d is taken off once."""
  def log_likelihood(d):
    return (np.log(d) + (k - 1) * np.log(mu ** d - 1) - ((2 * k - 1) * d + 1) * np.log(mu)).sum()
  guess = len(mu) / np.log(mu).sum()
  d = optimize.minimize_scalar(lambda d: np.log(d) - log_likelihood(d), bounds=(guess / 3, guess), method='bounded',
                               options=dict(xatol=1e-10)).x
  step = 1e-3 * d
  curvature = (log_likelihood(d + step) - 2 * log_likelihood(d) + log_likelihood(d - step)) / step ** 2
  return d, (-curvature) ** -0.5


def measured(acts, **fields):
  return measure_arrays(IntrinsicDimension(('*',), **fields), acts)


def two_gaussians():
  return np.array(TWO_GAUSSIANS.split(), np.float64).reshape(100, 2) / 1e5


def test_values_of_dadapy():
  """tests/test_id_estimation/test_gride.py and test_2NN.py there, to the digits that they assert."""
  found = measured({'x': two_gaussians()}).sel(site='x')
  np.testing.assert_array_equal(found.scale, [1, 2, 4, 8, 16, 32])
  np.testing.assert_allclose(found.gride, [2.0007, 2.0321, 1.9118, 2.0005, 1.6747, 0.7208], rtol=0, atol=1e-4)
  np.testing.assert_allclose(found.gride_error, [.2001, .1466, .0976, .0722, .0427, .0130], rtol=0, atol=1e-4)
  np.testing.assert_allclose(found.gride_distance, [.3947, .5674, .8013, 1.1345, 1.6477, 3.5726], rtol=0, atol=1e-4)
  np.testing.assert_allclose(found.two_nn_linear, 1.85491, rtol=0, atol=5e-5)
  # the posterior mean (2 + N) / (5 + sum log mu) under a Gamma(2, 5) prior
  np.testing.assert_allclose(102 / (5 + 99 / found.two_nn_likelihood), 1.8722, rtol=0, atol=1e-4)


def layers(rows=150, offset=0., seed=0):
  """A curve, a sheet and a cloud of Gaussian rows in spaces of more units."""
  rng = np.random.default_rng(seed)
  acts = {}
  for d, units in ((1, 6), (2, 9), (5, 12)):
    x = rng.normal(size=(rows, d))
    x = np.concatenate([x, np.sin(x @ rng.normal(size=(d, units - d)))], 1) @ rng.normal(size=(units, units))
    acts[f'{d} dimensions'] = (x + offset * x.std() * rng.normal(size=units)).astype(np.float32)
  return acts


@pytest.mark.parametrize('offset', (0., 1e2, 1e4))
def test_equals_loops_over_rows(offset):
  # 1e4 deviations away one step of float32 is 1e-3 deviations, which the rows are in both computations
  acts = layers(offset=offset)
  found = measured(acts, most_neighbours=40, discard=.2)
  for name, value in oracle(acts, .2, 40).items():
    np.testing.assert_allclose(found[name], value, rtol=2e-5 if name.endswith('error') else 1e-7, err_msg=name)


def test_an_offset_that_float32_holds_changes_nothing():
  x = np.round(np.random.default_rng(0).normal(size=(200, 3)) * 64) / 64
  near, far = (measured({'x': x[np.unique(x, axis=0, return_index=True)[1]] + o}) for o in (0, 16384))
  for name in near:
    np.testing.assert_allclose(far[name], near[name], rtol=1e-12, err_msg=name)


def test_scale_one_is_two_nn():
  found = measured(layers())
  np.testing.assert_array_equal(found.gride.sel(scale=1), found.two_nn_likelihood)


@pytest.mark.parametrize('d', (2, 5))
def test_rows_of_a_known_dimension(d):
  """Gaussian rows: to four standard errors of the mean over 8 samples, and a twentieth for the change of density."""
  rng = np.random.default_rng(d)
  embedded = lambda: rng.normal(size=(1000, d)) @ np.linalg.qr(rng.normal(size=(d + 3, d)))[0].T
  found = measured({str(i): embedded() for i in range(8)}, size=1000)
  for name in ('two_nn_linear', 'two_nn_likelihood', 'gride'):
    estimate, error = (found[v].values.reshape(8, -1)[:, :3] for v in (name, f'{name}_error'))
    assert (np.abs(estimate.mean(0) - d) < 4 * error.mean(0) / np.sqrt(8) + d / 20).all(), name
    assert (error < d / 15).all(), name
    # the deviation of 8 samples is within a factor of 2.3 of the true one with a chance of 99 %
    assert (np.abs(np.log2(estimate.std(0, ddof=1) / error.mean(0))) < 1.2).all(), name


def test_uniform_rows():
  """A flat torus has neither ends nor a density that varies: two angles, four units."""
  angle = 2 * np.pi * np.random.default_rng(0).uniform(size=(2000, 2))
  found = measured({'x': np.concatenate([np.cos(angle), np.sin(angle)], 1)}, size=2000, most_neighbours=16)
  for name in ('two_nn_linear', 'two_nn_likelihood', 'gride'):
    assert (np.abs(found[name] - 2) < 4 * found[f'{name}_error']).all(), name


def test_the_slope_of_exact_quantiles_is_the_dimension():
  """mu = (1 - i / N)^(-1 / d) lies on the line; what is discarded may be anything larger."""
  t = -np.log1p(-np.arange(1, 101) / 101) / 3.5
  t[95:] += 7
  np.testing.assert_allclose(slope(np.append(t, 9.)[::-1], .1)[0], 3.5, rtol=1e-12)


def test_errors_are_those_of_the_model():
  """Ratios drawn from the model itself: mu^-d is Beta(n1, n1). Means over 2,000 draws of 200 rows, d = 4."""
  rng = np.random.default_rng(0)
  for n1 in (1, 2, 8):
    t = -np.log(rng.beta(n1, n1, (2000, 200))) / 4
    d, error = np.transpose([gride(row, n1) for row in t])
    assert abs(d.mean() - 4) < 4 * d.std() / np.sqrt(2000) + 4 / 200 / 5
    np.testing.assert_allclose(error.mean(), d.std(), rtol=.06)
    if n1 == 1:
      d, error = np.transpose([slope(row, .1) for row in t])
      np.testing.assert_allclose(error.mean(), d.std(), rtol=.06)
      np.testing.assert_allclose(d.mean(), 4, rtol=.03)


def test_distances_in_blocks(monkeypatch):
  x, ranks = np.random.default_rng(0).normal(size=(50, 3)), np.array([1, 2, 4, 49])
  whole = neighbour_distances(x, ranks)
  monkeypatch.setattr('aspects.features.intrinsic_dimension.ENTRIES', 7 * 50)
  np.testing.assert_array_equal(neighbour_distances(x, ranks), whole)
  np.testing.assert_allclose(whole, np.sort(np.linalg.norm(x[:, None] - x, axis=2))[:, ranks], rtol=1e-12)


def test_equal_rows_count_once():
  x = np.random.default_rng(1).normal(size=(80, 4))
  with pytest.warns(UserWarning, match=r"\['repeated'\] have rows among their 120 that are equal"):
    found = measured({'repeated': np.concatenate([x, x[:40]]), 'other': np.random.default_rng(2).normal(size=(120, 4))})
  alone = measured({'x': x})
  np.testing.assert_array_equal(found.distinct_rows, [80, 120])
  for name in ('two_nn_linear', 'two_nn_linear_error', 'two_nn_likelihood'):
    np.testing.assert_allclose(found[name][0], alone[name][0], rtol=1e-6, err_msg=name)
  np.testing.assert_allclose(found.gride[0], alone.gride.reindex(scale=found.scale)[0], rtol=1e-6)


def test_ties():
  """The two nearest on a square lattice are equally far, so that 2NN sees nothing; Gride sees its edges at scale 2."""
  grid = np.stack(np.meshgrid(np.arange(16.), np.arange(16.)), -1).reshape(-1, 2)
  with pytest.warns(UserWarning, match=r"\['lattice'\] have two nearest neighbours that are equally far"):
    found = measured({'lattice': grid}).sel(site='lattice')
  for name in ('two_nn_linear', 'two_nn_linear_error', 'two_nn_likelihood', 'two_nn_likelihood_error'):
    assert np.isnan(found[name]), name
  assert np.isnan(found.gride[0]) and found.gride_distance[0] == 1
  inside, edge, corner = 14 ** 2, 4 * 14, 4
  fourth = np.repeat([0, np.log(2) / 2, np.log(2)], [inside, edge, corner])
  np.testing.assert_allclose(found.gride.sel(scale=2), most_likely(np.exp(fourth + 1e-6), 2)[0], rtol=1e-4)


def test_tied_ratios_are_the_limit_of_near_ones():
  t = np.random.default_rng(0).exponential(size=40)
  tied, near = np.where(np.arange(40) < 10, 0, t), np.where(np.arange(40) < 10, 1e-9, t)
  for n1 in (1, 2, 8):
    np.testing.assert_allclose(gride(tied, n1), gride(near, n1), rtol=1e-6)
  assert np.isfinite(gride(np.eye(1, 4000)[0], 4)).all()


def test_sites_without_a_dimension_are_named():
  x = np.random.default_rng(3).normal(size=(30, 2))
  with pytest.warns(UserWarning, match=r"\['constant', 'two points'\] have fewer than 3 distinct rows among their 30"):
    found = measured({'x': x, 'constant': 0 * x + 5, 'two points': np.sign(x[:, :1])})
  np.testing.assert_array_equal(found.distinct_rows, [30, 1, 2])
  for name in found:
    if name != 'distinct_rows':
      assert np.isnan(found[name].values[1:]).all() and np.isfinite(found[name].values[0]).all(), name


def test_duplicated_and_constant_units():
  x = layers()['2 dimensions']
  found = measured({'x': x, 'doubled': np.concatenate([x, x], 1), 'with constants': np.concatenate([x, 0 * x + 7], 1)})
  for name in found:
    factor = [1, np.sqrt(2), 1] if name == 'gride_distance' else [1, 1, 1]
    for value, times in zip(found[name].values, factor):
      np.testing.assert_allclose(value, found[name].values[0] * times, rtol=1e-10, err_msg=name)


def test_fewest_rows_and_wrong_fields():
  x = np.random.default_rng(4).normal(size=(3, 5))
  fewest = measured({'x': x})
  np.testing.assert_array_equal(fewest.scale, [1])
  np.testing.assert_allclose(fewest.two_nn_likelihood, oracle({'x': x})['two_nn_likelihood'], rtol=1e-6)
  np.testing.assert_allclose(fewest.two_nn_likelihood_error, fewest.two_nn_likelihood)
  with pytest.raises(ValueError, match='intrinsic dimension needs at least 3 rows, got 2; use more examples'):
    measured({'x': x[:2]})
  with pytest.raises(ValueError, match="'x' has activations that are not finite"):
    measured({'x': np.full((8, 2), np.nan)})
  with pytest.raises(ValueError, match=r'discard 1\.0 is not a share'):
    IntrinsicDimension(discard=1.)
  with pytest.raises(ValueError, match='most_neighbours 1 is below 2'):
    IntrinsicDimension(most_neighbours=1)


def test_the_sample_is_said():
  found = measured({'x': np.random.default_rng(5).normal(size=(90, 3))}, size=50, seed=3)
  assert found.attrs['rows'] == found.distinct_rows == 50
  assert found.attrs['sample'] == 'at most 50 rows, drawn uniformly with seed 3'
