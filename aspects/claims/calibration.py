"""What the machinery does where the truth is known: the noise bank, the null audit and planted effects.

The noise bank says how far two runs of one configuration are apart, for every task: the sd of their difference is a
margin that needs no opinion. The two are independent (other split, order and initialisation), and their difference has
about the root of two times the sd of one run. The null audit puts a recorded claim at the edge of what it denies, with
the baseline's own runs in the place of ours, and counts how often it holds. Planted effects add 0, 0.5, 1 and 2 sd to
the same noise and count what is found.
"""
import json
import pathlib
import sys
import tempfile
from typing import Any, Mapping

import numpy as np
from scipy import stats
import tqdm

from aspects import files
from aspects import inference
from aspects import plugin
from aspects import study
from aspects.claims import judge as judge_lib
from aspects.claims import record as record_lib
from aspects.claims import running
from aspects.claims import spec as spec_lib

FRESH = 2000                                         # seeds of the null audit, neither a claim's nor of tuning
EFFECTS = (0., .5, 1., 2.)                           # in sd of the paired difference


# --- noise bank -----------------------------------------------------------------------------------------------------

def noise_bank(path: pathlib.Path, base: Mapping[str, Any], arms: Mapping[str, Mapping], seeds: int) -> dict:
  """Runs `arms` {task: overrides of `base`}, twice `seeds` each, and writes {task: {metric: statistics}} to `path`.

  Run s and run s + seeds are independent. Tasks that the bank has for the same config stay as they are."""
  bank = json.loads(path.read_text()) if path.exists() else {}
  for name, change in tqdm.tqdm(arms.items(), unit='task', file=sys.stderr):
    config = plugin.overlay(base, change, f'arms.{name}')
    key = spec_lib.digest([{k: v for k, v in config.items() if k not in spec_lib.OPERATION}, seeds])
    if name in bank and bank[name]['key'] == key:
      continue
    every = tuple(range(running.TUNING, running.TUNING + 2 * seeds))
    with tempfile.TemporaryDirectory() as folder:
      arm = study.build({**config, 'arms': {}, 'claim': None, 'seeds': every}).arms['main']
      found = study.run_arm(arm, pathlib.Path(folder), lambda: False, False).measures['training']
    bank[name] = {'key': key, 'seeds': seeds, 'steps': config['steps'], 'net': study.describe_spec(config['net']),
                  'metrics': {metric: _noise(found[metric].values[:, -1]) for metric in found
                              if metric.startswith(config['evaluation']['split'])}}
    files.write(path, (json.dumps(record_lib.rounded(bank), indent=1, sort_keys=True) + '\n').encode())
  return bank


def _noise(values: np.ndarray) -> dict[str, float]:
  """Mean and sd over runs, and the sd of the difference of two runs, from the two halves [2, S]."""
  a, b = values.reshape(2, -1)
  return {'mean': float(values.mean()), 'sd': float(values.std(ddof=1)), 'sd_paired': float((a - b).std(ddof=1))}


# --- null audit and planted effects ---------------------------------------------------------------------------------

def calibrate(folder: record_lib.Folder, configs: pathlib.Path, draws: int, fresh: int = 0) -> dict:
  """Null audit and planted effects on the noise of every recorded assertion over two arms; writes calibration.json.

  `fresh`: so many new seeds of every baseline are run and judged once as if they were ours."""
  found, null, planted, replaced = spec_lib.find(configs), [], [], []
  for id, record in tqdm.tqdm(folder.records().items(), unit='claim', file=sys.stderr):
    claim = spec_lib.load(found[record['system']])
    for name, assertion in claim.assertions.items():
      values = baseline(assertion, record['runs'])
      if values is None:
        continue
      null.append({'claim': id, 'assertion': name, 'kind': assertion['kind'], **null_audit(claim, name, values, draws)})
      if assertion['kind'] == 'superior':
        planted += [{'claim': id, 'assertion': name, **row} for row in power(claim, name, values, draws)]
    if fresh:
      replaced += replace(claim, record['runs'], fresh)
  bound = most(draws)
  out = {'about': 'claims put at the edge of what they deny, and effects planted, in the noise of their own baselines',
         'alpha': inference.ALPHA, 'draws': draws, 'most_holds_by_chance': bound,
         'null_rate': float(np.mean([row['rate'] for row in null])) if null else None,
         'null_passes': all(row['holds'] <= bound for row in null), 'null_audit': null, 'planted_effects': planted}
  if fresh:
    holds = sum(row['verdict'] == 'holds' for row in replaced)
    out |= {'replaced_holds': holds, 'replaced_most_by_chance': most(len(replaced)),
            'replaced_passes': holds <= most(len(replaced)), 'replaced_by_baseline': replaced}
  files.write(folder.root / 'calibration.json', (json.dumps(record_lib.rounded(out), indent=1) + '\n').encode())
  return out


def most(draws: int) -> int:
  """How many of so many true nulls may hold: passed by chance once in a thousand."""
  return int(stats.binom.ppf(.999, draws, inference.ALPHA))


def baseline(assertion: Mapping, rows) -> np.ndarray | None:
  """The baseline's values of an assertion over two arms; None for others, and where they do not vary."""
  if len(assertion['arms']) != 2 or assertion['kind'] in ('identity', 'trend'):
    return None
  values = [row['metrics'].get(assertion['metric']) for row in rows
            if row['arm'] == assertion['arms'][1] and row['status'] == 'done']
  values = np.array([v for v in values if v is not None])
  return values if len(values) >= 8 and np.ptp(values) > 0 else None


def edge(assertion: Mapping) -> float:
  """The difference, as claimed positive, at which an assertion is just not true."""
  kind, rule = judge_lib.margins(assertion)
  low, high, _, _ = inference.region(kind, **rule)
  return low if np.isfinite(low) else high


def null_audit(claim: spec_lib.Claim, name: str, values: np.ndarray, draws: int) -> dict:
  """How often an assertion holds whose two arms are drawn from the baseline, moved to the assertion's edge."""
  rng, at = np.random.default_rng(inference.arm_seed(claim.id, running.TUNING)), edge(claim.assertions[name])
  verdicts = [verdict(claim, name, at + np.subtract(*rng.choice(values, (2, claim.looks[-1])))) for _ in range(draws)]
  holds = verdicts.count('holds')
  return {'draws': draws, 'holds': holds, 'rate': holds / draws}


def power(claim: spec_lib.Claim, name: str, values: np.ndarray, draws: int) -> list[dict]:
  """Share of holds with effects of 0 to 2 sd planted above tau, beside that in normal noise of the same sd."""
  rng, n = np.random.default_rng(inference.arm_seed(claim.id, running.TUNING)), claim.looks[-1]
  at, sd, out = edge(claim.assertions[name]), values.std() * np.sqrt(2), []
  noises = {'holds': lambda: np.subtract(*rng.choice(values, (2, n))), 'holds_normal': lambda: sd * rng.normal(size=n)}
  for effect in EFFECTS:
    row = {'effect_sd': effect}
    for key, draw in noises.items():
      row[key] = [verdict(claim, name, at + effect * sd + draw()) for _ in range(draws)].count('holds') / draws
    out.append(row)
  return out


def verdict(claim: spec_lib.Claim, name: str, d: np.ndarray) -> str:
  """The verdict of one assertion on differences [S], by the looks of its claim."""
  return judge_lib.first_decided(d, *judge_lib.margins(claim.assertions[name]), claim.looks)


def replace(claim: spec_lib.Claim, rows, seeds: int) -> list[dict]:
  """Every assertion over two arms judged once with new runs of its baseline in the place of ours, at its edge."""
  out, ran = [], {}
  for name, assertion in claim.assertions.items():
    old = baseline(assertion, rows)
    if old is None:
      continue
    arm = assertion['arms'][1]
    if arm not in ran:
      new = range(FRESH, FRESH + seeds)
      with tempfile.TemporaryDirectory() as folder:
        ran[arm] = running.rows_of(claim, arm, new, pathlib.Path(folder), lambda: False, {s: '' for s in new})
    values = np.array([row['metrics'][assertion['metric']] for row in ran[arm]], np.float64)
    d = edge(assertion) + values - old[:seeds]
    kind, rule = judge_lib.margins(assertion)
    out.append({'claim': claim.id, 'assertion': name, 'kind': assertion['kind'], 'seeds': seeds,
                'verdict': judge_lib.decided(d, kind, rule, inference.ALPHA)})
  return out
