"""What makes a row stale: the code it reaches, to the definition, and nothing else."""
import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from aspects.claims import closure
from aspects.claims import running
from aspects.claims import spec as spec_lib

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture
def package(tmp_path, monkeypatch):
  """A small package; returns a function that writes its modules and hashes what `root.start` reaches."""
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.delitem(sys.modules, 'small_package', raising=False)       # that of the test before
  def hashes(**modules):
    folder = tmp_path / 'small_package'
    folder.mkdir(exist_ok=True)
    (folder / '__init__.py').write_text('')
    for name, text in modules.items():
      (folder / f'{name}.py').write_text(text)
    closure.parse.cache_clear()
    there = lambda name: (tmp_path / name.replace('.', '/')).with_suffix('.py').exists()
    monkeypatch.setattr(closure, '_is_module', there)
    return closure.follow([('small_package.root', 'start')])
  yield hashes
  closure.parse.cache_clear()


ROOT_TEXT = '''
import numpy as np
from small_package import other
from small_package.third import used, LIMIT

def start(x):
  """What."""
  return near(x) + other.far(x) + used(x)

def near(x):
  return np.sum(x)

def unused(x):
  return scipy.sum(x)
'''
OTHER = ('import scipy\n\ndef far(x):\n  return deep(x)\n\ndef deep(x):\n  return x\n\n'
         'def idle(x):\n  return scipy.f(x)\n')
THIRD = 'LIMIT = 3\nSIZE = 4\n\ndef used(x):\n  return x * SIZE\n'


def test_definitions_are_followed_over_modules(package):
  found = package(root=ROOT_TEXT, other=OTHER, third=THIRD)
  assert set(found.definitions) == {f'small_package.{n}' for n in (
      'root.start', 'root.near', 'other.far', 'other.deep', 'third.used', 'third.SIZE')}
  assert 'numpy' in found.packages and 'scipy' not in found.packages


@pytest.mark.parametrize('module, old, new, stale', [
    ('root', 'def near', '# a comment\n\n\ndef near', False), ('root', '"""What."""', '"""Which."""', False),
    ('root', 'return scipy.sum(x)', 'return 0', False), ('other', 'return scipy.f(x)', 'return 1', False),
    ('third', 'LIMIT = 3', 'LIMIT = 5', False), ('third', 'SIZE = 4', 'SIZE = 5', True),
    ('other', '  return x\n\ndef idle', '  return -x\n\ndef idle', True), ('root', 'np.sum(x)', 'np.sum(x, 0)', True)])
def test_only_what_is_reached_makes_stale(package, module, old, new, stale):
  texts = dict(root=ROOT_TEXT, other=OTHER, third=THIRD)
  before = package(**texts)
  assert old in texts[module]
  after = package(**{**texts, module: texts[module].replace(old, new)})
  assert (before.code_hash != after.code_hash) == stale


def test_a_module_handed_around_counts_whole(package):
  text = ROOT_TEXT.replace('return near(x)', 'return apply(other, x)')
  before = package(root=text, other=OTHER, third=THIRD)
  after = package(root=text, other=OTHER.replace('return scipy.f(x)', 'return 1'), third=THIRD)
  assert before.code_hash != after.code_hash


def test_statements_that_just_run_count(package):
  before = package(root=ROOT_TEXT, other=OTHER, third=THIRD)
  after = package(root=ROOT_TEXT, other=OTHER + '\nscipy.seterr(1)\n', third=THIRD)
  assert before.code_hash != after.code_hash


def test_another_version_of_a_package_makes_stale():
  claim = spec_lib.load(ROOT / 'configs' / 'stacks' / 'parallel_resnet.py')
  plan = running.plan(claim)
  assert {'jax', 'jaxlib', 'flax', 'optax', 'numpy'} <= set(plan.code['parallel'].packages)
  code = plan.code['parallel']
  newer = code._replace(packages={**code.packages, 'jaxlib': '99'})
  other = running.Plan(plan.claim, {**plan.code, 'parallel': newer}, plan.data)
  assert other.key('parallel', 0) != plan.key('parallel', 0) and other.key('sequential', 0) == plan.key('sequential', 0)


CODES = '''
import json, pathlib, sys
from aspects.claims import running, spec
out = {}
for name in ('stacks/parallel_resnet', 'norms/lns'):
  claim = spec.load(pathlib.Path('configs') / f'{name}.py')
  plan = running.Plan(claim, {a: running.closure.of_arm(claim.arm(a), type(running.procedure(claim, a)))
                              for a in claim.arms}, {a: '' for a in claim.arms})
  out |= {f'{name} {arm}': plan.key(arm, 0) for arm in claim.arms}
print(json.dumps(out))
'''


def test_a_changed_part_makes_its_users_stale_and_nobody_else(tmp_path):
  """In a copy of this repository: a comment stales nothing, a norm the arms that have it, attention those with it."""
  for folder in ('aspects', 'configs', 'experiments'):
    shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns('__pycache__'))
  def keys():
    return json.loads(subprocess.run([sys.executable, '-c', CODES], cwd=tmp_path, capture_output=True, text=True,
                                     check=True).stdout)
  def edit(path, old, new):
    file = tmp_path / path
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
  first = keys()
  edit('aspects/nn/attention.py', 'class MultiHead', '# says who reads whom\nclass MultiHead')
  edit('aspects/stacks/parallel.py', '"""How many blocks', '"""As many blocks')
  assert keys() == first
  edit('aspects/norms/depth_scaled.py', 'layer + 1', 'layer + 2')
  second = keys()
  assert {k for k in first if first[k] != second[k]} == {'norms/lns lns'}
  edit('aspects/nn/attention.py', 'size ** -0.5', 'size ** -0.4')
  third = keys()
  assert {k for k in first if second[k] != third[k]} == {k for k in first if k.startswith('norms/lns')}
