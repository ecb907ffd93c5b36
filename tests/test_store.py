"""The store of activations: against `forward` in numpy, killed and gone on with, damaged, refused."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import ArraySource, Net, Stream, forward, store
from aspects.data import Mapped
from tests import storing

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A store that was never interrupted."""
  path = tmp_path_factory.mktemp('whole') / 'store'
  storing.write(path)
  return path


@pytest.fixture
def copy(whole, tmp_path):
  return pathlib.Path(shutil.copytree(whole, tmp_path / 'copy'))


def bits(path):
  """{file: bytes} of all that a store consists of; a name with a dot in front is what a killed writer leaves."""
  return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob('*') if p.is_file() and p.name[0] != '.'}


def oracle(dtype, sites):
  """({site: rows [N, D]}, place [N, 2]) by a loop over examples and positions of an uncompiled forward pass."""
  net, variables, fields = storing.network(), storing.variables(), storing.fields()
  acts = forward(net, variables, fields['input'], mask=fields['mask'], record=sites)[1]
  place = [(i, t) for i in range(storing.EXAMPLES) for t in range(storing.LENGTH) if fields['mask'][i, t]]
  return {s: np.stack([np.asarray(x)[i, t] for i, t in place]).astype(dtype) for s, x in acts.items()}, np.array(place)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_rows_are_those_of_the_forward_pass_without_padding(tmp_path, dtype):
  """23 examples in batches of 4 leave a padded one; masked positions are no rows; all sites are paired."""
  stored = storing.write(tmp_path / 'store', dtype=dtype)
  rows, place = oracle(jnp.dtype(dtype), storing.SITES)
  got = stored[np.arange(len(stored))]
  assert len(stored) == len(place) == storing.fields()['mask'].sum()
  np.testing.assert_array_equal(got['place'], place)
  assert list(got) == ['resid_post.0', 'channel_out.1', 'resid_post.1', 'place']           # in forward order
  for site, values in rows.items():
    assert got[site].dtype == jnp.dtype(dtype)
    # Rows of another batch size differ in the last digit; in bfloat16 that may be the next number.
    np.testing.assert_allclose(got[site].astype(np.float32), values.astype(np.float32), rtol=2 ** -7, atol=1e-6
                               if dtype == 'float32' else 2 ** -9)


@pytest.mark.parametrize('pool', ['mean', 'first', 'last', 'flatten', 'sample 2'])
def test_pools(tmp_path, pool):
  stored = storing.write(tmp_path / 'store', pool=pool, dtype='float32', sites='resid_post.1')
  fields = storing.fields()
  x = np.asarray(forward(storing.network(), storing.variables(), fields['input'], mask=fields['mask'],
                         record='resid_post.1')[1]['resid_post.1'])
  lengths = fields['mask'].sum(1).astype(int)
  got = stored[np.arange(len(stored))]
  values, (example, position) = got['resid_post.1'], got['place'].T
  if pool == 'sample 2':
    assert len(values) == np.minimum(lengths, 2).sum() and len({*zip(example, position)}) == len(values)
    expected = [x[i, t] for i, t in zip(example, position)]
    assert all(t < lengths[i] for i, t in zip(example, position))
  else:
    np.testing.assert_array_equal(example, np.arange(storing.EXAMPLES))
    one = {'mean': lambda i, n: x[i, :n].mean(0), 'first': lambda i, n: x[i, 0], 'last': lambda i, n: x[i, n - 1],
           'flatten': lambda i, n: np.where(np.arange(storing.LENGTH)[:, None] < n, x[i], 0).reshape(-1)}[pool]
    expected = [one(i, n) for i, n in enumerate(lengths)]
  np.testing.assert_allclose(values, np.stack(expected), rtol=1e-4, atol=1e-5)


def test_a_stream_reads_what_it_names(whole):
  stored = store.open(whole, 'resid_post.*', 'mlp_out.-1')
  assert set(stored.arrays) == {'resid_post.0', 'resid_post.1', 'channel_out.1'}
  pairs = Mapped(stored, lambda rows: {'input': rows['resid_post.0'], 'target': rows['channel_out.1']})
  stream = Stream(pairs, batch_size=7, seed=3)
  everything = stored[np.arange(len(stored))]
  batches = [stream.batch(k) for k in range(len(stream))]
  index = np.concatenate([b['index'][b['weight'] > 0] for b in batches])
  assert sorted(index) == list(range(len(stored))) and list(index) != sorted(index)
  for b in batches:
    np.testing.assert_array_equal(b['input'], everything['resid_post.0'][b['index']])
    np.testing.assert_array_equal(b['target'], everything['channel_out.1'][b['index']])
  np.testing.assert_array_equal(stored[[5, 5, 0]]['resid_post.1'], everything['resid_post.1'][[5, 5, 0]])
  with pytest.raises(IndexError, match='not all in 0'):
    stored[[len(stored)]]
  with pytest.raises(ValueError, match="did you mean 'resid_post.1'"):
    store.open(whole, 'resid_pots.1')


def test_a_dictionary_trains_on_the_stream(whole):
  """Least squares by gradient steps on shuffled batches comes to the closed form."""
  stored = store.open(whole, 'resid_post.0', 'channel_out.1')
  everything = {k: v.astype(np.float64) for k, v in stored[np.arange(len(stored))].items()}
  x, y = everything['resid_post.0'], everything['channel_out.1']
  best = np.linalg.norm(y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2
  stream, w = Stream(stored, batch_size=len(stored), seed=0, repeat=True), np.zeros((x.shape[1], y.shape[1]))
  rate = 1 / np.linalg.norm(x, 2) ** 2
  for k in range(400):
    b = stream.batch(k)
    a, c = b['resid_post.0'].astype(np.float64), b['channel_out.1'].astype(np.float64)
    w += rate * a.T @ (c - a @ w)
  left = np.linalg.norm(y - x @ w) ** 2
  assert best <= left * (1 + 1e-9) and left - best < 0.05 * np.linalg.norm(y) ** 2


# --- interruptions --------------------------------------------------------------------------------------------------

def test_a_killed_writer_goes_on_to_the_same_bytes(whole, tmp_path):
  """SIGKILL once the manifest counts rows; the rest of the batch that a shard ends in is not lost."""
  path = tmp_path / 'store'
  process = subprocess.Popen([sys.executable, '-m', 'tests.storing', str(path), '0.05'], cwd=ROOT,
                             env=os.environ | {'PYTHONPATH': str(ROOT)})
  written = {'rows': 0, 'step': 0}
  while not written['rows'] and process.poll() is None:
    time.sleep(0.005)
    if (path / 'manifest.json').exists():
      written = json.loads((path / 'manifest.json').read_bytes())['written']
  process.send_signal(signal.SIGKILL)
  assert process.wait(60) == -signal.SIGKILL
  written = json.loads((path / 'manifest.json').read_bytes())['written']
  assert 0 < written['rows'] < storing.fields()['mask'].sum() and written['rows'] % 16 == 0
  with pytest.raises(ValueError, match=f'has {written["rows"]} rows of {written["step"]} of 6 batches'):
    store.open(path)
  steps = []
  storing.write(path, watch=steps.append)
  assert max(steps) == 5 and steps.count(0) <= 2 + (written['step'] == 0)        # the shapes and the hash
  assert bits(path) == bits(whole)


def test_what_is_complete_is_left_alone(copy):
  before = {p: p.stat().st_mtime_ns for p in copy.rglob('*')}
  assert len(storing.write(copy)) == len(store.open(copy))
  assert before == {p: p.stat().st_mtime_ns for p in copy.rglob('*')}


def test_an_error_of_the_stream_leaves_a_store_that_goes_on(whole, tmp_path):
  def fail(step):
    if step == 3:
      raise OSError('the disk of the data is gone')
  with pytest.raises(OSError, match='the data is gone'):
    storing.write(tmp_path / 'store', watch=fail)
  storing.write(tmp_path / 'store')
  assert bits(tmp_path / 'store') == bits(whole)


# --- refusals -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('named, change', [
    ('network', dict(seed=1)), ('network', dict(heads=4)), ('arrays', dict(sites='resid_post.1')),
    ('pool', dict(pool='mean')), ('dtype', dict(dtype='float32')), ('tokens', dict(other=True)),
    ('steps', dict(batch=3)), ('shard', dict(shard=10000))])
def test_another_store_is_refused_by_its_differences(copy, named, change):
  before = bits(copy)
  with pytest.raises(ValueError, match=rf'holds something else.*\b{named} was '):
    storing.write(copy, **change)
  assert bits(copy) == before


def test_a_directory_of_something_else_is_refused(tmp_path):
  (tmp_path / 'notes.txt').write_text('mine')
  with pytest.raises(ValueError, match='is not a store'):
    storing.write(tmp_path)
  with pytest.raises(ValueError, match='is not a store'):
    store.open(tmp_path / 'nowhere')
  assert [p.name for p in tmp_path.iterdir()] == ['notes.txt']


@pytest.mark.parametrize('said, change', [
    ("'float16'", dict(dtype='float16')), ("pool 'max'", dict(pool='max')),
    ('did you mean', dict(sites='resid_pots.1')),
    ('repeat=False', dict(repeat=True)), (r'sites, here \(\)', dict(sites=())),
    ('cannot be paired', dict(sites=('resid_post.1', 'attn_probs.1')))])
def test_bad_input_is_one_error_before_anything_is_made(tmp_path, said, change):
  with pytest.raises(ValueError, match=said):
    storing.write(tmp_path / 'store', **change)
  assert not (tmp_path / 'store').exists()


def test_rows_that_are_not_finite_are_not_stored(tmp_path):
  """1e39 is infinite in float32; nothing counts as written."""
  net = Net(outputs=2, depth=1, width=4, embed=dict(name='vector'), head=dict(name='classify'), mixer=None,
            channel=dict(name='mlp'))
  x = np.ones((8, 4), np.float32)
  variables = jax.jit(net.init)(jax.random.key(0), x)
  x[5] = np.inf
  with pytest.raises(FloatingPointError, match='batch 2: .*resid_post.0'):
    store.write(net, variables, Stream(ArraySource(input=x), 2), tmp_path / 'store', 'resid_post.0', progress=False)
  assert json.loads((tmp_path / 'store' / 'manifest.json').read_bytes())['written']['rows'] == 0
  with pytest.raises(ValueError, match='has 0 rows of'):
    store.open(tmp_path / 'store')


# --- damage ---------------------------------------------------------------------------------------------------------

def flipped(data):
  return data[:60] + bytes([data[60] ^ 1]) + data[61:]


@pytest.mark.parametrize('damage', [None, lambda data: b'', lambda data: data[:len(data) // 2], lambda data: data[:-1],
                                    lambda data: bytes(len(data))])
@pytest.mark.parametrize('shard', [0, 2, 5])
def test_a_shard_that_is_gone_or_cut_is_named_when_the_store_is_opened(copy, damage, shard):
  path = copy / 'resid_post.1' / 'c' / str(shard) / '0'
  path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(ValueError, match=f'resid_post.1/c/{shard}/0'):
    store.open(copy)
  assert len(store.open(copy, 'resid_post.0'))                                   # the other arrays are whole


def test_a_bit_that_flipped_is_named_when_it_is_read(copy):
  path = copy / 'resid_post.0' / 'c' / '1' / '0'
  path.write_bytes(flipped(path.read_bytes()))
  with pytest.raises(ValueError, match='resid_post.0/c/1/0.*Digest mismatch'):
    store.open(copy)[np.arange(16, 32)]


def test_damaged_descriptions_are_named(copy):
  for path in (copy / 'resid_post.0' / 'zarr.json', copy / 'manifest.json'):
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=path.name if path.name == 'manifest.json' else 'resid_post.0/zarr.json'):
      store.open(copy)


# --- size -----------------------------------------------------------------------------------------------------------

def test_no_more_than_a_few_shards_are_held(tmp_path, monkeypatch):
  """A disk that never finishes: the computation stops after a few shards instead of filling the memory."""
  made, shards = [], store._shards
  def counted(*args):
    for at, shard in shards(*args):
      made.append(at.rows)
      yield at, shard
  class Stuck:
    def result(self):
      time.sleep(0.3)
      raise TimeoutError(len(made))
  class Disk:
    def __getitem__(self, _):
      return self
    def write(self, x, **_):
      return Stuck()
  monkeypatch.setattr(store, '_shards', counted)
  monkeypatch.setattr(store, '_array', lambda *_: Disk())
  with pytest.raises(TimeoutError) as stopped:
    storing.write(tmp_path / 'store', batch=1)
  assert stopped.value.args[0] <= 3
