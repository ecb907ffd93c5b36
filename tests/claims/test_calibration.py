"""The null audit and planted effects where the answer is known, and the noise bank against its own definition."""
import json

import numpy as np
from scipy import stats

from aspects.claims import calibration
from aspects.claims import record as record_lib
from tests.claims.made import claim, rows
from tests.claims.test_running import carry_out, made

ONE = {'one': dict(kind='superior', arms=('ours', 'base'), tau=.3, eps=100.)}


def test_planted_effects_come_out_as_student_says():
  """At one look power is that of the noncentral t: 2.5 % at 0, and what 16 seeds see of 0.5 and 1 sd."""
  spec = claim(ONE, looks=(16,))
  values = np.random.default_rng(0).normal(5, 2, 400)
  found = calibration.power(spec, 'one', values, 1000)
  for row in found:
    shift = row['effect_sd'] * 4                          # sqrt(16) seeds
    expected = stats.nct.sf(stats.t.ppf(.975, 15), 15, shift) if shift else .025
    for key in ('holds', 'holds_normal'):
      assert abs(row[key] - expected) < 4 * np.sqrt(expected * (1 - expected) / 1000) + .005, (row, expected)


def test_the_null_audit_finds_an_honest_level_and_a_broken_one(monkeypatch):
  values = np.random.default_rng(1).normal(size=200)
  for kind, margin in (('superior', dict(tau=.3, eps=100.)), ('noninferior', dict(eps=1.)),
                       ('equivalent', dict(eps=50.))):
    spec = claim({'one': dict(kind=kind, arms=('ours', 'base'), **margin)}, looks=(8, 16, 32))
    assert calibration.null_audit(spec, 'one', values, 400)['holds'] <= calibration.most(400)
  from aspects.claims import judge
  monkeypatch.setattr(judge, 'LEVELS', {3: .2})
  assert calibration.null_audit(spec, 'one', values, 400)['holds'] > calibration.most(400)


def test_the_edge_is_where_a_claim_is_just_not_true():
  for kind, margin, at in (('superior', dict(tau=.3, eps=1.), .3), ('noninferior', dict(eps=1.), -1.),
                           ('equivalent', dict(eps=2.), -2.), ('band', dict(band=(-3., 4.)), -3.)):
    assert calibration.edge(dict(kind=kind, arms=('a', 'b'), **margin)) == at


def test_arms_that_do_not_vary_have_no_noise():
  one = dict(kind='superior', arms=('ours', 'base'), metric='score')
  assert calibration.baseline(one, rows({'ours': np.arange(8), 'base': np.ones(8)})) is None
  assert calibration.baseline({**one, 'arms': ('ours',)}, rows({'ours': np.arange(8)})) is None


def test_calibration_of_records_is_written(tmp_path):
  path = made.config(tmp_path)
  carry_out(path, tmp_path)
  folder = record_lib.Folder(tmp_path / 'claims')
  found = calibration.calibrate(folder, tmp_path / 'configs', 50, fresh=8)
  assert json.loads((tmp_path / 'claims' / 'calibration.json').read_text())['draws'] == 50
  assert [r['effect_sd'] for r in found['planted_effects']] == [0, .5, 1, 2] and found['null_passes']
  assert len(found['replaced_by_baseline']) == 1 and found['replaced_passes']


def test_the_noise_of_paired_halves():
  rng = np.random.default_rng(3)
  shared, own = rng.normal(size=2000), rng.normal(size=(2, 2000))
  found = calibration._noise((shared + .1 * own).reshape(-1))
  assert abs(found['sd'] - np.sqrt(1.01)) < .04 and abs(found['sd_paired'] - .1 * np.sqrt(2)) < .01
