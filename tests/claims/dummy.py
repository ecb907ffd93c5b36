"""A worker for tests that starts in a blink: `dummy.py QUEUE [IDLE [GRACE]]`.

A task says what its cell does: write to the file `log`, `sleep` for seconds, `do` (die or stuck), square its `value`.
"""
import hashlib
import os
import pathlib
import signal
import sys
import time
import types

ROOT = pathlib.Path(__file__).parent.parent.parent
EXPIRY = 1.0


def note(task, word):
  with open(task['log'], 'ab', buffering=0) as file:         # O_APPEND: lines of several writers do not mix
    file.write(f'{word} {task["key"]} {os.getpid()}\n'.encode())


def run(task, preempted):
  note(task, 'start')
  if task.get('do') == 'die':
    os.kill(os.getpid(), signal.SIGKILL)
  if task.get('do') == 'stuck':
    hashlib.pbkdf2_hmac('sha256', b'', b'', 10 ** 9)         # minutes of compiled code, which hears no signal
  end = time.monotonic() + task.get('sleep', 0)
  while time.monotonic() < end:
    if preempted():
      raise SystemExit(75)
    time.sleep(0.01)
  note(task, 'end')
  return {'value': task['value'] ** 2, 'threads': os.environ.get('NPROC', '')}


def main(folder, idle='5', grace='30'):
  package = types.ModuleType('aspects')                      # without what the real one imports
  package.__path__ = [str(ROOT / 'aspects')]
  sys.modules['aspects'] = package
  from aspects.claims import cells, worker
  assert 'jax' not in sys.modules and 'numpy' not in sys.modules, 'workers and their parents start without jax'
  worker.GRACE = float(grace)
  asked = []
  signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
  worker.work(cells.Queue(folder, expiry=EXPIRY), run, idle=float(idle), preempted=lambda: bool(asked))


if __name__ == '__main__':
  main(*sys.argv[1:])
