"""Verdicts against a reference in plain scipy, against simulation at every boundary, and by hand where it matters."""
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from aspects.claims import judge as judge_lib
from tests.claims.made import claim, rows

SUPERIOR = dict(kind='superior', arms=('ours', 'base'), tau=0., eps=1.)
KINDS = {'superior': SUPERIOR, 'noninferior': dict(kind='noninferior', arms=('ours', 'base'), eps=1.),
         'equivalent': dict(kind='equivalent', arms=('ours', 'base'), eps=1.),
         'band': dict(kind='band', arms=('ours', 'base'), band=(-1., 1.))}


def verdict_of(assertion, d, **fields):
  """The judgement on differences d [S]: the baseline has 0."""
  return judge_lib.judge(claim({'one': assertion}, **fields), rows({'ours': d, 'base': np.zeros(len(d))}))


# --- against the reference -------------------------------------------------------------------------------------------

def reference(kind, d, looks=(8, 16, 32), alpha=.0101):
  """The decision table, written again from its definition: (verdict, seeds)."""
  def decided(d):
    n, mean, se = len(d), d.mean(), d.std(ddof=1) / math.sqrt(len(d))
    low, high = mean - stats.t.ppf(1 - alpha, n - 1) * se, mean + stats.t.ppf(1 - alpha, n - 1) * se
    flips = np.array(list(itertools.product((-1, 1), repeat=n))) if n <= 8 else None
    def above(x):                                    # both tests say that the mean is above x
      e = d - x
      p = np.mean(flips @ e >= e.sum() - 1e-12) if flips is not None else 0. if low > x else 1.
      return low > x and p <= alpha
    def below(x):
      e = x - d
      p = np.mean(flips @ e >= e.sum() - 1e-12) if flips is not None else 0. if high < x else 1.
      return high < x and p <= alpha
    table = {'superior': (above(0), below(1)), 'noninferior': (above(-1), below(-1)),
             'equivalent': (above(-1) and below(1), above(1) or below(-1)),
             'band': (above(-1) and below(1), above(1) or below(-1))}
    holds, fails = table[kind]
    return 'holds' if holds else 'fails' if fails else 'inconclusive'
  for n in looks:
    found = decided(d[:n])
    if found != 'inconclusive':
      return found, n
  return 'inconclusive', looks[-1]


@pytest.mark.parametrize('kind', KINDS)
def test_first_look_is_the_reference(kind):
  rng = np.random.default_rng(0)
  for shift in (-2.5, -1.2, -.4, 0., .6, 1.3, 2.5):
    d = rng.normal(shift, .8, 8)
    found = verdict_of(KINDS[kind], d, looks=(8, 16, 32))
    expected, n = reference(kind, d, looks=(8,))
    assert (found.verdict['value'], found.assertions[0]['look']) == (expected, n)
    assert found.decided == (expected != 'inconclusive')


# --- against simulation: 1,000 claims at every boundary ---------------------------------------------------------------

BOUNDARIES = {'superior at tau': ('superior', 0.), 'noninferior at -eps': ('noninferior', -1.),
              'equivalent at +eps': ('equivalent', 1.), 'equivalent at -eps': ('equivalent', -1.),
              'band at its upper end': ('band', 1.), 'band at its lower end': ('band', -1.)}


@pytest.mark.parametrize('name', BOUNDARIES)
def test_false_holds_are_two_and_a_half_percent(name):
  """2.5 % +- 0.7 % over 1,000 claims of three looks each. A superior claim whose spread is small against eps is over at
  its first look (it fails), so that it has but one chance to be wrong; here it has all three."""
  kind, truth = BOUNDARIES[name]
  spread = 4. if kind == 'superior' else .3
  one = claim({'one': KINDS[kind]})
  rng, holds = np.random.default_rng(20), 0
  for _ in range(1000):
    d = rng.normal(truth, spread, 32)
    holds += judge_lib.judge(one, rows({'ours': d, 'base': np.zeros(32)})).verdict['value'] == 'holds'
  assert abs(holds / 1000 - .025) <= .007, f'{holds} of 1,000 hold at the boundary'


def test_levels_of_looks_keep_the_whole():
  """Student's t at looks of twice the seeds each crosses its level 2.5 % of the time, all looks together."""
  x = np.random.default_rng(1).normal(size=(40000, 32))
  for looks, first in ((1, 8), (2, 8), (3, 8)):
    p = [stats.ttest_1samp(x[:, :first * 2 ** k], 0, axis=1, alternative='greater').pvalue for k in range(looks)]
    assert abs((np.min(p, 0) < judge_lib.LEVELS[looks]).mean() - .025) < .003


# --- looks ------------------------------------------------------------------------------------------------------------

def test_never_a_verdict_between_looks():
  found = verdict_of(SUPERIOR, np.linspace(4, 5, 7))
  assert found.verdict == {**found.verdict, 'value': 'inconclusive', 'reason': 'underpowered'} and not found.decided
  assert verdict_of(SUPERIOR, np.linspace(4, 5, 8)).verdict['value'] == 'holds'
  unclear = np.tile([-3., 3.], 4)
  assert verdict_of(SUPERIOR, np.r_[unclear, np.full(7, 50.)]).assertions[0]['look'] == 8


def test_a_decided_assertion_stays_decided():
  d = np.r_[np.linspace(.9, 1.1, 8), np.full(24, -99.)]
  found = verdict_of(SUPERIOR, d)
  assert (found.verdict['value'], found.assertions[0]['n']) == ('holds', 8)


def test_all_assertions_must_hold_and_one_failure_fails():
  two = {'a': SUPERIOR, 'b': {**SUPERIOR, 'metric': 'other'}}
  metrics = {n: dict(long_name=n, unit='1', worst=None) for n in ('score', 'other')}
  for other, expected in ((5., 'holds'), (-5., 'fails')):
    table = rows({'ours': np.linspace(4, 5, 8), 'base': np.zeros(8)})
    for row in table:
      row['metrics']['other'] = other + .1 * row['seed'] if row['arm'] == 'ours' else 0.
    found = judge_lib.judge(claim(two, metrics=metrics), table)
    assert found.verdict['value'] == expected and found.decided


# --- what is degenerate -----------------------------------------------------------------------------------------------

def test_one_seed_decides_nothing():
  found = verdict_of(SUPERIOR, [9.])
  one = found.assertions[0]
  assert found.verdict['value'] == 'inconclusive' and one['estimate'] == 9. and one['ci'] is None and one['p'] is None


@pytest.mark.parametrize('kind, value', [('superior', 'fails'), ('equivalent', 'holds'), ('noninferior', 'holds')])
def test_identical_arms(kind, value):
  found = judge_lib.judge(claim({'one': KINDS[kind]}), rows({'ours': np.arange(8), 'base': np.arange(8)}))
  one = found.assertions[0]
  assert found.verdict['value'] == value and one['estimate'] == 0 and one['sd'] == 0 and one['mde80'] == 0


def test_zero_variance_holds_where_the_difference_is_clear():
  assert verdict_of(SUPERIOR, np.full(8, .5)).verdict['value'] == 'holds'


def test_a_difference_that_is_real_and_too_small_is_negligible():
  found = verdict_of(SUPERIOR, np.linspace(.01, .02, 8))
  assert found.verdict['value'] == 'holds' and found.verdict['negligible']
  assert not verdict_of(SUPERIOR, np.linspace(2, 3, 8)).verdict['negligible']


def test_a_missing_arm_is_no_verdict():
  found = judge_lib.judge(claim({'one': SUPERIOR}), rows({'ours': np.linspace(4, 5, 8)}))
  assert found.verdict == {**found.verdict, 'value': 'inconclusive', 'reason': 'missing_runs'}
  assert 'no run of base' in found.gates['complete']['detail']


def test_no_rows_at_all():
  found = judge_lib.judge(claim({'one': SUPERIOR}), [])
  assert found.verdict['value'] == 'inconclusive' and found.verdict['reason'] == 'missing_runs' and not found.decided


@pytest.mark.parametrize('status', ['oom', 'timeout', 'error'])
def test_one_run_in_ten_may_be_missing(status):
  d = np.linspace(4, 5, 16)
  values = {'ours': d, 'base': np.zeros(16)}
  few = judge_lib.judge(claim({'one': SUPERIOR}, looks=(16, 32)), rows(values, status={('ours', 3): status}))
  assert few.verdict['value'] == 'holds' and few.assertions[0]['n'] == 15 and few.gates['complete']['pass']
  many = judge_lib.judge(claim({'one': SUPERIOR}, looks=(16, 32)),
                         rows(values, status={('ours', 3): status, ('ours', 5): status}))
  assert many.verdict == {**many.verdict, 'value': 'inconclusive', 'reason': 'missing_runs'}


def test_nan_is_a_missing_run_and_never_a_number():
  d = np.linspace(4, 5, 16)
  d[2] = np.nan
  found = verdict_of(SUPERIOR, d, looks=(16, 32))
  assert found.assertions[0]['n'] == 15 and found.verdict['value'] == 'holds'
  assert verdict_of(SUPERIOR, np.full(16, np.nan), looks=(16, 32)).verdict['reason'] == 'missing_runs'


def test_an_arm_may_lack_what_no_assertion_asks_of_it_but_not_its_run():
  values = {'ours': np.linspace(4, 5, 8), 'base': np.zeros(8), 'small': np.full(8, np.nan)}
  three = claim({'one': SUPERIOR}, arms=('ours', 'base', 'small'))
  found = judge_lib.judge(three, rows(values))
  assert found.verdict['value'] == 'holds' and found.gates['complete']['pass']
  gone = judge_lib.judge(three, rows({k: values[k] for k in ('ours', 'base')}))
  assert gone.verdict['reason'] == 'missing_runs' and 'no run of small' in gone.gates['complete']['detail']


def test_a_diverged_run_takes_the_worst_value_and_is_not_dropped():
  d = {'ours': np.linspace(4, 5, 8), 'base': np.zeros(8)}
  metrics = dict(score=dict(long_name='score', unit='points', worst=-100.))
  lost = {('ours', 0): 'diverged'}
  stated = judge_lib.judge(claim({'one': SUPERIOR}, metrics=metrics), rows(d, status=lost))
  assert stated.assertions[0]['n'] == 8 and stated.assertions[0]['estimate'] < 0
  seen = judge_lib.judge(claim({'one': SUPERIOR}), rows(d, status=lost))
  assert seen.assertions[0]['n'] == 8
  assert math.isclose(seen.assertions[0]['estimate'], np.r_[0., d['ours'][1:]].mean())
  all_lost = judge_lib.judge(claim({'one': SUPERIOR}), rows(d, status={('ours', s): 'diverged' for s in range(8)}))
  assert all_lost.verdict['value'] == 'fails' and '8 of them diverged' in all_lost.gates['complete']['detail']


# --- directions, one arm, trends, identities --------------------------------------------------------------------------

def test_lower_is_better_turns_the_sign_and_a_band_has_none():
  down = {**SUPERIOR, 'better': 'lower'}
  assert verdict_of(down, -np.linspace(4, 5, 8)).verdict['value'] == 'holds'
  band = dict(kind='band', arms=('ours',), band=(-5.5, -3.5), better='lower')
  assert verdict_of(band, -np.linspace(4, 5, 8)).verdict['value'] == 'holds'


@pytest.mark.parametrize('better, values, expected', [
    ('higher', np.linspace(3, 3.5, 8), 'holds'), ('higher', np.linspace(1, 1.5, 8), 'fails'),
    ('lower', np.linspace(1, 1.5, 8), 'holds'), ('lower', np.linspace(3, 3.5, 8), 'fails')])
def test_one_arm_against_a_number(better, values, expected):
  one = dict(kind='superior', arms=('ours',), tau=2., eps=.1, better=better)
  assert verdict_of(one, values).verdict['value'] == expected


def test_a_trend_over_arms():
  arms = ('a', 'b', 'c', 'd')
  rng = np.random.default_rng(3)
  up = {arm: i + .3 * rng.normal(size=8) for i, arm in enumerate(arms)}
  spec = dict(kind='trend', arms=arms, tau=0., eps=.3, order=(1., 2., 4., 8.))
  found = judge_lib.judge(claim({'one': spec}, arms=arms), rows(up))
  rho = np.mean([np.arctanh(min(stats.spearmanr(range(4), [up[a][s] for a in arms]).statistic, 1 - 6 / 60))
                 for s in range(8)])
  assert found.verdict['value'] == 'holds'
  assert math.isclose(found.assertions[0]['estimate'], np.tanh(rho))
  turned = judge_lib.judge(claim({'one': {**spec, 'better': 'lower'}}, arms=arms), rows(up))
  assert turned.verdict['value'] == 'fails'
  flat = judge_lib.judge(claim({'one': spec}, arms=arms), rows({a: rng.normal(size=32) for a in arms}))
  assert flat.verdict['value'] != 'holds'


def identity_rows(error32, error64, control, seeds=3):
  def one(arm, seed, scale):
    metrics = {'score_error_float32': error32 * scale, 'score_scale_float32': 1.,
               'score_error_float64': error64 * scale, 'score_scale_float64': 1.}
    return {'key': '0' * 16, 'arm': arm, 'role': 'ours', 'seed': seed, 'status': 'done', 'metrics': metrics}
  return [one(a, s, k) for s in range(seeds) for a, k in (('ours', 1.), ('base', control))]


@pytest.mark.parametrize('error32, error64, control, expected', [
    (1e-6, 1e-15, 1e6, ('holds', 'decided')), (1e-6, 1e-9, 1e6, ('fails', 'decided')),
    (1e-3, 1e-15, 1e6, ('fails', 'decided')), (1e-6, 1e-15, 50., ('inconclusive', 'control_failed'))])
def test_an_identity_holds_in_both_precisions_and_its_control_does_not(error32, error64, control, expected):
  spec = claim({'one': dict(kind='identity', arms=('ours', 'base'), c=10.)}, looks=(3,))
  found = judge_lib.judge(spec, identity_rows(error32, error64, control))
  assert (found.verdict['value'], found.verdict['reason']) == expected


# --- gates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('field, value, passes', [
    ('params', 1019, True), ('params', 1021, False), ('flops', 1.049e6, True), ('flops', 1.051e6, False),
    ('steps', 11, False)])
def test_budgets_are_equal_or_there_is_no_verdict(field, value, passes):
  table = rows({'ours': np.linspace(4, 5, 8), 'base': np.zeros(8)}, params=1000, flops=1e6, steps=10)
  for row in table:
    if row['arm'] == 'ours':
      row[field] = value
  found = judge_lib.judge(claim({'one': SUPERIOR}, budget=dict(arms=('ours', 'base'), trials=1)), table)
  assert found.gates['budget']['pass'] == passes
  assert found.verdict['reason'] == ('decided' if passes else 'budget_mismatch')


def test_unequal_tuning_and_unknown_budgets_do_not_pass():
  table = rows({'ours': np.linspace(4, 5, 8), 'base': np.zeros(8)}, params=1000, flops=1e6, steps=10)
  tuned = dict(arms=('ours', 'base'), trials=dict(ours=5, base=1))
  assert not judge_lib.judge(claim({'one': SUPERIOR}, budget=tuned), table).gates['budget']['pass']
  equal = dict(arms=('ours', 'base'), trials=1)
  assert not judge_lib.judge(claim({'one': SUPERIOR}, budget=equal), [{k: v for k, v in r.items() if k != 'flops'}
                                                                       for r in table]).gates['budget']['pass']


@pytest.mark.parametrize('must, control, passes', [('hold', 4., True), ('hold', 0., False), ('not hold', 0., True),
                                                   ('not hold', 4., False)])
def test_a_control_gates_the_verdict(must, control, passes):
  spec = claim({'one': SUPERIOR}, {'random': {**SUPERIOR, 'arms': ('random', 'base'), 'must': must}},
               arms=('ours', 'base', 'random'))
  wiggle = np.linspace(-.1, .1, 8)
  found = judge_lib.judge(spec, rows({'ours': 5 + wiggle, 'base': np.zeros(8), 'random': control + wiggle}))
  assert found.gates['control']['pass'] == passes
  assert found.verdict['reason'] == ('decided' if passes else 'control_failed')
  assert [a['control'] for a in found.assertions] == [False, True]


def test_a_baseline_out_of_its_range_is_not_sane():
  sane = dict(arm='base', metric='score', band=(1., 2.))
  assert verdict_of(SUPERIOR, np.linspace(4, 5, 8), sane=sane).verdict['reason'] == 'not_sane'


# --- numbers of the record --------------------------------------------------------------------------------------------

def test_detectable_effects_are_those_of_the_protocol():
  """80 % power, in sd of the paired difference: .75 at 16 and .51 at 32 seeds, one-sided .025."""
  for n, sd in ((5, 1.68), (8, 1.16), (16, .75), (32, .51)):
    d = stats.norm.ppf((np.arange(n) + .5) / n)
    found = judge_lib.judge(claim({'one': SUPERIOR}, looks=(n,)), rows({'ours': d, 'base': np.zeros(n)})).assertions[0]
    assert abs(found['mde80'] / found['sd'] - sd) < .01


def test_seeds_for_eighty_percent_are_enough_and_one_less_is_not():
  n = judge_lib.seeds_for(.75, .025)
  assert n in (16, 17)
  power = lambda n: stats.nct.sf(stats.t.ppf(.975, n - 1), n - 1, .75 * math.sqrt(n))
  assert power(n) >= .8 > power(n - 1)


def test_p_is_students_and_the_larger_of_two_for_equivalence():
  d = np.random.default_rng(5).normal(.5, 1, 8)
  assert math.isclose(verdict_of(SUPERIOR, d, looks=(8,)).assertions[0]['p'],
                      stats.ttest_1samp(d, 0, alternative='greater').pvalue)
  both = max(stats.ttest_1samp(d, -1, alternative='greater').pvalue, stats.ttest_1samp(d, 1, alternative='less').pvalue)
  assert math.isclose(verdict_of(KINDS['equivalent'], d, looks=(8,)).assertions[0]['p'], both)


def test_order_of_rows_means_nothing():
  d = np.random.default_rng(6).normal(.5, 1, 8)
  table = rows({'ours': d, 'base': np.zeros(8)})
  assert judge_lib.judge(claim({'one': SUPERIOR}), table) == judge_lib.judge(claim({'one': SUPERIOR}), table[::-1])


@pytest.mark.parametrize('comparable, d, expected', [(True, 4., 'agrees'), (True, -4., 'contradicts'),
                                                     (False, 4., 'not_comparable')])
def test_versus_the_paper(comparable, d, expected):
  from tests.claims import made
  spec = claim({'one': SUPERIOR})
  import dataclasses
  spec = dataclasses.replace(spec, paper={**made.PAPER, 'comparable': comparable})
  found = judge_lib.judge(spec, rows({'ours': d + np.linspace(0, 1, 8), 'base': np.zeros(8)}))
  assert found.verdict['versus_paper'] == expected
