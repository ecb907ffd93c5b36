"""Executors: workers that are started, replaced and stopped; SLURM and Kubernetes without either."""
import inspect
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import kubernetes_validate
import pytest
import yaml

from aspects.claims import cells
from experiments import launch
from experiments.launch import kubernetes
from experiments.launch import local
from experiments.launch import slurm

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
EXPIRY = 1.0


@pytest.fixture
def queue(tmp_path):
  return cells.Queue(tmp_path / 'q', expiry=EXPIRY)


@pytest.fixture(scope='module')
def light(tmp_path_factory):
  """A folder to start processes in: its `aspects` is the real one without what it imports, which takes seconds."""
  folder = tmp_path_factory.mktemp('light')
  (folder / 'aspects').mkdir()
  (folder / 'aspects' / '__init__.py').write_text(f'__path__ = [{str(ROOT / "aspects")!r}]\n')
  (folder / 'experiments').symlink_to(ROOT / 'experiments')
  return folder


def command(queue, *more):
  return [sys.executable, str(HERE / 'dummy.py'), str(queue.folder), *more]


def put(queue, tmp_path, n, **fields):
  for i in range(n):
    queue.put(f'{i:02d}', {'value': i, 'log': str(tmp_path / 'log'), **fields})


def until(condition, seconds=30):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, 'waited in vain'
    time.sleep(0.02)


def lines(path):
  return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


def values(queue):
  return {key: queue.result(key)['value'] for key in queue.finished()}


# --- --exec ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('text,parsed', [
    ('local:2', ('local', 2, {})),
    ('local:2,gpus=4,grace=2.5', ('local', 2, {'gpus': 4, 'grace': 2.5})),
    ('slurm:8,partition=gpu,time=120,gpus=1', ('slurm', 8, {'partition': 'gpu', 'time': 120, 'gpus': 1})),
    ('kubernetes:3,image=a.b/c:1,volume=v', ('kubernetes', 3, {'image': 'a.b/c:1', 'volume': 'v'}))])
def test_an_executor_is_parsed_into_its_types(text, parsed):
  assert launch.parse(text) == parsed


@pytest.mark.parametrize('text,words', [
    ('slurms:2', "no executor 'slurms'; did you mean 'slurm'? Valid: kubernetes, local, slurm"),
    ('local', 'local needs a number of workers from 1, such as local:2'),
    ('local:0', 'such as local:2'),
    ('local:two', 'such as local:2'),
    ('slurm:2,partion=gpu', "slurm has no option 'partion'; did you mean 'partition'"),
    ('slurm:2,time', 'write time=VALUE'),
    ('slurm:2,time=1:00', "time is '1:00' and must be of type int"),
    ('local:2,folder=x', "local has no option 'folder'"),
    ('kubernetes:2,image=x', 'kubernetes needs the option volume, as kubernetes:2,image=x,volume=VALUE')])
def test_what_is_wrong_is_named_with_the_nearest(text, words):
  with pytest.raises(ValueError) as error:
    launch.parse(text)
  assert words in str(error.value)


def test_executors_are_the_files_of_the_folder():
  assert launch.names() == tuple(sorted(p.stem for p in (ROOT / 'experiments' / 'launch').glob('[a-z]*.py')))
  assert launch.find('local') is local.launch
  for name in launch.names():                        # an option is read as its annotation says
    for option, parameter in list(inspect.signature(launch.find(name)).parameters.items())[3:]:
      assert parameter.annotation in (int, float, str), (name, option)


# --- this machine ---------------------------------------------------------------------------------------------------

def test_local_workers_do_all_and_leave(queue, tmp_path):
  put(queue, tmp_path, 6, sleep=0.1)
  queue.close()
  with local.launch(queue.folder, workers=2, command=command(queue)) as crew:
    assert '2 workers' in crew.describe()
    crew.wait()
  assert values(queue) == {f'{i:02d}': i * i for i in range(6)}
  assert len({pid for _, _, pid in lines(tmp_path / 'log')}) == 2


def test_workers_that_left_come_back_when_there_is_more_to_do(queue, tmp_path):
  with local.launch(queue.folder, workers=1, command=command(queue, '0.1')) as crew:
    until(lambda: crew.watch() == 1 and crew.living == 0)
    put(queue, tmp_path, 2)
    until(lambda: crew.watch() == 1 and not queue.left())
  assert values(queue) == {'00': 0, '01': 1}


def test_a_worker_that_dies_is_replaced_and_its_cell_is_free_at_once(tmp_path, capsys):
  """Killed from outside, with leases that would last for an hour."""
  queue = cells.Queue(tmp_path / 'q', expiry=3600)
  put(queue, tmp_path, 1, sleep=0.5)
  queue.close()
  with local.launch(queue.folder, workers=1, command=command(queue)) as crew:
    until(lambda: lines(tmp_path / 'log'))
    os.kill(int(lines(tmp_path / 'log')[0][2]), signal.SIGKILL)
    crew.wait()
  assert values(queue) == {'00': 0}
  assert 'was killed by SIGKILL; the end of' in capsys.readouterr().err


def test_a_cell_that_kills_workers_ends_as_an_error_and_the_others_are_done(queue, tmp_path, capsys):
  put(queue, tmp_path, 1, do='die')
  queue.put('later', {'value': 7, 'log': str(tmp_path / 'log')})
  queue.close()
  with local.launch(queue.folder, workers=1, command=command(queue)) as crew:
    crew.wait()
  assert queue.result('00')['status'] == 'error' and '3 workers died' in queue.result('00')['detail']
  assert queue.result('later')['value'] == 49
  assert [word for word, key, _ in lines(tmp_path / 'log') if key == '00'] == ['start'] * 3
  assert capsys.readouterr().err.count('SIGKILL') == 3


@pytest.mark.parametrize('code,words', [('import nowhere', "No module named 'nowhere'"),
                                        ('print("so long")', 'so long')])
def test_workers_that_never_work_are_given_up_with_the_end_of_their_log(queue, tmp_path, code, words):
  put(queue, tmp_path, 1)
  with local.launch(queue.folder, workers=2, command=[sys.executable, '-c', code]) as crew:
    with pytest.raises(RuntimeError, match='keep dying') as error:
      until(lambda: crew.watch() == 99)
  assert words in str(error.value)
  assert (queue.folder / 'logs').exists() and queue.pending() == ['00']


PARENT = '''
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)       # a suite in the background hands down that it is ignored
from experiments.launch import local
with local.launch(sys.argv[1], workers=2, command=sys.argv[2:], grace=10) as crew:
  print('ready', flush=True)
  crew.wait()
'''


@pytest.mark.parametrize('number,status', [(signal.SIGTERM, 75), (signal.SIGINT, -signal.SIGINT)])
def test_a_parent_that_is_stopped_stops_its_workers_which_give_their_cells_back(queue, tmp_path, light, number, status):
  put(queue, tmp_path, 2, sleep=60)
  parent = subprocess.Popen([sys.executable, '-c', PARENT, str(queue.folder), *command(queue)], cwd=light,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
  until(lambda: len(lines(tmp_path / 'log')) == 2)
  parent.send_signal(number)
  assert parent.wait(20) == status
  assert queue.pending() == ['00', '01'] and list((queue.folder / 'leases').iterdir()) == []
  for _, _, pid in lines(tmp_path / 'log'):
    with pytest.raises(ProcessLookupError):
      os.kill(int(pid), 0)


def test_a_worker_that_does_not_stop_is_killed_and_its_cell_is_not_to_blame(queue, tmp_path, capsys):
  put(queue, tmp_path, 1, do='stuck')
  with local.launch(queue.folder, workers=1, command=command(queue), grace=0.3):
    until(lambda: lines(tmp_path / 'log'))
  assert 'have not stopped after 0.3 s' in capsys.readouterr().err
  with queue.take() as lease:
    assert lease.n == 1


def test_cores_and_gpus_are_shared_out(monkeypatch):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)), raising=False)
  monkeypatch.setenv('XLA_FLAGS', '--xla_force_host_platform_device_count=4')
  few, many = local.environment(0, 2), [local.environment(i, 8, gpus=4) for i in range(8)]
  assert few['NPROC'] == few['OMP_NUM_THREADS'] == '4' and few['XLA_FLAGS'] == os.environ['XLA_FLAGS']
  assert {e['NPROC'] for e in many} == {'1'} and 'CUDA_VISIBLE_DEVICES' not in set(few) - set(os.environ)
  assert many[0]['XLA_FLAGS'] == f'{os.environ["XLA_FLAGS"]} --xla_cpu_multi_thread_eigen=false'
  assert [e['CUDA_VISIBLE_DEVICES'] for e in many] == ['0', '1', '2', '3'] * 2
  assert {e['XLA_PYTHON_CLIENT_MEM_FRACTION'] for e in many} == {'0.450'}


def test_jax_takes_the_environment_of_a_single_thread(monkeypatch):
  """XLA ends a process whose XLA_FLAGS it does not know."""
  environment = {**local.environment(0, 1000), 'JAX_PLATFORMS': 'cpu'}
  code = 'import jax; print(float(jax.numpy.arange(4.0).sum()))'
  done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=60)
  assert done.stdout == '6.0\n', done.stderr


# --- SLURM ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def cluster(tmp_path, light, monkeypatch):
  """The commands of SLURM on PATH; gives the state of its jobs."""
  folder = tmp_path / 'bin'
  folder.mkdir()
  for name in ('sbatch', 'srun', 'sacct', 'scancel', 'scontrol', 'squeue'):
    (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "fakeslurm.py"} {name} "$@"\n')
    (folder / name).chmod(0o755)
  state = tmp_path / 'slurm'
  state.mkdir()
  monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
  monkeypatch.setenv('FAKESLURM_DIR', str(state))
  monkeypatch.chdir(light)
  jobs = lambda: {p.stem: json.loads(p.read_text()) for p in sorted(state.glob('*.json'))}
  yield jobs
  for name in jobs():
    subprocess.run(['scancel', name], check=True)
  until(lambda: all(j['pid'] == 0 for j in jobs().values()))


def ended(array):
  """Whether all jobs have; asks sacct now, where submitit's own pace is one question in a few minutes."""
  array.jobs[0].watcher.update()
  array.watch()
  return array.living == 0


def test_slurm_an_array_of_workers_does_all(queue, tmp_path, cluster):
  put(queue, tmp_path, 8, sleep=0.2)
  queue.close()
  with slurm.launch(queue.folder, workers=2, command=command(queue), partition='gpu', time=90, gpus=1,
                    memory=16) as array:
    assert 'job 1000' in array.describe() and array.watch() == array.living == 2
    until(lambda: not queue.left())
    until(lambda: ended(array))
    until(lambda: {n: j['state'] for n, j in cluster().items()} == {'1000_0': 'COMPLETED', '1000_1': 'COMPLETED'})
  assert values(queue) == {f'{i:02d}': i * i for i in range(8)}
  assert sorted(key for word, key, _ in lines(tmp_path / 'log') if word == 'end') == queue.finished()
  script, = (tmp_path / 'slurm').glob('*.script')
  asked = dict(line.removeprefix('#SBATCH --').partition('=')[::2] for line in script.read_text().splitlines()
               if line.startswith('#SBATCH'))
  assert (asked['partition'], asked['time'], asked['mem'], asked['nodes']) == ('gpu', '90', '16GB', '1')
  assert (asked['gpus-per-node'], asked['ntasks-per-node']) == ('1', '1') and 'gpus-per-task' not in asked
  for path in (queue.folder / 'slurm').glob('*_result.pkl'):
    assert path.stat().st_size < 100, 'results are files of the queue'


@pytest.mark.parametrize('timeout', [True, False])
def test_slurm_a_job_that_must_go_gives_its_cell_back_and_comes_again(queue, tmp_path, cluster, timeout):
  """At its time limit it gets USR2, when it is preempted TERM and USR2: every process of the job."""
  put(queue, tmp_path, 1, sleep=2)
  queue.close()
  with slurm.launch(queue.folder, workers=1, command=command(queue)) as array:
    until(lambda: lines(tmp_path / 'log'))
    array.jobs[0]._interrupt(timeout=timeout)
    until(lambda: cluster()['1000']['runs'] == 2)
    assert queue.pending() == ['00'] and queue._leases() == {}, 'given back, and no attempt'
    until(lambda: not queue.left())
    until(lambda: cluster()['1000']['state'] == 'COMPLETED')
  assert values(queue) == {'00': 0}
  assert [word for word, _, _ in lines(tmp_path / 'log')] == ['start', 'start', 'end']


def test_slurm_leaving_cancels_the_jobs_and_frees_their_cells(queue, tmp_path, cluster):
  put(queue, tmp_path, 1, sleep=60)
  with slurm.launch(queue.folder, workers=1, command=command(queue)):
    until(lambda: lines(tmp_path / 'log'))
  until(lambda: queue.pending() == ['00'])
  assert cluster()['1000']['state'] == 'CANCELLED'


def test_slurm_workers_that_never_work_are_reported_with_their_log(queue, tmp_path, cluster):
  put(queue, tmp_path, 1)
  with slurm.launch(queue.folder, workers=1, command=[sys.executable, '-c', 'import nowhere']) as array:
    until(lambda: cluster()['1000']['state'] == 'FAILED')
    with pytest.raises(RuntimeError, match='no job is left, 1 cells are') as error:
      until(lambda: ended(array) is None)
  assert "No module named 'nowhere'" in str(error.value)


def test_slurm_two_processes_of_jax_are_one_worker(queue, tmp_path, cluster, monkeypatch):
  """Tasks of one job join, run each cell together, and process 0 writes: once, and also what only process 1 knows."""
  queue = cells.Queue(tmp_path / 'q', expiry=5)
  queue.put('sum', {})
  queue.put('uneven', {'fails': 1})
  queue.close()
  monkeypatch.setenv('JAX_CPU_COLLECTIVES_IMPLEMENTATION', 'gloo')
  monkeypatch.setenv('XLA_FLAGS', '')
  pair = [sys.executable, str(HERE / 'pair.py'), str(queue.folder), str(tmp_path / 'log')]
  for attempt in range(3):                                   # between here and there somebody may take the port
    with socket.socket() as s:
      s.bind(('localhost', 0))
      monkeypatch.setenv('JAX_COORDINATOR_PORT', str(s.getsockname()[1]))
    job = str(1000 + attempt)
    try:
      with slurm.launch(queue.folder, workers=1, command=pair, gpus=2) as array:
        until(lambda: ended(array), 120)
        until(lambda: cluster()[job]['state'] == 'COMPLETED')
      break
    except RuntimeError:
      if attempt == 2:
        raise
  assert cluster()[job]['tasks'] == 2
  assert sorted(lines(tmp_path / 'log')) == [(key, i, i) for key in ('sum', 'uneven') for i in ('0', '1')]
  assert queue.result('sum')['status'] == 'done' and queue.result('sum')['value'] == 1 + 10
  assert queue.result('uneven')['status'] == 'oom' and 'process 1' in queue.result('uneven')['detail']
  assert list((queue.folder / 'leases').iterdir()) == []


def test_without_submitit_the_way_out_is_named(queue, monkeypatch):
  monkeypatch.setitem(sys.modules, 'submitit', None)
  with pytest.raises(ValueError, match=r'pip install .aspects\[slurm\]'):
    slurm.launch(queue.folder, workers=1, command=['true'])


# --- Kubernetes -----------------------------------------------------------------------------------------------------

def manifest(folder, **more):
  options = dict(workers=3, command=[sys.executable, '-m', 'experiments.claims', 'work'], image='a.b/c:1',
                 volume='disk')
  with kubernetes.launch(folder, **{**options, **more}) as written:
    return list(yaml.safe_load_all(written.file.read_text()))


@pytest.mark.parametrize('version', ['1.31', '1.37'])
@pytest.mark.parametrize('more', [{}, dict(gpus=2, cpus=8, memory=64, path='a/b', namespace='team', queue='night')])
def test_kubernetes_an_indexed_job_by_the_published_schema(queue, version, more):
  job, = manifest(queue.folder, **more)
  kubernetes_validate.validate(job, version, strict=True)


def test_kubernetes_what_the_job_says(queue):
  job, = manifest(queue.folder, gpus=1, queue='night', namespace='team', mount=str(queue.folder.parent), path='runs')
  assert (job['apiVersion'], job['kind'], job['metadata']['namespace']) == ('batch/v1', 'Job', 'team')
  assert job['metadata']['labels'] == {'kueue.x-k8s.io/queue-name': 'night'}
  assert job['metadata']['annotations']['kueue.x-k8s.io/job-min-parallelism'] == '1'
  spec = job['spec']
  assert spec['suspend'] is True, 'Kueue starts it'
  assert (spec['completionMode'], spec['completions'], spec['parallelism']) == ('Indexed', 3, 3)
  ignored = [rule['onExitCodes']['values'] for rule in spec['podFailurePolicy']['rules'] if 'onExitCodes' in rule]
  assert ignored == [[75, 124]] and spec['backoffLimit'] > 0
  pod = spec['template']['spec']
  assert pod['restartPolicy'] == 'Never', 'the only one that podFailurePolicy allows'
  container, = pod['containers']
  assert container['command'] == ['python', '-m', 'experiments.claims', 'work']
  assert [container['resources'][k]['nvidia.com/gpu'] for k in ('requests', 'limits')] == ['1', '1']
  assert pod['volumes'] == [{'name': 'queue', 'persistentVolumeClaim': {'claimName': 'disk'}}]
  assert container['volumeMounts'] == [{'name': 'queue', 'mountPath': str(queue.folder.parent), 'subPath': 'runs'}]


def test_kubernetes_one_worker_asks_for_no_part_of_itself(queue):
  """Kueue refuses a least parallelism that is not below the parallelism."""
  job, = manifest(queue.folder, workers=1)
  assert job['metadata']['annotations'] == {}


def test_kubernetes_workers_of_several_processes_are_jobsets_that_join(queue):
  sets = manifest(queue.folder, workers=2, processes=4)
  assert len({s['metadata']['name'] for s in sets}) == 2
  for one in sets:
    assert (one['apiVersion'], one['kind'], one['spec']['suspend']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet', True)
    assert one['metadata']['labels'] == {'kueue.x-k8s.io/queue-name': 'default'}
    replicated, = one['spec']['replicatedJobs']
    assert set(one['spec']) == {'suspend', 'network', 'failurePolicy', 'replicatedJobs'}
    assert replicated['replicas'] == 1 and set(replicated) == {'name', 'replicas', 'template'}
    job = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': 'x'}, **replicated['template']}
    kubernetes_validate.validate(job, '1.31', strict=True)
    assert (job['spec']['completionMode'], job['spec']['completions'], job['spec']['backoffLimit']) == ('Indexed', 4, 0)
    container, = job['spec']['template']['spec']['containers']
    env = {e['name']: e for e in container['env']}
    assert env['PROCESS_COUNT']['value'] == '4'
    assert 'job-completion-index' in env['PROCESS_ID']['valueFrom']['fieldRef']['fieldPath']
    # <jobset>-<replicated job>-<job index>-<pod index>.<subdomain>: the first pod
    name = one['metadata']['name']
    host, port = env['COORDINATOR_ADDRESS']['value'].split(':')
    assert host == f'{name}-{replicated["name"]}-0-0.{one["spec"]["network"]["subdomain"]}'
    assert len(host.split('.')[0]) < 64, 'a label of DNS has at most 63 characters'
    assert container['ports'] == [{'containerPort': int(port)}]


def test_kubernetes_refuses_what_pods_could_not_see(queue):
  with pytest.raises(ValueError, match='is not below mount=/elsewhere'):
    manifest(queue.folder, mount='/elsewhere')
  with pytest.raises(ValueError, match='processes is 0'):
    manifest(queue.folder, processes=0)


def test_kubernetes_says_how_to_start(queue):
  with kubernetes.launch(queue.folder, workers=3, command=['x'], image='i', volume='v') as written:
    assert written.watch() == 3 and f'kubectl create -f {queue.folder}/kubernetes.yaml' in written.describe()
