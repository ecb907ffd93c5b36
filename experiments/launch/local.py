"""Workers on this machine: `--exec local:2`. One that dies is replaced; asked to stop, they give their cells back.

What the workers say is in `logs/` of the queue's folder.
"""
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Mapping, Sequence

from aspects.claims import cells
from aspects.claims import worker

DEATHS = 4        # a worker that dies so often without a cell, or leaves work undone, is not replaced


def launch(folder: str | os.PathLike, *, workers: int, command: Sequence[str], gpus: int = 0,
           grace: float = 30.0) -> 'Crew':
  """Starts `workers` processes of `command`.

  Args:
    gpus: of this machine; the workers take turns to get one each. With 0 all see what this process sees.
    grace: seconds that a worker has to stop before it is killed.
  """
  return Crew(folder, command, [environment(i, workers, gpus) for i in range(workers)], grace)


def environment(index: int, workers: int, gpus: int = 0) -> dict[str, str]:
  """The environment of worker `index`: its share of the cores as threads, and its GPU.

  Left alone, every worker starts as many threads as there are cores; NPROC is what XLA's thread pools go by.
  """
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
  threads = str(max(1, cores // workers))
  names = ('NPROC', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')
  out = {**os.environ, **{n: threads for n in names}}
  if threads == '1':
    out['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_cpu_multi_thread_eigen=false'.strip()
  if gpus:
    out['CUDA_VISIBLE_DEVICES'] = str(index % gpus)
    out['XLA_PYTHON_CLIENT_MEM_FRACTION'] = f'{0.9 / -(-workers // gpus):.3f}'
  return out


class _Place:
  """One worker after another in the same place."""

  def __init__(self, log: pathlib.Path, environment: Mapping[str, str]):
    self.log, self.environment = log, environment
    self.process, self.deaths, self.results, self.over = None, 0, 0, False


class Crew:
  """Workers of this machine, one for each environment, as `launch.Workers`.

  `stopped` says that somebody else asked one to stop. Without `replace` the first death is the end.
  """

  def __init__(self, folder, command, environments, grace, replace=True):
    self.queue, self.command, self.grace, self.replace = cells.Queue(folder), list(command), grace, replace
    self.stopped = False
    logs = self.queue.folder / 'logs'
    logs.mkdir(exist_ok=True)
    self._places = [_Place(logs / f'{socket.gethostname()}-{os.getpid()}-{i}.log', e)
                    for i, e in enumerate(environments)]
    self._before = None
    for place in self._places:
      self._start(place)

  def describe(self) -> str:
    return f'{len(self._places)} workers on this machine; their logs are {self._places[0].log.parent}'

  @property
  def living(self) -> int:
    """How many workers live at this moment."""
    return sum(p.process is not None for p in self._places)

  def watch(self) -> int:
    """As `launch.Workers`."""
    for place in self._places:
      self._reap(place)
    pending = self.queue.pending()
    for place in self._places if pending else ():
      if place.process is None and not place.over:
        self._start(place)
    broken = [p for p in self._places if p.deaths]
    if broken and all(p.over for p in self._places) and (pending or not self.replace):
      raise RuntimeError(f'workers keep dying, and none is left; the end of {broken[0].log}:\n{tail(broken[0].log)}')
    return sum(not p.over for p in self._places)

  def wait(self) -> None:
    """Until no worker is left; raises as `watch`."""
    while self.watch() and self.living:
      time.sleep(0.2)

  def stop(self) -> None:
    """Asks all workers to stop, and kills what has not after `grace` seconds."""
    living = [p for p in self._places if p.process is not None]
    for place in self._places:
      place.over = True
    for place in living:
      place.process.terminate()
    deadline = time.monotonic() + self.grace
    try:
      for place in living:
        place.process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
      print(f'workers have not stopped after {self.grace:g} s and are killed', file=sys.stderr)
    finally:                                         # also when asked to stop once more
      for place in living:
        if place.process.poll() is None:
          os.killpg(place.process.pid, signal.SIGKILL)
          place.process.wait()
        self.queue.disown(place.process.pid, blame=False)
        place.process = None

  def __enter__(self) -> 'Crew':
    if threading.current_thread() is threading.main_thread():
      def leave(*_):
        raise SystemExit(worker.STOPPED)
      self._before = signal.signal(signal.SIGTERM, leave)
    return self

  def __exit__(self, *error) -> None:
    try:
      self.stop()
    finally:
      if self._before is not None:
        signal.signal(signal.SIGTERM, self._before)

  def _start(self, place: _Place) -> None:
    place.results = len(self.queue.finished())
    with open(place.log, 'ab') as log:
      # A session of its own: Ctrl-C reaches the parent only, which then asks the workers.
      place.process = subprocess.Popen(self.command, env=place.environment, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, start_new_session=True)

  def _reap(self, place: _Place) -> None:
    code = place.process.poll() if place.process else None
    if code is None:
      return
    pid, place.process = place.process.pid, None
    if code == worker.STOPPED:
      place.over = self.stopped = True
    elif code == 0:
      idle = self.queue.pending() and len(self.queue.finished()) == place.results
      place.deaths = place.deaths + 1 if idle else 0
    elif code != worker.OVERDUE:
      # A cell that kills its workers is given up by the queue; a worker that dies without one is broken itself.
      place.deaths += not self.queue.disown(pid, blame=True) or not self.replace
      how = f'was killed by {signal.Signals(-code).name}' if code < 0 else f'ended with status {code}'
      print(f'a worker {how}; the end of {place.log}:\n{tail(place.log)}', file=sys.stderr)
    place.over = place.over or place.deaths >= (DEATHS if self.replace else 1)


def tail(path: pathlib.Path, lines: int = 15) -> str:
  """The end of a log."""
  with open(path, 'rb') as file:
    file.seek(max(0, path.stat().st_size - 8000))
    return '\n'.join(file.read().decode(errors='replace').splitlines()[-lines:])
