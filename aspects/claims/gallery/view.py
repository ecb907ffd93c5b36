"""What a record says, in the form that figures and pages need: evidence per seed, curves per arm. No HTML here.

Letters: S seeds, K points of a curve. Where a record has null or lacks a value, arrays hold NaN."""
import re
from typing import Mapping, NamedTuple

import numpy as np

from aspects import inference

DTYPES = {'float32': np.finfo(np.float32).eps, 'float64': np.finfo(np.float64).eps}
NOTHING = (np.nan,) * 4
# The colours of Okabe & Ito (2008) that a role prefers; an arm whose colour is taken gets the next free one.
PREFERRED = {'ours': 0, 'baseline': 1, 'control': 2, 'ablation': 3, 'anchor': 4}
COLOURS = 7


class Evidence(NamedTuple):
  """The seeds of one assertion on the scale that decides it, where more is better.

  `values` [S], `used` [S] bool: the verdict rests on these, `diverged` [S] bool; `region` as `inference.region`;
  `interval` (estimate, low, high)."""
  seeds: list[int]
  values: np.ndarray
  used: np.ndarray
  diverged: np.ndarray
  region: tuple[float, float, float, float]
  interval: tuple[float, float, float]


class Errors(NamedTuple):
  """Errors [S] of one arm in one precision, in units of machine epsilon times scale; `own`: of the claim itself."""
  arm: str
  dtype: str
  own: bool
  seeds: list[int]
  values: np.ndarray


class Panel(NamedTuple):
  """A curve over `axis`: its points as numbers or as `labels`, and [S, K] for each arm."""
  name: str
  axis: str
  x: np.ndarray
  labels: list[str] | None
  lines: dict[str, np.ndarray]


def real(x) -> float:
  """`x` as a float; what is no number is NaN."""
  return float(x) if isinstance(x, (int, float)) else np.nan


def pair(x) -> tuple[float, float]:
  """Two numbers, NaN where there are none."""
  return (real(x[0]), real(x[1])) if x else (np.nan, np.nan)


def number(run, name) -> float:
  """What a finished run measured, else NaN."""
  return real((run.get('metrics') or {}).get(name)) if run['status'] == 'done' else np.nan


def table(runs, assertion) -> tuple[list[int], np.ndarray]:
  """Seeds that any arm of the assertion has, and their values [S, arms].

  A run that diverged has the worst value: the one that was registered, else the worst that an arm had."""
  arms, metric = assertion['arms'], assertion['metric']
  own = [r for r in runs if r['arm'] in arms]
  seen = [x for r in own if np.isfinite(x := number(r, metric))]
  worst = min(seen, default=np.nan) if assertion.get('better') == 'higher' else max(seen, default=np.nan)
  worst = real(assertion.get('worst', worst))
  found = {(r['arm'], r['seed']): worst if r['status'] == 'diverged' else number(r, metric) for r in own}
  seeds = sorted({r['seed'] for r in own})
  return seeds, np.array([[found.get((arm, s), np.nan) for arm in arms] for s in seeds]).reshape(len(seeds), len(arms))


def correlations(values, order) -> np.ndarray:
  """Rank correlation of each row [S, K] with `order` [K]; NaN for a row with a gap."""
  rho, whole = np.full(len(values), np.nan), np.isfinite(values).all(1)
  if whole.any():
    rho[whole] = inference.rank_correlation(values[whole], order)
  return rho


def region(assertion) -> tuple[float, float, float, float]:
  """Where the assertion holds and fails, as `inference.region`; NaN where the record lacks its margin."""
  kind, tau = assertion['kind'], real(assertion.get('tau', 0.))
  if kind == 'identity':
    return 0., np.inf, 0., np.inf
  if kind == 'superior' and len(assertion['arms']) == 1 and assertion.get('better') == 'lower':
    tau = -tau
  try:
    return inference.region('superior' if kind == 'trend' else kind, tau=tau, eps=assertion.get('eps'),
                            band=assertion.get('band'))
  except ValueError:
    return NOTHING


def evidence(assertion, runs) -> Evidence:
  """The seeds behind one assertion: differences of two arms, values of one, rank correlations over several.

  Of an identity: orders of magnitude by which the larger error of both precisions stays inside its bound."""
  arms, sign = assertion['arms'], -1 if assertion.get('better') == 'lower' else 1
  if assertion['kind'] == 'identity':
    seeds, values = headroom(assertion, runs)
  else:
    seeds, v = table(runs, assertion)
    values = sign * (v[:, 0] if len(arms) == 1 else v[:, 0] - v[:, 1] if assertion['kind'] != 'trend' else
                     correlations(v, assertion.get('order') or range(len(arms))))
  bad = {r['seed'] for r in runs if r['arm'] in arms and r['status'] == 'diverged'}
  used = np.array(seeds, int) < assertion.get('look', assertion['n'])
  found = (real(assertion['estimate']), *pair(assertion['ci']))
  if assertion['kind'] == 'identity':
    found = (np.nan,) * 3
  return Evidence(seeds, values, used, np.array([s in bad for s in seeds], bool), region(assertion), found)


def errors(assertion, runs) -> list[Errors]:
  """Every arm that has the errors of an identity assertion, in both precisions; the claim's own arm first."""
  metric, found = assertion['metric'], []
  own = assertion['arms'][0]
  for arm in dict.fromkeys([own, *(r['arm'] for r in runs)]):
    for dtype, eps in DTYPES.items():
      of_arm = [r for r in runs if r['arm'] == arm]
      error, size = (np.array([number(r, f'{metric}_{part}_{dtype}') for r in of_arm]) for part in ('error', 'scale'))
      ratio = np.divide(error, size * eps, out=np.where(error == 0, 0., np.where(error > 0, np.inf, np.nan)),
                        where=size != 0)
      ratio = np.where([r['status'] == 'diverged' for r in of_arm], np.inf, ratio)
      if not np.isnan(ratio).all():
        found.append(Errors(arm, dtype, arm == own, [r['seed'] for r in of_arm], ratio))
  return found


def headroom(assertion, runs):
  """Seeds of the claim's own arm, and log10(bound / error) [S] of the worse precision."""
  own = [e for e in errors(assertion, runs) if e.own]
  if not own:
    return [], np.zeros(0)
  with np.errstate(divide='ignore'):
    return own[0].seeds, np.log10(real(assertion.get('c'))) - np.log10(np.max([e.values for e in own], 0))


def split(text):
  """'a@step 0:1 5:2; b@layer ...' -> [(name, axis, labels, values)].

  Raises:
    ValueError: it is written otherwise."""
  out = []
  for series in filter(None, text.split('; ')):
    head, *points = series.split()
    name, at, axis = head.rpartition('@')
    parts = [p.rpartition(':') for p in points]
    if not (at and name and axis) or any(not colon for _, colon, _ in parts):
      raise ValueError(f"curve {series[:80]!r} is not 'name@axis x:y x:y ...'; write it so and record again")
    out.append((name, axis, [x for x, _, _ in parts], [float(y) for _, _, y in parts]))
  return out


def panels(runs) -> list[Panel]:
  """All curves of the runs, one panel per name and axis, lines by arm."""
  found = {}
  for run in runs:
    for name, axis, labels, y in split(run.get('curve') or ''):
      arms = found.setdefault((name, axis), {})
      arms.setdefault(run['arm'], []).append(dict(zip(labels, y)))
  out = []
  for (name, axis), arms in found.items():
    labels = list(dict.fromkeys(k for lines in arms.values() for line in lines for k in line))
    numeric = all(re.fullmatch(r'[-+]?[\d.]+(?:e[-+]?\d+)?', k) for k in labels)
    if numeric:
      labels.sort(key=float)
    x = np.array([float(k) for k in labels]) if numeric else np.arange(len(labels))
    lines = {arm: np.array([[line.get(k, np.nan) for k in labels] for line in each]) for arm, each in arms.items()}
    out.append(Panel(name, axis, x, None if numeric else labels, lines))
  return out


def colours(runs) -> Mapping[str, int]:
  """{arm: number of its colour and dash}, ours first; a role has the colour that it prefers where that is free."""
  roles, taken = {r['arm']: r.get('role') for r in runs}, {}
  for arm, role in sorted(roles.items(), key=lambda item: PREFERRED.get(item[1], COLOURS)):
    free = [k for k in range(COLOURS) if k not in taken.values()]
    want = PREFERRED.get(role, COLOURS)
    taken[arm] = want if want in free else free[-1] if free else len(taken) % COLOURS
  return taken
