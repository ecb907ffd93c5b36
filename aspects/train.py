"""State, step and the one training loop. All seeds of a study train as one program, along a leading axis."""
from typing import Any, Callable, Iterator, Mapping, NamedTuple
import zlib

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from aspects import data
from aspects import mesh as mesh_lib
from aspects import plugin
from aspects.measure import network_inputs

Array = jax.Array


class Diverged(FloatingPointError):
  """A loss or gradient that is not finite; names the step and the seeds."""


class State(NamedTuple):
  """All that training carries; every leaf has a leading axis of S seeds.

  `bad` is the first step whose loss or gradient was not finite, -1 for none.
  """
  step: Array
  seed: Array
  bad: Array
  params: Any
  rule: Any


def keys(root: Array, step: Array | int, *names: str) -> dict[str, Array]:
  """A key for each name at a step, derived and never split, so that a new consumer does not change the others."""
  root = jax.random.fold_in(root, step)
  return {n: jax.random.fold_in(root, zlib.crc32(n.encode())) for n in names}


def init(net: nn.Module, rule, seeds: tuple[int, ...], batch: Mapping[str, Any], call: Mapping = {},
         given: Mapping = {}) -> State:
  """The untrained state of one network a seed; `batch` is one example batch without a seed axis.

  `given` are variables that all seeds start from, in the place of random ones (a pretrained body).
  """
  inputs, kwargs = network_inputs(net, batch)
  def one(seed, given):
    key = keys(jax.random.key(seed), 0, 'init', 'dropout')
    variables = net.init({'params': key['init'], 'dropout': key['dropout']}, *inputs, **kwargs, **dict(call))
    variables = _laid_over({k: v for k, v in variables.items() if k not in ('intermediates', 'edits', 'cache')}, given)
    params = variables.pop('params')
    extra = variables
    return State(jnp.int32(0), seed, jnp.int32(-1), params, rule.init(net, params, batch, extra))
  return jax.jit(jax.vmap(one, in_axes=(0, None)))(jnp.asarray(seeds, jnp.uint32), dict(given))


def _laid_over(variables: Mapping, given: Mapping) -> dict:
  """`variables` with the leaves of `given` in their place, in the dtype that training keeps."""
  flat, new = (traverse_util.flatten_dict(dict(tree)) for tree in (variables, given))
  for path, x in new.items():
    if path not in flat or flat[path].shape != x.shape:
      raise ValueError(f'the parameter {"/".join(path)} {list(x.shape)} that is given is '
                       f'{list(flat[path].shape) if path in flat else "absent"} in this network')
  return traverse_util.unflatten_dict({k: new[k].astype(x.dtype) if k in new else x for k, x in flat.items()})


def step(net: nn.Module, rule, state: State, batch: Mapping[str, Array]) -> tuple[State, dict[str, Array]]:
  """One step of one seed; pure. Returns the new state and the rule's info."""
  key = keys(jax.random.key(state.seed), state.step, 'step')['step']
  params, rule_state, info = rule.step(net, state.params, state.rule, batch, key)
  finite = jnp.all(jnp.stack([jnp.isfinite(v).all() for v in jax.tree.leaves(info)]))
  bad = jnp.where((state.bad < 0) & ~finite, state.step, state.bad)
  return State(state.step + 1, state.seed, bad, params, rule_state), info


def compiled_step(net: nn.Module, rule) -> Callable:
  """`step` over the seed axis, compiled, with the state donated."""
  return jax.jit(jax.vmap(lambda state, batch: step(net, rule, state, batch)), donate_argnums=0)


def check_finite(state: State) -> None:
  """Raises Diverged if some seed has met a value that is not finite."""
  bad = np.asarray(jax.device_get(state.bad))
  if (bad >= 0).any():
    which = {int(s): int(b) for s, b in zip(np.asarray(state.seed), bad) if b >= 0}
    raise Diverged(f'the loss or gradient was not finite at step {min(which.values())} '
                   f'(first bad step by seed: {which}); the last good checkpoint is kept; try a smaller '
                   'learning.learning_rate, learning.warmup or learning.clip')


def loop(advance: Callable, state: State, streams: data.SeedStreams, until: int, mesh) -> Iterator[tuple]:
  """Trains from the state's step to `until`; yields (state, info) after every step."""
  start = int(np.asarray(state.step).reshape(-1)[0])
  batches = data.prefetch(streams.batch(k) for k in range(start, until))
  try:
    for batch in batches:
      state, info = advance(state, mesh_lib.place_batch(mesh, batch, axis=1))
      yield state, info
  finally:
    batches.close()


def compiled_evaluation(net: nn.Module, objective: Mapping[str, Any], call: Mapping = {}, *,
                        own: bool = False) -> Callable:
  """(variables of all seeds, batch) -> sums over the batch of weight and of weighted metrics, each [S].

  `own`: every seed has a batch of its own, along a leading axis.
  """
  judge = plugin.build('objectives', objective)
  def one(variables, batch):
    inputs, kwargs = network_inputs(net, batch)
    outputs = net.apply(variables, *inputs, **kwargs, **dict(call))
    each, info = judge(outputs, batch, jax.random.key(0))
    weight = batch['weight']
    total = lambda v: jnp.where(weight > 0, v * weight, 0).sum()
    return {'weight': weight.sum(), **{k: total(v) for k, v in {'loss': each, **info}.items()}}
  return jax.jit(jax.vmap(one, in_axes=(0, 0 if own else None)))


def evaluate(evaluation: Callable, variables, stream: data.Stream | data.SeedStreams, mesh) -> dict[str, np.ndarray]:
  """Means of the objective's metrics over one pass of the stream: {metric: [S]} in float64."""
  sums: dict[str, np.ndarray] = {}
  for k in range(len(stream)):
    batch = mesh_lib.place_batch(mesh, stream.batch(k), axis=int(isinstance(stream, data.SeedStreams)))
    new = jax.device_get(evaluation(variables, batch))
    sums = {n: sums[n] + np.asarray(v, np.float64) if sums else np.asarray(v, np.float64) for n, v in new.items()}
  return {n: v / sums['weight'] for n, v in sums.items() if n != 'weight'}
