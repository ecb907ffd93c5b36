"""What a spec may say, what it may not, and what its hash covers."""
import dataclasses

import pytest

from aspects.claims import spec as spec_lib
from tests.claims import made
from tests.claims.made import claim

ONE = {'one': dict(kind='superior', arms=('ours', 'base'), tau=0., eps=1.)}


def changed(**assertion):
  return {'one': {**ONE['one'], **assertion}}


@pytest.mark.parametrize('assertions, message', [
    ({}, 'asserts something'), (changed(kind='superb'), "did you mean 'superior'"),
    (changed(arms=('ours', 'bas')), "'base'"),
    (changed(metric='scor'), "did you mean 'score'"), (changed(eps=0.), 'above 0'), (changed(eps=None), 'above 0'),
    (changed(reason=' '), 'no reason for its eps'), (changed(better='up'), 'Valid: higher'),
    (changed(band=(0, 1)), 'means nothing'),
    (changed(must='hold'), 'belongs to controls'), (changed(arms=('ours', 'ours')), 'the first against the second'),
    (changed(taus=1), "did you mean 'tau'"), (changed(kind='band', eps=1.), 'means nothing for band'),
    ({'one': dict(kind='identity', arms=('ours',))}, 'needs c > 0'),
    ({'one': dict(kind='trend', arms=('ours', 'base'), eps=.1)}, 'three or more')])
def test_bad_assertions_are_named(assertions, message):
  with pytest.raises(ValueError, match=message):
    claim(assertions)


@pytest.mark.parametrize('fields, message', [
    (dict(looks=(8, 12)), 'twice the one before'), (dict(looks=()), 'one to three'),
    (dict(id='Made 1'), 'such as lns/1'),
    (dict(budget=dict(waived='')), 'say why'), (dict(budget=dict(arms=('ours', 'x'), trials=1)), "'x'"),
    (dict(sane=dict(arm='base', metric='score', band=(2., 1.))), 'band')])
def test_bad_fields_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    claim(ONE, **fields)


def test_an_id_belongs_to_its_file(tmp_path):
  path = made.config(tmp_path)
  other = path.with_name('another.py')
  other.write_text(path.read_text())
  with pytest.raises(ValueError, match="begins with 'another'"):
    spec_lib.load(other)


def test_the_hash_covers_what_decides_and_no_prose():
  base = claim(ONE)
  same = [claim(changed(reason='another'), title='Other'), claim(changed(text='words')),
          dataclasses.replace(base, sentence='Other.', component='x/y', block=4)]
  assert {c.hash for c in same} == {base.hash}
  other = [claim(changed(eps=1.1)), claim(changed(tau=.1)), claim(ONE, looks=(8, 16)), claim(changed(better='lower')),
           claim(ONE, sane=dict(arm='base', metric='score', band=(0., 1.))), claim(ONE, arms=('ours', 'base', 'more')),
           claim(ONE, id='made/2'), dataclasses.replace(base, scale='full'),
           claim(ONE, metrics=dict(score=dict(long_name='s', unit='1', worst=3.)))]
  assert len({c.hash for c in other} | {base.hash}) == len(other) + 1


def test_a_new_field_that_is_off_leaves_the_hash():
  base = claim(ONE)
  later = dataclasses.replace(base, arms={n: {**a, 'novelty': None, 'more': False} for n, a in base.arms.items()})
  on = dataclasses.replace(base, arms={n: {**a, 'more': True} for n, a in base.arms.items()})
  assert later.hash == base.hash != on.hash


def test_all_registered_specs_are_valid_at_every_scale():
  import pathlib
  root = pathlib.Path(__file__).parent.parent.parent / 'configs'
  found = [p for p in spec_lib.find(root).values() if spec_lib.registers(p)]
  assert len(found) >= 12
  for path in found:
    for scale in ('claim', 'smoke', 'full'):
      assert spec_lib.load(path, scale).scale == scale
