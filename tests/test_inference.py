"""Intervals, nulls, corrections and verdicts against scipy, hand-worked values and simulation."""
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from aspects import inference

SIDES = ('two-sided', 'greater', 'less')


def plausible(hits, n, p):
  """Whether a count is one that a binomial of chance `p` gives in all but 1 of 10,000 cases."""
  return stats.binomtest(int(hits), n, p).pvalue > 1e-4


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape)


# --- Student ----------------------------------------------------------------------------------

@pytest.mark.parametrize('axis', [0, 1, -1])
def test_interval_is_scipys_along_any_axis(axis):
  x = normal(0, 4, 5, 6) + 1e4
  ours = inference.interval(x, axis=axis, alpha=.05)
  theirs = stats.ttest_1samp(x, 0, axis=axis).confidence_interval(.9)
  np.testing.assert_allclose(ours.low, theirs.low, rtol=1e-12)
  np.testing.assert_allclose(ours.high, theirs.high, rtol=1e-12)
  np.testing.assert_allclose(ours.estimate, x.mean(axis), rtol=1e-15)


def test_interval_with_a_prior_by_hand():
  got = inference.interval([0., 2.], prior=(4., 3.))     # (1 * 2 + 3 * 4) / 4 = 3.5 with 4 degrees
  half = 2.7764451051977987 * np.sqrt(3.5 / 2)           # the table's t of 4 degrees
  np.testing.assert_allclose(got, (1, 1 - half, 1 + half), rtol=1e-12)


def test_a_strong_prior_is_the_normal_interval_and_a_weak_one_changes_nothing():
  x = normal(1, 6)
  strong = inference.interval(x, prior=(2., 1e9))
  np.testing.assert_allclose(strong.high - x.mean(), 1.959963985 * np.sqrt(2 / 6), rtol=1e-7)
  weak, none = inference.interval(x, prior=(2., 1e-9)), inference.interval(x)
  np.testing.assert_allclose(weak, none, rtol=1e-7)


def test_interval_covers_on_each_side_at_five_seeds():
  got = inference.interval(normal(2, 5, 20000))
  assert plausible((got.low > 0).sum(), 20000, .025)
  assert plausible((got.high < 0).sum(), 20000, .025)


@pytest.mark.parametrize('side', SIDES)
def test_student_is_scipys(side):
  x = normal(3, 7, 4) + .5
  np.testing.assert_allclose(inference.student(x, tau=.2, side=side),
                             stats.ttest_1samp(x, .2, alternative=side).pvalue, rtol=1e-12)


def test_student_without_spread():
  assert inference.student([0., 0., 0.]) == 1
  assert inference.student([0., 0., 0.], side='greater') == .5
  assert inference.student([1., 1.], side='greater') == 0
  assert inference.student([1., 1.], side='less') == 1


def test_paired_is_scipys():
  ours, baseline = normal(4, 9, 3), normal(5, 9, 3)
  got = inference.paired(ours, baseline)
  theirs = stats.ttest_rel(ours, baseline)
  np.testing.assert_allclose(got.p, theirs.pvalue, rtol=1e-12)
  np.testing.assert_allclose((got.low, got.high), theirs.confidence_interval(.95), rtol=1e-12)
  np.testing.assert_allclose(got.sd, (ours - baseline).std(0, ddof=1), rtol=1e-12)
  expected = [np.corrcoef(ours[:, i], baseline[:, i])[0, 1] for i in range(3)]
  np.testing.assert_allclose(got.rho, expected, rtol=1e-12)
  assert got.n == 9


def test_identical_arms_have_no_difference():
  got = inference.paired([.1, .2, .3], [.1, .2, .3])
  assert (got.estimate, got.low, got.high, got.sd, got.p) == (0, 0, 0, 0, 1)
  np.testing.assert_allclose(got.rho, 1, rtol=1e-12)


def test_one_seed_has_an_estimate_and_no_interval():
  for got in (inference.interval([[3., 4.]]), inference.interval([[3., 4.]], prior=(1., 5.)),
              inference.bootstrap([[3., 4.]])):
    np.testing.assert_array_equal(got.estimate, [3, 4])
    assert np.isnan([got.low, got.high]).all()
  pair = inference.paired([3.], [1.])
  assert pair.estimate == 2 and np.isnan([pair.low, pair.high, pair.sd, pair.rho, pair.p]).all()
  assert inference.decide('superior', low=pair.low, high=pair.high, eps=1.) == 'inconclusive'


@pytest.mark.parametrize('function', [
  inference.interval, inference.student, inference.signflip, inference.bootstrap,
  lambda x: inference.paired(x, x)])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_what_is_not_finite_is_refused(function, value):
  with pytest.raises(ValueError, match='1 of 3 values are not finite'):
    function([1., value, 2.])
  with pytest.raises(ValueError, match='no values along axis 0'):
    function([])


def test_unknown_names_are_refused_with_the_known_ones():
  with pytest.raises(ValueError, match="'left'.*'less'"):
    inference.student([1., 2.], side='left')
  with pytest.raises(ValueError, match="'normal'.*'bca'"):
    inference.bootstrap([1., 2.], method='normal')
  with pytest.raises(ValueError, match="'cosine'.*'spearman'"):
    inference.ceiling(normal(0, 2, 5), kind='cosine')
  with pytest.raises(ValueError, match=r'\(3,\) and \(2,\) do not pair'):
    inference.paired([1., 2., 3.], [1., 2.])


# --- Sign flips and permutations --------------------------------------------------------------

@pytest.mark.parametrize('d, tau, p', [
  ([1, 2, 3], 0, 1 / 8), ([1, 2, -3], 0, 5 / 8), ([2, 3, 4], 1, 1 / 8), ([-1, -2], 0, 1),
  ([0, 0], 0, 1), ([.1, .2, -.3], 0, 5 / 8), ([1e-15, 2e-15, 3e-15], 0, 1 / 8), ([7], 0, 1 / 2),
  (range(1, 17), 0, 2. ** -16)])
def test_signflip_by_hand(d, tau, p):
  assert inference.signflip(d, tau=tau) == p


def test_signflip_is_scipys_exact_paired_permutation():
  x, y = normal(6, 9) + .4, normal(7, 9)
  theirs = stats.permutation_test((x, y), lambda a, b: (a - b).mean(), n_resamples=np.inf,
                                  permutation_type='samples', alternative='greater').pvalue
  np.testing.assert_allclose(inference.signflip(x - y), theirs, rtol=1e-12)


def test_signflip_above_sixteen_estimates_the_exact_p():
  d = normal(8, 18) + .3
  signs = np.array(list(itertools.product((-1, 1), repeat=18)), np.int8)
  exact = (signs @ d >= d.sum() - 1e-9).mean()
  assert plausible(round(inference.signflip(d) * 20001) - 1, 20000, exact)
  assert inference.signflip(np.ones(40), draws=99) == .01
  assert inference.signflip(d, seed=3) == inference.signflip(d, seed=3)


def test_signflip_is_uniform_under_its_null():
  p = np.array([inference.signflip(d, tau=2) for d in normal(9, 4000, 6) + 2])
  for level in (1, 3, 16, 32, 60):                          # p is a multiple of 1/64
    assert plausible((p <= level / 64).sum(), 4000, level / 64)


def test_permutations_from_an_index_equal_recomputing():
  x, y = normal(10, 8, 3), normal(11, 8, 2)
  K, L = x @ x.T, y @ y.T
  null = inference.permutation_null(lambda i: (K * L[i][:, i]).sum(), 8, draws=20, seed=5)
  index = inference.permutation_null(lambda i: i, 8, draws=20, seed=5).astype(int)
  np.testing.assert_array_equal(np.sort(index), np.tile(np.arange(8), (20, 1)))
  assert len(np.unique(index, axis=0)) == 20
  np.testing.assert_allclose(null, [np.linalg.norm(x.T @ y[i]) ** 2 for i in index], rtol=1e-12)


def test_p_values_by_hand():
  null = np.array([[1., 5.], [2., 1.], [9., 0.]])
  np.testing.assert_array_equal(inference.p_value([4., 8.], null), [2 / 4, 1 / 4])
  np.testing.assert_array_equal(inference.p_best([4., 8.], null), [3 / 4, 2 / 4])
  assert inference.p_value(.1 + .2, [.3, .2]) == 2 / 3      # a tie that only rounding breaks
  with pytest.raises(ValueError, match='not finite'):
    inference.p_value(1., [0., np.nan])


def test_permutation_p_is_uniform_and_the_best_of_a_family_is_corrected():
  rng = np.random.default_rng(12)
  single, naive, corrected = [], [], []
  for seed in range(1000):
    x, y = rng.normal(size=10), rng.normal(size=(10, 12))
    null = inference.permutation_null(lambda i: x[i] @ y, 10, draws=99, seed=seed)
    single.append(inference.p_value(x @ y, null)[0])
    naive.append(inference.p_value(x @ y, null).min())
    corrected.append(inference.p_best(x @ y, null).min())
  assert stats.chisquare(np.histogram(single, np.arange(0, 1.1, .1) + .005)[0]).pvalue > 1e-4
  assert plausible((np.array(corrected) <= .05).sum(), 1000, .05)
  assert (np.array(naive) <= .05).mean() > .3


# --- Bootstrap --------------------------------------------------------------------------------

@pytest.mark.parametrize('statistic', [np.mean, np.var, np.median])
@pytest.mark.parametrize('method, name', [('bca', 'BCa'), ('percentile', 'percentile')])
def test_bootstrap_is_scipys(method, name, statistic):
  x = np.random.default_rng(13).exponential(size=(12, 3))
  got = inference.bootstrap(x.T, statistic, axis=1, method=method, draws=999, seed=7, alpha=.05)
  theirs = [stats.bootstrap((x[:, i],), statistic, n_resamples=999, method=name, vectorized=True,
                            confidence_level=.9, rng=np.random.default_rng(7)).confidence_interval
            for i in range(3)]
  np.testing.assert_allclose(np.stack(got[1:], -1), theirs, rtol=1e-10)
  np.testing.assert_allclose(got.estimate, statistic(x, axis=0), rtol=1e-12)


def test_bootstrap_in_blocks_equals_each_column_alone():
  x = normal(14, 20, 300)                                   # 2000 draws: two blocks of resamples
  many = inference.bootstrap(x)
  np.testing.assert_allclose(many.low[7], inference.bootstrap(x[:, 7]).low, rtol=1e-12)


def test_bootstrap_of_a_constant_is_the_constant():
  for method in ('bca', 'percentile'):
    np.testing.assert_array_equal(inference.bootstrap(np.full((5, 2), 3.), method=method),
                                  np.full((3, 2), 3.))


def test_bootstrap_covers_84_percent_at_five_seeds():
  got = inference.bootstrap(normal(15, 5, 4000), method='percentile', draws=500)
  assert .82 < ((got.low < 0) & (got.high > 0)).mean() < .86


# --- Closed-form nulls ------------------------------------------------------------------------

@pytest.mark.parametrize('n, d, e', [(20, 8, 30), (60, 10, 100), (120, 40, 40)])
def test_nulls_are_the_means_of_simulated_ones(n, d, e):
  x, y = normal(16, 300, n, d), normal(17, 300, n, e)
  x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
  K, L = x @ x.swapaxes(1, 2), y @ y.swapaxes(1, 2)
  cka = (K * L).sum((1, 2)) / np.sqrt((K ** 2).sum((1, 2)) * (L ** 2).sum((1, 2)))
  np.testing.assert_allclose(inference.null_cka((d, e), n), cka.mean(), rtol=.02)
  ratio = np.trace(K, axis1=1, axis2=2) ** 2 / (K ** 2).sum((1, 2))
  np.testing.assert_allclose(inference.null_participation(d, n), ratio.mean(), rtol=.01)
  bases = [np.linalg.qr(z[..., :n - 1])[0] for z in (x, y)]     # n - 1 columns span all there is
  rank = min(b.shape[-1] for b in bases)
  cca = ((bases[0].swapaxes(1, 2) @ bases[1]) ** 2).sum((1, 2)) / rank
  np.testing.assert_allclose(inference.null_cca((d, e), n), cca.mean(), rtol=.02)


def test_null_of_neighbours_is_the_simulated_one():
  def neighbours(x):
    distance = ((x[:, None] - x[None]) ** 2).sum(-1) + np.diag(np.full(len(x), np.inf))
    return np.argsort(distance, axis=1)[:, :4]
  shared = [len(set(a) & set(b)) / 4 for seed in range(40)
            for a, b in zip(neighbours(normal(seed, 30, 3)), neighbours(normal(seed + 99, 30, 5)))]
  np.testing.assert_allclose(np.mean(shared), inference.null_neighbours(4, 30), atol=.02)


def test_nulls_agree_with_their_large_sample_forms_and_broadcast():
  d, n = np.array([3., 50.]), 10 ** 6
  m = n - 1
  got = inference.null_cka((d[:, None], d[None]), n)
  np.testing.assert_allclose(got, np.sqrt(np.outer(d, d) / np.outer(d + m, d + m)), rtol=1e-5)
  np.testing.assert_allclose(inference.null_participation(d, n), d / (1 + d / m), rtol=1e-5)
  assert inference.null_cca((5, 80), 41) == 1
  np.testing.assert_allclose(inference.null_participation(1e9, 11), 10, rtol=1e-6)


# --- Multiple testing -------------------------------------------------------------------------

def rejected_by(p, level, step):
  """What the procedure rejects at `level`, straight from its definition."""
  order, m = np.argsort(p), len(p)
  bound = level * np.arange(1, m + 1) / m if step == 'up' else level / np.arange(m, 0, -1)
  passed = p[order] <= bound
  count = (np.flatnonzero(passed).max(initial=-1) + 1 if step == 'up'
           else m if passed.all() else np.argmin(passed))
  return set(order[:count])


@pytest.mark.parametrize('function, step', [(inference.benjamini_hochberg, 'up'),
                                            (inference.holm, 'down')])
def test_corrected_p_is_the_level_at_which_the_procedure_rejects(function, step):
  p = np.random.default_rng(18).random(12) ** 3
  p[3] = p[5]
  corrected = function(p)
  for level in np.concatenate([corrected[corrected < 1] * (1 + 1e-9), [.01, .05, .2, .7]]):
    assert rejected_by(p, level, step) == set(np.flatnonzero(corrected <= level))


def test_corrections_by_hand_and_in_shape():
  p = np.array([[.01, .04], [.03, .9]])
  np.testing.assert_allclose(inference.benjamini_hochberg(p), [[.04, .16 / 3], [.16 / 3, .9]])
  np.testing.assert_allclose(inference.holm(p), [[.04, .09], [.09, .9]])
  np.testing.assert_allclose(inference.benjamini_hochberg(p.ravel()),
                             stats.false_discovery_control(p.ravel()))
  np.testing.assert_array_equal(p, [[.01, .04], [.03, .9]])
  for bad in (np.nan, -.1, 1.1):
    with pytest.raises(ValueError, match=r'outside \[0, 1\]'):
      inference.holm([.1, bad])


# --- Noise ceiling, power, correlation --------------------------------------------------------

@pytest.mark.parametrize('kind, correlate', [('pearson', stats.pearsonr),
                                             ('spearman', stats.spearmanr)])
def test_ceiling_is_the_loop(kind, correlate):
  x = normal(19, 6, 30) + 2 * normal(20, 30) + np.arange(6)[:, None]
  x *= np.arange(1, 7)[:, None]
  u = stats.rankdata(x, axis=1) if kind == 'spearman' else stats.zscore(x, axis=1)
  lower = [correlate(u[s], np.delete(u, s, 0).mean(0))[0] for s in range(6)]
  upper = [correlate(u[s], u.mean(0))[0] for s in range(6)]
  np.testing.assert_allclose(inference.ceiling(x, kind=kind), (np.mean(lower), np.mean(upper)),
                             rtol=1e-12)


def test_no_model_beats_the_upper_ceiling():
  x = normal(21, 4, 10) + normal(22, 10)
  models = np.concatenate([normal(23, 2000, 10), x, [stats.zscore(x, axis=1).mean(0)]])
  scores = np.corrcoef(models, x)[:-4, -4:].mean(1)
  np.testing.assert_allclose(scores.max(), inference.ceiling(x).upper, rtol=1e-12)


def test_ceiling_of_equal_and_of_constant_seeds():
  np.testing.assert_allclose(inference.ceiling(np.tile(normal(24, 9), (3, 1))), (1, 1), rtol=1e-12)
  assert inference.ceiling(np.full((3, 9), .1)) == (0, 0)


@pytest.mark.parametrize('seeds', [2, 5, 8])
def test_split_half_is_the_reliability_of_the_mean(seeds):
  x = normal(25, 100000) + 1.5 * normal(26, seeds, 100000)    # one split errs by .004
  np.testing.assert_allclose(inference.split_half(x, splits=5), 1 / (1 + 2.25 / seeds), atol=.015)
  with pytest.raises(ValueError, match=r'\(1, 100000\).*two seeds'):
    inference.split_half(x[:1])


def test_spearman_brown_by_hand():
  np.testing.assert_allclose(inference.spearman_brown([.5, 0., 1.]), [2 / 3, 0, 1])
  twice = inference.spearman_brown(inference.spearman_brown(.3), factor=3)
  np.testing.assert_allclose(twice, inference.spearman_brown(.3, factor=6))


@pytest.mark.parametrize('n, effect', [(5, 1.68), (8, 1.16), (16, .75), (32, .51)])
def test_detectable_effect_is_the_published_one_and_is_detected(n, effect):
  got = inference.detectable(n)
  assert round(got, 2) == effect
  low = inference.interval(normal(27, n, 20000) + got).low
  assert plausible((low > 0).sum(), 20000, .8)


def test_detectable_effect_in_its_limits():
  assert inference.detectable(1) == np.inf
  z = stats.norm.ppf(.975) + stats.norm.ppf(.9)
  np.testing.assert_allclose(inference.detectable(10 ** 5, power=.9), z / 10 ** 2.5, rtol=1e-4)


def test_fisher_is_scipys_and_covers_for_ranks():
  x, y = normal(28, 25), normal(29, 25)
  r, theirs = stats.pearsonr(x, y)[0], stats.pearsonr(x, y).confidence_interval(.95)
  np.testing.assert_allclose(inference.fisher(r, 25)[1:], theirs, rtol=1e-12)
  a = normal(30, 3000, 40)
  b = .5 * a + np.sqrt(.75) * normal(31, 3000, 40)
  ranks = [stats.zscore(stats.rankdata(z, axis=1), axis=1) for z in (a, b)]
  got = inference.fisher((ranks[0] * ranks[1]).mean(1), 40, rank=True)
  true = 6 / np.pi * np.arcsin(.25)
  assert .935 < ((got.low < true) & (true < got.high)).mean() < .965
  assert np.isnan(inference.fisher(.2, 3).low)
  with pytest.raises(ValueError, match=r'not inside \(-1, 1\)'):
    inference.fisher(1., 9)


def test_trend_is_spearmans_rho_per_seed_with_its_mean_in_z():
  curves, order = normal(32, 5, 8) + .3 * np.arange(8), np.arange(8) ** 2
  got = inference.trend(curves, order=order)
  rho = [stats.spearmanr(c, order)[0] for c in curves]
  np.testing.assert_allclose(got.rho, rho, rtol=1e-12)
  z = stats.ttest_1samp(np.arctanh(rho), 0).confidence_interval(.95)
  np.testing.assert_allclose(got[1:], np.tanh([np.arctanh(rho).mean(), z.low, z.high]), rtol=1e-10)


def test_trend_of_monotone_and_constant_curves():
  got = inference.trend([[1., 2., 3.], [2., 4., 8.]])     # one swap of three: rho 1/2, halfway 3/4
  np.testing.assert_allclose(got.rho, 1, rtol=1e-12)
  np.testing.assert_allclose(got[1:], .75, rtol=1e-12)
  assert inference.trend([[.1, .1, .1], [.3, .3, .3]]).estimate == 0
  with pytest.raises(ValueError, match='K >= 3'):
    inference.trend([[1., 2.]])


# --- Verdicts ---------------------------------------------------------------------------------

TABLE = {     # the decision table in words: (holds if, fails if)
  'superior': (lambda L, U, t, e, a, b: L > t, lambda L, U, t, e, a, b: U < t + e),
  'noninferior': (lambda L, U, t, e, a, b: L > -e, lambda L, U, t, e, a, b: U < -e),
  'equivalent': (lambda L, U, t, e, a, b: -e < L and U < e,
                 lambda L, U, t, e, a, b: L > e or U < -e),
  'band': (lambda L, U, t, e, a, b: a < L and U < b, lambda L, U, t, e, a, b: U < a or L > b)}


@pytest.mark.parametrize('kind', TABLE)
def test_decide_is_the_table_at_every_boundary(kind):
  grid = [-np.inf, -2., -1., -.5, 0., .25, .5, .75, 1., 1.5, 2., np.inf, np.nan]
  for (low, high), tau, eps, (a, b) in itertools.product(
      itertools.product(grid, grid), (0., .25, -1.), (.5, 1.), ((-1., 1.), (.5, .75))):
    holds, fails = (rule(low, high, tau, eps, a, b) for rule in TABLE[kind])
    margins = {'superior': dict(tau=tau, eps=eps), 'band': dict(band=(a, b))}
    margins = margins.get(kind, dict(eps=eps))
    if low <= high or np.isnan(low + high):
      expected = 'holds' if holds else 'fails' if fails else 'inconclusive'
      assert inference.decide(kind, low=low, high=high, **margins) == expected, (low, high, margins)


@pytest.mark.parametrize('kind, mean, margins', [
  ('superior', 0., dict(eps=1.)), ('superior', .5, dict(tau=.5, eps=1.)),
  ('noninferior', -1., dict(eps=1.)), ('equivalent', 1., dict(eps=1.)),
  ('equivalent', -1., dict(eps=1.)), ('band', 2., dict(band=(0., 2.)))])
def test_a_false_claim_holds_in_one_of_forty_at_its_boundary(kind, mean, margins):
  got = inference.interval(normal(33, 16, 4000) + mean)
  verdicts = [inference.decide(kind, low=a, high=b, **margins) for a, b in zip(got.low, got.high)]
  assert plausible(verdicts.count('holds'), 4000, .025)


@pytest.mark.parametrize('kind, margins, message', [
  ('better', dict(eps=1.), "'better'.*superior.*band"), ('superior', {}, 'eps None'),
  ('equivalent', dict(eps=0.), 'above 0'), ('noninferior', dict(eps=-1.), 'eps -1.0'),
  ('superior', dict(eps=np.nan), 'above 0'), ('band', dict(band=(1., 1.)), r'\(1.0, 1.0\)'),
  ('band', {}, 'band None')])
def test_a_claim_without_its_margin_is_refused(kind, margins, message):
  with pytest.raises(ValueError, match=message):
    inference.region(kind, **margins)


def test_combine_is_intersection_union():
  for n in range(1, 4):
    for parts in itertools.product(inference.VERDICTS, repeat=n):
      expected = ('fails' if any(p == 'fails' for p in parts)
                  else 'holds' if all(p == 'holds' for p in parts) else 'inconclusive')
      assert inference.combine(parts) == expected
  assert inference.combine([]) == 'inconclusive'
  with pytest.raises(ValueError, match='maybe'):
    inference.combine(['holds', 'maybe'])


def test_sign_flips_can_overrule_the_interval():
  d = [1., 1.1, .9, 1., 1.]                                  # 2^-5 is above .025: five seeds cannot
  assert inference.decide('superior', low=inference.interval(d).low, high=2., eps=1.) == 'holds'
  assert inference.second_opinion(d, 'superior', eps=1.) == 'inconclusive'


@pytest.mark.parametrize('kind, margins, shift, verdict', [
  ('superior', dict(eps=1.), 2, 'holds'), ('superior', dict(eps=1.), -2, 'fails'),
  ('noninferior', dict(eps=1.), 0, 'holds'), ('noninferior', dict(eps=1.), -2, 'fails'),
  ('equivalent', dict(eps=1.), 0, 'holds'), ('equivalent', dict(eps=1.), 2, 'fails'),
  ('equivalent', dict(eps=1.), -2, 'fails'), ('equivalent', dict(eps=1.), 1, 'inconclusive'),
  ('band', dict(band=(3., 5.)), 4, 'holds'), ('band', dict(band=(3., 5.)), 2, 'fails')])
def test_second_opinion_on_clear_cases(kind, margins, shift, verdict):
  d = shift + .1 * np.array([-1., 1, -2, 2, -3, 3, -4, 4])
  assert inference.second_opinion(d, kind, **margins) == verdict


# --- Paired seeds -----------------------------------------------------------------------------

def test_seeds_are_distinct_integers_that_jax_takes():
  values = [inference.arm_seed(claim, seed) for claim in ('a/1', 'a/2') for seed in range(2000)]
  assert all(type(v) is int and 0 <= v < 2 ** 31 for v in values)
  assert len(set(values)) >= len(values) - 2      # of 2^31: 0.03 collisions are expected
  assert stats.kstest(np.array(values) / 2 ** 31, 'uniform').pvalue > 1e-4


def test_seeds_are_equal_in_every_process_and_release():
  code = "from aspects.inference import *; print(arm_seed('lns/1', 3))"
  printed = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                           env={**os.environ, 'PYTHONHASHSEED': '12345'}).stdout
  assert printed == f"{inference.arm_seed('lns/1', 3)}\n"
  assert inference.arm_seed('lns/1', 3) == 227635377        # committed rows were drawn from it
