"""Devices and hosts: one mesh, batches split over its axis `data`, parameters replicated or sharded by rule."""
import functools
import os
from typing import Any, Callable

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
import numpy as np

RULES = ('replicated', 'fsdp')


def join() -> None:
  """Joins the hosts of a job: SLURM, Kubernetes, TPU pods, or COORDINATOR_ADDRESS with PROCESS_ID and PROCESS_COUNT.

  A process on its own returns at once. Call it before anything else of jax.
  """
  if 'COORDINATOR_ADDRESS' in os.environ and 'PROCESS_COUNT' in os.environ:
    jax.distributed.initialize(os.environ['COORDINATOR_ADDRESS'], int(os.environ['PROCESS_COUNT']),
                               int(os.environ['PROCESS_ID']))
  elif int(os.environ.get('SLURM_NTASKS', '1')) > 1 or 'TPU_WORKER_HOSTNAMES' in os.environ:
    jax.distributed.initialize()


def make(devices: int | None = None) -> Mesh:
  """A mesh of `devices` (all of them by default) with the one axis `data`."""
  have = jax.devices()
  if devices is not None and not 1 <= devices <= len(have):
    raise ValueError(f'{devices} devices were asked for and there are {len(have)} ({have[0].platform})')
  chosen = have[:devices]
  # Explicit axes, the default, refuse x.T @ x over a sharded batch.
  return jax.make_mesh((len(chosen),), ('data',), axis_types=(AxisType.Auto,), devices=chosen)


def host() -> tuple[int, int]:
  """(index, count) of this process."""
  return jax.process_index(), jax.process_count()


def place_batch(mesh: Mesh, batch: Any, axis: int = 0) -> Any:
  """A host's part of a batch as global arrays, split over `data` along `axis` (1 behind a seed axis)."""
  size = mesh.devices.size
  def put(x):
    x = np.asarray(x)
    split = (x.shape[axis] * jax.process_count()) % size == 0
    if not split and jax.process_count() > 1:
      raise ValueError(f'a batch of {x.shape[axis] * jax.process_count()} is not a multiple of {size} devices')
    spec = P(*[None] * axis, 'data') if split else P()
    return jax.make_array_from_process_local_data(NamedSharding(mesh, spec), x)
  if size == 1:
    return jax.device_put(batch, mesh.devices.flat[0])
  return jax.tree.map(put, batch)


def shardings(mesh: Mesh, tree: Any, rule: str = 'replicated') -> Any:
  """A sharding for every leaf: `replicated`, or `fsdp`, each split over `data` along its largest divisible axis."""
  if rule not in RULES:
    raise ValueError(f'sharding rule {rule!r} is not one of {", ".join(RULES)}')
  size = mesh.devices.size
  def choose(x):
    fits = [i for i, n in enumerate(x.shape) if n % size == 0 and n >= size]
    if rule == 'replicated' or size == 1 or not fits:
      return NamedSharding(mesh, P())
    axis = max(fits, key=lambda i: x.shape[i])
    return NamedSharding(mesh, P(*[None] * axis, 'data'))
  return jax.tree.map(choose, tree)


def per_device(function: Callable, devices: int | None = None) -> Callable:
  """`jax.pmap`'s calling form without pmap: arguments and results have a leading axis of one entry a device.

  Entries do not see each other; code that communicates belongs into a `shard_map` of its own.
  """
  mesh = make(devices)
  spec = P('data')
  inner = jax.shard_map(lambda *args: _first(function, args), mesh=mesh, in_specs=spec, out_specs=spec)
  compiled = jax.jit(inner)
  @functools.wraps(function)
  def call(*args):
    sizes = {x.shape[0] for x in jax.tree.leaves(args)}
    if sizes != {mesh.devices.size}:
      raise ValueError(f'per_device takes a leading axis of {mesh.devices.size} devices, got {sorted(sizes)}')
    return compiled(*args)
  return call


def _first(function, args):
  out = function(*jax.tree.map(lambda x: x[0], args))
  return jax.tree.map(lambda x: x[None], out)
