"""The lottery ticket hypothesis: iterative magnitude pruning (Frankle & Carbin 2018, arXiv:1803.03635).

Train from theta_0 under a mask, prune, go back to theta_0 with a fresh optimiser, and again: after n rounds the share
keep^n of the weights is left. A share of the training examples is set aside for validation. Metrics for what is left
after each of `rounds`, in percent p: `nll_p` and `accuracy_p` on the test examples at the end of the training;
`stop_p`, the step of the smallest validation loss as a share of the training; `stop_nll_p` and `stop_accuracy_p`, on
the test examples at that step.

Differs from the paper: the number of weights left is a share of all kernels together, see `compressors/magnitude`.
"""
import dataclasses
from typing import Any, Mapping

import jax
import numpy as np

from aspects import data
from aspects import plugin
from aspects import study
from aspects import train
from aspects.claims import training
from aspects.claims.rows import Cell, Rows

PARTS = ('validation', 'test')
OTHER = 2 ** 31                                      # seeds of claims lie below


@dataclasses.dataclass(frozen=True)
class LotteryTicket:
  """`compressor` makes the masks; None leaves the network dense, the same metrics for every round.

  Args:
    learns: whether a mask is made of trained weights; False makes all masks of theta_0, without training for them.
    redraw: whether what is judged starts from another initialisation than theta_0.
    keep: the share of the weights that each round leaves.
    rounds: after how many rounds the networks are judged.
    validation: the share of the training examples that is set aside.
  """
  compressor: Mapping[str, Any] | None = dataclasses.field(default_factory=lambda: {'name': 'magnitude'})
  learns: bool = True
  redraw: bool = False
  keep: float = 0.8
  rounds: tuple[int, ...] = (8, 10, 14)
  validation: float = 0.2

  def __post_init__(self):
    if self.compressor is not None:
      plugin.check('compressors', self.compressor, where='procedure.compressor')
    if not 0 < self.keep < 1 or not self.rounds or list(self.rounds) != sorted({n for n in self.rounds if n > 0}):
      raise ValueError(f'keep {self.keep} is a share above 0 and below 1, rounds {self.rounds} increase from 1')

  def rows(self, cell: Cell) -> Rows:
    arm = with_validation(cell.arm, self.validation)
    # On the host, as training gives the memory of the state that it starts from away.
    fresh = lambda seeds: jax.device_get(train.init(arm.net, arm.rule, seeds, arm.probe.example(),
                                                    arm.config['analysis']['call']))
    start = judged = fresh(arm.seeds)
    if self.redraw:
      judged = start._replace(params=fresh(tuple(seed + OTHER for seed in arm.seeds)).params)
    fitted = {}
    def fit(name, state):
      fitted[name] = study.run_arm(arm, cell.workdir / name, cell.preempted, cell.progress, start=state,
                                   check=lambda state: None)
      return fitted[name]
    if self.compressor is None:
      dense = fit('dense', start)
      return self._rows(arm, {n: dense for n in self.rounds}, len(fitted))
    found, mask = {}, None
    for n in range(1, max(self.rounds) + 1):
      before = start if mask is None else masked(arm, start, mask)
      if self.learns:
        before = (found[n - 1] if n - 1 in found and not self.redraw else fit(f'round_{n - 1}', before)).state
      mask = self.prune(arm, before, self.keep ** n)
      if n in self.rounds:
        found[n] = fit(f'judged_{n}', masked(arm, judged, mask))
    return self._rows(arm, found, len(fitted))

  def prune(self, arm, state, budget: float):
    """Masks [S, ...] of all seeds, from their parameters as they stand under the last mask."""
    params = jax.device_get(study.variables(arm, state)['params'])
    inputs, masks = arm.probe.example()['input'][:1], []
    for s, seed in enumerate(arm.seeds):
      compressor = plugin.build('compressors', self.compressor, 'procedure.compressor', seed=seed)
      one = jax.tree.map(lambda w, s=s: w[s], params)
      masks.append(compressor.mask(one, compressor.plan({'net': arm.net, 'params': one, 'inputs': inputs}, budget)))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *masks)

  def _rows(self, arm, found: Mapping[int, study.Finished], trainings: int) -> Rows:
    metrics, curves, bad = {}, {}, np.zeros(len(arm.seeds), bool)
    for n, done in found.items():
      curve = done.measures['training']
      bad |= np.asarray(done.state.bad) >= 0
      stop = np.nan_to_num(curve['held_validation_nll'].values, nan=np.inf).argmin(1)
      name = f'{100 * self.keep ** n:.0f}'
      metrics[f'stop_{name}'] = curve['step'].values[stop] / max(arm.steps, 1)
      for metric in ('nll', 'accuracy'):
        values = curve[f'held_test_{metric}'].values
        metrics[f'{metric}_{name}'] = values[:, -1]
        metrics[f'stop_{metric}_{name}'] = values[np.arange(len(stop)), stop]
    shown = np.unique(np.linspace(0, curve.sizes['step'] - 1, min(12, curve.sizes['step'])).astype(int))
    curves['test_nll@step'] = (curve['step'].values[shown], curve['held_test_nll'].values[:, shown])
    left = 100 * self.keep ** np.array(list(found))
    curves['test_accuracy@percent_left'] = (left, np.stack([metrics[f'accuracy_{p:.0f}'] for p in left], 1))
    operations = training.operations(arm) * arm.steps * trainings
    return Rows(metrics, bad, arm.parameters, operations, arm.steps, curves)


def masked(arm, state: train.State, mask) -> train.State:
  """`state` of all seeds under `mask` [S, ...]."""
  params, rule = jax.vmap(arm.rule.under)(mask, state.params, state.rule)
  return state._replace(params=params, rule=rule)


@dataclasses.dataclass(frozen=True)
class Parts:
  """An objective with its metrics on each of `PARTS`; a field of the batch called like it says how a row counts."""
  objective: Mapping[str, Any]

  def __call__(self, outputs, batch, key):
    loss, info = plugin.build('objectives', self.objective)(outputs, batch, key)
    return loss, {f'{part}_{name}': value * batch[part] for part in PARTS for name, value in info.items()}


def with_validation(arm, share: float):
  """`arm` trained on less: a share of each seed's training examples joins the test examples in its evaluation."""
  streams, passes = [], []
  for s, (seed, stream) in enumerate(zip(arm.seeds, arm.streams.streams)):
    held = data.held_out(len(stream.source), share, seed)
    streams.append(dataclasses.replace(stream, source=data.Subset(stream.source, np.flatnonzero(~held))))
    one = arm.evaluation.streams[s] if isinstance(arm.evaluation, data.SeedStreams) else arm.evaluation
    rows = (stream.source[np.flatnonzero(held)], one.source[np.arange(len(one.source))])
    both = {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}
    sizes = [len(part['label']) for part in rows]
    for k, name in enumerate(PARTS):                 # the mean over all rows is that over the part
      both[name] = np.repeat(np.eye(2, dtype=np.float32)[k] * sum(sizes) / sizes[k], sizes).astype(np.float32)
    passes.append(dataclasses.replace(one, source=data.ArraySource(**both), batch_size=sum(sizes)))
  config = {**arm.config, 'evaluation': {**arm.config['evaluation'], 'split': 'held'},
            'learning': {**arm.config['learning'], 'objective': {'name': 'experiments.lottery_ticket:Parts',
                                                                 'objective': arm.config['learning']['objective']}}}
  return dataclasses.replace(arm, config=config, streams=data.SeedStreams(tuple(streams)),
                             evaluation=data.SeedStreams(tuple(passes)))
