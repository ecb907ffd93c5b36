"""From a config to a committed record and back: what runs, what does not run again, and what is refused."""
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from aspects import inference
from aspects.claims import cells
from aspects.claims import record as record_lib
from aspects.claims import running
from aspects.claims import spec as spec_lib
from aspects.claims import worker
from experiments import claims as command
from tests.claims import made

ROOT = pathlib.Path(__file__).parent.parent.parent


def carry_out(path, folder, scale='claim', **options):
  """Runs a claim in this process: (campaign, record)."""
  plan = running.plan(spec_lib.load(path, scale))
  queue = cells.Queue(folder / 'queue')
  records = record_lib.Folder(folder / 'claims')
  campaign = running.Campaign({plan.claim.id: plan}, queue, records, {plan.claim.id: record_lib.register(path)},
                              **options)
  queue.reopen()
  for _ in range(10):
    campaign.advance()
    if campaign.finished:
      break
    while queue.left():
      with queue.take() as lease:
        lease.finish(worker._attempt(lease.task, lambda task, stop: running.run_cell(task, folder / 'work', stop),
                                     lambda: False, lease, worker.Alone()))
  return campaign, records.records()[plan.claim.id]


# --- a whole claim ----------------------------------------------------------------------------------------------------

def test_a_claim_from_config_to_record(tmp_path):
  path = made.config(tmp_path)
  campaign, record = carry_out(path, tmp_path)
  assert (record['verdict']['value'], record['verdict']['reason']) == ('holds', 'decided')
  assert len(record['runs']) == 2 * 8 and record['assertions'][0]['look'] == 8, 'one look was enough'
  seeds = [inference.arm_seed('made-up/1', s) for s in range(8)]
  expected = [.1 * np.random.default_rng(s).normal() for s in seeds]
  base = [r['metrics']['score'] for r in record['runs'] if r['arm'] == 'base']
  np.testing.assert_allclose(base, expected, rtol=1e-9)
  assert record['runs'][0]['curve'].startswith('score@step 0:')
  assert record_lib.audit(record_lib.Folder(tmp_path / 'claims'), tmp_path / 'configs') == []
  assert record_lib.history(record_lib.Folder(tmp_path / 'claims'))[-1]['verdict'] == 'holds'
  assert record_lib.Folder(tmp_path / 'claims').record('made-up/1').stat().st_size < record_lib.LIMIT


def test_looks_go_on_until_the_claim_is_decided(tmp_path):
  path = made.config(tmp_path, mean=0.25, eps=0.5, ours='spread=0.12', base='spread=-0.12')
  campaign, record = carry_out(path, tmp_path)
  assert record['assertions'][0]['look'] > 8 or record['verdict']['value'] != 'inconclusive'
  assert len(record['runs']) == 2 * record['assertions'][0]['look']


def test_a_second_call_runs_nothing_and_writes_nothing(tmp_path):
  path = made.config(tmp_path)
  carry_out(path, tmp_path)
  before = {p: p.stat().st_mtime_ns for p in (tmp_path / 'claims').rglob('*') if p.is_file()}
  fresh = tmp_path / 'elsewhere'                          # another machine: records, and no queue
  fresh.mkdir()
  os.rename(tmp_path / 'claims', fresh / 'claims')
  campaign, _ = carry_out(path, fresh)
  assert not campaign.cells
  assert {fresh / p.relative_to(tmp_path): t for p, t in before.items()} == {
      p: p.stat().st_mtime_ns for p in (fresh / 'claims').rglob('*') if p.is_file()}


def test_smoke_is_recorded_nowhere(tmp_path):
  plan = running.plan(spec_lib.load(made.config(tmp_path), 'smoke'))
  queue = cells.Queue(tmp_path / 'queue')
  campaign = running.Campaign({'made-up/1': plan}, queue, None, {'made-up/1': {}})
  assert campaign.advance().cells == 2 and not (tmp_path / 'claims').exists()


# --- what is refused --------------------------------------------------------------------------------------------------

def test_a_spec_edited_after_its_rows_is_refused(tmp_path):
  path = made.config(tmp_path)
  carry_out(path, tmp_path)
  path.write_text(path.read_text().replace('eps=0.5', 'eps=0.4'))
  made.commit(tmp_path)
  with pytest.raises(ValueError, match=r"edited after its rows.*made-up/2, amends='made-up/1'"):
    carry_out(path, tmp_path)
  problems = record_lib.audit(record_lib.Folder(tmp_path / 'claims'), tmp_path / 'configs')
  assert len(problems) == 1 and 'another spec' in problems[0]


def test_prose_may_be_corrected(tmp_path):
  path = made.config(tmp_path)
  carry_out(path, tmp_path)
  path.write_text(path.read_text().replace('Ours is better.', 'Ours is better than the other.'))
  made.commit(tmp_path)
  campaign, _ = carry_out(path, tmp_path)
  assert not campaign.cells and not record_lib.audit(record_lib.Folder(tmp_path / 'claims'), tmp_path / 'configs')


def test_an_uncommitted_spec_is_refused(tmp_path):
  path = made.config(tmp_path)
  path.write_text(path.read_text() + '\n# more\n')
  with pytest.raises(ValueError, match='not committed as it stands.*--scale smoke'):
    record_lib.register(path)


def test_a_spec_younger_than_its_rows_fails_the_audit(tmp_path):
  path = made.config(tmp_path)
  carry_out(path, tmp_path)
  edit(tmp_path, lambda r: r['provenance'].update(started='2001-01-01T00:00:00+00:00'))
  assert any('after its first row' in p for p in audit(tmp_path))


def edit(tmp_path, change, honest=False):
  """A hand in the record; `honest` also corrects what the rows' hash says."""
  path = record_lib.Folder(tmp_path / 'claims').record('made-up/1')
  record = json.loads(path.read_text())
  change(record)
  if honest:
    record['provenance']['rows_hash'] = spec_lib.digest(record['runs'])
  path.write_text(record_lib.dump(record))


def audit(tmp_path):
  return record_lib.audit(record_lib.Folder(tmp_path / 'claims'), tmp_path / 'configs')


@pytest.mark.parametrize('change, honest, message', [
    (lambda r: r['runs'][3]['metrics'].update(score=1.0001 * r['runs'][3]['metrics']['score']), False,
     'rows are not those'),
    (lambda r: r['runs'][3]['metrics'].update(score=1.01 * r['runs'][3]['metrics']['score']), True,
     'not what its rows give'),
    (lambda r: r['runs'].pop(), False, 'rows are not those'),
    (lambda r: r['verdict'].update(value='fails'), False, "its rows give"),
    (lambda r: r['assertions'][0].update(estimate=9.), False, 'assertions are not what'),
    (lambda r: r['gates']['budget'].update(detail='fine'), False, 'gates are not what'),
    (lambda r: r['verdict'].update(q=.5), False, 'over this ledger'),
    (lambda r: r.update(surprise=1), False, 'surprise'),
    (lambda r: r['runs'][0].update(status='great'), False, 'great')])
def test_a_hand_in_the_record_fails_the_audit(tmp_path, change, honest, message):
  carry_out(made.config(tmp_path), tmp_path)
  assert audit(tmp_path) == []
  edit(tmp_path, change, honest)
  assert any(message in p for p in audit(tmp_path)), audit(tmp_path)


def test_a_hand_in_ledger_and_history_fails_the_audit(tmp_path):
  carry_out(made.config(tmp_path), tmp_path)
  folder = record_lib.Folder(tmp_path / 'claims')
  ledger = folder.ledger.read_text()
  folder.ledger.write_text(ledger.replace('holds', 'fails'))
  assert any('not what the records give' in p for p in audit(tmp_path))
  folder.ledger.write_text(ledger)
  folder.history.write_text(folder.history.read_text().replace('"holds"', '"fails"'))
  assert any('history ends with fails' in p for p in audit(tmp_path))


# --- what goes wrong in cells -----------------------------------------------------------------------------------------

def test_a_block_that_fails_is_run_seed_by_seed_and_says_who_failed(tmp_path):
  path = made.config(tmp_path, ours="do='fail'")
  _, record = carry_out(path, tmp_path)
  odd = {s for s in range(8) if inference.arm_seed('made-up/1', s) % 2}
  assert odd and {r['seed'] for r in record['runs'] if r['status'] == 'oom' and r['seed'] < 8} == odd
  assert record['verdict']['reason'] == 'missing_runs' and not audit(tmp_path)


def test_failures_are_run_again_when_asked(tmp_path):
  carry_out(made.config(tmp_path, ours="do='fail'"), tmp_path)
  plain, _ = carry_out(tmp_path / 'configs' / 'tests' / 'made_up.py', tmp_path)
  again, _ = carry_out(tmp_path / 'configs' / 'tests' / 'made_up.py', tmp_path, retry=True)
  assert not plain.cells and again.cells and all(task['arm'] == 'ours' for _, task in again.cells.values())


def test_nan_and_divergence_are_kept_as_such(tmp_path):
  _, record = carry_out(made.config(tmp_path, ours="do='nan'"), tmp_path)
  assert None in [r['metrics']['score'] for r in record['runs']] and record['verdict']['reason'] == 'missing_runs'
  _, record = carry_out(made.config(tmp_path / 'b', ours="do='diverge'"), tmp_path / 'b')
  assert {r['status'] for r in record['runs'] if r['arm'] == 'ours'} == {'diverged'}
  assert record['verdict']['value'] == 'fails' and not audit(tmp_path / 'b')


def test_workers_of_other_code_refuse_the_cell(tmp_path):
  plan = running.plan(spec_lib.load(made.config(tmp_path)))
  _, task = plan.cell('ours', (0, 1))
  with pytest.raises(ValueError, match='are others here'):
    running.run_cell({**task, 'keys': ['0' * 32] * 2}, tmp_path, lambda: False)


# --- two workers, one killed ------------------------------------------------------------------------------------------

def test_two_workers_one_killed_no_cell_lost_or_doubled(tmp_path):
  """The real command, with two workers of its own, one of which is killed in the middle of a cell."""
  log = tmp_path / 'log'
  made.config(tmp_path, ours=f"sleep=0.8, log={str(log)!r}", base=f"sleep=0.8, log={str(log)!r}", looks=(16,))
  call = [sys.executable, '-m', 'experiments.claims', '--configs', tmp_path / 'configs', '--records',
          tmp_path / 'claims',
          'run', 'made-up', '--workdir', tmp_path / 'work', '--exec', 'local:2']
  process = subprocess.Popen(list(map(str, call)), cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)},
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  end = time.monotonic() + 120
  while not (log.exists() and log.read_text().strip()) and time.monotonic() < end:
    time.sleep(.02)
  victim = int(log.read_text().split()[0])
  os.kill(victim, signal.SIGKILL)
  output, _ = process.communicate(timeout=240)
  assert process.returncode == 0, output
  record = record_lib.Folder(tmp_path / 'claims').records()['made-up/1']
  assert sorted((r['arm'], r['seed']) for r in record['runs']) == [(a, s) for a in ('base', 'ours') for s in range(16)]
  told = [line.split() for line in log.read_text().splitlines()]
  twice = [t for t in told if t[0] != str(victim)]
  assert len({tuple(t[1:]) for t in twice}) == len(twice) == 4, 'survivors ran each cell once'
  assert record['verdict']['value'] == 'holds' and not audit(tmp_path)
  again = subprocess.run(list(map(str, call)), cwd=ROOT, capture_output=True, text=True)
  assert 'nothing to do' in again.stdout and len(log.read_text().splitlines()) == len(told)


# --- what seeds share -------------------------------------------------------------------------------------------------

def test_sixteen_seeds_together_are_sixteen_alone(tmp_path):
  """One program for 16 seeds gives each seed's test loss to 1e-5 nats, through training and evaluation."""
  config = spec_lib.load(ROOT / 'configs' / 'stacks' / 'parallel_resnet.py', 'smoke')
  config = dataclasses.replace(config, arms={'sequential': config.arms['sequential']})
  seeds = tuple(range(running.TUNING, running.TUNING + 16))
  keys = {s: '0' * 32 for s in seeds}
  together = running.rows_of(config, 'sequential', seeds, tmp_path / 'all', lambda: False, keys)
  for row in together[::5]:
    alone = running.rows_of(config, 'sequential', (row['seed'],), tmp_path / str(row['seed']), lambda: False, keys)[0]
    assert abs(alone['metrics']['nll'] - row['metrics']['nll']) < 1e-5
  assert len({row['metrics']['nll'] for row in together}) == 16


# --- commands ---------------------------------------------------------------------------------------------------------

def called(tmp_path, capsys, *arguments):
  status = command.main(['--configs', str(tmp_path / 'configs'), '--records', str(tmp_path / 'claims'), *arguments])
  return status, capsys.readouterr().out


def test_commands_that_look(tmp_path, capsys):
  path = made.config(tmp_path)
  assert 'not run yet' in called(tmp_path, capsys, 'list')[1]
  assert '16 cells' not in called(tmp_path, capsys, 'run', 'made-up', '--dry')[1]
  text = called(tmp_path, capsys, 'run', 'made-up', '--dry')[1]
  assert '8 seeds: 2 cells, 2 of them without rows' in text and '1.40 sd' in text
  carry_out(path, tmp_path)
  assert 'holds' in called(tmp_path, capsys, 'list')[1]
  assert 'up to date' in called(tmp_path, capsys, 'status')[1] and '1 holds' in called(tmp_path, capsys, 'status')[1]
  assert 'gate budget: passed' in called(tmp_path, capsys, 'show', 'made-up')[1]
  assert called(tmp_path, capsys, 'audit') == (0, called(tmp_path, capsys, 'audit')[1])
  assert '0 problems' in called(tmp_path, capsys, 'audit')[1]
  edit(tmp_path, lambda r: r['verdict'].update(value='fails'))
  assert called(tmp_path, capsys, 'audit')[0] == 1
  assert 'holds' in called(tmp_path, capsys, 'judge')[1] and called(tmp_path, capsys, 'audit')[0] == 0


def test_names_that_mean_nothing(tmp_path, capsys):
  made.config(tmp_path)
  with pytest.raises(SystemExit, match="did you mean 'made-up'"):
    called(tmp_path, capsys, 'show', 'made-upp')
