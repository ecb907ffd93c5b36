"""Rows in, verdict out: a pure function of a claim and its rows, so that whoever has both can judge again.

Every assertion is tested at each look until one decides it; a decided assertion stays decided. The claim holds if all
assertions hold and fails if one fails (intersection-union, Berger 1982). Gates then turn either into `inconclusive`,
with the reason: a control that does not do what it must, unequal budgets, missing runs, a baseline out of its range.

A run that diverged takes the metric's `worst` value, or the worst that any arm of the assertion had; a run that is
missing or not finite leaves its seed out, and the claim if they are more than a tenth.
"""
import bisect
import math
from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np

from aspects import inference
from aspects.claims import spec as spec_lib

# One-sided level of each of 1, 2 or 3 looks, each at twice the seeds of the one before; .025 together (Pocock 1977, by
# simulation of Student's t at 8, 16 and 32 seeds).
LEVELS = {1: .025, 2: .0142, 3: .0101}
MISSING = .1                                         # share of runs that may be missing
APART = 100.                                         # by how much the control of an identity must be out
REASONS = {'control': 'control_failed', 'budget': 'budget_mismatch', 'complete': 'missing_runs', 'sane': 'not_sane'}
Row = Mapping[str, Any]


class Judgement(NamedTuple):
  """The parts of a record that follow from its rows. `decided`: no further look is needed."""
  assertions: list[dict]
  gates: dict[str, dict]
  verdict: dict[str, Any]
  decided: bool


def judge(claim: spec_lib.Claim, rows: Sequence[Row]) -> Judgement:
  """The verdict on `claim` by the rows of its arms and seeds (0, 1, ...); the order of rows means nothing."""
  table = {(row['arm'], row['seed']): row for row in sorted(rows, key=lambda r: (r['arm'], r['seed']))}
  ran = 1 + max((seed for _, seed in table), default=-1)
  found = {name: _assertion(claim, name, spec, table, ran, False) for name, spec in claim.assertions.items()}
  controls = {name: _assertion(claim, name, spec, table, ran, True) for name, spec in claim.controls.items()}
  gates = {'control': _control(claim, found, controls, table), 'budget': _budget(claim, table),
           'complete': _complete(claim, table, ran), 'sane': _sane(claim, table)}
  value = inference.combine([a['verdict'] for a in found.values()])
  reason = 'underpowered' if value == 'inconclusive' else 'decided'
  stopped = [REASONS[gate] for gate in ('complete', 'sane', 'budget', 'control') if not gates[gate]['pass']]
  if stopped:
    value, reason = 'inconclusive', stopped[0]
  needed = [a for a in controls.values() if a.get('must', 'hold') == 'hold']
  if all(a['verdict'] != 'fails' for a in found.values()):      # one failure is enough
    needed += found.values()
  decided = ran >= claim.looks[-1] or (ran >= claim.looks[0] and all(a['verdict'] != 'inconclusive' for a in needed))
  verdict = {'value': value, 'reason': reason, 'negligible': any(_negligible(a) for a in found.values()),
             'q': None, 'versus_paper': _versus(claim, value), 'previous': None}
  return Judgement([*found.values(), *controls.values()], gates, verdict, decided)


# --- values ---------------------------------------------------------------------------------------------------------

def _number(claim, table, arm: str, seed: int, metric: str, arms: Sequence[str]) -> float:
  """The metric of one run; the worst for one that diverged, NaN for one that is missing or not finite."""
  row = table.get((arm, seed))
  if row is None or row['status'] not in ('done', 'diverged'):
    return math.nan
  value = row['metrics'].get(metric)
  if row['status'] == 'done':
    return math.nan if value is None or not math.isfinite(value) else float(value)
  return _worst(claim, table, metric, arms)


def _worst(claim, table, metric: str, arms: Sequence[str]) -> float:
  stated = claim.metrics[metric].get('worst') if metric in claim.metrics else None
  if stated is not None:
    return float(stated)
  better = [a['better'] for a in (*claim.assertions.values(), *claim.controls.values())
            if a['metric'] == metric and 'better' in a]
  seen = [row['metrics'][metric] for (arm, _), row in table.items() if arm in arms and row['status'] == 'done'
          and row['metrics'].get(metric) is not None and math.isfinite(row['metrics'][metric])]
  if not seen:
    return math.nan
  return float(min(seen) if 'higher' in better else max(seen))


def differences(claim: spec_lib.Claim, assertion: Mapping, table: Mapping, seeds: Sequence[int]) -> np.ndarray:
  """What an assertion is about, one number a seed [S], positive where it is as claimed; NaN where a run is missing.

  Two arms: first - second, turned for metrics that are better lower. One arm: its value. A trend: Fisher's z of the
  rank correlation with `order`, one step short of infinite. A band is never turned."""
  arms, metric = assertion['arms'], assertion['metric']
  values = np.array([[_number(claim, table, arm, s, metric, arms) for arm in arms] for s in seeds],
                    np.float64).reshape(len(seeds), len(arms))
  sign = -1. if assertion.get('better') == 'lower' and assertion['kind'] != 'band' else 1.
  if assertion['kind'] == 'trend':
    return sign * _ranks(values, assertion)
  return sign * (values[:, 0] - values[:, 1] if len(arms) == 2 else values[:, 0])


def _ranks(values, assertion) -> np.ndarray:
  if values.shape[1] == 1:                           # the metric is a correlation already
    return np.arctanh(np.clip(values[:, 0], -.999, .999))
  order = assertion.get('order', tuple(range(values.shape[1])))
  out = np.full(len(values), np.nan)
  whole = np.isfinite(values).all(1)
  if whole.any():
    out[whole] = inference.rank_z(inference.rank_correlation(values[whole], order), len(order))
  return out


def margins(assertion: Mapping) -> tuple[str, dict[str, Any]]:
  """(kind, margins) as `inference.decide` takes them, on the scale of `differences`."""
  kind, sign = assertion['kind'], -1. if assertion.get('better') == 'lower' else 1.
  if kind == 'band':
    return kind, {'band': tuple(assertion['band'])}
  if kind == 'trend':
    low = assertion.get('tau', 0.)
    return 'superior', {'tau': math.atanh(low), 'eps': math.atanh(low + assertion['eps']) - math.atanh(low)}
  if kind == 'superior':
    tau = assertion.get('tau', 0.)
    return kind, {'tau': tau if len(assertion['arms']) == 2 else sign * tau, 'eps': assertion['eps']}
  return kind, {'eps': assertion['eps']}


# --- assertions -----------------------------------------------------------------------------------------------------

def _assertion(claim, name: str, assertion: Mapping, table, ran: int, control: bool) -> dict:
  """The entry of the record: statistics at the look that decided, or at the last one taken."""
  said = ('kind', 'metric', 'better', 'tau', 'eps', 'reason', 'c', 'text', 'must')
  head = {'name': name, **{k: assertion[k] for k in said if k in assertion}, 'arms': list(assertion['arms']),
          'unit': claim.metrics[assertion['metric']]['unit'], 'control': control}
  worst = claim.metrics[assertion['metric']].get('worst')
  if worst is not None:
    head['worst'] = worst
  if 'band' in assertion:
    head['band'] = list(assertion['band'])
  if 'order' in assertion:
    head['order'] = list(assertion['order'])
  empty = {'n': 0, 'look': 0, 'estimate': None, 'sd': None, 'rho': None, 'ci': None, 'p': None, 'p_signflip': None,
           'mde80': None, 'n_for_80': None, 'verdict': 'inconclusive'}
  looks = [n for n in claim.looks if n <= ran] or ([ran] if ran else [])
  alpha = LEVELS[len(claim.looks)]
  found = empty
  for n in looks:
    found = (_identity(assertion, table, n) if assertion['kind'] == 'identity'
             else _tested(claim, assertion, table, n, alpha, empty))
    if n not in claim.looks:
      found = {**found, 'verdict': 'inconclusive'}   # never a verdict between looks
    if found['verdict'] != 'inconclusive':
      break
  if assertion['kind'] != 'identity' and found['n'] > 1:
    found = {**found, **_companions(claim, assertion, table, found, alpha)}
  return {**head, **found, 'level': 1 - 2 * alpha}


def _tested(claim, assertion, table, look: int, alpha: float, empty: Mapping) -> dict:
  d = differences(claim, assertion, table, range(look))
  d = d[np.isfinite(d)]
  if not len(d):
    return {**empty, 'look': look}
  kind, rule = margins(assertion)
  estimate, low, high = (float(v) for v in inference.interval(d, alpha=alpha))
  verdict = decided(d, kind, rule, alpha) if len(d) >= (1 - MISSING) * look else 'inconclusive'
  shown = math.tanh if assertion['kind'] == 'trend' else lambda x: x
  return {**empty, 'n': len(d), 'look': look, 'estimate': shown(estimate), 'verdict': verdict,
          'ci': None if math.isnan(low) else [shown(low), shown(high)]}


def decided(d: np.ndarray, kind: str, rule: Mapping, alpha: float) -> str:
  """The verdict at one look: of Student's interval, where sign flips agree with it."""
  _, low, high = inference.interval(d, alpha=alpha)
  verdict = inference.decide(kind, low=low, high=high, **rule)
  if verdict != 'inconclusive' and verdict != inference.second_opinion(d, kind, alpha=alpha, **rule):
    return 'inconclusive'
  return verdict


def first_decided(d: np.ndarray, kind: str, rule: Mapping, looks: Sequence[int]) -> str:
  """The verdict of an assertion on all its differences [S], look after look."""
  verdicts = (decided(d[:n], kind, rule, LEVELS[len(looks)]) for n in looks)
  return next((v for v in verdicts if v != 'inconclusive'), 'inconclusive')


def _companions(claim, assertion, table, found: Mapping, alpha: float) -> dict:
  """What stands beside the verdict: spread, p, and what so many seeds can see."""
  d = differences(claim, assertion, table, range(found['look']))
  d = d[np.isfinite(d)]
  (kind, rule), sd = margins(assertion), float(d.std(ddof=1))
  student, flips = _p(d, kind, rule)
  smallest = rule['eps'] if 'eps' in rule else (rule['band'][1] - rule['band'][0]) / 2
  return {'sd': sd, 'rho': _between(claim, assertion, table, found['look']), 'p': student, 'p_signflip': flips,
          'mde80': inference.detectable(len(d), alpha=alpha) * sd,
          'n_for_80': seeds_for(smallest / sd, alpha) if sd > 0 else 2}


def seeds_for(effect: float, alpha: float, *, power: float = .8, most: int = 10 ** 6) -> int | None:
  """How many seeds see a mean of `effect` standard deviations with chance `power`; None beyond `most`."""
  sees = lambda n: inference.detectable(n, power=power, alpha=alpha) <= effect
  return 2 + bisect.bisect_left(range(2, most), True, key=sees) if sees(most) else None


def _p(d: np.ndarray, kind: str, rule: Mapping) -> tuple[float, float]:
  """(Student's, sign flips') p of the union of what the kind excludes: the larger of its one-sided tests."""
  above, below, _, _ = inference.region(kind, **rule)
  tests = [(d, above)] + ([(-d, -below)] if below < math.inf else [])
  return (max(float(inference.student(x, tau=t, side='greater')) for x, t in tests),
          max(inference.signflip(x, tau=t) for x, t in tests))


def _between(claim, assertion, table, look: int) -> float | None:
  """Correlation of the two arms over seeds: what pairing has won."""
  if len(assertion['arms']) != 2:
    return None
  both = np.array([[_number(claim, table, arm, s, assertion['metric'], assertion['arms']) for arm in assertion['arms']]
                   for s in range(look)])
  both = both[np.isfinite(both).all(1)]
  return float(inference.paired(both[:, 0], both[:, 1]).rho) if len(both) > 1 else None


def _identity(assertion: Mapping, table, look: int) -> dict:
  """The largest error in units of its bound c * eps(dtype) * scale, over seeds and both precisions; 1 is the bound."""
  ratios = [_ratio(table.get((assertion['arms'][0], s)), assertion) for s in range(look)]
  missing = sum(math.isnan(r) for r in ratios)
  worst = max((r for r in ratios if not math.isnan(r)), default=None)
  verdict = 'inconclusive' if worst is None else 'fails' if worst > 1 else 'holds'
  if verdict == 'holds' and missing > MISSING * look:
    verdict = 'inconclusive'
  return {'n': look - missing, 'look': look, 'estimate': worst, 'sd': None, 'rho': None, 'ci': None, 'p': None,
          'p_signflip': None, 'mde80': None, 'n_for_80': None, 'verdict': verdict}


def _ratio(row: Row | None, assertion: Mapping, combine=max) -> float:
  """Error over bound of one run: the larger of float32's and float64's, or as `combine` says."""
  if row is None or row['status'] == 'diverged':
    return math.nan if row is None else math.inf
  out = []
  for dtype in ('float32', 'float64'):
    error, scale = (row['metrics'].get(f'{assertion["metric"]}_{what}_{dtype}') for what in ('error', 'scale'))
    if error is None or scale is None or not math.isfinite(error):
      return math.nan
    bound = assertion['c'] * float(np.finfo(dtype).eps) * scale
    out.append(error / bound if bound > 0 else math.inf if error > 0 else 0.)
  return combine(out)


# --- gates ----------------------------------------------------------------------------------------------------------

def _control(claim, found: Mapping, controls: Mapping, table) -> dict:
  wrong = []
  for name, control in controls.items():
    must = control.get('must', 'hold')
    good = control['verdict'] == 'holds' if must == 'hold' else control['verdict'] != 'holds'
    if control['kind'] == 'identity' and must == 'not hold':
      good = control['verdict'] == 'fails'
    if not good:
      wrong.append(f'{name}: must {must}, {control["verdict"]}')
  for name, assertion in found.items():
    if assertion['kind'] == 'identity' and len(assertion['arms']) == 2:
      nearest = min((r for (arm, _), row in table.items() if arm == assertion['arms'][1]
                     for r in (_ratio(row, assertion, min),) if not math.isnan(r)), default=math.nan)
      if not nearest >= APART:
        wrong.append(f'{name}: {assertion["arms"][1]} is only {nearest:.3g} bounds out, {APART:g} are asked')
  if wrong:
    return {'pass': False, 'detail': '; '.join(wrong)}
  several = len(controls) + sum(a['kind'] == 'identity' and len(a['arms']) == 2 for a in found.values())
  detail = f'{several} of {several} controls as they must be' if several else 'no control is stated'
  return {'pass': True, 'detail': detail}


def _budget(claim, table) -> dict:
  if 'waived' in claim.budget:
    return {'pass': True, 'detail': f'waived: {claim.budget["waived"]}'}
  arms, wrong = claim.budget['arms'], []
  for what, share in (('params', spec_lib.PARAMETERS), ('flops', spec_lib.OPERATIONS), ('steps', 0.)):
    values = {arm: {row[what] for (a, _), row in table.items() if a == arm and row.get(what) is not None}
              for arm in arms}
    every = [v for each in values.values() for v in each]
    if not all(values.values()):
      wrong.append(f'{what} of {", ".join(a for a in arms if not values[a])} are not known')
    elif max(every) > (1 + share) * min(every):
      wrong.append(f'{what} differ: ' + ', '.join(f'{a} {max(values[a]):g}' for a in arms))
  trials = claim.budget['trials']
  if isinstance(trials, Mapping) and len({trials.get(a) for a in arms}) > 1:
    wrong.append('tuning trials differ: ' + ', '.join(f'{a} {trials.get(a)}' for a in arms))
  if wrong:
    return {'pass': False, 'detail': '; '.join(wrong)}
  detail = f'{", ".join(arms)}: equal parameters (2 %), operations (5 %), steps and tuning trials'
  return {'pass': True, 'detail': detail}


def _complete(claim, table, ran: int) -> dict:
  wanted = [(arm, seed) for arm in claim.arms for seed in range(max(ran, 1))]
  # An arm may lack what no assertion asks of it: an ablation without passive latents has no share of them.
  asked = [(a['metric'], a['arms']) for a in (*claim.assertions.values(), *claim.controls.values())
           if a['kind'] != 'identity']
  def there(key):
    row = table.get(key)
    if row is None or row['status'] not in ('done', 'diverged'):
      return False
    names = {metric for metric, arms in asked if key[0] in arms and metric in row['metrics']}
    return row['status'] == 'diverged' or all(
        row['metrics'][n] is not None and math.isfinite(row['metrics'][n]) for n in names)
  missing = [key for key in wanted if not there(key)]
  worst = max((sum(a == arm for a, _ in missing) / max(ran, 1) for arm in claim.arms), default=0.)
  diverged = sum(row['status'] == 'diverged' for row in table.values())
  text = f'{len(wanted) - len(missing)} of {len(wanted)} runs' + (f', {diverged} of them diverged' if diverged else '')
  gone = [arm for arm in claim.arms if all((arm, s) in missing for s in range(max(ran, 1)))]
  if gone:
    text += f'; no run of {", ".join(gone)}'
  return {'pass': worst <= MISSING, 'detail': text}


def _sane(claim, table) -> dict:
  if claim.sane is None:
    return {'pass': True, 'detail': 'no reference band is stated'}
  arm, metric, (low, high) = claim.sane['arm'], claim.sane['metric'], claim.sane['band']
  values = [_number(claim, table, arm, seed, metric, (arm,)) for a, seed in table if a == arm]
  values = [v for v in values if math.isfinite(v)]
  if not values:
    return {'pass': False, 'detail': f'{arm} has no {metric}'}
  mean = float(np.mean(values))
  detail = f'mean {metric} of {arm} is {mean:.4g}; reference {low:g} to {high:g}'
  return {'pass': bool(low <= mean <= high), 'detail': detail}


# --- the verdict's companions ---------------------------------------------------------------------------------------

def _negligible(assertion: Mapping) -> bool:
  """Decided as superior, and yet smaller than the smallest effect worth having."""
  if assertion['kind'] not in ('superior', 'trend') or assertion['verdict'] != 'holds' or assertion['ci'] is None:
    return False
  tau = assertion.get('tau', 0.)
  if len(assertion['arms']) == 1 and assertion.get('better') == 'lower' and assertion['kind'] == 'superior':
    tau = -tau
  return assertion['ci'][1] < tau + assertion['eps']


def _versus(claim, value: str) -> str:
  if claim.paper['comparable'] is False:
    return 'not_comparable'
  return {'holds': 'agrees', 'fails': 'contradicts', 'inconclusive': 'silent'}[value]


def p_of(assertions: Sequence[Mapping]) -> float | None:
  """p of a claim: the largest of its assertions', each at its whole level of .025; None if none has one."""
  p = [min(1., a['p'] * inference.ALPHA * 2 / (1 - a['level'])) for a in assertions
       if not a['control'] and a['p'] is not None]
  return max(p) if p else None
