"""The promises of `docs/architecture.md`, each with its test; kills are real ones."""
import functools
import json
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import xarray as xr

from aspects import checkpoint
from aspects import measure as measure_lib
from aspects import mesh as mesh_lib
from aspects import results
from aspects import study as study_lib
from aspects import train
from tests import tiny

ROOT = pathlib.Path(__file__).parent.parent
never = lambda: False


@functools.cache
def study():
  return study_lib.build(tiny.get_config())


def assert_same(a, b):
  """Bitwise equality of {measure: Dataset}."""
  assert set(a) == set(b)
  for name in a:
    assert set(a[name]) == set(b[name])
    for variable in a[name]:
      np.testing.assert_array_equal(a[name][variable].values, b[name][variable].values, err_msg=f'{name} {variable}')


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The uninterrupted run and the parameters it ended with."""
  workdir = tmp_path_factory.mktemp('whole')
  found = study_lib.run_arm(study().arms['main'], workdir, never, False).measures
  return found, final_state(workdir)


def final_state(workdir):
  arm = study().arms['main']
  like = train.init(arm.net, arm.rule, arm.seeds, arm.probe.batch(0))
  with checkpoint.Checkpoints(workdir / 'checkpoints') as saved:
    return jax.device_get(saved.restore(like).state)


def test_1_the_same_config_gives_the_same_bits(whole, tmp_path):
  again = study_lib.run_arm(study_lib.build(tiny.get_config()).arms['main'], tmp_path, never, False).measures
  assert_same(whole[0], again)
  jax.tree.map(np.testing.assert_array_equal, whole[1], final_state(tmp_path))


def test_2_stopped_anywhere_and_started_again_gives_the_same_bits(whole, tmp_path):
  """The stop comes at every possible moment in turn: between steps and between the batches of an analysis."""
  stops, calls = 0, 0
  def stop_at_next():
    nonlocal calls
    calls += 1
    return calls == 3                                # every third opportunity, from wherever it went on
  for _ in range(30):
    calls = 0
    try:
      found = study_lib.run_arm(study().arms['main'], tmp_path, stop_at_next, False).measures
      break
    except study_lib.Preempted:
      stops += 1
  assert stops >= 4, 'the run was hardly interrupted'
  assert_same(whole[0], found)
  jax.tree.map(np.testing.assert_array_equal, whole[1], final_state(tmp_path))


def test_2_an_analysis_goes_on_from_its_batch(tmp_path):
  """The second start must not read again the batches that the first has seen."""
  arm = study().arms['main']
  calls = iter([False, True])
  with pytest.raises(study_lib.Preempted, match='during its analysis'):
    study_lib.run_arm(arm, tmp_path, lambda: next(calls), False)
  partial = list((tmp_path / 'partial' / '00000000').glob('[0-9]*'))
  assert [p.name for p in partial] == ['2']


def command(workdir, *more, scale='long'):
  return [sys.executable, '-m', 'experiments.run', f'--config=tests/tiny.py:{scale}', f'--workdir={workdir}', *more]


def start(workdir, log, scale='long', **more):
  """The command in the background, its errors in the file `log`."""
  with open(log, 'ab') as errors:
    return subprocess.Popen(command(workdir, scale=scale), cwd=ROOT, env=environment(**more), stderr=errors,
                            stdout=errors)


def environment(**more):
  return {**os.environ, 'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu', 'JAX_DEFAULT_MATMUL_PRECISION': 'highest', **more}


def wait_for(workdir, step, process, log):
  """Until the run has a checkpoint at or after `step`."""
  deadline = time.monotonic() + 240
  while time.monotonic() < deadline:
    steps = [int(p.name) for p in (pathlib.Path(workdir) / 'main' / 'checkpoints').glob('[0-9]*') if p.name.isdigit()]
    if steps and max(steps) >= step:
      return
    assert process.poll() is None, f'the run ended early: {log.read_text()[-2000:]}'
    time.sleep(0.02)
  raise AssertionError(f'no checkpoint of step {step} after 240 s')


@pytest.fixture(scope='module')
def long_run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('long')
  done = subprocess.run(command(workdir), cwd=ROOT, env=environment(), capture_output=True, timeout=400)
  assert done.returncode == 0, done.stderr.decode()[-3000:]
  return workdir


def assert_same_run(a, b):
  a, b = (results.load(pathlib.Path(w) / 'results.nc') for w in (a, b))
  for node in ('cka', 'spectrum', 'training'):
    assert_same({node: a['main'][node].to_dataset()}, {node: b['main'][node].to_dataset()})


def test_2_and_4_sigterm_then_sigkill_then_the_same_command(long_run, tmp_path):
  workdir, log = tmp_path / 'run', tmp_path / 'log'
  first = start(workdir, log)
  wait_for(workdir, 20, first, log)
  first.send_signal(signal.SIGTERM)
  assert first.wait(timeout=120) == 75
  assert 'the same command goes on' in log.read_text()
  stopped = max(int(p.name) for p in (workdir / 'main' / 'checkpoints').glob('[0-9]*'))
  second = start(workdir, log)
  wait_for(workdir, stopped + 30, second, log)
  second.kill()
  second.wait(timeout=60)
  complete = max(int(p.name) for p in (workdir / 'main' / 'checkpoints').glob('[0-9]*') if p.name.isdigit())
  assert complete >= stopped + 30, 'a complete checkpoint was lost'
  third = subprocess.run(command(workdir), cwd=ROOT, env=environment(), capture_output=True, timeout=400)
  assert third.returncode == 0, third.stderr.decode()[-3000:]
  assert b'report' in third.stdout.splitlines()[-1]
  assert_same_run(long_run, workdir)


def two_processes(workdir, log):
  with socket.socket() as s:
    s.bind(('localhost', 0))
    port = s.getsockname()[1]
  return [start(workdir, log, 'pair', COORDINATOR_ADDRESS=f'localhost:{port}', PROCESS_COUNT='2', PROCESS_ID=str(i),
                JAX_CPU_COLLECTIVES_IMPLEMENTATION='gloo') for i in range(2)]


def test_3_two_processes_one_evicted(tmp_path):
  for name in ('whole', 'evicted'):
    log = tmp_path / f'{name}.log'
    hosts = two_processes(tmp_path / name, log)
    if name == 'evicted':
      wait_for(tmp_path / name, 20, hosts[0], log)
      hosts[1].send_signal(signal.SIGTERM)
      assert [h.wait(timeout=200) for h in hosts] == [75, 75], log.read_text()[-3000:]
      hosts = two_processes(tmp_path / name, log)
    assert [h.wait(timeout=400) for h in hosts] == [0, 0], log.read_text()[-3000:]
  assert_same_run(tmp_path / 'whole', tmp_path / 'evicted')


def test_4_a_damaged_checkpoint_is_named_and_skipped(tmp_path, caplog):
  state = {'a': np.arange(4000.0), 'b': np.arange(3)}
  with checkpoint.Checkpoints(tmp_path / 'c', keep=3) as saved:
    saved.save(2, state, {'curve': [1]})
    saved.save(4, {'a': state['a'] + 1, 'b': state['b']}, {'curve': [1, 2]})
  largest = max((tmp_path / 'c' / '4' / 'state').rglob('*'), key=lambda p: p.stat().st_size if p.is_file() else 0)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 0xFF
  largest.write_bytes(content)
  with caplog.at_level(logging.WARNING, 'aspects'), checkpoint.Checkpoints(tmp_path / 'c') as saved:
    found = saved.restore(state)
  assert found.step == 2 and found.notes == {'curve': [1]}
  np.testing.assert_array_equal(found.state['a'], state['a'])
  assert '/c/4 is damaged' in caplog.text


@pytest.mark.parametrize('devices', [2, 4])
def test_5_devices_agree(whole, devices, tmp_path):
  config = tiny.get_config()
  config.mesh.devices = devices
  found = study_lib.run_arm(study_lib.build(config).arms['main'], tmp_path, never, False).measures
  for name, variable in (('cka', 'cka_linear_song'), ('training', 'test_nll')):
    a, b = whole[0][name][variable], found[name][variable]
    np.testing.assert_allclose(b, a, rtol=2e-5, err_msg=f'{name} after training on {devices} devices')


@pytest.mark.parametrize('devices', [2, 4])
def test_5_statistics_agree_over_devices_to_1e_6(devices):
  arm = study().arms['main']
  state = train.init(arm.net, arm.rule, arm.seeds, arm.probe.batch(0))
  variables = arm.rule.variables(state.params, state.rule)
  found = []
  for n in (1, devices):
    mesh = mesh_lib.make(n)
    placed = jax.device_put(variables, mesh_lib.shardings(mesh, variables))
    found.append(measure_lib.analyse(arm.program, placed, arm.probe.batch, len(arm.probe), seeds=2,
                                     place=functools.partial(mesh_lib.place_batch, mesh)))
  for name in found[0]:
    xr.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-6, atol=1e-6)


def test_6_a_finished_run_is_a_no_op_and_another_config_is_refused(long_run):
  before = {p: p.stat().st_mtime_ns for p in long_run.rglob('*') if p.is_file()}
  again = subprocess.run(command(long_run), cwd=ROOT, env=environment(), capture_output=True, timeout=200)
  assert again.returncode == 0
  assert before == {p: p.stat().st_mtime_ns for p in long_run.rglob('*') if p.is_file()}
  other = subprocess.run(command(long_run, '--config.net.width=16'), cwd=ROOT, env=environment(), capture_output=True,
                         timeout=200)
  assert other.returncode != 0 and b'net.width: 8 there, 16 here' in other.stderr


def test_7_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
  config = tiny.get_config()
  config.learning.learning_rate = 1e30
  config.learning.clip = 1e30
  config.steps, config.checkpoint.every, config.evaluation.every = 40, 1, 1
  with pytest.raises(train.Diverged, match=r'not finite at step \d+ .*by seed'):
    study_lib.run_arm(study_lib.build(config).arms['main'], tmp_path, never, False)
  kept = [int(p.name) for p in (tmp_path / 'checkpoints').glob('[0-9]*')]
  arm = study().arms['main']
  like = train.init(arm.net, arm.rule, arm.seeds, arm.probe.batch(0))
  with checkpoint.Checkpoints(tmp_path / 'checkpoints') as saved:
    state = saved.restore(like).state
  assert kept and (np.asarray(state.bad) == -1).all()


def test_8_memory_does_not_grow_with_the_examples():
  """Bytes alive on the device after every batch are the same for 3 batches and for 30."""
  arm = study().arms['main']
  state = train.init(arm.net, arm.rule, arm.seeds, arm.probe.batch(0))
  variables = arm.rule.variables(state.params, state.rule)
  alive = []
  def watch(progress):
    jax.block_until_ready(progress.states)
    alive.append(sum(x.nbytes for x in jax.live_arrays()))
    return False
  measure_lib.analyse(arm.program, variables, lambda k: arm.probe.batch(k % len(arm.probe)), 30, seeds=2, watch=watch)
  assert len(alive) == 30 and max(alive[1:]) == min(alive[1:])


def test_the_results_name_their_origin(long_run):
  tree = results.load(long_run / 'results.nc')
  provenance = tree.attrs['provenance']
  assert json.loads(provenance['config'])['net']['width'] == 8
  assert len(provenance['data']['main']) == 64
