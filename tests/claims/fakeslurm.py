"""A SLURM of one machine for tests: `fakeslurm.py sbatch ...`; also srun, sacct, scancel, scontrol and squeue.

State is in FAKESLURM_DIR: `<job>.json` for each job or element of an array, {state, pid, tasks, runs}. Elements of an
array start as CPUs are free, a job may be requeued, and a signal reaches every process of a job, as on a real one.
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

FOLDER = pathlib.Path(os.environ['FAKESLURM_DIR'])
CPUS = 2
KILL_WAIT = 1.0       # seconds from the TERM of a job that was cancelled to its KILL


def read(job):
  return json.loads((FOLDER / f'{job}.json').read_text())


def write(job, **changes):
  path = FOLDER / f'{job}.json'
  state = {**(json.loads(path.read_text()) if path.exists() else {}), **changes}
  temporary = path.with_suffix(f'.{os.getpid()}')
  temporary.write_text(json.dumps(state))
  temporary.rename(path)


def elements(job):
  """The names of the elements of an array, or of a job itself."""
  return sorted(p.stem for p in FOLDER.glob('*.json') if p.stem == job or p.stem.startswith(f'{job}_'))


def option(name, text, default=None):
  found = re.search(rf"^#SBATCH --{name}='?([^'\n]*)", text, re.M)
  return found[1] if found else default


def sbatch(script):
  text = pathlib.Path(script).read_text()
  job = str(1000 + len(list(FOLDER.glob('*.script'))))
  (FOLDER / f'{job}.script').write_text(text)
  array = option('array', text)
  names = [f'{job}_{i}' for i in range(int(re.search(r'-(\d+)', array)[1]) + 1)] if array else [job]
  tasks = int(option('nodes', text, '1')) * int(option('ntasks-per-node', text, '1'))
  for name in names:
    write(name, state='PENDING', pid=0, tasks=tasks, runs=0)
  if os.fork() == 0:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
      os.dup2(null, stream)
    schedule(job, names)
    os._exit(0)
  print(f'Submitted batch job {job}')


def schedule(job, names):
  """Runs what is pending until nothing is; a job that was requeued is pending again when it has ended."""
  running = {}
  while running or any(read(n)['state'] == 'PENDING' for n in names):
    for name in names:
      if name not in running and len(running) < CPUS and read(name)['state'] == 'PENDING':
        running[name] = start(job, name)
    for name, process in list(running.items()):
      state = read(name)
      if state['state'] == 'CANCELLED' and time.time() > state['cancelled'] + KILL_WAIT:
        for pid in descendants(process.pid):
          signal_to(pid, signal.SIGKILL)
      if process.poll() is not None:
        before = read(name)['state']
        after = {'REQUEUED': 'PENDING', 'CANCELLED': 'CANCELLED'}
        write(name, pid=0, state=after.get(before, 'FAILED' if process.returncode else 'COMPLETED'))
        del running[name]
    time.sleep(0.02)


def start(job, name):
  tasks = str(read(name)['tasks'])
  environment = {**os.environ, 'FAKESLURM_JOB': name, 'SLURM_JOB_ID': job, 'SLURM_NTASKS': tasks, 'SLURM_NODEID': '0',
                 'SLURM_PROCID': '0', 'SLURM_LOCALID': '0', 'SLURM_JOB_NUM_NODES': '1',
                 'SLURM_JOB_NODELIST': 'localhost', 'SLURM_STEP_NODELIST': 'localhost'}
  if '_' in name:
    environment |= {'SLURM_ARRAY_JOB_ID': job, 'SLURM_ARRAY_TASK_ID': name.split('_')[1]}
  process = subprocess.Popen(['bash', str(FOLDER / f'{job}.script')], env=environment, start_new_session=True)
  write(name, state='RUNNING', pid=process.pid, runs=read(name)['runs'] + 1)
  return process


def srun(*arguments):
  """All tasks of a step, each with its own number and files."""
  arguments, files = list(arguments), {}
  for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGCONT):
    signal.signal(number, lambda *_: None)           # for the tasks; it waits for them
  while arguments[0].startswith('--'):
    flag = arguments.pop(0)
    if flag in ('--output', '--error'):
      files[flag] = arguments.pop(0)
  name = os.environ['FAKESLURM_JOB']
  first, _, index = name.partition('_')
  living = []
  for task in range(read(name)['tasks']):
    out, err = (files[f].replace('%A', first).replace('%a', index).replace('%j', name).replace('%t', str(task))
                for f in ('--output', '--error'))
    environment = {**os.environ, 'SLURM_PROCID': str(task), 'SLURM_LOCALID': str(task)}
    living.append(subprocess.Popen(arguments, stdout=open(out, 'ab'), stderr=open(err, 'ab'), env=environment))
  return max(process.wait() & 0xFF for process in living)


def sacct(*_):
  print('JobID|State|NodeList')
  for path in sorted(FOLDER.glob('*.json')):
    print(f'{path.stem}|{read(path.stem)["state"]}|localhost')


def scancel(job, *more):
  """Cancels, or with --signal only sends that to every process of a job."""
  number = getattr(signal, f'SIG{more[1].removeprefix("SIG")}') if more else signal.SIGTERM
  for name in elements(job):
    state = read(name)
    if not more and state['state'] in ('PENDING', 'RUNNING', 'REQUEUED'):
      write(name, state='CANCELLED', cancelled=time.time())
    for pid in descendants(state['pid']):
      signal_to(pid, number)


def signal_to(pid, number):
  try:
    os.kill(pid, number)
  except ProcessLookupError:
    return                                           # it has just ended


def descendants(root):
  """All processes that a job has started, below its script."""
  listed = subprocess.run(['ps', '-A', '-o', 'pid=,ppid='], capture_output=True, text=True, check=True).stdout
  parents = [tuple(map(int, line.split())) for line in listed.splitlines()]
  found, new = [], [root] if root else []
  while new:
    new = [pid for pid, parent in parents if parent in new]
    found += new
  return found


def scontrol(verb, job):
  assert verb == 'requeue', verb
  write(job, state='REQUEUED')


def squeue(*_):
  print('JOBID')


if __name__ == '__main__':
  sys.exit(globals()[sys.argv[1]](*sys.argv[2:]))
