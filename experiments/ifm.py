"""Iterative feature merging: what a trained network loses when units are merged (Chen et al. 2024, arXiv:2310.06756).

A network is trained as its arm says and then, without data or further training, a compressor merges the share `f` of
the units of every hidden layer. Metrics, on the arm's evaluation examples: `accuracy_f` and `nll_f` for the `fractions`
(in percent), and `tolerated`, the largest share on the `grid` up to which accuracy never lies more than `drop` below
that of the trained network.
"""
import dataclasses
from typing import Any, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from aspects import data
from aspects import mesh as mesh_lib
from aspects import plugin
from aspects import study
from aspects import train
from aspects.claims import training
from aspects.claims.rows import Cell, Rows


@dataclasses.dataclass(frozen=True)
class Ifm:
  """`compressor` merges units of hidden layers; None leaves the network as it is, whatever the fraction."""
  compressor: Mapping[str, Any] | None = dataclasses.field(default_factory=lambda: {'name': 'feature_merge'})
  fractions: tuple[float, ...] = (0.3, 0.5, 0.7)
  grid: float = 0.05
  drop: float = 0.02

  def __post_init__(self):
    if self.compressor is not None:
      plugin.check('compressors', self.compressor, where='procedure.compressor')
    if not 0 < self.grid <= 0.5 or not all(0 < f < 1 for f in self.fractions):
      raise ValueError(f'fractions {self.fractions} and grid {self.grid} are shares of the units that are merged: '
                       'fractions above 0 and below 1, the step of the grid above 0 and at most 0.5')

  @property
  def shares(self) -> tuple[float, ...]:
    """All shares that are tried: the grid from 0 to 0.9, and the fractions."""
    grid = np.arange(0, 0.9 + self.grid / 2, self.grid).round(6).tolist()
    return tuple(sorted({*grid, *self.fractions}))

  def rows(self, cell: Cell) -> Rows:
    arm = cell.arm
    done = study.run_arm(arm, cell.workdir, cell.preempted, cell.progress, check=lambda state: None)
    bad = np.asarray(done.state.bad) >= 0
    found = self.sweep(arm, done.state, bad)         # {metric: [S, shares]}
    at = {f: self.shares.index(f) for f in self.fractions}
    metrics = {f'{name}_{100 * f:.0f}': found[name][:, k] for name in ('accuracy', 'nll') for f, k in at.items()}
    metrics['tolerated'] = tolerated(np.array(self.shares), found['accuracy'], self.drop)
    shown = [k for k, f in enumerate(self.shares) if abs(10 * f - round(10 * f)) < 1e-6]
    curves = {f'{name}@share': (np.array(self.shares)[shown], found[name][:, shown]) for name in ('accuracy', 'nll')}
    return Rows(metrics, bad, arm.parameters, training.operations(arm) * arm.steps, arm.steps, curves)

  def sweep(self, arm, state, bad) -> dict[str, np.ndarray]:
    """Accuracy and nll [S, shares] on the evaluation examples with each of the shares merged."""
    judge = train.compiled_evaluation(arm.net, arm.config['learning']['objective'], arm.config['analysis']['call'],
                                      own=isinstance(arm.evaluation, data.SeedStreams))
    mesh = mesh_lib.make(arm.config['mesh']['devices'] or None)
    variables = study.variables(arm, state)
    every = jax.device_get(variables['params'])
    one = lambda s: jax.tree.map(lambda w: w[s], every)
    inputs = arm.evaluation.example()['input'][:8]
    merged = [self.merged(arm.net, one(s), inputs, seed) if not bad[s] else [one(s)] * len(self.shares)
              for s, seed in enumerate(arm.seeds)]
    out = []
    for k in range(len(self.shares)):
      params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[each[k] for each in merged])
      out.append(train.evaluate(judge, {**variables, 'params': params}, arm.evaluation, mesh))
    return {name: np.stack([each[name] for each in out], 1) for name in ('accuracy', 'nll')}

  def merged(self, net, params, inputs, seed: int) -> list:
    """The parameters of one network for each of the shares, padded by units of zero weight to the shapes they had."""
    if self.compressor is None:
      return [params] * len(self.shares)
    compressor = plugin.build('compressors', self.compressor, 'procedure.compressor', seed=seed)
    plans = compressor.plans({'net': net, 'params': params, 'inputs': inputs}, tuple(1 - f for f in self.shares))
    pad = lambda small, large: np.pad(small, [(0, b - a) for a, b in zip(small.shape, large.shape)])
    return [jax.tree.map(pad, compressor.apply(params, plan), params) for plan in plans]


def tolerated(shares: np.ndarray, accuracy: np.ndarray, drop: float) -> np.ndarray:
  """The largest of `shares` [K], from 0 up, before accuracy [S, K] first lies `drop` below its first value: [S]."""
  within = np.logical_and.accumulate(accuracy >= accuracy[:, :1] - drop - 1e-9, axis=1)
  return shares[within.sum(1) - 1]
