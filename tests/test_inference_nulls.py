"""Permutation nulls of Gram matrices and their moments, calibrated scores, type-I errors, intervals of noise ceilings.

Brute force, enumeration of all permutations and simulation. A simulated count fails by chance in 1 of 10,000 cases."""
import itertools

import numpy as np
import pytest
from scipy import stats

from aspects import inference
from aspects.nn import hsic

PREPARE = (hsic.centred, hsic.u_centred)


def plausible(hits, n, p):
  """Whether a count is one that a binomial of chance `p` gives in all but 1 of 10,000 cases."""
  return stats.binomtest(int(hits), n, p).pvalue > 1e-4


def not_more(hits, n, p):
  return stats.binomtest(int(hits), n, p, alternative='greater').pvalue > 1e-4


def grams(rng, layers, n, width, prepare=hsic.centred):
  """Prepared linear Gram matrices [L, n, n] of skewed rows, each layer on its own."""
  x = rng.exponential(size=(layers, n, width))
  return prepare(x @ x.swapaxes(1, 2))


def inner(left, right):
  return np.einsum('lij,mij->lm', left, right)


# --- Permutations of Gram matrices --------------------------------------------------------------

@pytest.mark.parametrize('prepare', PREPARE)
@pytest.mark.parametrize('n, right', ((9, 3), (50, 40)))     # 50 rows of 40 matrices are moved in two parts
def test_null_of_grams_equals_recomputing_from_shuffled_rows(prepare, n, right):
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, n, 4)), rng.normal(size=(right, n, 5))
  gram = lambda rows: prepare(rows @ rows.swapaxes(1, 2))
  got = inference.gram_null(gram(x), gram(y), draws=25, seed=3)
  orders = inference.permutation_null(lambda p: p, n, draws=25, seed=3).astype(int)
  for null, order in zip(got, orders):
    np.testing.assert_allclose(null, inner(gram(x), gram(y[:, order])), rtol=0, atol=1e-10)


def test_null_of_grams_asks_for_grams_of_the_same_rows():
  k = np.zeros((2, 5, 5))
  with pytest.raises(ValueError, match='left has 5 rows and right 4'):
    inference.gram_null(k, k[:, :4, :4])
  with pytest.raises(ValueError, match=r'right of shape \(5, 5\)'):
    inference.gram_moments(k, k[0])


@pytest.mark.parametrize('prepare', PREPARE)
@pytest.mark.parametrize('n', (4, 5, 6))
def test_moments_equal_those_of_all_permutations(prepare, n):
  """From 6 rows on every way in which the six indices of the third moment coincide occurs."""
  rng = np.random.default_rng(n)
  left, right = grams(rng, 2, n, 3, prepare), grams(rng, 3, n, 2, prepare)
  every = [inner(left, right[:, p][:, :, p]) for p in map(list, itertools.permutations(range(n)))]
  got, scale = inference.gram_moments(left, right), np.std(every, axis=0).max()
  np.testing.assert_allclose(got.mean, np.mean(every, axis=0), rtol=0, atol=1e-12 * scale + 1e-12)
  np.testing.assert_allclose(got.sd, np.std(every, axis=0), rtol=1e-10)
  np.testing.assert_allclose(got.skewness, stats.skew(every, axis=0), rtol=0, atol=1e-9)


def test_moments_of_one_unit_are_those_of_a_squared_correlation():
  """The squared correlation of two units has mean 1 / (n - 1); of normal scores it is chi-squared of one degree."""
  x = stats.norm.ppf((np.arange(400) + .5) / 400)[None, :, None]
  x /= np.linalg.norm(x)
  got = inference.gram_moments(x @ x.swapaxes(1, 2), x @ x.swapaxes(1, 2))
  np.testing.assert_allclose(got.mean, 1 / 399, rtol=1e-9)
  np.testing.assert_allclose([got.sd[0, 0] * 399, got.skewness[0, 0]], [2 ** .5, 8 ** .5], rtol=.02)


def test_moments_are_those_of_drawn_permutations():
  rng = np.random.default_rng(1)
  left, right = grams(rng, 2, 60, 5), grams(rng, 2, 60, 70)
  null, exact = inference.gram_null(left, right, draws=4000), inference.gram_moments(left, right)
  z = (null - exact.mean) / exact.sd
  assert (abs(z.mean(0)) < 4 / 4000 ** .5).all()
  np.testing.assert_allclose((z ** 2).mean(0), 1, atol=.12)
  np.testing.assert_allclose((z ** 3).mean(0), exact.skewness, atol=.4)


def test_grams_that_do_not_vary_have_p_1():
  flat, k = np.zeros((1, 6, 6)), grams(np.random.default_rng(2), 1, 6, 2)
  exact = inference.gram_moments(flat, k)
  assert (exact.sd, exact.skewness, inference.p_moments([[0.]], exact)) == (0, 0, 1)


def test_pearson_p_in_its_limits():
  """Skewness 0 is the normal law, 2 the exponential one."""
  law = lambda skewness: inference.Moments(*map(np.asarray, (3., 2., skewness)))
  np.testing.assert_allclose(inference.p_moments(6., law(0.)), stats.norm.sf(1.5), rtol=1e-12)
  np.testing.assert_allclose(inference.p_moments(6., law(2.)), np.exp(-2.5), rtol=1e-12)


# --- Calibrated scores --------------------------------------------------------------------------

@pytest.mark.parametrize('alpha', (.01, .05, .1, .5, .99))
def test_threshold_is_exceeded_exactly_where_p_is_at_most_alpha(alpha):
  rng = np.random.default_rng(3)
  null = np.round(rng.normal(size=(199, 7)), 1)            # with ties
  observed = np.round(rng.normal(size=(400, 7)) * 2, 1)
  small = np.stack([inference.p_value(o, null) <= alpha + 1e-12 for o in observed])
  np.testing.assert_array_equal(observed > inference.threshold(null, alpha), small)
  np.testing.assert_array_equal(inference.calibrated(observed, null, alpha=alpha, most=9.) > 0, small)


def test_threshold_needs_draws():
  with pytest.raises(ValueError, match='alpha 0.05 with 18 draws.*at least 19'):
    inference.threshold(np.zeros(18), .05)
  assert inference.threshold(np.arange(19.), .05) == 18
  for alpha in (0., 1.):
    with pytest.raises(ValueError, match=r'alpha in \(0, 1\)'):
      inference.threshold(np.zeros(50), alpha)


def test_calibrated_scores_by_hand():
  null = np.array([[0., .4], [.2, .6]])
  np.testing.assert_allclose(inference.calibrated([1., .5], null), [1, 0], atol=1e-15)
  np.testing.assert_allclose(inference.calibrated([.1, 0.], null), [0, -1], atol=1e-15)
  np.testing.assert_allclose(inference.calibrated([.6, .7], null, alpha=.5), [(.6 - .2) / .8, (.7 - .6) / .4])
  np.testing.assert_allclose(inference.calibrated([1., 3.], null, most=2.), [.9 / 1.9, 2.5 / 1.5])
  assert np.isnan(inference.calibrated(1., np.ones(3)))


def test_calibrated_cka_of_independent_layers_is_centred_at_0():
  """Biased CKA of independent layers is .5 here; the mean over 300 pairs of layers lies within 4 errors of 0."""
  rng, scores = np.random.default_rng(4), []
  for seed in range(300):
    k = grams(rng, 2, 20, 20)
    k /= np.linalg.norm(k, axis=(1, 2), keepdims=True)
    null = inference.gram_null(k[:1], k[1:], draws=50, seed=seed)
    scores.append([(k[0] * k[1]).sum(), inference.calibrated((k[0] * k[1]).sum(), null)[0, 0]])
  raw, calibrated = np.array(scores).T
  assert raw.min() > .3
  assert abs(calibrated.mean()) < 4 * calibrated.std() / 300 ** .5


# --- Type-I errors ------------------------------------------------------------------------------

P_VALUES = {'student': inference.student, 'student, greater': lambda x: inference.student(x, side='greater'),
            'student, less': lambda x: inference.student(x, side='less'),
            'paired': lambda x: inference.paired(x[:3] + 2, x[3:] + 2).p}


@pytest.mark.parametrize('name', P_VALUES)
def test_parametric_p_is_uniform_under_its_null(name):
  p = P_VALUES[name](np.random.default_rng(5).normal(size=(6, 20000)))
  assert stats.kstest(p, 'uniform').pvalue > 1e-4


def test_drawn_sign_flips_are_uniform_under_their_null():
  p = np.array([inference.signflip(d) for d in np.random.default_rng(6).laplace(size=(1500, 18))])
  assert stats.kstest(p, 'uniform').pvalue > 1e-4


@pytest.mark.parametrize('prepare', PREPARE)
def test_p_of_independent_layers_is_uniform(prepare):
  rng, drawn, closed = np.random.default_rng(7), [], []
  for seed in range(3000):
    left, right = grams(rng, 1, 14, 3, prepare), grams(rng, 1, 14, 20, prepare)
    observed = inner(left, right)
    drawn.append(inference.p_value(observed, inference.gram_null(left, right, draws=59, seed=seed))[0, 0])
    closed.append(inference.p_moments(observed, inference.gram_moments(left, right))[0, 0])
  counts = np.bincount(np.rint(np.array(drawn) * 60).astype(int) - 1, minlength=60).reshape(10, 6).sum(1)
  assert stats.chisquare(counts).pvalue > 1e-4
  for level in (.01, .05, .2, .5):                          # by three moments only, and yet
    assert plausible((np.array(closed) <= level).sum(), 3000, level), level


def family_errors(rng, layers, trials, draws=39):
  """How often p_best and p, at 1/20, reject anything among the pairs of `layers(rng) -> left, right, pairs`."""
  best = single = 0
  for seed in range(trials):
    left, right, pairs = layers(rng)
    null = inference.gram_null(left, right, draws=draws, seed=seed)
    exact = inference.gram_moments(left, right)
    standard = lambda x: ((x - exact.mean) / exact.sd)[..., *pairs]
    observed, null = standard(inner(left, right)), standard(null)
    best += inference.p_best(observed, null).min() <= .05
    single += inference.p_value(observed, null).min() <= .05
  return best, single


def two_networks(rng):
  """Two networks of three layers; layers of one are alike, rows of the two are independent."""
  left, right = (rng.normal(size=(12, 4))[None] + .7 * rng.normal(size=(3, 12, 4)) for _ in range(2))
  return *(hsic.centred(x @ x.swapaxes(1, 2)) for x in (left, right)), (slice(None), slice(None))


def one_network(rng):
  """Four layers that have nothing to do with each other, each pair once."""
  k = grams(rng, 4, 12, 3)
  return k, k, np.triu_indices(4, 1)


def test_p_best_of_two_networks_has_its_level():
  best, single = family_errors(np.random.default_rng(8), two_networks, 1200)
  assert plausible(best, 1200, .05) and not not_more(single, 1200, .05)


def test_p_best_of_one_network_has_its_level():
  best, single = family_errors(np.random.default_rng(9), one_network, 1200)
  assert plausible(best, 1200, .05) and not not_more(single, 1200, .05)


def test_corrections_control_what_they_say():
  """Independent tests: Benjamini-Hochberg errs at its level exactly (Simes), Holm at 1 - (1 - a / m)^m."""
  p = np.random.default_rng(10).random((8000, 10))
  q, corrected = (np.stack([f(row) for row in p]).min(1) for f in (inference.benjamini_hochberg, inference.holm))
  assert plausible((q <= .05).sum(), 8000, .05)
  assert plausible((corrected <= .05).sum(), 8000, 1 - .995 ** 10)


def test_false_discoveries_are_their_share_of_the_level():
  """Of 20 independent tests 15 are null: the expected share of false ones among q <= .2 is .2 * 15 / 20 exactly."""
  rng, share = np.random.default_rng(11), []
  for _ in range(4000):
    p = np.concatenate([rng.random(15), stats.norm.sf(rng.normal(2.5, 1, 5))])
    found = inference.benjamini_hochberg(p) <= .2
    share.append(found[:15].sum() / max(found.sum(), 1))
  assert abs(np.mean(share) - .15) < 4 * np.std(share) / 4000 ** .5


# --- Intervals of noise ceilings ----------------------------------------------------------------

def seeds_of(rng, seeds, items, noise):
  return rng.normal(size=(1, items)) + noise * rng.normal(size=(seeds, items))


def test_jackknife_of_a_mean_is_students_interval():
  x = np.random.default_rng(20).normal(size=(7, 3))
  got = inference.jackknife(x, lambda v: v.mean(0), alpha=.05)
  np.testing.assert_allclose(got, inference.interval(x, alpha=.05), rtol=1e-12)
  short = inference.jackknife(x[:2], lambda v: v.mean(0))
  np.testing.assert_allclose(short.estimate, x[:2].mean(0))
  assert np.isnan([short.low, short.high]).all()


@pytest.mark.parametrize('over', ('items', 'seeds'))
def test_intervals_surround_what_they_are_of(over):
  x = seeds_of(np.random.default_rng(12), 6, 40, .8)
  got = inference.reliability(x, over=over)
  np.testing.assert_allclose(got.estimate, inference.split_half(x, splits=20), rtol=1e-12)
  assert got.low < got.estimate < got.high
  for kind in ('pearson', 'spearman'):
    found = inference.noise_ceiling(x, kind=kind, over=over)
    for bound, value in zip(found, inference.ceiling(x, kind=kind)):
      np.testing.assert_allclose(bound.estimate, value, rtol=1e-12)
      assert bound.low < bound.estimate < bound.high
  with pytest.raises(ValueError, match="'layers'; 'items' or 'seeds'"):
    inference.noise_ceiling(x, over='layers')
  with pytest.raises(ValueError, match='two seeds'):
    inference.reliability(x[:1], over=over)


def test_items_of_a_bootstrap_keep_their_seeds():
  """By a loop over the same resamples: percentile bounds are the quantiles of the values of the resampled items."""
  x = seeds_of(np.random.default_rng(13), 4, 12, 1.)
  options = dict(method='percentile', draws=200, seed=1, alpha=.05)
  index = np.random.default_rng(1).integers(0, 12, (200, 12))
  got = inference.reliability(x, **options)
  each = [inference.split_half(x[:, i], splits=20) for i in index]
  np.testing.assert_allclose((got.low, got.high), np.quantile(each, (.05, .95)), rtol=1e-10)
  each = np.array([inference.ceiling(x[:, i], kind='spearman') for i in index])
  for bound, values in zip(inference.noise_ceiling(x, kind='spearman', **options), each.T):
    np.testing.assert_allclose((bound.low, bound.high), np.quantile(values, (.05, .95)), rtol=1e-10)


def test_reliability_without_a_seed_is_still_that_of_all():
  """Of parallel seeds: r between two, stepped up to S; the jackknife changes seeds, not what is estimated."""
  x = seeds_of(np.random.default_rng(16), 4, 200000, 1.)
  got = inference.reliability(x, over='seeds')
  np.testing.assert_allclose((got.estimate, got.low, got.high), .8, atol=.02)


def test_equal_seeds_have_a_ceiling_without_spread():
  x = np.tile(np.random.default_rng(14).normal(size=9), (3, 1))
  for over in ('items', 'seeds'):
    np.testing.assert_allclose(inference.noise_ceiling(x, over=over), np.ones((2, 3)), rtol=1e-12)
    np.testing.assert_allclose(inference.reliability(x, over=over), 1, rtol=1e-12)


def test_intervals_over_items_cover_the_population():
  """Items of variance 1 and noise of variance 1: reliability of the mean of S seeds 1 / (1 + 1 / S), and its ceilings.

  Where 95 are asked, a long run covered 90 to 93 of 100 intervals at 20 and 50 items."""
  seeds, rng, inside = 5, np.random.default_rng(15), np.zeros(3)
  truth = [1 / (1 + 1 / seeds), 1 / np.sqrt(2 * (1 + 1 / (seeds - 1))), np.sqrt((1 + 1 / seeds) / 2)]
  options = dict(method='percentile', draws=200)
  for _ in range(200):
    x = seeds_of(rng, seeds, 30, 1.)
    found = (inference.reliability(x, **options), *inference.noise_ceiling(x, **options))
    inside += [i.low < t < i.high for i, t in zip(found, truth)]
  assert all(plausible(hits, 200, .92) for hits in inside), inside


def test_intervals_over_seeds_cover_at_fixed_items():
  """The mean ceiling and reliability of S seeds of twelve fixed items, themselves means of simulated ones."""
  rng = np.random.default_rng(17)
  items = rng.normal(size=(1, 12))
  draw = lambda: items + rng.normal(size=(6, 12))
  truth = np.mean([(inference.split_half(x, splits=20), *inference.ceiling(x)) for x in (draw() for _ in range(1500))],
                  axis=0)
  inside = np.zeros(3)
  for _ in range(160):
    x = draw()
    found = (inference.reliability(x, over='seeds'), *inference.noise_ceiling(x, over='seeds'))
    inside += [i.low < t < i.high for i, t in zip(found, truth)]
  assert all(plausible(hits, 160, .95) for hits in inside), inside
