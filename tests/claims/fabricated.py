"""Records that no run made: valid in form, with the statistics of their rows, for tests of what reads records."""
import copy
import hashlib

import numpy as np

from aspects import inference
from aspects.claims import judge as judge_lib

KINDS = ('superior', 'noninferior', 'equivalent', 'band', 'trend', 'identity')
WIDTHS = ('width_64', 'width_256', 'width_512', 'width_1024')
MARGINS = {'superior': dict(tau=0., eps=0.02), 'noninferior': dict(eps=0.04),
           'equivalent': dict(eps=0.04), 'band': dict(band=[0.3, 0.38]), 'trend': dict(tau=0., eps=0.3)}
# Mean of the difference that gives each verdict with a standard deviation of SPREAD over 8 seeds or more.
EFFECTS = {'superior': (0.12, -0.04, 0.01), 'noninferior': (0.02, -0.15, -0.035), 'equivalent': (0., 0.15, 0.035),
           'band': (0.34, 0.6, 0.385)}
SPREAD = 0.03
EPS = {'float32': float(np.finfo(np.float32).eps), 'float64': float(np.finfo(np.float64).eps)}


def digest(*parts):
  return hashlib.sha256('/'.join(map(str, parts)).encode()).hexdigest()


def exactly(rng, n, mean, sd):
  """n normal draws moved and scaled to this mean and standard deviation; one draw is the mean."""
  x = rng.normal(size=n)
  return mean + (sd * (x - x.mean()) / x.std(ddof=1) if n > 1 else np.zeros(n))


def rows(kind, verdict, n, rng):
  """{arm: (role, {metric: [n]})} that give the assertion `kind` its `verdict`."""
  which = inference.VERDICTS.index(verdict)
  base = exactly(rng, n, 0.42, 0.05)
  if kind == 'trend':
    slope = np.array([1, -1, 0])[which] + (np.where(np.arange(n) % 2, 1, -1) if which == 2 else 0)
    noise = 0.4 * rng.normal(size=(n, 4))
    arms = 0.1 * (slope.reshape(-1, 1) * np.arange(4.) + noise) + 1
    return {a: ('anchor' if i else 'baseline', {'density': arms[:, i]}) for i, a in enumerate(WIDTHS)}
  if kind == 'identity':
    def metrics(factor):
      error = {f'merge_error_{d}': factor * eps * rng.uniform(.1, .8, n) for d, eps in EPS.items()}
      return error | {f'merge_scale_{d}': np.ones(n) for d in EPS}
    own = metrics((4, 40, 4)[which])
    if which == 2:
      own['merge_error_float64'][-1] = np.nan
    return {'closed_form': ('ours', own), 'wrong_form': ('control', metrics(4e5))}
  metric = 'late_share' if kind == 'superior' else 'test_nll'
  effect = EFFECTS[kind][which]
  if kind == 'band':
    return {'ours': ('ours', {metric: exactly(rng, n, effect, SPREAD)})}
  sign = 1 if kind == 'superior' else -1
  return {'ours': ('ours', {metric: base + sign * exactly(rng, n, effect, SPREAD)}),
          'baseline': ('baseline', {metric: base}),
          'random': ('control', {metric: base - sign * exactly(rng, n, 0.08, SPREAD)})}


def number(run, metric, worst=np.nan):
  value = run['metrics'].get(metric) if run['status'] == 'done' else worst if run['status'] == 'diverged' else None
  return np.nan if value is None else value


def judged(assertion, runs, alpha):
  """The assertion with what its rows say, by `aspects.inference`."""
  kind, names = assertion['kind'], assertion['arms']
  found = [{r['seed']: number(r, assertion['metric'], assertion.get('worst')) for r in runs if r['arm'] == a}
           for a in names]
  seeds = sorted(set.intersection(*map(set, found)))
  values = np.array([[f[s] for f in found] for s in seeds], float).reshape(len(seeds), len(found))
  values = values[np.isfinite(values).all(1)]
  n = len(values)
  out = dict(assertion, n=n, look=len(seeds), estimate=None, sd=None, rho=None, ci=None, level=1 - 2 * alpha, p=None,
             p_signflip=None, mde80=None, n_for_80=None, verdict='inconclusive')
  if kind == 'identity':
    return out | identity(assertion, runs)
  if n < 2:
    return out | ({'estimate': float(values[0] @ [1, -1][:values.shape[1]])} if n and kind != 'trend' else {})
  sign = -1 if assertion.get('better') == 'lower' else 1
  if kind == 'trend':
    found = inference.trend(values, alpha=alpha)
    d, interval = np.arctanh(np.clip(found.rho, -.9, .9)), found[1:]
  else:
    d = sign * (values[:, 0] - values[:, 1] if len(names) == 2 else values[:, 0])
    interval = inference.interval(d, alpha=alpha)
  margins = {k: assertion[k] for k in ('tau', 'eps', 'band') if k in assertion}
  sd = float(d.std(ddof=1))
  margin, tau = assertion.get('eps') or 0.04, assertion.get('tau', 0.)
  enough = (k for k in range(2, 200) if inference.detectable(k, alpha=alpha) * sd <= margin)
  return out | dict(
      estimate=float(interval[0]), ci=[float(x) for x in interval[1:]], sd=sd,
      rho=float(np.corrcoef(values[:, :2].T)[0, 1]) if len(names) == 2 and values.std(0).all() else None,
      p=float(inference.student(d, tau=tau, side='greater')),
      p_signflip=inference.signflip(d, tau=tau),
      mde80=inference.detectable(n, alpha=alpha) * sd, n_for_80=next(enough, None),
      verdict=inference.decide('superior' if kind == 'trend' else kind, low=interval[1], high=interval[2], **margins))


def curve(rng, n, rank=0, steps=9, layers=12):
  """Texts of a falling loss over steps and of a share over layers, one a seed; arms of another `rank` differ."""
  x = np.linspace(0, 400, steps).astype(int)
  loss = 2.3 * np.exp(-x / (90 + 25 * rank)) + 0.4 + 0.05 * rank + 0.03 * rng.normal(size=(n, steps))
  share = np.sin(np.arange(layers) / (4 + rank)) ** 2 / 3 + 0.1 + 0.02 * rng.normal(size=(n, layers))
  return ['test_nll@step ' + ' '.join(f'{a}:{b:.4g}' for a, b in zip(x, row)) + '; late@layer '
          + ' '.join(f'{a}:{b:.4g}' for a, b in enumerate(late)) for row, late in zip(loss, share)]


def assertion(kind, **fields):
  """The registered part of an assertion of this kind over the arms that `rows` makes for it."""
  arms = {'trend': list(WIDTHS), 'identity': ['closed_form'], 'band': ['ours']}.get(kind, ['ours', 'baseline'])
  metric = {'trend': 'density', 'identity': 'merge', 'superior': 'late_share'}.get(kind, 'test_nll')
  own = dict(name='main', kind=kind, arms=arms, metric=metric, better='higher', unit='nats', control=False,
             reason='one standard deviation of the paired difference over 20 baseline seeds',
             text=f'A sentence on {metric}.', **MARGINS.get(kind, {'c': 8.}))
  if kind in ('noninferior', 'equivalent'):
    own['better'] = 'lower'
  return own | ({'eps': None} if kind in ('band', 'identity') else {}) | fields


def record(id='lns/1', *, kind='superior', verdict='holds', seeds=16, gate=None, family='norms', sentence=None,
           paper=None, more=(), curves=True, seed=0):
  """A record whose first assertion is `kind` and comes out as `verdict`.

  Args: `seeds`; `gate`, the name of one that is not passed; `more`, kinds of further assertions, which hold."""
  rng = np.random.default_rng([seed, *id.encode()])
  alpha, system = judge_lib.LEVELS[3], id.partition('/')[0]
  arms = rows(kind, verdict, seeds, rng)
  wanted = [assertion(kind)]
  for i, other in enumerate(more):
    extra = rows(other, 'holds', seeds, rng)
    wanted.append(assertion(other, name=f'{other}_too', arms=[f'{a}_{i}' if other != kind else a for a in
                                                              assertion(other)['arms']]))
    arms |= {f'{a}_{i}': x for a, x in extra.items()} if other != kind else {}
  if 'random' in arms:
    wanted.append(assertion('superior', name='random', arms=['ours', 'random'], metric=wanted[0]['metric'],
                            better=wanted[0]['better'], control=True, text='Chance does worse.'))
  runs = []
  for rank, (arm, (role, metrics)) in enumerate(arms.items()):
    lines = curve(rng, seeds, rank) if curves else [None] * seeds
    for s in range(seeds):
      run = dict(key=digest(id, arm, s), arm=arm, role=role, seed=s, status='done', params=51234, flops=1.5e9,
                 steps=400, seconds=1.25 + s, metrics={k: float(v[s]) for k, v in metrics.items()})
      runs.append(run | ({'curve': lines[s]} if curves else {}))
  out = dict(
      schema=1, id=id, system=system, family=family, title=f'A paper on {system}',
      claim=sentence or f'The {kind} claim of {system}.',
      paper=dict(dict(ref='Sun et al. 2025, arXiv:2502.05795', said='Deep layers take part.', value=None, unit=None,
                      direction='higher', comparable=False), **(paper or {})),
      registered=dict(spec_hash=digest(id), commit=digest(id)[:12], date='2026-03-01', time='2026-03-01T10:00:00Z',
                      alpha=inference.ALPHA, looks=[8, 16, 32], stage='claim', amends=None),
      assertions=wanted, runs=runs,
      gates={k: {'pass': k != gate, 'detail': f'what was compared for {k}'} for k in
             ('control', 'budget', 'complete', 'sane')},
      verdict=dict(value='inconclusive', reason='decided', negligible=False, q=None, versus_paper='silent',
                   previous=None),
      provenance=dict(code_hash=digest('code'), data_hash=digest('data'), lock_hash=digest('lock'), dirty=False,
                      jax='0.10.2', jaxlib='0.10.2', platform='cpu', device='cpu', x64=False, precision='highest',
                      vmap_seeds=True, started='2026-03-01T11:00:00Z', seconds=93.5, rows_hash=digest('rows', id),
                      config=f'configs/{family}/{system}.py', component=f'aspects/{family}/{system}.py',
                      command=f'python -m experiments.claims run {id} --scale claim --exec local:2'))
  return judge(out, gate)


def judge(record, gate=None):
  """`record` judged anew from its rows, in place: assertions by the table, the claim by all that are no controls."""
  for i, a in enumerate(record['assertions']):
    record['assertions'][i] = judged(a, record['runs'], judge_lib.LEVELS[3])
  value = inference.combine([a['verdict'] for a in record['assertions'] if not a['control']])
  reasons = {'control': 'control_failed', 'budget': 'budget_mismatch', 'complete': 'missing_runs', 'sane': 'not_sane'}
  reason = reasons[gate] if gate else 'underpowered' if value == 'inconclusive' else 'decided'
  record['verdict'] |= dict(value='inconclusive' if gate else value, reason=reason,
                            q=record['assertions'][0]['p'], versus_paper='not_comparable')
  return record


def identity(assertion, runs):
  own = [r for r in runs if r['arm'] == assertion['arms'][0]]
  ratio = np.array([[number(r, f'merge_error_{d}') / (eps * number(r, f'merge_scale_{d}')) for d, eps in EPS.items()]
                    for r in own])
  verdict = 'inconclusive' if not ratio.size or np.isnan(ratio).any() else 'holds' if ratio.max() <= 8 else 'fails'
  worst = float(np.nanmax(ratio) / 8) if np.isfinite(ratio).any() else None
  return dict(n=len(own), look=len(own), estimate=worst, verdict=verdict)


def spoiled(how, kind='superior'):
  """A record that something went wrong with: `how` is one of SPOILS."""
  out = record('spoiled/1', kind=kind, seeds=1 if how == 'one seed' else 8)
  SPOILS[how](out)
  return judge(out, None if how in ('one seed', 'identical arms') else 'complete')


def _nan(out):
  for i, run in enumerate(out['runs']):
    run['metrics'] = {k: (None if i % 2 else float('nan')) for k in run['metrics']}


def _missing_arm(out):
  out['runs'] = [r for r in out['runs'] if r['role'] != 'baseline']


def _diverged(out):
  for a in out['assertions']:
    a['worst'] = 9. if a['better'] == 'lower' else -9.
  for run in out['runs']:
    if run['arm'] == out['assertions'][0]['arms'][0] and run['seed'] % 2:
      run['status'], run['metrics'] = 'diverged', {k: None for k in run['metrics']}
      run['curve'] = 'test_nll@step 0:2.303 50:nan 100:inf'


def _identical(out):
  first = {r['seed']: r['metrics'] for r in out['runs'][:8]}
  for run in out['runs']:
    run['metrics'] = {k: 0.5 for k in first[run['seed']]} if len(run['metrics']) == 1 else run['metrics']


def _failed(out):
  for run in out['runs'][::3]:
    run['status'], run['metrics'] = 'oom', {}
    del run['curve'], run['flops']


SPOILS = {'nan': _nan, 'one seed': lambda out: None, 'missing arm': _missing_arm, 'diverged arm': _diverged,
          'identical arms': _identical, 'failed runs': _failed, 'no runs': lambda out: out.update(runs=[])}

LEDGER = (
    ('lns/1', 'norms', 'superior', 'holds', None, ('noninferior',),
     'With layer norm scaling the deeper half of a 12-block network carries a larger share of the damage that '
     'single-block ablations do than with plain pre-norm.',
     dict(ref='Sun et al. 2025, arXiv:2502.05795', said='Deep pre-norm layers hardly change the function; scaling the '
          'output of every norm by one over the root of the depth makes them take part.')),
    ('peri-ln/1', 'placements', 'superior', 'holds', None, (),
     'Norms before and after each sublayer keep the largest activation of the last block lower than pre-norm does.',
     dict(ref='Kim et al. 2025, arXiv:2502.02732', said='Balanced variance growth and steadier gradients.')),
    ('parallel-resnet/1', 'stacks', 'equivalent', 'inconclusive', 'control', (),
     'A residual network whose blocks all read the same input is as accurate on digits as the deep one.',
     dict(ref='Bermeitinger et al. 2023, arXiv:2309.08414', said='Similar training and validation loss for both.',
          value=0.0, unit='points', direction='equal', comparable=True)),
    ('residual-expansion/1', 'theory', 'band', 'holds', None, (),
     'The relative error of the second-order expansion of a residual tower falls with the cube of its scale.',
     dict(ref='Dherin et al. 2025, arXiv:2510.03470', said='The remainder is of third order.', value=3., unit='slope',
          direction='band', comparable=True)),
    ('residual-expansion/2', 'theory', 'identity', 'holds', None, (),
     'For linear modules the expansion over all paths is exact.', None),
    ('lazy-neuron/1', 'locality', 'trend', 'fails', None, (),
     'The share of active neurons falls with the width of the hidden layer.',
     dict(ref='Li et al. 2022, arXiv:2210.06313', said='3.0 % non-zeros in T5-Base, larger models sparser.', value=3.0,
          unit='%', direction='lower')),
    ('ifm/1', 'compressors', 'noninferior', 'holds', None, (),
     'Merging 30 % of the hidden units costs at most three points of accuracy, and less than merging random pairs.',
     dict(ref='Chen et al. 2024, arXiv:2310.06756', said='Little or no loss, data-free.')),
    ('perturbed-nc/1', 'theory', 'superior', 'fails', None, (),
     'Along the central path the within-class scatter falls relative to the between-class one at every step.', None),
    ('nc-deep-linear/1', 'theory', 'band', 'inconclusive', None, (),
     'With balanced data the class means of every linear layer become orthogonal and of equal length.', None),
    ('metaformer/1', 'mixers', 'superior', 'inconclusive', 'budget', ('equivalent', 'superior'),
     'The choice of the mixer matters less than the residual or the channel MLP.',
     dict(ref='Yu et al. 2021, arXiv:2111.11418', said='82.1 % with pooling as the mixer.', value=82.1, unit='%')),
    ('dsd-locality-separation/1', 'theory', 'trend', 'holds', None, (),
     'Samples needed to reach an error of 10 % grow from convolution to local to full connections.', None),
    ('lottery-ticket/1', 'learning', 'noninferior', 'inconclusive', None, (),
     'Tickets with 20 % of the weights and their first initialisation reach the dense accuracy within half a point.',
     dict(ref='Frankle & Carbin 2018, arXiv:1803.03635', said='Tickets below 10-20 % match or exceed the dense net.')),
)


def ledger(copies=1):
  """Twelve records over families, kinds and verdicts; with `copies`, so many of each under other ids."""
  once = [record(id, family=family, kind=kind, verdict=verdict, gate=gate, more=more, sentence=sentence, paper=paper)
          for id, family, kind, verdict, gate, more, sentence, paper in LEDGER]
  out = []
  for k in range(copies):
    for r in once:
      r = copy.deepcopy(r)
      r['id'] = f'{r["system"]}/{int(r["id"].partition("/")[2]) + 10 * k}'
      out.append(r)
  return out
