"""Gradient descent by backpropagation with any optax optimiser (Rumelhart, Hinton & Williams 1986)."""
import dataclasses
import inspect
from typing import Any, Mapping, NamedTuple

from flax import traverse_util
import jax
import jax.numpy as jnp
import optax

from aspects import plugin
from aspects.measure import network_inputs

SCHEDULES = ('constant', 'cosine', 'linear')
DECAYED = ('kernel', 'embedding')


class BackpropState(NamedTuple):
  """The optimiser's state, and the collections of variables besides `params` (running averages)."""
  optimizer: Any
  extra: Any


@dataclasses.dataclass(frozen=True)
class Backprop:
  """One step down the gradient of the objective.

  Args:
    optimizer: an optax optimiser by name with its own fields, without the learning rate.
    learning_rate: the peak; reached after `warmup` steps, then `schedule` (constant, cosine, linear) over `steps`.
    clip: bound on the global norm of the gradient; None for none.
    decay: decoupled weight decay of kernels and embeddings, never of gains, biases and positions.
    call: keywords for the network in training, such as train=True.
  """
  objective: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {'name': 'cross_entropy'})
  optimizer: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {'name': 'adam'})
  learning_rate: float = 1e-3
  schedule: str = 'cosine'
  warmup: int = 0
  steps: int = 1000
  clip: float | None = 1.0
  decay: float = 0.0
  call: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    self.transformation()
    plugin.build('objectives', self.objective, where='learning.objective')

  def rate(self) -> optax.Schedule:
    """The learning rate as a function of the step."""
    rest = max(self.steps - self.warmup, 1)
    if self.schedule not in SCHEDULES:
      raise ValueError(f'schedule {self.schedule!r} is unknown; {plugin.nearest(self.schedule, SCHEDULES)}')
    tail = {'constant': lambda: optax.constant_schedule(self.learning_rate),
            'cosine': lambda: optax.cosine_decay_schedule(self.learning_rate, rest),
            'linear': lambda: optax.linear_schedule(self.learning_rate, 0.0, rest)}[self.schedule]()
    if not self.warmup:
      return tail
    return optax.join_schedules([optax.linear_schedule(0.0, self.learning_rate, self.warmup), tail], [self.warmup])

  def transformation(self) -> optax.GradientTransformation:
    name = self.optimizer['name']
    make = getattr(optax, name, None)
    makers = [n for n, f in vars(optax).items() if callable(f) and not isinstance(f, type)
              and 'learning_rate' in _parameters(f)]
    if make is None or name not in makers:
      raise ValueError(f'optax has no optimiser {name!r}; {plugin.nearest(name, makers)}')
    own = {k: v for k, v in self.optimizer.items() if k != 'name'}
    for key in own:
      if key not in _parameters(make) or key == 'learning_rate':
        raise ValueError(f'optimizer {name!r} has no field {key!r} here; {plugin.nearest(key, _parameters(make))}')
    links = [optax.clip_by_global_norm(self.clip)] if self.clip else []
    links.append(make(self.rate(), **own))
    if self.decay:
      # Decoupled (Loshchilov & Hutter 2017): the decay follows the schedule and passes no moment estimate.
      links.append(_decay(self.decay, self.rate()))
    return optax.chain(*links)

  def init(self, net, params, batch, extra: Mapping = {}) -> BackpropState:
    return BackpropState(self.transformation().init(params), dict(extra))

  def step(self, net, params, state: BackpropState, batch, key):
    """(params, state, info): info holds the weighted batch means of loss and metrics, and the gradient's norm."""
    objective = plugin.build('objectives', self.objective)
    inputs, kwargs = network_inputs(net, batch)
    def loss(params):
      outputs, extra = net.apply({'params': params, **state.extra}, *inputs, **kwargs, **dict(self.call),
                                 rngs={'dropout': jax.random.fold_in(key, 1)}, mutable=list(state.extra))
      each, info = objective(outputs, batch, jax.random.fold_in(key, 2))
      info = {name: weighted_mean(value, batch['weight']) for name, value in {'loss': each, **info}.items()}
      return info['loss'], (info, {**state.extra, **extra})
    grads, (info, extra) = jax.grad(loss, has_aux=True)(params)
    updates, optimizer = self.transformation().update(grads, state.optimizer, params)
    info['gradient_norm'] = optax.tree.norm(grads)
    return optax.apply_updates(params, updates), BackpropState(optimizer, extra), info

  def variables(self, params, state: BackpropState) -> dict:
    """What the network is applied with."""
    return {'params': params, **state.extra}


def weighted_mean(value, weight):
  """[B], [B] -> []; a row of weight 0 does not count, whatever it holds."""
  return jnp.where(weight > 0, value * weight, 0).sum() / jnp.maximum(weight.sum(), 1e-9)


def _parameters(function) -> tuple[str, ...]:
  try:
    return tuple(inspect.signature(function).parameters)
  except (TypeError, ValueError):
    return ()


def _decay(decay: float, rate: optax.Schedule) -> optax.GradientTransformation:
  def mask(params):
    flat = traverse_util.flatten_dict(params)
    return traverse_util.unflatten_dict({path: path[-1] in DECAYED for path in flat})
  return optax.chain(optax.masked(_subtract(decay, rate), mask))


def _subtract(decay: float, rate: optax.Schedule) -> optax.GradientTransformation:
  def init(params):
    return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))
  def update(updates, state, params):
    amount = decay * rate(state.count)
    moved = jax.tree.map(lambda u, p: u - (amount * p).astype(u.dtype), updates, params)
    return moved, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))
  return optax.GradientTransformation(init, update)
