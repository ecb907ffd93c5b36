"""Results: exact round trips, whole files or none, provenance without places, axes, summaries."""
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys

import h5py
import jax
import ml_collections
import numpy as np
import pytest
import xarray as xr
from scipy import stats

from aspects import files
from aspects import results


def a_tree():
  rng = np.random.default_rng(0)
  cka = xr.Dataset(
      {'linear': (('seed', 'site', 'other'), rng.normal(size=(2, 3, 3)),
                  {'long_name': 'linear CKA', 'units': 'seconds', 'figure': 'map', 'limits': [0, 1],
                   'pair': (1, 'a'), 'nested': {'a': [None, True, {'b': .1}]}, 'empty': '',
                   'none': [], 'like_json': 'json:[1]', 'zero': 'a\0b', 'unicode': 'é∞',
                   'long': 'x' * 100_000}),
       'active': ('site', np.array([True, False, True])),
       'odd': ('site', np.array([np.nan, -np.inf, -0.])),
       'small': ('site', np.array([1, 2, 3], np.float32)), 'scalar': ((), 7.5),
       'count': ('site', np.array([0, 1, 2 ** 64 - 1], np.uint64)),
       'byte': ('site', np.int8([-1, 0, 1])),
       'text': ('site', ['', 'é', 'a b']), 'nothing': (('none', 'site'), np.zeros((0, 3)))},
      coords={'site': ['embed', 'resid_post.0', 'resid_post.10'], 'other': ['a', 'b', 'c'],
              'seed': [3, 5], 'kind': ('site', np.array(['x', 'yy', ''], object)), 'rows': 512},
      attrs={'aspect': 'correlations', 'rows': 512, 'sure': True, 'share': .1})
  tree = xr.DataTree.from_dict({'/net/cka': cka, '/net/empty': xr.Dataset()})
  tree.attrs = {'title': 'A run', 'provenance': {'x64': False, 'seeds': [0, 1]}}
  return tree


# --- Files ------------------------------------------------------------------------------------

def test_round_trip_is_exact(tmp_path):
  tree = a_tree()
  results.save(tree, tmp_path / 'new' / 'folder' / 'r.nc')
  back = results.load(tmp_path / 'new' / 'folder' / 'r.nc')
  assert back.attrs == tree.attrs and back['net'].attrs == {}
  ours, theirs = tree['net/cka'].to_dataset(), back['net/cka'].to_dataset()
  assert theirs.attrs == ours.attrs and type(theirs.attrs['sure']) is bool
  assert list(theirs.data_vars) == list(ours.data_vars) and set(theirs.coords) == set(ours.coords)
  for name, mine in ours.variables.items():
    assert theirs[name].dims == mine.dims
    assert theirs[name].dtype.kind == ('U' if name == 'kind' else mine.dtype.kind), name
    assert theirs[name].dtype.itemsize == mine.dtype.itemsize or theirs[name].dtype.kind == 'U'
    np.testing.assert_array_equal(theirs[name].values, mine.values)
    assert theirs[name].attrs == {**mine.attrs, **({'pair': [1, 'a']} if name == 'linear' else {})}
  assert np.signbit(theirs['odd'].values[2])
  assert list(back['net'].children) == ['cka', 'empty']


def test_saving_leaves_the_tree_as_it_was_and_gives_equal_bytes(tmp_path):
  tree = a_tree()
  results.save(tree, tmp_path / 'a.nc')
  assert tree.identical(a_tree())
  results.save(results.load(tmp_path / 'a.nc'), tmp_path / 'b.nc')
  results.save(tree, tmp_path / 'c.nc')
  assert (tmp_path / 'a.nc').read_bytes() == (tmp_path / 'c.nc').read_bytes()
  assert results.load(tmp_path / 'a.nc').identical(results.load(tmp_path / 'b.nc'))


def test_a_branch_of_a_tree_keeps_what_it_inherits(tmp_path):
  tree = xr.DataTree.from_dict({'/': xr.Dataset(coords={'site': ['a', 'b']}),
                                '/one': xr.Dataset({'x': ('site', [1., 2.])})})
  results.save(tree, tmp_path / 'r.nc')
  assert results.load(tmp_path / 'r.nc').identical(tree)
  results.save(tree['one'], tmp_path / 'r.nc')
  assert results.load(tmp_path / 'r.nc')['x'].coords['site'].values.tolist() == ['a', 'b']


def test_other_programs_can_read_the_file(tmp_path):
  results.save(a_tree(), tmp_path / 'r.nc')
  with h5py.File(tmp_path / 'r.nc') as file:
    linear = file['net/cka/linear']
    np.testing.assert_array_equal(linear[:], a_tree()['net/cka/linear'].values)
    assert linear.attrs['units'] == 'seconds' and json.loads(linear.attrs['limits'][5:]) == [0, 1]
    assert linear.compression == 'gzip' and linear.fletcher32


def test_files_hold_numbers_and_text_only(tmp_path):
  results.save(a_tree(), tmp_path / 'r.nc')
  kinds = {}
  with h5py.File(tmp_path / 'r.nc') as file:
    file.visititems(lambda name, item: kinds.update({name: item.dtype})
                    if isinstance(item, h5py.Dataset) else None)
  assert len(kinds) >= 14
  for name, dtype in kinds.items():
    plain = dtype.kind in 'iuf' or h5py.check_string_dtype(dtype) or h5py.check_enum_dtype(dtype)
    assert plain, name


@pytest.mark.parametrize('values, dtype', [
  (np.array([{}, 1], object), 'object'), (np.array([1j, 2]), 'complex128'),
  (np.array([1, 2], np.float16), 'float16'), (np.array([1, 2], 'datetime64[ns]'), 'datetime64'),
  (np.array([1, 2], jax.numpy.bfloat16), 'bfloat16'), (np.array([b'a', b'b']), r'\|S1')])
def test_other_arrays_are_refused_by_their_place(values, dtype, tmp_path):
  tree = xr.DataTree.from_dict({'/net/cka': xr.Dataset({'x': ('site', values)})})
  with pytest.raises(ValueError, match=f'/net/cka/x is of dtype {dtype}'):
    results.save(tree, tmp_path / 'r.nc')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('value, place', [
  (len, 'attribute bad: <built-in'), ({'a': [object]}, r'attribute bad\.a\[0\]'),
  ({1: 2}, 'attribute bad: key 1 is not text'), (1j, 'attribute bad: 1j')])
def test_other_attributes_are_refused_by_their_place(value, place, tmp_path):
  tree = xr.DataTree.from_dict({'/net': xr.Dataset({'x': ((), 1., {'bad': value})})})
  with pytest.raises(ValueError, match=f'/net/x: {place}'):
    results.save(tree, tmp_path / 'r.nc')


class Bomb:
  def __reduce__(self):
    return os.mkdir, ('exploded',)


def foreign_netcdf(path):
  xr.Dataset({'x': 1.}).to_netcdf(path, engine='h5netcdf')


def later_format(path):
  xr.Dataset({'x': 1.}, attrs={'format': 'aspects/results/9'}).to_netcdf(path, engine='h5netcdf')


def binary_attribute(path):
  results.save(a_tree(), path)
  with h5py.File(path, 'r+') as file:
    file['net/cka'].attrs['note'] = np.arange(3)


def object_array(path):
  results.save(a_tree(), path)
  with h5py.File(path, 'r+') as file:
    file['net/cka'].create_dataset('refs', data=[file.ref], dtype=h5py.ref_dtype)


@pytest.mark.parametrize('make', [
  lambda p: p.write_bytes(b''), lambda p: p.write_text('<html>'), foreign_netcdf, later_format,
  lambda p: p.write_bytes(pickle.dumps(Bomb())), binary_attribute, object_array])
def test_a_foreign_file_gives_one_clear_error(make, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  make(tmp_path / 'r.nc')
  with pytest.raises(ValueError, match=r'r\.nc \(\d+ bytes\) is damaged or no results file'):
    results.load(tmp_path / 'r.nc')
  assert [p.name for p in tmp_path.iterdir()] == ['r.nc']


def test_a_file_cut_anywhere_gives_one_clear_error(tmp_path):
  results.save(a_tree(), tmp_path / 'r.nc')
  whole = (tmp_path / 'r.nc').read_bytes()
  for size in [*range(0, len(whole), len(whole) // 12), len(whole) - 1]:
    (tmp_path / 'cut.nc').write_bytes(whole[:size])
    with pytest.raises(ValueError, match=r'cut\.nc .* damaged'):
      results.load(tmp_path / 'cut.nc')


def test_a_flipped_bit_in_the_numbers_is_noticed(tmp_path):
  noise = np.random.default_rng(1).random(100_000)
  results.save(xr.DataTree(xr.Dataset({'x': ('row', noise)})), tmp_path / 'r.nc')
  data = bytearray((tmp_path / 'r.nc').read_bytes())
  data[len(data) // 2] ^= 1
  (tmp_path / 'r.nc').write_bytes(data)
  with pytest.raises(ValueError, match='damaged'):
    results.load(tmp_path / 'r.nc')


def test_a_missing_file_is_a_missing_file(tmp_path):
  with pytest.raises(FileNotFoundError, match='none.nc'):
    results.load(tmp_path / 'none.nc')


@pytest.mark.parametrize('broken', ['os.fsync', 'os.replace', 'xarray.DataTree.to_netcdf'])
def test_a_failure_half_way_leaves_the_old_file(broken, tmp_path, monkeypatch):
  results.save(a_tree(), tmp_path / 'r.nc')
  before = (tmp_path / 'r.nc').read_bytes()
  def fail(*args, **kwargs):
    raise OSError('no space left')
  with monkeypatch.context() as patch:
    patch.setattr(broken, fail)
    with pytest.raises(OSError, match='no space left'):
      results.save(xr.DataTree(xr.Dataset({'x': 1.})), tmp_path / 'r.nc')
  assert (tmp_path / 'r.nc').read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ['r.nc']


def test_a_kill_half_way_leaves_the_old_file(tmp_path):
  (tmp_path / 'r.nc').write_bytes(b'old')
  code = ('import os, signal, sys\nfrom aspects import files\n'
          'os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n'
          'files.write(sys.argv[1], b"new")')
  killed = subprocess.run([sys.executable, '-c', code, tmp_path / 'r.nc'])
  assert killed.returncode == -signal.SIGKILL
  assert (tmp_path / 'r.nc').read_bytes() == b'old'
  assert len(list(tmp_path.iterdir())) == 2          # what was written so far bears another name
  files.write(tmp_path / 'r.nc', b'newer')
  assert (tmp_path / 'r.nc').read_bytes() == b'newer'


# --- Provenance -------------------------------------------------------------------------------

def test_provenance_says_what_and_not_where_or_who(monkeypatch):
  count = jax.device_count()      # starts the backend, which reads the flags, before they change
  monkeypatch.setenv('XLA_FLAGS', '--xla_dump_to=/home/someone/dump --xla_gpu_autotune_level=2')
  config = ml_collections.ConfigDict(dict(
      net=dict(depth=4, sites=('a', 'b')), rate=.1, none=None, pretrained='/home/someone else/gpt2',
      note='see /home/someone/x, file:///home/someone/y, https://example.org/a or b/c'))
  got = results.provenance(config)
  assert set(got) == {'versions', 'python', 'commit', 'dirty', 'platform', 'device', 'devices',
                      'processes', 'xla_flags', 'x64', 'precision', 'config', 'config_sha256'}
  assert 'someone' not in json.dumps(got) and '/home' not in json.dumps(got)
  assert got['xla_flags'] == '--xla_dump_to=dump --xla_gpu_autotune_level=2'
  assert json.loads(got['config']) == {
    'net': {'depth': 4, 'sites': ['a', 'b']}, 'rate': .1, 'none': None, 'pretrained': 'gpt2',
    'note': 'see x, file://y, https://example.org/a or b/c'}
  assert got['config_sha256'] == hashlib.sha256(got['config'].encode()).hexdigest()
  assert got['versions']['jax'] == jax.__version__ and got['versions']['numpy'] == np.__version__
  assert set(got['versions']) == set(results.PACKAGES)
  assert (got['platform'], got['devices'], got['processes']) == ('cpu', count, 1)
  assert (got['precision'], got['x64']) == ('highest', False)
  assert got['python'] == '.'.join(map(str, sys.version_info[:3]))


def test_config_text_does_not_depend_on_order_or_on_the_kind_of_mapping():
  a, b = {'x': 1, 'y': {'b': (1, 2), 'a': np.float64(.5)}}, {'y': {'a': .5, 'b': [1, 2]}, 'x': 1}
  frozen = ml_collections.FrozenConfigDict(b)
  digest = [results.provenance(c)['config_sha256'] for c in (a, b, frozen, {'x': 1})]
  assert digest[0] == digest[1] == digest[2] != digest[3]
  with pytest.raises(ValueError, match=r'config\.net\.act: <function'):
    results.provenance({'net': {'act': lambda x: x}})


def test_commit_and_dirt_of_a_checkout(tmp_path, monkeypatch):
  def git(*words):
    who = ('-c', 'user.name=n', '-c', 'user.email=e@example.org')
    return subprocess.run(['git', '-C', tmp_path, *who, *words], check=True, capture_output=True,
                          text=True).stdout.strip()
  def seen():
    got = results.provenance({})
    return got['commit'], got['dirty']
  (tmp_path / 'aspects').mkdir()
  monkeypatch.setattr(results, '__file__', str(tmp_path / 'aspects' / 'results.py'))
  assert seen() == (None, None)                              # no checkout
  git('init', '-q')
  assert seen() == (None, None)                              # no commit yet
  (tmp_path / 'aspects' / 'results.py').write_text('1')
  git('add', '.')
  git('commit', '-q', '-m', 'one')
  (tmp_path / 'notes.txt').write_text('what is not code does not count')
  assert seen() == (git('rev-parse', 'HEAD'), False)
  (tmp_path / 'aspects' / 'plugin_of_mine.py').write_text('a file name is a registration')
  assert seen() == (git('rev-parse', 'HEAD'), True)
  monkeypatch.setenv('PATH', '')
  assert seen() == (None, None)                              # no git


def test_provenance_survives_a_file(tmp_path):
  tree = a_tree()
  tree.attrs['provenance'] = results.provenance({'net': {'depth': 4}})
  results.save(tree, tmp_path / 'r.nc')
  assert results.load(tmp_path / 'r.nc').attrs['provenance'] == tree.attrs['provenance']


# --- Axes -------------------------------------------------------------------------------------

def curve(value, seeds=None, **attrs):
  lead = () if seeds is None else ('seed',)
  shape = (2,) if seeds is None else (len(seeds), 2)
  return xr.Dataset({'x': ((*lead, 'site'), np.full(shape, float(value)), {'units': '1'}),
                     'label': ('site', ['p', 'q'])},
                    {'site': ['a', 'b']} | ({} if seeds is None else {'seed': seeds}), attrs=attrs)


def test_steps_are_sorted_and_follow_the_seeds():
  got = results.concat_steps({100: curve(2, [0, 1], rows=2), 0: curve(1, [0, 1], rows=2),
                              7: curve(3, [0, 1])})
  assert got['x'].dims == ('seed', 'step', 'site') and got['label'].dims == ('step', 'site')
  assert got['step'].values.tolist() == [0, 7, 100] and got['step'].dtype == np.int64
  np.testing.assert_array_equal(got['x'].values[1, :, 0], [1, 3, 2])
  assert got.attrs == {'rows': 2} and got['x'].attrs == {'units': '1'}
  assert got['label'].values.tolist() == [['p', 'q']] * 3


def test_seeds_and_steps_stack_in_either_order():
  parts = {(s, t): curve(10 * s + t) for s in (4, 2) for t in (30, 0)}
  one = results.stack_seeds({s: results.concat_steps({t: parts[s, t] for t in (30, 0)})
                             for s in (4, 2)})
  two = results.concat_steps({t: results.stack_seeds({s: parts[s, t] for s in (4, 2)})
                              for t in (30, 0)})
  assert one.identical(two) and one['x'].dims == ('seed', 'step', 'site')
  np.testing.assert_array_equal(one['x'].values[..., 0], [[20, 50], [40, 70]])
  assert one['x'].sel(seed=4, step=30, site='a') == 70


def test_parts_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='no step'):
    results.concat_steps({})
  with pytest.raises(ValueError, match=r"step 5 and step 0 do not both have \['label'\]"):
    results.concat_steps({0: curve(1), 5: curve(1).drop_vars('label')})
  with pytest.raises(ValueError, match='site'):
    results.concat_steps({0: curve(1), 5: curve(1).assign_coords(site=['a', 'c'])})
  with pytest.raises(ValueError, match="seed 0 already has an axis 'seed'"):
    results.stack_seeds({0: curve(1, [0])})


def test_summary_is_students_interval_with_names():
  values = np.random.default_rng(2).normal(size=(3, 5, 4))
  da = xr.DataArray(values, dims=('step', 'seed', 'site'), attrs={'units': 'nats'},
                    coords={'seed': range(5), 'step': [0, 1, 2], 'site': list('abcd')})
  got = results.summary(da)
  theirs = stats.ttest_1samp(values, 0, axis=1).confidence_interval(.95)
  np.testing.assert_allclose(got['low'], theirs.low, rtol=1e-12)
  np.testing.assert_allclose(got['high'], theirs.high, rtol=1e-12)
  np.testing.assert_allclose(got['mean'], values.mean(1), rtol=1e-12)
  assert got['low'].dims == ('step', 'site') and got['mean'].attrs == {'units': 'nats'}
  assert set(got.coords) == {'step', 'site'}
  np.testing.assert_allclose(results.summary(da, 'step')['mean'], values.mean(0), rtol=1e-12)


def test_summary_of_one_seed_and_of_a_seed_without_a_value():
  da = xr.DataArray([[1., 2.], [3., np.nan]], dims=('seed', 'site'))
  one = results.summary(da[:1])
  assert one['mean'].values.tolist() == [1, 2] and np.isnan([one['low'], one['high']]).all()
  two = results.summary(da)
  assert two['mean'].values[0] == 2 and np.isfinite(two['low'].values[0])
  assert np.isnan([two[n].values[1] for n in ('mean', 'low', 'high')]).all()
  assert results.summary(xr.DataArray([1, 3], dims='seed'))['mean'] == 2


def test_description_is_a_line_per_variable():
  tree = xr.DataTree.from_dict({
    '/net/cka': xr.Dataset({'x': (('seed', 'site'), [[0., 1.], [np.nan, .25]], {'units': 'nats'}),
                            'name': ('site', ['a', 'b']), 'lost': ((), np.nan)})})
  assert results.describe(tree).split('\n') == [
    'node      variable  axes             range   units',
    '/net/cka  x         seed 2 x site 2  0 .. 1  nats',
    '/net/cka  name      site 2           -       -',
    '/net/cka  lost      scalar           -       -']
