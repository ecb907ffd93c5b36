"""One of the JAX processes of a worker, for tests: `pair.py QUEUE LOG`; they sum over processes what each brings."""
import os
import pathlib
import sys
import time
import types

ROOT = pathlib.Path(__file__).parent.parent.parent


def main(folder, log):
  package = types.ModuleType('aspects')                      # without what the real one imports
  package.__path__ = [str(ROOT / 'aspects')]
  sys.modules['aspects'] = package
  from aspects import mesh
  mesh.join()
  import jax
  from jax.experimental import multihost_utils
  import numpy as np
  from aspects.claims import cells, team, worker

  def run(task, preempted):
    with open(log, 'ab', buffering=0) as file:
      file.write(f'{task["key"]} {jax.process_index()} {os.environ["SLURM_PROCID"]}\n'.encode())
    if jax.process_index() == task.get('fails', -1):
      raise MemoryError('only here')
    if jax.process_index() == 0:
      time.sleep(task.get('wait', 0))
    if 'fails' in task:
      return {'value': 0}
    return {'value': float(multihost_utils.process_allgather(np.float32(10 ** jax.process_index())).sum())}

  ran = worker.work(cells.Queue(folder, expiry=5), run, idle=60, team=team.here())
  print(f'process {jax.process_index()} of {jax.process_count()} ran {ran}')


if __name__ == '__main__':
  main(*sys.argv[1:])
