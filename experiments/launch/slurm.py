"""Workers on SLURM, through submitit (Facebook AI Research 2020): `--exec slurm:8,partition=gpu,time=120,gpus=1`.

An array of jobs, each a worker for as long as it may stay: at its time limit, or when it makes room for others, it
gives its cell back and is queued again. Results are files of the queue; submitit's own are empty. A worker of several
GPUs or nodes is one process for each GPU, with all GPUs of the node visible: jax takes the one of its SLURM_LOCALID,
and --gpus-per-task would hide from it the ones that it exchanges data with.
"""
import dataclasses
import os
import time
from typing import Sequence

from aspects.claims import cells
from experiments.launch import local

REQUEUES = 1000   # submitit counts the time limits that a job has met; a worker may meet any number


def launch(folder: str | os.PathLike, *, workers: int, command: Sequence[str], partition: str = '', account: str = '',
           qos: str = '', constraint: str = '', time: int = 60, cpus: int = 2, memory: int = 0, gpus: int = 0,
           nodes: int = 1) -> 'Array':
  """Submits an array of `workers` jobs; `folder` must be on a file system that the nodes share.

  Args:
    time: minutes that a job may last before it is queued again.
    cpus: of each process. memory: GB of each node, 0 as SLURM has it.
    gpus: of each node, with one process each; 0 is one process without. nodes: of each worker.
  """
  try:
    import submitit
  except ModuleNotFoundError as error:
    raise ValueError("the executor slurm needs submitit: pip install 'aspects[slurm]'") from error
  queue = cells.Queue(folder)
  executor = submitit.SlurmExecutor(folder=queue.folder / 'slurm', max_num_timeout=REQUEUES)
  tasks = max(1, gpus)
  asked = dict(partition=partition, account=account, qos=qos, constraint=constraint, gpus_per_node=gpus,
               mem=f'{memory}GB' if memory else '')
  executor.update_parameters(
      job_name='aspects', time=time, nodes=nodes, ntasks_per_node=tasks, cpus_per_task=cpus,
      # One process cannot go on without the others of its worker.
      srun_args=['--kill-on-bad-exit=1'] if nodes * tasks > 1 else [], **{k: v for k, v in asked.items() if v})
  job = Worker(str(queue.folder), tuple(command))
  return Array(queue, lambda: executor.map_array(job, range(workers)))


@dataclasses.dataclass
class Worker:
  """What a job runs: the command, replaced if it dies, until it leaves or SLURM wants the place back."""
  folder: str
  command: tuple[str, ...]

  def __call__(self, index: int) -> None:
    # SLURM sends USR2 to all processes of a job; it is for submitit, which calls `checkpoint`.
    command = ['sh', '-c', 'trap "" USR2; exec "$0" "$@"', *self.command]
    alone = int(os.environ['SLURM_NTASKS']) == 1
    self.crew = local.Crew(self.folder, command, [local.environment(0, 1)], grace=60.0, replace=alone)
    try:
      self.crew.wait()
      if self.crew.stopped:                          # SLURM asked all processes: it ends or requeues this job soon
        time.sleep(120)
    finally:
      self.crew.stop()

  def checkpoint(self, index: int):
    """Called by submitit before it queues the job again: the worker gives its cell back."""
    from submitit.core.utils import DelayedSubmission
    self.crew.stop()
    return DelayedSubmission(Worker(self.folder, self.command), index)


class Array:
  """The jobs of an array, as `launch.Workers`."""

  def __init__(self, queue, submit):
    self.queue, self._submit = queue, submit
    self.jobs, self._results = submit(), len(queue.finished())

  def describe(self) -> str:
    ids = self.jobs[0].job_id.split('_')[0]
    return f'{len(self.jobs)} workers on SLURM, job {ids}; their logs are {self.queue.folder / "slurm"}'

  @property
  def living(self) -> int:
    """How many jobs wait or run, as sacct says, which submitit asks every few minutes."""
    return sum(not job.done() for job in self.jobs)

  def watch(self) -> int:
    """As `launch.Workers`."""
    if not self.living and self.queue.pending():
      if len(self.queue.finished()) == self._results:
        raise RuntimeError(f'no job is left, {self.queue.left()} cells are, and none was finished; the end of a log:\n'
                           f'{(self.jobs[0].stderr() or "it is empty")[-3000:]}')
      self.jobs, self._results = self._submit(), len(self.queue.finished())
    return len(self.jobs)

  def stop(self) -> None:
    for job in self.jobs:
      if not job.done():
        job.cancel(check=False)

  def __enter__(self) -> 'Array':
    return self

  def __exit__(self, *error) -> None:
    self.stop()
