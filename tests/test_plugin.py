"""Components are found by family and file name; a wrong spec is refused with the place and the nearest valid name."""
import dataclasses
import pathlib
from typing import Any

from flax import core
from flax import linen as nn
import ml_collections
import pytest

import aspects
from aspects import plugin

ROOT = pathlib.Path(aspects.__file__).parent


@dataclasses.dataclass(frozen=True)
class Mine:
  size: int
  name_of: str = 'mine'
  parts: Any = ()


def plain(size, *, scale=1.0):
  return size * scale


class Layered(nn.Module):
  size: int
  heads: int = 2


def test_families_are_the_folders_and_names_the_files():
  folders = {p.name for p in ROOT.iterdir() if (p / '__init__.py').exists()} - set(plugin.SHARED)
  assert set(plugin.families()) == folders
  for family in folders:
    files = {p.stem for p in (ROOT / family).glob('*.py')} - {'__init__'}
    assert set(plugin.names(family)) == files


def test_every_file_defines_its_component():
  for family in plugin.families():
    for name in plugin.names(family):
      part = plugin.component(family, name)
      assert callable(part) and part.__module__ == f'aspects.{family}.{name}'


def test_a_new_file_is_a_component_without_a_list_to_edit(tmp_path, monkeypatch):
  (tmp_path / 'probe_mixer.py').write_text('class ProbeMixer:\n  def __init__(self, size=1):\n    self.size = size\n')
  import aspects.mixers
  monkeypatch.setattr(aspects.mixers, '__path__', [*aspects.mixers.__path__, str(tmp_path)])
  assert 'probe_mixer' in plugin.names('mixers')
  assert plugin.build('mixers', dict(name='probe_mixer', size=3)).size == 3


def test_a_component_of_the_users_own_by_import_path():
  assert plugin.build('mixers', dict(name='tests.test_plugin:Mine', size=3)).size == 3
  assert plugin.component('mixers', 'norms/rms').__name__ == 'Rms'


def test_fields_with_what_must_be_given():
  assert plugin.fields(Mine) == {'size': True, 'name_of': False, 'parts': False}
  assert plugin.fields(plain) == {'size': True, 'scale': False}
  assert plugin.fields(Layered) == {'size': True, 'heads': False}         # a module's own parent and name are no fields


def test_given_fields_go_where_they_fit_and_never_over_the_spec():
  made = plugin.build('mixers', dict(name='tests.test_plugin:Mine', size=3), size=5, dtype='float32')
  assert made == Mine(3)
  assert plugin.build('mixers', dict(name='tests.test_plugin:Layered', size=3), name='inner').name == 'inner'


def test_built_components_compare_and_hash_by_value():
  spec = dict(name='tests.test_plugin:Mine', size=3, parts=[{'b': [1, 2]}, [3]])
  first, second = (plugin.build('mixers', spec) for _ in range(2))
  assert first == second and hash(first) == hash(second)
  assert first.parts == (core.FrozenDict(b=(1, 2)), (3,))


def test_a_spec_may_be_a_config():
  spec = ml_collections.ConfigDict(dict(name='tests.test_plugin:Mine', size=3, parts=dict(b=[1])))
  made = plugin.build('mixers', spec)
  assert made.parts == core.FrozenDict(b=(1,)) and isinstance(hash(made), int)


def test_freeze_keeps_values():
  assert plugin.freeze({'a': [1, {'b': [2]}]}) == {'a': (1, {'b': (2,)})}


@pytest.mark.parametrize('spec, message', [
    (dict(name='atention'), r"net.mixer: family 'mixers' has no component 'atention'; did you mean 'attention'"),
    (dict(name='window', siz=3), r"net.mixer: 'window' has no field 'siz'; did you mean 'size'.* Valid: causal, dtype"),
    (dict(name='window'), r"net.mixer: 'window' needs the field 'size'"),
    (dict(size=3), r'net.mixer: a component is given as dict\(name=\.\.\., field=\.\.\.\), got .* Valid: attention'),
    (dict(name=3), r'net.mixer: a component is given as'),
    ('attention', r"net.mixer: a component is given as .* got 'attention'"),
    (dict(name='normz/rms'), r"net.mixer: there is no family 'normz'; did you mean 'norms'"),
    (dict(name='norms/rsm'), r"net.mixer: family 'norms' has no component 'rsm'; did you mean 'rms'"),
    (dict(name='tests.no_such:Mine'), r"net.mixer: 'tests.no_such:Mine': no module 'tests.no_such' can be imported"),
    (dict(name='tests.test_plugin:Mein'), r"net.mixer: module 'tests.test_plugin' has no 'Mein'; did you mean 'Mine'"),
])
def test_a_wrong_spec_is_refused_with_place_and_nearest(spec, message):
  with pytest.raises(ValueError, match=message):
    plugin.build('mixers', spec, where='net.mixer')


def test_a_component_that_refuses_its_values_is_named():
  with pytest.raises(ValueError, match=r"net.mixer: 'builtins:complex' refused \{'real': 'x'\}"):
    plugin.build('mixers', dict(name='builtins:complex', real='x'), where='net.mixer')


def test_a_file_without_its_class_says_what_it_lacks(tmp_path, monkeypatch):
  (tmp_path / 'hollow_mixer.py').write_text('other = 1\n')
  import aspects.mixers
  monkeypatch.setattr(aspects.mixers, '__path__', [*aspects.mixers.__path__, str(tmp_path)])
  with pytest.raises(ValueError, match="hollow_mixer.py defines nothing called like its file; .*'HollowMixer'"):
    plugin.component('mixers', 'hollow_mixer')


def test_nearest_shortens_long_lists():
  message = plugin.nearest('site_7', [f'site_{i}' for i in range(100)])
  assert message.startswith("did you mean 'site_7'") and message.endswith('... (100 in all)')


def test_examples_are_specs_that_build():
  assert [s['name'] for s in plugin.examples('stacks')] == sorted(s['name'] for s in plugin.examples('stacks'))
  assert {'name': 'window', 'size': 2} in plugin.examples('mixers')
  assert {'name': 'rms'} in plugin.examples('norms')
