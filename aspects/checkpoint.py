"""Checkpoints: complete or absent, newest readable first, on any number of devices. The only user of orbax."""
import contextlib
import logging
import pathlib
import signal
import threading
from typing import Any, Mapping, NamedTuple
import zlib

import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp

log = logging.getLogger('aspects')


class Restored(NamedTuple):
  """What a checkpoint held: its step, the state, and the notes saved beside it."""
  step: int
  state: Any
  notes: dict


class Checkpoints:
  """Checkpoints of one run in a directory: saved while training goes on, each visible only when complete.

  Args:
    every: steps between checkpoints; 0 saves at the end and on request only.
    keep: how many are kept.
  """

  def __init__(self, directory: str | pathlib.Path, every: int = 0, keep: int = 2):
    # A process killed in the middle of a save leaves a temporary directory behind.
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True, create=True)
    self.directory, self.every = pathlib.Path(directory).absolute(), every
    with _quiet():
      self._manager = ocp.CheckpointManager(self.directory, options=options)

  def due(self, step: int) -> bool:
    return bool(self.every) and step % self.every == 0

  def save(self, step: int, state: Any, notes: Mapping[str, Any]) -> None:
    """Starts to save `state` (arrays) and `notes` (JSON) as `step`; a step that is there already is left alone."""
    if step in self._manager.all_steps():
      return
    # The manager writes in the background while the caller's program reuses its buffers: save a copy of the host.
    state = _on_host(state)
    notes = {'notes': dict(notes), 'digest': digest(state)}
    with _quiet():
      self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state),
                                                       notes=ocp.args.JsonSave(notes)), force=True)

  def restore(self, like: Any) -> Restored | None:
    """The newest readable checkpoint in the shapes and shardings of `like`, or None; what is damaged is skipped."""
    target = jax.tree.map(_abstract, like)
    with _quiet():
      self._manager.wait_until_finished()
      for step in sorted(self._manager.all_steps(), reverse=True):
        try:
          read = self._manager.restore(step, args=ocp.args.Composite(
              state=ocp.args.StandardRestore(target), notes=ocp.args.JsonRestore()))
          notes = read['notes']
          found = digest(read['state'])
          if found is not None and notes['digest'] is not None and found != notes['digest']:
            raise ValueError(f'its content has digest {found}, recorded was {notes["digest"]}')
          return Restored(step, read['state'], notes['notes'])
        except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
          reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
          log.warning('checkpoint %s is damaged and was skipped: %s', self.directory / str(step), reason)
          self._discard(step)
    return None

  def _discard(self, step: int) -> None:
    """Moves a damaged checkpoint aside, so that its step can be saved again and nothing is lost."""
    if jax.process_index() == 0:
      bad = self.directory / str(step)
      if bad.exists():
        bad.rename(self.directory.parent / f'{self.directory.name}-damaged-{step}')
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f'discarded {step}')
    self._manager.reload()

  def close(self) -> None:
    """Waits until what was saved is complete."""
    with _quiet():
      self._manager.wait_until_finished()
      self._manager.close()

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *error) -> None:
    self.close()


def digest(state: Any) -> int | None:
  """A CRC of all leaves, or None where this process does not hold them all."""
  total = 0
  for x in jax.tree.leaves(state):
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
      return None
    x = np.asarray(x.addressable_data(0) if isinstance(x, jax.Array) and x.is_fully_replicated else x)
    total = zlib.crc32(np.ascontiguousarray(x).tobytes(), zlib.crc32(f'{x.dtype}{x.shape}'.encode(), total))
  return total


def _on_host(state: Any) -> Any:
  """A copy that training cannot overwrite: numpy on a single host; arrays that span hosts are copied on the device."""
  if jax.process_count() == 1:
    return jax.device_get(state)
  return jax.tree.map(lambda x: x.copy(), state)


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, 'sharding', None))


class Preemption:
  """Whether this job was asked to stop: SIGTERM here, or on any host of a job of several processes.

  On a single process jax's preemption service does not catch the signal, so this listens itself; of several, jax agrees
  on a step at which all stop.
  """

  def __init__(self):
    self._asked = threading.Event()
    self._before = None
    self._calls = 0

  def __enter__(self) -> 'Preemption':
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
      self._before = signal.signal(signal.SIGTERM, lambda *_: self._asked.set())
    return self

  def __exit__(self, *error) -> None:
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def __call__(self) -> bool:
    """True if the job should save and leave now; all processes of a job must call it equally often."""
    self._calls += 1
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(self._calls)
    return self._asked.is_set()


@contextlib.contextmanager
def _quiet():
  """orbax logs every save through absl; what a user must know is said by this module."""
  loggers = [logging.getLogger('absl')]
  before = [logger.level for logger in loggers]
  for logger in loggers:
    logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    for logger, level in zip(loggers, before):
      logger.setLevel(level)
