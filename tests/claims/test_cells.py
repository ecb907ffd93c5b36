"""The queue of cells: whatever happens to workers, every cell has one result; kills are real ones."""
import contextlib
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from aspects import train
from aspects.claims import cells
from aspects.claims import worker

DUMMY = pathlib.Path(__file__).parent / 'dummy.py'
EXPIRY = 1.0


@pytest.fixture
def queue(tmp_path):
  return cells.Queue(tmp_path / 'q', expiry=EXPIRY)


@contextlib.contextmanager
def workers(queue, n, *more):
  """`n` processes that work on the queue, killed at the end."""
  command = [sys.executable, str(DUMMY), str(queue.folder), *more]
  living = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(n)]
  try:
    yield living
  finally:
    for process in living:
      process.kill()
      process.wait()
      process.stdout.close()


def until(condition, seconds=20):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, 'waited in vain'
    time.sleep(0.01)


def lines(path):
  """[(word, key, pid)] of a file that cells write to."""
  return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


def silence(lease):
  """What the file system sees of a worker that died: a lease that nobody has touched for long."""
  lease._over.set()
  os.utime(lease._path, (0, 0))


# --- tasks and results ----------------------------------------------------------------------------------------------

def test_a_task_goes_from_pending_to_running_to_finished(queue):
  for key in ('b', 'a', 'a.1', 'a.10'):
    queue.put(key, {'value': key})
  assert queue.pending() == ['a', 'a.1', 'a.10', 'b'] and queue.running() == queue.finished() == []
  with queue.take() as lease:
    assert lease.task == {'key': 'a', 'value': 'a'}
    assert queue.running() == ['a'] and queue.pending() == ['a.1', 'a.10', 'b'] and queue.left() == 4
    assert queue.result('a') is None
    assert lease.finish({'status': 'done', 'x': [1.5, float('nan'), 1e-300, (2,)]})
  assert queue.running() == [] and queue.finished() == ['a'] and queue.left() == 3
  np.testing.assert_equal(queue.result('a'), {'status': 'done', 'x': [1.5, float('nan'), 1e-300, [2]]})
  assert list((queue.folder / 'leases').iterdir()) == [], 'nothing stays behind'


def test_putting_again_is_idempotent_and_another_payload_is_refused(queue):
  queue.put('k', {'arms': ('a', 'b'), 'x': float('nan'), 'seeds': {1: 2, 10: 3}})
  queue.put('k', {'arms': ['a', 'b'], 'x': float('nan'), 'seeds': {1: 2, 10: 3}})
  with pytest.raises(ValueError, match='differs in arms, new'):
    queue.put('k', {'arms': ['a'], 'x': float('nan'), 'seeds': {1: 2, 10: 3}, 'new': 1})
  assert queue.task('k')['arms'] == ['a', 'b']


@pytest.mark.parametrize('key', ['', '.hidden', 'a/b', 'x' * 201, 'a b', '../a'])
def test_a_key_is_a_file_name(queue, key):
  with pytest.raises(ValueError, match='is not 1 to 200 letters'):
    queue.put(key, {})


def test_the_longest_key_has_room_for_its_files(queue):
  key = 'x' * 200
  queue.put(key, {})
  with queue.take() as lease:
    assert lease.finish({'status': 'done'})
  assert queue.result(key) == {'status': 'done'}


def test_what_is_not_there_is_said(queue):
  with pytest.raises(ValueError, match="no task 'none'"):
    queue.task('none')
  assert queue.result('none') is None and queue.take() is None
  with pytest.raises(ValueError, match='expiry is 0'):
    cells.Queue(queue.folder, expiry=0)


def test_a_closed_queue_takes_no_new_task_until_it_is_reopened(queue):
  queue.put('a', {})
  queue.close()
  assert queue.closed and cells.Queue(queue.folder).closed
  queue.put('a', {})                                       # is there already
  with pytest.raises(ValueError, match=r'closed and takes no task .*reopen\(\)'):
    queue.put('b', {})
  queue.reopen()
  queue.put('b', {})
  assert queue.pending() == ['a', 'b'] and not queue.closed


def truncate(text):
  return text[:-9]


def change_a_digit(text):
  return text.replace(b'1.25', b'1.35')


@pytest.mark.parametrize('damage', [truncate, change_a_digit, lambda text: b'', lambda text: b'[]'])
def test_a_damaged_result_is_named_set_aside_and_run_again(queue, damage, caplog):
  queue.put('a', {})
  with queue.take() as lease:
    lease.finish({'status': 'done', 'x': 1.25})
  path = queue.folder / 'done' / 'a.json'
  bad = damage(path.read_bytes())
  path.write_bytes(bad)
  with caplog.at_level(logging.WARNING, 'aspects'):
    assert queue.result('a') is None
  assert f'{path} is damaged' in caplog.text and 'runs again' in caplog.text
  aside, = (queue.folder / 'damaged').iterdir()
  assert aside.read_bytes() == bad and str(aside) in caplog.text
  with queue.take() as lease:
    assert lease.key == 'a' and lease.finish({'status': 'done', 'x': 1.25})
  assert queue.result('a') == {'status': 'done', 'x': 1.25}


def test_a_damaged_task_is_a_failure_and_ends_nobody(queue):
  queue.put('a', {})
  queue.put('b', {})
  (queue.folder / 'queue' / 'a.json').write_text('{')
  with queue.take() as lease:
    assert lease.key == 'b'
  assert queue.result('a')['status'] == 'error' and 'queue/a.json is damaged' in queue.result('a')['detail']


def test_retry_forgets_a_result(queue):
  queue.put('a', {})
  with queue.take() as lease:
    lease.finish({'status': 'error'})
  assert queue.take() is None
  queue.retry('a')
  assert queue.pending() == ['a'] and queue.result('a') is None


# --- leases ---------------------------------------------------------------------------------------------------------

def test_a_lease_says_who_holds_it_and_is_given_back(queue):
  queue.put('a', {})
  with queue.take():
    held = json.loads((queue.folder / 'leases' / 'a.1').read_text())
    assert held['pid'] == os.getpid() and abs(held['time'] - time.time()) < 60
    assert queue.take() is None
  assert queue.pending() == ['a'] and not (queue.folder / 'leases' / 'a.1').exists()
  with pytest.raises(KeyError), queue.take():
    raise KeyError('whatever happens')
  assert queue.pending() == ['a']


def test_a_living_worker_keeps_its_lease_beyond_the_expiry(tmp_path):
  queue = cells.Queue(tmp_path, expiry=0.4)
  queue.put('a', {})
  with queue.take() as lease:
    end = time.monotonic() + 3 * queue.expiry
    while time.monotonic() < end:
      assert queue.take() is None
    assert lease.held() and lease.finish({'status': 'done'})


def test_the_clock_is_the_file_systems(queue, monkeypatch):
  """A host whose clock is a day ahead takes nothing away, and one that is behind sees who is dead."""
  queue.put('a', {})
  lease = queue.take()
  monkeypatch.setattr(time, 'time', lambda: os.stat(queue.folder).st_mtime + 86400)
  assert cells.Queue(queue.folder, expiry=EXPIRY).take() is None
  monkeypatch.setattr(time, 'time', lambda: 1.0)
  silence(lease)
  with cells.Queue(queue.folder, expiry=EXPIRY).take() as other:
    assert other.key == 'a'


@pytest.mark.parametrize('dead', [0, 1])
def test_of_many_that_want_a_cell_one_gets_it(tmp_path, dead):
  """Twenty rounds of twelve threads, for a new task (dead 0) and for one whose worker died (dead 1)."""
  queue = cells.Queue(tmp_path, expiry=60)
  for turn in range(20):
    queue.put(f'{turn}', {})
    for _ in range(dead):
      silence(queue.take())
    barrier, won = threading.Barrier(12), []
    def race():
      own = cells.Queue(tmp_path, expiry=60)
      barrier.wait()
      lease = own.take()
      if lease:
        won.append(lease)
    threads = [threading.Thread(target=race) for _ in range(12)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert [lease.key for lease in won] == [f'{turn}'] and won[0].n == 1 + dead
    assert won[0].finish({'status': 'done'})


def test_a_cell_that_was_finished_while_another_looked_is_not_run_again(queue, monkeypatch):
  queue.put('a', {})
  seen = queue._unfinished()
  with queue.take() as lease:
    lease.finish({'status': 'done'})
  monkeypatch.setattr(queue, '_unfinished', lambda: seen)
  assert queue.take() is None and list((queue.folder / 'leases').iterdir()) == []


def test_who_slept_through_its_death_changes_nothing(queue):
  queue.put('a', {})
  late = queue.take()
  silence(late)
  with queue.take() as heir:
    assert not late.held() and heir.held()
    assert not late.finish({'status': 'done', 'by': 'late'})
    assert queue.result('a') is None
    late.release()
    assert heir.held()
    assert heir.finish({'status': 'done', 'by': 'heir'})
  assert not late.finish({'status': 'done', 'by': 'late'})
  assert queue.result('a') == {'status': 'done', 'by': 'heir'} and queue.take() is None


def test_the_first_result_stays_even_if_both_believed_to_hold_the_cell(queue, monkeypatch):
  """The moment between the last look at a lease and the writing of the result."""
  queue.put('a', {})
  late = queue.take()
  silence(late)
  heir = queue.take()
  monkeypatch.setattr(late, 'held', lambda: True)
  assert late.finish({'by': 'late'}) and not heir.finish({'by': 'heir'})
  heir.release()
  assert queue.result('a') == {'by': 'late'} and queue.take() is None


def test_a_worker_woken_after_a_run_that_was_given_back_is_not_a_second_holder(queue):
  queue.put('a', {})
  first = queue.take()
  silence(first)
  queue.take().release()
  second = queue.take()
  assert second.n == 2 and not first.held() and second.held()
  second.release()
  assert first.held(), 'nobody else has it: the first may still finish'
  assert first.finish({'by': 'first'}) and queue.take() is None


def test_a_cell_that_kills_its_workers_is_given_up(queue):
  for key in ('a', 'b'):
    queue.put(key, {})
  for _ in range(3):
    lease = queue.take()
    assert lease.key == 'a'
    silence(lease)
  with queue.take() as lease:
    assert lease.key == 'b'
  result = queue.result('a')
  assert result['status'] == 'error' and '3 workers died' in result['detail'] and str(os.getpid()) in result['detail']
  assert list((queue.folder / 'leases').iterdir()) == []
  queue.retry('a')
  with queue.take() as lease:
    assert (lease.key, lease.n) == ('a', 1)


def test_giving_back_is_no_attempt(queue):
  queue.put('a', {})
  for _ in range(5):
    queue.take().release()
  with queue.take() as lease:
    assert lease.n == 1


@pytest.mark.parametrize('blame', [True, False])
def test_the_leases_of_a_process_that_ended_are_free_at_once(tmp_path, blame):
  queue = cells.Queue(tmp_path, expiry=3600)
  for key in ('a', 'b'):
    queue.put(key, {})
  kept, other = queue.take(), queue.take()
  path = queue.folder / 'leases' / 'b.1'
  path.write_text(json.dumps({**json.loads(path.read_text()), 'pid': 0}))
  assert queue.disown(0, blame=blame) == 1
  assert queue.pending() == ['b'] and queue.running() == ['a'] and kept.held()
  with queue.take() as lease:
    assert lease.n == (2 if blame else 1) and not other.held()


# --- the worker -----------------------------------------------------------------------------------------------------

def work(queue, run, **more):
  queue.close()
  return worker.work(queue, run, **{'idle': 5, 'log': lambda line: None, **more})


def raising(error):
  def run(task, preempted):
    if task['key'] == 'bad':
      raise error
    return {'value': 1}
  return run


@pytest.mark.parametrize('error,status,words', [
    (MemoryError('17 GB'), 'oom', '17 GB'),
    (jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes'), 'oom', 'allocating 8 bytes'),
    (jax.errors.JaxRuntimeError('INTERNAL: something'), 'error', 'INTERNAL: something'),
    (TimeoutError('2 s'), 'timeout', '2 s'),
    (train.Diverged('not finite at step 3'), 'diverged', 'step 3'),
    (FloatingPointError('plain'), 'error', 'FloatingPointError: plain'),
    (ValueError('depth is 0'), 'error', 'ValueError: depth is 0'),
    (SystemExit('a cell has no business to exit'), 'error', 'no business')])
def test_failures_are_typed_and_the_others_run(queue, error, status, words):
  for key in ('bad', 'good'):
    queue.put(key, {})
  assert work(queue, raising(error)) == 2
  result = queue.result('bad')
  assert result['status'] == status and words in result['detail'] and result['seconds'] >= 0
  assert ('in run' in result['detail']) == (status == 'error'), 'an error shows where it was raised, and only that'
  assert queue.result('good')['status'] == 'done' and queue.result('good')['value'] == 1


def test_memory_that_is_not_there_is_oom(queue):
  """A real one: two to the fifty bytes asked of jax."""
  queue.put('bad', {})
  def run(task, preempted):
    return {'value': float(jax.numpy.ones((2 ** 24, 2 ** 24), np.float32)[0, 0])}
  work(queue, run)
  assert queue.result('bad')['status'] == 'oom', queue.result('bad')


def test_a_result_that_is_no_json_is_an_error_of_its_cell(queue):
  queue.put('bad', {})
  work(queue, lambda task, preempted: {'value': np.zeros(3)})
  assert queue.result('bad')['status'] == 'error' and 'not JSON serializable' in queue.result('bad')['detail']


@pytest.mark.parametrize('error', [KeyboardInterrupt(), SystemExit(75)])
def test_who_is_asked_to_stop_gives_its_cell_back(queue, error):
  queue.put('bad', {})
  with pytest.raises(type(error)):
    work(queue, raising(error))
  assert queue.pending() == ['bad'] and queue.finished() == [] and list((queue.folder / 'leases').iterdir()) == []


def test_between_two_cells_a_worker_stops_with_status_75(queue):
  for key in ('a', 'b'):
    queue.put(key, {})
  with pytest.raises(SystemExit) as stopped:
    work(queue, raising(None), preempted=lambda: bool(queue.finished()))
  assert stopped.value.code == 75 and queue.finished() == ['a'] and queue.pending() == ['b']


def test_a_worker_leaves_when_the_queue_is_closed_and_done_or_after_idle_seconds(queue):
  queue.put('a', {})
  start = time.monotonic()
  assert worker.work(queue, raising(None), idle=0.5, log=lambda line: None) == 1
  assert 0.5 < time.monotonic() - start < 4
  start = time.monotonic()
  assert work(queue, raising(None), idle=60) == 0
  assert time.monotonic() - start < 1


def test_a_worker_waits_for_the_cell_of_one_that_may_die(queue):
  """Closed, and all cells are taken: who leaves now would not be there if the other's worker died."""
  queue.put('a', {})
  lost = queue.take()
  lost._over.set()
  start = time.monotonic()
  assert work(queue, raising(None)) == 1 and queue.result('a')['value'] == 1
  assert time.monotonic() - start > 0.5 * EXPIRY


def test_a_cell_has_its_limit(queue):
  queue.put('bad', {'limit': 0.3})
  queue.put('good', {'limit': 20})
  start = time.monotonic()
  before = signal.getsignal(signal.SIGALRM)
  def run(task, preempted):
    if task['key'] == 'bad':
      time.sleep(20)
    return {'value': 2}
  assert work(queue, run) == 2 and time.monotonic() - start < 5
  assert queue.result('bad')['status'] == 'timeout' and 'limit of 0.3 s' in queue.result('bad')['detail']
  assert queue.result('good')['value'] == 2
  assert signal.getsignal(signal.SIGALRM) == before and signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_cell_that_heeds_no_limit_takes_its_worker_down_and_has_a_result(queue, tmp_path):
  queue.put('bad', {'limit': 0.2, 'do': 'stuck', 'log': str(tmp_path / 'log'), 'value': 1})
  with workers(queue, 1, '5', '0.3') as (process,):
    assert process.wait(20) == worker.OVERDUE == 124
    assert 'limit of 0.2 s' in process.stdout.read()
  assert queue.result('bad')['status'] == 'timeout' and queue.left() == 0


# --- workers --------------------------------------------------------------------------------------------------------

def test_two_workers_run_no_cell_twice(queue, tmp_path):
  for i in range(40):
    queue.put(f'{i:02d}', {'value': i, 'sleep': 0.05, 'log': str(tmp_path / 'log')})
  queue.close()
  with workers(queue, 2) as living:
    assert [p.wait(30) for p in living] == [0, 0]
  assert [queue.result(f'{i:02d}')['value'] for i in range(40)] == [i * i for i in range(40)]
  started = [key for word, key, _ in lines(tmp_path / 'log') if word == 'start']
  assert sorted(started) == [f'{i:02d}' for i in range(40)]
  assert len({pid for _, _, pid in lines(tmp_path / 'log')}) == 2, 'both had something to do'


def test_one_of_two_is_killed_and_no_cell_is_lost_or_doubled(queue, tmp_path):
  for i in range(6):
    queue.put(f'{i}', {'value': i, 'sleep': 0.4, 'log': str(tmp_path / 'log')})
  queue.close()
  with workers(queue, 2) as living:
    victim = str(living[0].pid)
    until(lambda: any(pid == victim for _, _, pid in lines(tmp_path / 'log')))
    living[0].kill()
    assert living[1].wait(30) == 0
  written = lines(tmp_path / 'log')
  assert sorted(key for word, key, _ in written if word == 'end') == [f'{i}' for i in range(6)]
  twice = {key for _, key, pid in written if pid == victim and ('end', key, victim) not in written}
  assert len(twice) == 1, 'it was killed in the middle of one cell'
  assert sorted(key for word, key, _ in written if word == 'start') == sorted([*map(str, range(6)), *twice])
  assert [queue.result(f'{i}')['value'] for i in range(6)] == [i * i for i in range(6)]


def test_a_worker_that_was_asleep_does_not_write_over_its_heir(queue, tmp_path):
  queue.put('a', {'value': 3, 'sleep': 0.5, 'log': str(tmp_path / 'log')})
  queue.close()
  with workers(queue, 2) as living:
    until(lambda: lines(tmp_path / 'log'))
    asleep, = [p for p in living if str(p.pid) == lines(tmp_path / 'log')[0][2]]
    heir, = [p for p in living if p is not asleep]
    asleep.send_signal(signal.SIGSTOP)
    assert heir.wait(20) == 0
    written = (queue.folder / 'done' / 'a.json').read_bytes()
    asleep.send_signal(signal.SIGCONT)
    assert asleep.wait(20) == 0
    assert 'too late' in asleep.stdout.read()
  assert (queue.folder / 'done' / 'a.json').read_bytes() == written
  assert queue.result('a')['worker'].endswith(f':{heir.pid}')


def test_sigterm_gives_the_cell_back_at_once(tmp_path):
  queue = cells.Queue(tmp_path / 'q', expiry=EXPIRY)
  queue.put('a', {'value': 3, 'sleep': 60, 'log': str(tmp_path / 'log')})
  with workers(queue, 1) as (process,):
    until(lambda: lines(tmp_path / 'log'))
    process.terminate()
    assert process.wait(20) == 75
  assert cells.Queue(queue.folder, expiry=3600).pending() == ['a'] and queue.take().n == 1
