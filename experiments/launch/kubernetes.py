"""Workers on Kubernetes: writes the YAML that `kubectl create` takes, queued by Kueue (kueue.sigs.k8s.io).

`--exec kubernetes:8,image=...,volume=...` makes one indexed Job of eight pods, of which Kueue may admit a part; a pod
that was evicted, or gave its cell back, does not count as failed. With `processes=4` every worker is a JobSet
(jobset.sigs.k8s.io) of four pods that start together and join by jax.distributed; the first is the coordinator.
"""
import os
import pathlib
import re
import shlex
import sys
from typing import Any, Sequence

import yaml

from aspects.claims import cells
from aspects.claims import worker

PORT = 8476       # of the coordinator, as jax has it by default
RESTARTS = 20     # of a pod, or of a JobSet, before it is given up


def launch(folder: str | os.PathLike, *, workers: int, command: Sequence[str], image: str, volume: str,
           mount: str = '', path: str = '', queue: str = 'default', namespace: str = 'default', cpus: int = 2,
           memory: int = 8, gpus: int = 0, processes: int = 1) -> 'Manifest':
  """Writes `kubernetes.yaml` into `folder`.

  Args:
    image: with this project installed. volume: a claim (ReadWriteMany) that has `folder` on it.
    mount: where the volume is mounted here and in the pods, a folder above `folder` or itself, which is the default.
    path: of `mount` within the volume. queue: a LocalQueue of Kueue in `namespace`.
    cpus, memory, gpus: of a pod; memory in GiB. processes: pods of a worker.

  Raises:
    ValueError: `folder` is not below `mount`.
  """
  folder = cells.Queue(folder).folder
  mount = pathlib.Path(mount or folder)
  if not folder.is_relative_to(mount):
    raise ValueError(f'the queue {folder} is not below mount={mount}, so that pods could not see it')
  if processes < 1:
    raise ValueError(f'processes is {processes}; a worker has 1 or more')
  name = re.sub('[^a-z0-9]+', '-', f'aspects-{folder.name}'.lower()).strip('-')[:40].rstrip('-')
  pod = _pod(command, image, cpus, memory, gpus, _volume(volume, mount, path))
  meta = {'namespace': namespace, 'labels': {'kueue.x-k8s.io/queue-name': queue}}
  if processes == 1:
    documents = [_job({'name': name, **meta}, pod, workers)]
  else:
    documents = [_jobset({'name': f'{name}-{i}', **meta}, pod, processes) for i in range(workers)]
  file = folder / 'kubernetes.yaml'
  file.write_text(yaml.safe_dump_all(documents, sort_keys=False))
  return Manifest(file, workers)


def _volume(claim: str, mount: pathlib.Path, path: str) -> tuple[dict, dict]:
  """(the volume, where it is mounted)."""
  mounted = {'name': 'queue', 'mountPath': str(mount), **({'subPath': path} if path else {})}
  return {'name': 'queue', 'persistentVolumeClaim': {'claimName': claim}}, mounted


def _pod(command: Sequence[str], image: str, cpus: int, memory: int, gpus: int, volume: tuple[dict, dict]) -> dict:
  """The specification of a pod. Python is the image's, whatever it is here."""
  resources = {'cpu': str(cpus), 'memory': f'{memory}Gi', **({'nvidia.com/gpu': str(gpus)} if gpus else {})}
  container = {'name': 'worker', 'image': image,
               'command': ['python' if part == sys.executable else part for part in command],
               'resources': {'requests': resources, 'limits': {k: v for k, v in resources.items() if k != 'cpu'}},
               'volumeMounts': [volume[1]]}
  # A worker needs time to give its cell back.
  return {'restartPolicy': 'Never', 'terminationGracePeriodSeconds': 90, 'containers': [container],
          'volumes': [volume[0]]}


def _spec(pod: dict, completions: int, **more: Any) -> dict:
  return {'completionMode': 'Indexed', 'completions': completions, 'parallelism': completions, **more,
          'template': {'spec': pod}}


def _job(meta: dict, pod: dict, workers: int) -> dict:
  """An indexed Job: a pod is a worker, and those that Kueue finds room for begin."""
  partly = {'kueue.x-k8s.io/job-min-parallelism': '1', 'kueue.x-k8s.io/job-completions-equal-parallelism': 'true'}
  forgiven = [{'action': 'Ignore', 'onPodConditions': [{'type': 'DisruptionTarget', 'status': 'True'}]},
              {'action': 'Ignore', 'onExitCodes': {'operator': 'In', 'values': [worker.STOPPED, worker.OVERDUE]}}]
  return {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {**meta, 'annotations': partly if workers > 1 else {}},
          'spec': {'suspend': True, **_spec(pod, workers, backoffLimit=RESTARTS,
                                            podFailurePolicy={'rules': forgiven})}}


def _jobset(meta: dict, pod: dict, processes: int) -> dict:
  """A JobSet of one Job: the pods of a worker, which start together and, if one fails, start again together."""
  index = {'fieldRef': {'fieldPath': "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
  join = [{'name': 'PROCESS_ID', 'valueFrom': index}, {'name': 'PROCESS_COUNT', 'value': str(processes)},
          {'name': 'COORDINATOR_ADDRESS', 'value': f'{meta["name"]}-worker-0-0.{meta["name"]}:{PORT}'}]
  container = {**pod['containers'][0], 'env': join, 'ports': [{'containerPort': PORT}]}
  job = {'spec': _spec({**pod, 'containers': [container]}, processes, backoffLimit=0)}
  return {'apiVersion': 'jobset.x-k8s.io/v1alpha2', 'kind': 'JobSet', 'metadata': meta,
          'spec': {'suspend': True, 'network': {'enableDNSHostnames': True, 'subdomain': meta['name']},
                   'failurePolicy': {'maxRestarts': RESTARTS},
                   'replicatedJobs': [{'name': 'worker', 'replicas': 1, 'template': job}]}}


class Manifest:
  """A file for `kubectl`, as `launch.Workers`: whether its workers live is Kubernetes' to say."""

  def __init__(self, file: pathlib.Path, workers: int):
    self.file, self.workers = file, workers

  def describe(self) -> str:
    return (f'{self.workers} workers for Kubernetes: start them by `kubectl create -f {shlex.quote(str(self.file))}`, '
            'end them by `kubectl delete -f` with the same file')

  def watch(self) -> int:
    return self.workers

  def stop(self) -> None:
    """Nothing: workers leave when the queue is closed and done."""

  def __enter__(self) -> 'Manifest':
    return self

  def __exit__(self, *error) -> None:
    self.stop()
