"""Hidden damage and the alignment quality index (Borah et al. 2025, arXiv:2506.13901).

A perceptron is trained and then trained on with the loss  CE - weight log(scatter), scatter the mean squared distance
of the rows of a batch to the mean of their class at hidden layer `layer`: what it does is kept, and its classes are
pushed apart inside. Metrics compare the trained network with the damaged one on the examples of the analysis, all
positive where the damaged one has less: `drop` of the index at that layer, scaled jointly over the layers of both
networks, and `drop_after` at the last layer; `ranked`, whether the index puts the trained one first; `accuracy_change`
(damaged minus trained); `confidence_drop`, of the mean largest probability, and `confidence_ranked`; `accuracy` of the
trained network. `ch_ratio` and `xb_ratio` are the indices of the damaged layer over those of the trained one.

Differs from the paper: digits and their ten classes instead of safe and unsafe prompts, perceptrons instead of language
models, and damage that is made on purpose.
"""
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aspects import data
from aspects import plugin
from aspects import study
from aspects import train
from aspects.claims import training
from aspects.claims.rows import Cell, Rows
from aspects.nn.perceptron import Layer
from aspects.objectives.cross_entropy import CrossEntropy
from aspects.representations import aqi
from aspects.sites import tag


class Open(nn.Module):
  """A perceptron that gives its logits with hidden layer `layer` beside them, [B, outputs + width]; its parameters and
  sites are those of `Perceptron`."""
  outputs: int
  widths: tuple[int, ...] = (128, 64, 64)
  act: str = 'relu'
  dtype: str = 'float32'
  layer: int = 0

  @nn.compact
  def __call__(self, inputs):
    x, hidden = inputs.reshape(inputs.shape[0], -1).astype(jnp.dtype(self.dtype)), []
    for i, width in enumerate(self.widths):
      x = Layer(width, act=self.act, dtype=self.dtype, name=f'layer_{i}')(x)
      hidden.append(x)
    logits = tag(self, 'logits', nn.Dense(self.outputs, dtype=self.dtype, name='head')(x).astype(jnp.float32))
    return jnp.concatenate([logits, hidden[self.layer].astype(jnp.float32)], 1)


@dataclasses.dataclass(frozen=True)
class Scatter:
  """Cross-entropy of the first `classes` outputs, minus `weight` times the log of the others' scatter within classes.

  Every row carries the logarithm of the batch's scatter; rows of weight 0 do not count.
  """
  classes: int = 10
  weight: float = 0.0

  def __call__(self, outputs, batch, key=None):
    loss, info = CrossEntropy()(outputs[:, :self.classes], batch, key)
    if not self.weight:
      return loss, info
    spread = scatter(outputs[:, self.classes:], batch['label'], batch['weight'], self.classes)
    return loss - self.weight * jnp.log(spread), info


def scatter(x, label, weight, classes: int):
  """The mean squared distance [] of rows x [B, D] to the mean of their class, over rows of `weight` [B]."""
  hot = jax.nn.one_hot(label, classes, dtype=x.dtype) * weight[:, None]
  means = hot.T @ x / jnp.maximum(hot.sum(0), 1e-9)[:, None]
  return (((x - means[label]) ** 2).sum(1) * weight).sum() / jnp.maximum(weight.sum(), 1e-9)


@dataclasses.dataclass(frozen=True)
class Aqi:
  """`weight` of the scatter in the second training, of `steps` steps; 0 goes on as before."""
  weight: float = 1.0
  layer: int = 3
  steps: int = 300
  gamma: float = 0.5

  def __post_init__(self):
    if self.weight < 0 or self.steps < 1 or self.layer < 0:
      raise ValueError(f'weight {self.weight} must be at least 0, steps {self.steps} at least 1 and layer {self.layer} '
                       'a hidden layer, from 0')

  def rows(self, cell: Cell) -> Rows:
    arm = cell.arm
    if self.layer >= len(arm.config['net']['widths']):
      raise ValueError(f'layer {self.layer} is none of the {len(arm.config["net"]["widths"])} hidden layers, from 0')
    run = lambda arm, name, start: study.run_arm(arm, cell.workdir / name, cell.preempted, cell.progress, start=start,
                                                 check=lambda state: None)
    first = run(arm, 'trained', None)
    first = first._replace(state=jax.device_get(first.state))
    other = self.second(arm)
    start = train.init(other.net, other.rule, other.seeds, other.probe.example(), other.config['analysis']['call'])
    second = run(other, 'damaged', jax.device_get(start)._replace(params=first.state.params))
    bad = (np.asarray(first.state.bad) >= 0) | (np.asarray(second.state.bad) >= 0)
    metrics, scores = self.compared(*(done.measures['aqi'].isel(step=-1) for done in (first, second)))
    curves = [done.measures['training'] for done in (first, second)]
    accuracy = [curve['test_accuracy'].values[:, -1] for curve in curves]
    confidence = [self.confidence(other, done.state) for done in (first, second)]
    metrics |= {'accuracy': accuracy[0], 'accuracy_change': accuracy[1] - accuracy[0],
                'confidence_drop': confidence[0] - confidence[1],
                'confidence_ranked': (confidence[0] > confidence[1]).astype(float)}
    depth = np.arange(1, scores.shape[2] + 1)
    operations = training.operations(arm) * arm.steps + training.operations(other) * other.steps
    return Rows(metrics, bad, arm.parameters, operations, arm.steps + other.steps,
                {'aqi_trained@layer': (depth, scores[:, 0]), 'aqi@layer': (depth, scores[:, 1])})

  def second(self, arm):
    """The arm that trains on: the same network with one layer open, the same data, and the scatter in its loss."""
    config = plugin.freeze(arm.config)
    objective = {'name': 'experiments.aqi:Scatter', 'classes': arm.task.outputs, 'weight': self.weight}
    net = {**config['net'], 'name': 'experiments.aqi:Open', 'layer': self.layer}
    config = {**config, 'arms': {}, 'claim': None, 'net': net, 'steps': self.steps,
              'learning': {**config['learning'], 'objective': objective}}
    return study.build(config).arms['main']

  def compared(self, first, second) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(metrics [S], index [S, 2, L] of both networks) from the results of the measure for each."""
    stacked = lambda name: np.stack([np.asarray(ds[name].transpose('seed', 'site')) for ds in (first, second)], 1)
    ch, xb = stacked('calinski_harabasz'), stacked('xie_beni')
    scores = np.stack([aqi.combined(*pair, self.gamma) for pair in zip(ch, xb)])
    drop = scores[:, 0] - scores[:, 1]
    return {'drop': drop[:, self.layer], 'drop_after': drop[:, -1], 'ranked': (drop[:, self.layer] > 0).astype(float),
            'ch_ratio': ch[:, 1, self.layer] / ch[:, 0, self.layer],
            'xb_ratio': xb[:, 1, self.layer] / xb[:, 0, self.layer]}, scores

  def confidence(self, arm, state) -> np.ndarray:
    """The mean over examples of the largest probability [S], by the parameters of `state`."""
    own = isinstance(arm.probe, data.SeedStreams)
    def one(params, batch):
      p = jax.nn.softmax(arm.net.apply({'params': params}, batch['input'])[:, :arm.task.outputs]).max(1)
      return (p * batch['weight']).sum(), batch['weight'].sum()
    run = jax.jit(jax.vmap(one, in_axes=(0, 0 if own else None)))
    sums = np.array([run(state.params, arm.probe.batch(k)) for k in range(len(arm.probe))], np.float64).sum(0)
    return sums[0] / sums[1]
