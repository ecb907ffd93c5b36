"""Claims and rows that are made, not run: for tests of whatever judges them."""
import dataclasses
import os
import pathlib
import subprocess
import time

import numpy as np

from aspects.claims import spec as spec_lib
from aspects.claims.rows import Rows

PAPER = dict(ref='Nobody 2000', said='so', value=None, unit=None, direction='higher', comparable=True)


def claim(assertions, controls=None, *, arms=('ours', 'base'), looks=(8, 16, 32), budget=None, sane=None, metrics=None,
          id='made/1', **fields):
  """A claim over arms that need no network; `assertions` and `controls` as in a config."""
  filled = lambda each: {n: {'reason': 'made up', 'better': 'higher', 'metric': 'score', **a} if a['kind'] != 'identity'
                         else {'metric': 'score', **a} for n, a in each.items()}
  config = dict(title='A made claim', arms={a: {} for a in arms}, procedure=dict(name='tests.claims.made:Draw'),
                claim=dict(
      id=id, component='claims/made', sentence='Ours is better.', paper=PAPER,
      roles={a: r for a, r in zip(arms, ('ours', 'baseline', *['control'] * len(arms)))},
      metrics=metrics or dict(score=dict(long_name='score', unit='points', worst=None)),
      assertions=filled(assertions), controls=filled(controls or {}), budget=budget or dict(waived='nothing is spent'),
      sane=sane, looks=looks, block=8, amends=None))
  return spec_lib.resolve({**config, **fields}, f'configs/tests/{id.split("/")[0]}.py')


def rows(values, *, metric='score', status=None, **extra):
  """Rows of arms: {arm: [one number a seed]}; NaN stays. `status` {(arm, seed): what became of it}."""
  out = []
  for arm, each in values.items():
    for seed, value in enumerate(np.asarray(each, float)):
      became = (status or {}).get((arm, seed), 'done')
      out.append({'key': f'{abs(hash((arm, seed))):016x}'[:16], 'arm': arm, 'role': 'ours', 'seed': seed,
                  'status': became,
                  'metrics': {metric: float(value)} if became == 'done' else {}, **extra})
  return out


@dataclasses.dataclass(frozen=True)
class Draw:
  """A procedure without an experiment: `score` is `mean` and a number that the seed gives, equal in every arm.

  `do`: what goes wrong; 'nan' or 'fail' for the seeds whose number is odd, 'diverge' for all, 'log' tells a file.
  """
  mean: float = 0.0
  spread: float = 0.1
  do: str = ''
  log: str = ''
  sleep: float = 0.0

  def rows(self, cell):
    if self.log:
      with open(self.log, 'ab', buffering=0) as file:
        file.write(f'{os.getpid()} {cell.seeds[0]} {len(cell.seeds)} {self.mean}\n'.encode())
    time.sleep(self.sleep)
    if self.do == 'fail' and any(s % 2 for s in cell.seeds):
      raise MemoryError('made to fail')
    noise = np.array([np.random.default_rng(s).normal() for s in cell.seeds])
    score = np.where([self.do == 'nan' and s % 2 for s in cell.seeds], np.nan, self.mean + self.spread * noise)
    return Rows({'score': score}, np.full(len(score), self.do == 'diverge'), params=10, flops=1e3, steps=5,
                curves={'score@step': (np.arange(3), np.stack([score] * 3, 1))})


CONFIG = """
from configs import common

def get_config(scale=''):
  config = common.theory()
  config.title = 'A made claim'
  config.procedure = dict(name='tests.claims.made:Draw')
  config.arms = dict(ours=dict(procedure=dict(mean={mean}, {ours})), base=dict(procedure=dict(mean=0.0, {base})))
  config.claim = common.claim(
      id='{system}/1', component='claims/made', sentence='{sentence}',
      paper=dict(ref='Nobody 2000', said='so', value=None, unit=None, direction='higher', comparable=True),
      roles=dict(ours='ours', base='baseline'), metrics=dict(score=dict(long_name='score', unit='points')),
      assertions=dict(more=dict(kind='superior', arms=('ours', 'base'), metric='score', better='higher', tau=0.0,
                                eps={eps}, reason='made up')),
      budget=dict(arms=('ours', 'base'), trials=1), looks={looks})
  return common.scaled(config, scale, claim=dict(), smoke=dict(claim=dict(looks=(2,))), full=dict())
"""


def config(folder, system='made-up', **fields):
  """Writes configs/tests/<system>.py into `folder` and commits it there; returns its path."""
  usual = dict(mean=1.0, ours='', base='', sentence='Ours is better.', eps=0.5, looks=(8, 16, 32))
  path = pathlib.Path(folder) / 'configs' / 'tests' / f'{system.replace("-", "_")}.py'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(CONFIG.format(system=system, **{**usual, **fields}))
  commit(folder)
  return path


def commit(folder):
  run = lambda *a: subprocess.run(['git', '-C', str(folder), '-c', 'user.name=x', '-c', 'user.email=x@y', *a],
                                  check=True,
                                  capture_output=True)
  if not (pathlib.Path(folder) / '.git').exists():
    run('init')
  run('add', '-A')
  run('commit', '--allow-empty', '-m', 'registered')
