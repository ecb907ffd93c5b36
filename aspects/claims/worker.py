"""A worker: takes cells from a queue and runs them, one after the other; what fails is a result and ends nobody."""
import contextlib
import json
import os
import signal
import socket
import threading
import time
import traceback
from typing import Callable, Mapping, Protocol

from aspects.claims import cells

STOPPED = 75      # exit status: asked to stop, the same command goes on (EX_TEMPFAIL)
OVERDUE = 124     # exit status: a cell did not heed its limit, and its worker went down with it
GRACE = 30.0      # seconds from a cell's limit to the end of a worker that does not heed it


class Team(Protocol):
  """The processes that run a cell together; number 0 takes the lease and writes the result."""
  index: int

  def exchange(self, text: str) -> list[str]: ...          # what each of them said, at most 4,000 bytes


class Alone:
  """A worker of one process."""
  index = 0

  def exchange(self, text: str) -> list[str]:
    return [text]


def work(queue: cells.Queue, run: Callable[[dict, Callable[[], bool]], Mapping], *, idle: float,
         preempted: Callable[[], bool] = lambda: False, log: Callable[[str], None] = print,
         team: Team = Alone()) -> int:
  """Takes, runs and finishes cells until the queue is closed and done, or `idle` seconds have brought none.

  The result of a cell is {'status': 'done', 'seconds', 'worker', ...run(task, preempted)}, or the failure that `run`
  raised. Choose `idle` above `queue.expiry`, so that a cell whose worker died finds somebody who waits for it.

  Returns:
    how many cells were run.

  Raises:
    SystemExit: with status 75: `preempted()` between two cells, or raised by `run`; its cell was given back.
  """
  ran, since = 0, time.monotonic()
  while True:
    if preempted():
      raise SystemExit(STOPPED)
    with contextlib.ExitStack() as stack:
      lease = queue.take() if team.index == 0 else None
      order = ''
      if lease:
        stack.enter_context(lease)
        order = f'run {lease.key}'
      elif time.monotonic() - since > idle or queue.closed and not queue.left():
        order = 'end'
      order = team.exchange(order)[0]
      if order.startswith('run '):
        task = lease.task if lease else queue.task(order.removeprefix('run '))
        result = _attempt(task, run, preempted, lease, team)
        if lease:
          wrote = lease.finish(result)
          late = '' if wrote else ', too late: another worker has it'
          log(f'{lease.key}: {result["status"]} in {result["seconds"]:.1f} s{late}')
        ran, since = ran + 1, time.monotonic()
    if order == 'end':
      return ran
    if not order:
      time.sleep(min(2.0, queue.expiry / 6))


def _attempt(task: dict, run, preempted, lease: cells.Lease | None, team: Team) -> dict:
  """The result of a cell, whatever it does: one that fails must not end the others."""
  start = time.monotonic()
  made = lambda: {'seconds': round(time.monotonic() - start, 3), 'worker': f'{socket.gethostname()}:{os.getpid()}'}
  def overdue(error: TimeoutError) -> None:
    if lease:
      lease.finish({**failure(error), **made()})
    print(f'{task["key"]}: {error}, and went on for {GRACE:g} s more: this worker ends', flush=True)
    os._exit(OVERDUE)
  try:
    # Of a team, a process that left what the others wait in would leave them waiting: all go together, later.
    with _limit(task.get('limit'), isinstance(team, Alone), overdue):
      result = {'status': 'done', **run(task, preempted)}
      json.dumps(result)
  except SystemExit as error:
    if error.code == STOPPED:
      raise
    result = failure(error)
  except Exception as error:
    result = failure(error)
  said = team.exchange(f'{result["status"]} {result.get("detail", "")}')
  for i, text in enumerate(said):
    status, _, detail = text.partition(' ')
    if result['status'] == 'done' and i != team.index and status not in ('done', ''):
      result = {'status': status, 'detail': f'process {i}: {detail}'}
  return {**made(), **result}


@contextlib.contextmanager
def _limit(seconds: float | None, alarm: bool, overdue: Callable[[TimeoutError], None]):
  """Raises TimeoutError inside after `seconds`; calls `overdue` from a thread if it goes on for GRACE seconds more."""
  if seconds is None:
    yield
    return
  error = TimeoutError(f'not done within its limit of {seconds:g} s')
  alarm = alarm and threading.current_thread() is threading.main_thread()
  last = threading.Timer(seconds + GRACE, overdue, (error,))
  last.daemon = True
  def ring(*_):
    raise error
  before = signal.signal(signal.SIGALRM, ring) if alarm else None
  last.start()
  try:
    if alarm:
      signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
  finally:
    if alarm:
      signal.setitimer(signal.ITIMER_REAL, 0)
      signal.signal(signal.SIGALRM, before)
    last.cancel()


def failure(error: BaseException) -> dict:
  """{'status', 'detail'}: 'oom', 'timeout', 'diverged' or 'error', the last with the end of its traceback.

  Errors of jax and of training are told by their names: neither need be imported to be excluded.
  """
  names = {f'{c.__module__}.{c.__name__}' for c in type(error).__mro__}
  ours = {'aspects.train.Diverged'} & names
  memory = any(n.endswith('RuntimeError') for n in names) and 'RESOURCE_EXHAUSTED' in str(error)
  status = ('diverged' if ours else 'oom' if memory or isinstance(error, MemoryError) else
            'timeout' if isinstance(error, TimeoutError) else 'error')
  detail = f'{type(error).__name__}: {error}'[:1000]
  if status == 'error':
    lines = ''.join(traceback.format_tb(error.__traceback__)).splitlines()[-8:]
    detail = '\n'.join([detail, *lines])[:3000]
  return {'status': status, 'detail': detail}
