"""Landscaping linear mode connectivity: barriers of runs that part after k epochs (Singh et al., arXiv:2406.16300).

A network and, for each k of `forks`, a second run that is the same up to epoch k and sees the batches in another order
from there; all end at the same step. On the straight line from the network to each of them, with the train loss of
the arm's evaluation examples:
  midpoint_k      excess of the loss over the chord at the midpoint
  barrier_k       the largest excess
  fall            rank correlation of midpoint_k with k
  layer_excess    the barrier of one layer that moves alone less that of all, over the largest barrier of all: the
                  largest over all k and layers, below 0 if every single barrier is the lower one
  layer_share     the barrier of one layer over that of all, both summed over k: the largest of the layers
  rho_path        rank correlation, over all (k, layer), of the measured midpoint excess and that of the curvature
                  along the line; rho_ends that of the curvature at both ends alone
  error           largest difference of the measured and the former, in units of the largest excess
  distance_k      Euclidean distance of the two

Differs from the paper: its estimate from local quantities is replaced by the exact mean of the curvature, see
`aspects/nn/segments`.
"""
import dataclasses
from typing import Any

import jax
import numpy as np

from aspects import data
from aspects import inference
from aspects import plugin
from aspects import study
from aspects import train
from aspects.claims import training
from aspects.claims.rows import Cell, Rows
from aspects.learning.backprop import weighted_mean
from aspects.measure import network_inputs
from aspects.nn import segments

OTHER = 2 ** 31                                      # seeds of claims lie below


@dataclasses.dataclass(frozen=True)
class LmcLandscape:
  """`forks` are the epochs after which second runs part; `common` False: these have other first weights, too."""
  forks: tuple[int, ...] = (0, 1, 3, 10, 30)
  points: int = 21
  common: bool = True

  def __post_init__(self):
    if len(self.forks) < 3 or list(self.forks) != sorted(set(self.forks)) or self.forks[0] < 0:
      raise ValueError(f'forks {self.forks} are three or more epochs that increase from 0')
    if self.points < 5 or (self.points - 1) % 4:
      raise ValueError(f'points is {self.points}; Simpson on either half of a line needs 5, 9, 13, ...')

  def rows(self, cell: Cell) -> Rows:
    arm = forked(cell.arm, self.forks)
    first = self.start(cell.arm)
    done = study.run_arm(arm, cell.workdir, cell.preempted, cell.progress, start=first, check=lambda state: None)
    count, each = len(cell.arm.seeds), 1 + len(self.forks)
    split = lambda x: np.asarray(x).reshape(count, each, *np.shape(x)[1:])
    params = jax.tree.map(split, jax.device_get(study.variables(arm, done.state)['params']))
    found = lines(cell.arm, params, self.points)
    metrics = summary(found, self.forks)
    distance = np.sqrt(sum(((w[:, 1:] - w[:, :1]) ** 2).reshape(count, each - 1, -1).sum(-1)
                           for w in map(np.float64, jax.tree.leaves(params))))
    metrics |= {f'distance_{k}': distance[:, i] for i, k in enumerate(self.forks)}
    name = f'{arm.config["evaluation"]["split"]}_'
    metrics |= {m: split(done.measures['training'][name + m].values[:, -1])[:, 0] for m in ('nll', 'accuracy')}
    bad = (split(done.state.bad) >= 0).any(1)
    curves = {'midpoint@epoch': (np.array(self.forks), np.stack([metrics[f'midpoint_{k}'] for k in self.forks], 1)),
              'distance@epoch': (np.array(self.forks), distance)}
    return Rows(metrics, bad, arm.parameters, training.operations(cell.arm) * arm.steps * each, arm.steps, curves)

  def start(self, arm: study.Arm) -> train.State:
    """The first state of every seed, once for the network and once for each of the other runs: [S (1 + K)]."""
    fresh = lambda seeds: jax.device_get(train.init(arm.net, arm.rule, seeds, arm.probe.example(),
                                                    arm.config['analysis']['call']))
    one = fresh(arm.seeds)
    other = one if self.common else fresh(tuple(seed + OTHER for seed in arm.seeds))
    def join(a, b):
      whole = np.stack([a, *[b] * len(self.forks)], 1)
      return whole.reshape(-1, *whole.shape[2:])
    return jax.tree.map(join, one, other)


@dataclasses.dataclass(frozen=True)
class Forked:
  """The stream `first` up to step `at`, and `second` from there."""
  first: data.Stream
  second: data.Stream
  at: int

  @property
  def source(self):
    return self.first.source

  batch_size = property(lambda self: self.first.batch_size)
  repeat = property(lambda self: self.first.repeat)
  host = property(lambda self: self.first.host)

  def __len__(self) -> int:
    return len(self.first)

  def batch(self, step: int) -> dict[str, np.ndarray]:
    return (self.first if step < self.at else self.second).batch(step)


def forked(arm: study.Arm, forks: tuple[int, ...]) -> study.Arm:
  """`arm` with 1 + K runs for each seed, side by side: as it is, and separated after each of `forks` epochs."""
  if arm.steps < forks[-1] * len(arm.streams):
    raise ValueError(f'{arm.steps} steps end before epoch {forks[-1]}, the last fork; '
                     f'give {forks[-1] * len(arm.streams)} or more')
  def runs(stream):
    other = dataclasses.replace(stream, seed=stream.seed + OTHER)
    return (stream, *[Forked(stream, other, k * len(stream)) for k in forks])
  def repeated(stream):
    if not isinstance(stream, data.SeedStreams):
      return stream
    return data.SeedStreams(tuple(one for one in stream.streams for _ in range(1 + len(forks))))
  streams = data.SeedStreams(tuple(run for stream in arm.streams.streams for run in runs(stream)))
  return dataclasses.replace(arm, config={**arm.config, 'seeds': tuple(range(len(streams.streams)))}, streams=streams,
                             evaluation=repeated(arm.evaluation), probe=repeated(arm.probe))


def lines(arm: study.Arm, params: Any, points: int) -> dict[str, dict[str, np.ndarray]]:
  """{'all' or a layer that moves alone: {'curve', 'curvature': [S, K, points]}} on the lines from the first run.

  `params` [S, 1 + K, ...] of all runs. Lines pass one after another through one program: on a CPU batched products of
  small matrices are slower.
  """
  if len(arm.evaluation) > 1:
    raise ValueError(f'the loss is that of one batch, and the evaluation has {len(arm.evaluation)}; let '
                     'evaluation.batch be as large as evaluation.examples')
  objective = plugin.build('objectives', arm.config['learning']['objective'])
  own = isinstance(arm.evaluation, data.SeedStreams)
  def one(p, q, batch):
    inputs, kwargs = network_inputs(arm.net, batch)
    def loss(params):
      each, _ = objective(arm.net.apply({'params': params}, *inputs, **kwargs), batch, jax.random.key(0))
      return weighted_mean(each, batch['weight'])
    return {'curve': segments.lmc_barrier(loss, p, q, points).curve,
            'curvature': segments.segment_curvature(loss, p, q, points)}
  @jax.jit
  def every(start, ends, batch):
    def of_seed(start, ends, batch):
      return jax.lax.map(lambda q: one(start, q, batch), ends)
    return jax.lax.map(lambda x: of_seed(x[0], x[1], x[2] if own else batch), (start, ends, *[batch] * own))
  start, ends = jax.tree.map(lambda w: w[:, 0], params), jax.tree.map(lambda w: w[:, 1:], params)
  still = jax.tree.map(lambda w, e: np.broadcast_to(w[:, None], e.shape), start, ends)
  moves = {'all': ends, **{layer: segments.moved(still, ends, (layer,)) for layer in params}}
  return {name: jax.device_get(every(start, q, arm.evaluation.batch(0))) for name, q in moves.items()}


def summary(found: dict[str, dict[str, np.ndarray]], forks: tuple[int, ...]) -> dict[str, np.ndarray]:
  """The metrics [S] of what `lines` found."""
  def excess(curve):                                 # [S, K, points]
    shares = np.linspace(0, 1, curve.shape[-1])
    curve = np.float64(curve)
    return curve - curve[..., :1] * (1 - shares) - curve[..., -1:] * shares
  above = {name: excess(each['curve']) for name, each in found.items()}
  middle = {name: x[..., x.shape[-1] // 2] for name, x in above.items()}               # [S, K]
  barrier = {name: x.max(-1) for name, x in above.items()}
  path = {name: segments.midpoint_from_curvature(each['curvature']) for name, each in found.items()}
  ends = {name: segments.midpoint_from_ends(each['curvature']) for name, each in found.items()}
  layers = [name for name in found if name != 'all']
  cells = lambda values: np.concatenate([values[name] for name in layers], 1)            # [S, layers K]
  ranks = lambda a, b: np.array([inference.rank_correlation(x[None], y)[0] for x, y in zip(a, b)])
  single = np.stack([barrier[name].sum(1) for name in layers]).max(0)
  off = np.abs(np.concatenate([path[name] - middle[name] for name in found], 1)).max(1)
  out = {f'midpoint_{k}': middle['all'][:, i] for i, k in enumerate(forks)}
  out |= {f'barrier_{k}': barrier['all'][:, i] for i, k in enumerate(forks)}
  worst = np.stack([barrier[name] - barrier['all'] for name in layers]).max((0, 2))
  return out | {
      'layer_excess': worst / np.maximum(barrier['all'].max(1), np.finfo(np.float32).tiny),
      'fall': inference.rank_correlation(middle['all'], np.array(forks, np.float64)),
      'layer_share': single / np.maximum(barrier['all'].sum(1), np.finfo(np.float32).tiny),
      'rho_path': ranks(cells(path), cells(middle)), 'rho_ends': ranks(cells(ends), cells(middle)),
      'error': off / np.abs(np.concatenate(list(middle.values()), 1)).max(1)}
