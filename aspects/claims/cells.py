"""Cells and who runs them: a queue that is a folder, for any number of workers on any number of hosts.

`queue/<key>.json` is a task, `done/<key>.json` its result, `leases/<key>.<n>` says who runs it, for the n-th time. A
worker touches its lease while it lives; a lease untouched for `expiry` seconds is dead, and who first creates the one
after it, n + 1, runs the cell again. Nothing is ever taken from somebody, so there is no moment at which two could win,
and a worker that slept through its death sees that a later lease exists. All that is asked of the file system is that
`link` and `rename` are atomic: local disks, NFS, Lustre, GPFS.

Needs the standard library only, so that workers and those who wait for them start at once.
"""
import contextlib
import json
import logging
import os
import pathlib
import re
import secrets
import socket
import threading
import time
from typing import Any, Mapping
import zlib

ATTEMPTS = 3      # a cell that has killed so many workers is not given to another
KEY = re.compile(r'[A-Za-z0-9][A-Za-z0-9._+=@-]{0,199}')
log = logging.getLogger('aspects')


class Queue:
  """Tasks, leases and results in `folder`, which is made if it is not there.

  Args:
    expiry: seconds after which the lease of a silent worker is dead; the same for all who share the folder.
  """

  def __init__(self, folder: str | os.PathLike, *, expiry: float = 60.0):
    if not expiry > 0:
      raise ValueError(f'expiry is {expiry}; it is a number of seconds above 0')
    self.folder, self.expiry = pathlib.Path(folder).absolute(), float(expiry)
    for name in ('queue', 'done', 'leases', 'damaged'):
      (self.folder / name).mkdir(parents=True, exist_ok=True)

  def put(self, key: str, payload: Mapping[str, Any]) -> None:
    """Adds a task, JSON of any kind; putting the same again changes nothing. `limit` in it is its time in seconds.

    Raises:
      ValueError: a key that is no file name, the same key with another payload, or a queue that is closed.
    """
    if not KEY.fullmatch(key):
      raise ValueError(f'key {key!r} is not 1 to 200 letters, digits or any of ._+=@-, the first a letter or a digit')
    task = _plain({**payload, 'key': key})
    if not self._task(key).exists():
      if self.closed:
        raise ValueError(f'{self.folder} is closed and takes no task {key!r}; call reopen() first')
      _publish(self._task(key), task)
    there = self.task(key)
    differ = sorted(k for k in {**there, **task} if _canonical(there.get(k)) != _canonical(task.get(k)))
    if differ:
      raise ValueError(f'task {key!r} is in {self.folder} with another payload (it differs in {", ".join(differ)}); '
                       'another task needs another key')

  def task(self, key: str) -> dict:
    """The task {key, ...payload}; ValueError if there is none or its file is damaged."""
    try:
      return json.loads(self._task(key).read_bytes())
    except FileNotFoundError:
      raise ValueError(f'there is no task {key!r} in {self.folder}') from None
    except ValueError as error:
      raise ValueError(f'{self._task(key)} is damaged ({error}); remove it and put the task again') from error

  def finished(self) -> list[str]:
    """Keys that have a result."""
    return _keys(self.folder / 'done')

  def running(self) -> list[str]:
    """Keys without a result whose worker lives."""
    return self._unfinished()[1]

  def pending(self) -> list[str]:
    """Keys that nobody has finished or is running."""
    return list(self._unfinished()[0])

  def left(self) -> int:
    """How many keys have no result."""
    return len(set(_keys(self.folder / 'queue')) - set(self.finished()))

  def _unfinished(self) -> tuple[dict[str, int], list[str]]:
    """The pending keys with the number of their last lease, and the running ones."""
    done, leases = set(self.finished()), self._leases()
    now = self._now() if leases else 0.0
    pending, running = {}, []
    for key in _keys(self.folder / 'queue'):
      if key not in done:
        n = leases.get(key, 0)
        if n and not self._dead(key, n, now):
          running.append(key)
        else:
          pending[key] = n
    return pending, running

  def result(self, key: str) -> dict | None:
    """The result, None if there is none. A damaged file is named and set aside, and its cell is pending again."""
    path = self._done(key)
    try:
      text = path.read_bytes()
    except FileNotFoundError:
      return None
    try:
      read = json.loads(text)
      if read['crc32'] != _digest(read['result']):
        raise ValueError(f'its content has CRC {_digest(read["result"])}, recorded was {read["crc32"]}')
      return read['result']
    except (ValueError, KeyError, TypeError) as error:
      aside = self.folder / 'damaged' / f'{key}.{secrets.token_hex(4)}.json'
      log.warning('result %s is damaged (%s); it was set aside as %s and its cell runs again', path, error, aside)
      with contextlib.suppress(FileNotFoundError):         # another reader was faster
        path.rename(aside)
      return None

  def retry(self, key: str) -> None:
    """Forgets the result of a cell, and how often it has failed, so that it runs again."""
    for path in [self._done(key), *self._all_leases(key)]:
      path.unlink(missing_ok=True)

  @property
  def closed(self) -> bool:
    """Whether no more tasks come."""
    return (self.folder / 'closed').exists()

  def close(self) -> None:
    (self.folder / 'closed').touch()

  def reopen(self) -> None:
    (self.folder / 'closed').unlink(missing_ok=True)

  def take(self) -> 'Lease | None':
    """A lease of the first task that nobody holds, or None. Use it in a `with`: left unfinished, it is given back."""
    for key, n in self._unfinished()[0].items():
      if n >= ATTEMPTS:
        self._bury(key, n)
        continue
      held = {'host': socket.gethostname(), 'pid': os.getpid(), 'time': time.time(), 'token': secrets.token_hex(8)}
      if _publish(self._lease(key, n + 1), held):
        lease = Lease(self, key, n + 1, held['token'])
        # A worker that had it until now wrote its result before it removed its lease.
        if self._done(key).exists():
          lease.release()
          continue
        try:
          lease.start()
          return lease
        except ValueError as error:
          lease.finish({'status': 'error', 'detail': str(error)})
    return None

  def disown(self, pid: int, *, blame: bool) -> int:
    """Ends the leases of a process of this host that is known to have ended, without waiting for them to expire.

    Args:
      blame: it died of itself, which counts against its cell; otherwise it was killed for another reason.
    Returns:
      how many there were.
    """
    ended = 0
    for key, n in self._leases().items():
      holder = self._holder(key, n)
      if (holder.get('host'), holder.get('pid')) == (socket.gethostname(), pid):
        with contextlib.suppress(FileNotFoundError):
          os.utime(self._lease(key, n), (0, 0)) if blame else self._lease(key, n).unlink()
          ended += 1
    return ended

  def _bury(self, key: str, n: int) -> None:
    """The result of a cell whose workers die."""
    holders = [self._holder(key, i) for i in range(1, n + 1)]
    where = ', '.join(f'{h.get("host", "?")}:{h.get("pid", "?")}' for h in holders)
    detail = f'{n} workers died while they ran it ({where}); killed for its memory, or crashed below Python'
    Lease(self, key, n, holders[-1].get('token', '')).finish({'status': 'error', 'detail': detail})

  def _task(self, key: str) -> pathlib.Path:
    return self.folder / 'queue' / f'{key}.json'

  def _done(self, key: str) -> pathlib.Path:
    return self.folder / 'done' / f'{key}.json'

  def _lease(self, key: str, n: int) -> pathlib.Path:
    return self.folder / 'leases' / f'{key}.{n}'

  def _all_leases(self, key: str) -> list[pathlib.Path]:
    return [p for p in (self.folder / 'leases').iterdir() if p.name.rpartition('.')[0] == key]

  def _leases(self) -> dict[str, int]:
    """The latest lease of every key that has one."""
    latest = {}
    for name in os.listdir(self.folder / 'leases'):
      key, _, n = name.rpartition('.')
      if not name.startswith('.'):
        latest[key] = max(int(n), latest.get(key, 0))
    return latest

  def _holder(self, key: str, n: int) -> dict:
    try:
      return json.loads(self._lease(key, n).read_bytes())
    except (OSError, ValueError):
      return {}

  def _dead(self, key: str, n: int, now: float) -> bool:
    try:
      # NFS answers stat from a cache that may be a minute old; opening a file asks the server.
      with open(self._lease(key, n), 'rb') as file:
        return now - os.fstat(file.fileno()).st_mtime > self.expiry
    except FileNotFoundError:                              # given back, or finished
      return True

  def _now(self) -> float:
    """The time of the file system, which is the clock that leases are touched by; hosts may disagree."""
    path = self.folder / 'leases' / f'.{secrets.token_hex(8)}'
    path.touch()
    os.utime(path)
    now = path.stat().st_mtime
    path.unlink()
    return now


class Lease:
  """The right to run a cell, kept alive by a thread. `task` is {key, ...payload}."""

  def __init__(self, queue: Queue, key: str, n: int, token: str):
    self.queue, self.key, self.n, self.token, self.task = queue, key, n, token, {}
    self._path, self._over = queue._lease(key, n), threading.Event()

  def start(self) -> None:
    self.task = self.queue.task(self.key)
    threading.Thread(target=self._beat, name=f'lease of {self.key}', daemon=True).start()

  def held(self) -> bool:
    """Whether it is still ours: nobody took it for dead and nobody else holds one of its name."""
    return (not self.queue._lease(self.key, self.n + 1).exists()
            and self.queue._holder(self.key, self.n).get('token', '') == self.token)

  def _beat(self) -> None:
    while not self._over.wait(self.queue.expiry / 6):
      if not self.held():
        return
      with contextlib.suppress(OSError):                   # the file system may be away for a moment
        os.utime(self._path)

  def finish(self, result: Mapping[str, Any]) -> bool:
    """Writes the result, in full or not at all; False, and nothing changes, if the cell is no longer ours."""
    self._over.set()
    result = _plain(result)
    wrote = self.held() and _publish(self.queue._done(self.key), {'result': result, 'crc32': _digest(result)})
    for n in range(1, self.n + 1) if wrote else ():
      self.queue._lease(self.key, n).unlink(missing_ok=True)
    return wrote

  def release(self) -> None:
    """Gives the cell back, which does not count as an attempt; after `finish`, nothing."""
    self._over.set()
    if self.queue._holder(self.key, self.n).get('token', '') == self.token:
      self._path.unlink(missing_ok=True)

  def __enter__(self) -> 'Lease':
    return self

  def __exit__(self, *error) -> None:
    self.release()


def _publish(path: pathlib.Path, value: Any) -> bool:
  """Writes JSON that is there in full or not at all; False, and nothing changes, if `path` is there."""
  temporary = path.with_name(f'.{secrets.token_hex(8)}')
  try:
    with open(temporary, 'x') as file:
      json.dump(value, file)
      file.flush()
      os.fsync(file.fileno())
    os.link(temporary, path)
  except FileExistsError:
    # A file server may have done what, asked again because its answer was lost, it says was done before.
    return temporary.stat().st_nlink > 1
  finally:
    temporary.unlink(missing_ok=True)
  return True


def _keys(folder: pathlib.Path) -> list[str]:
  return sorted(n.removesuffix('.json') for n in os.listdir(folder) if n.endswith('.json'))


def _plain(value: Any) -> Any:
  """What JSON makes of it."""
  return json.loads(json.dumps(value))


def _canonical(value: Any) -> str:
  return json.dumps(value, sort_keys=True)


def _digest(value: Any) -> int:
  return zlib.crc32(_canonical(value).encode())
