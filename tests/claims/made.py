"""Claims and rows that are made, not run: for tests of whatever judges them."""
import numpy as np

from aspects.claims import spec as spec_lib

PAPER = dict(ref='Nobody 2000', said='so', value=None, unit=None, direction='higher', comparable=True)


def claim(assertions, controls=None, *, arms=('ours', 'base'), looks=(8, 16, 32), budget=None, sane=None, metrics=None,
          id='made/1', **fields):
  """A claim over arms that need no network; `assertions` and `controls` as in a config."""
  filled = lambda each: {n: {'reason': 'made up', 'better': 'higher', 'metric': 'score', **a} if a['kind'] != 'identity'
                         else {'metric': 'score', **a} for n, a in each.items()}
  config = dict(title='A made claim', arms={a: {} for a in arms}, procedure=dict(name='tests.claims.made:Draw'), claim=dict(
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
      out.append({'key': f'{abs(hash((arm, seed))):016x}'[:16], 'arm': arm, 'role': 'ours', 'seed': seed, 'status': became,
                  'metrics': {metric: float(value)} if became == 'done' else {}, **extra})
  return out


class Draw:
  """A procedure without an experiment."""

  def __init__(self, **fields):
    self.fields = fields
