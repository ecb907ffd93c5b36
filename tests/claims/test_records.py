"""The committed records: complete, judged again to the same verdicts, small, and shown."""
import json
import pathlib
import re

from aspects.claims import judge as judge_lib
from aspects.claims import record as record_lib
from aspects.claims import spec as spec_lib
from experiments import claims as command

ROOT = pathlib.Path(__file__).parent.parent.parent
FOLDER = record_lib.Folder(ROOT / 'claims')


def test_the_audit_finds_nothing():
  assert record_lib.audit(FOLDER, ROOT / 'configs') == []


def test_every_registered_claim_has_its_record_and_no_record_lacks_a_claim():
  registered = {spec_lib.load(path).id for path in spec_lib.find(ROOT / 'configs').values()
                if spec_lib.registers(path)}
  assert set(FOLDER.records()) == registered


def test_records_are_small_and_have_every_row():
  for id, record in FOLDER.records().items():
    assert FOLDER.record(id).stat().st_size < record_lib.LIMIT, id
    claim = spec_lib.load(ROOT / record['provenance']['config'])
    seeds = {r['seed'] for r in record['runs']}
    assert len(seeds) in claim.looks and len(record['runs']) == len(seeds) * len(claim.arms), id


def test_every_claim_has_a_control_and_every_margin_a_reason():
  for id, record in FOLDER.records().items():
    controlled = any(a['control'] for a in record['assertions']) or any(
        a['kind'] == 'identity' and len(a['arms']) == 2 for a in record['assertions'])
    assert controlled, id
    assert all(a['reason'] for a in record['assertions'] if a['kind'] not in ('identity', 'band')), id


def test_no_verdict_was_reached_between_looks():
  for id, record in FOLDER.records().items():
    looks = record['registered']['looks']
    alpha = judge_lib.LEVELS[len(looks)]
    for a in record['assertions']:
      assert a['look'] in looks and a['level'] == 1 - 2 * alpha, (id, a['name'])


def test_the_calibration_passes_and_covers_the_records():
  found = json.loads((FOLDER.root / 'calibration.json').read_text())
  assert found['null_passes'] and found['replaced_passes']
  assert all(row['holds'] <= found['most_holds_by_chance'] for row in found['null_audit'])
  assert {row['claim'] for row in found['null_audit']} <= set(FOLDER.records())
  by_effect = lambda e: [row['holds'] for row in found['planted_effects'] if row['effect_sd'] == e]
  assert max(by_effect(0)) <= found['most_holds_by_chance'] / found['draws'] and min(by_effect(2)) > .99


def test_the_noise_bank_has_every_task_of_its_config():
  from configs import noise
  bank = json.loads((FOLDER.root / 'noise.json').read_text())
  assert set(bank) == set(noise.get_config().arms)
  assert all(x['seeds'] >= 20 and x['metrics']['test_nll']['sd_paired'] > 0 for x in bank.values())


def test_the_gallery_of_the_records(tmp_path, capsys):
  """`make gallery`: a page a claim, with its verdict."""
  assert command.main(['gallery', '--out', str(tmp_path / 'gallery')]) == 0
  for id, record in FOLDER.records().items():
    page = (tmp_path / 'gallery' / f'{id.replace("/", "-")}.html').read_text()
    assert record['verdict']['value'] in page and re.search(r'python -m experiments\.claims run', page)
