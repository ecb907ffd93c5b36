"""Damaged, hostile and foreign directories: one clear error each; nothing executed, nothing put on a device."""
import json
import os
import pickle
import shutil
import struct

import jax
import numpy as np
import pytest
from safetensors import numpy as st

from aspects import pretrained
from aspects.nn import huggingface
from tests.pretrained import reference as ref

WHOLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'


@pytest.fixture(scope='module')
def good(tmp_path_factory):
  config = ref.transformers.GPT2Config(n_embd=8, n_head=2, n_layer=2, vocab_size=20, n_positions=6)
  return ref.save(ref.model('GPT2LMHeadModel', config), tmp_path_factory.mktemp('good'))


@pytest.fixture(scope='module')
def sharded(good, tmp_path_factory):
  directory = tmp_path_factory.mktemp('sharded') / 'out'
  pretrained.save(pretrained.load(good), directory, shard=2000)
  assert len(list(directory.glob('*.safetensors'))) > 2
  return directory


@pytest.fixture
def copy(good, tmp_path):
  return shutil.copytree(good, tmp_path / 'copy')


@pytest.fixture
def shards(sharded, tmp_path):
  return shutil.copytree(sharded, tmp_path / 'copy')


def refused(directory, message, monkeypatch):
  """`load` raises ValueError with `message`, the directory's name in it, before any parameter is made."""
  def never(*_, **__):
    raise AssertionError('a parameter was made of a directory that is refused')
  monkeypatch.setattr(huggingface, '_place', never)
  with pytest.raises(ValueError, match=message) as info:
    pretrained.load(directory)
  assert str(directory) in str(info.value) and len(str(info.value)) < 1000


def tensors(directory):
  return st.load_file(directory / WHOLE)


def store(directory, **changed):
  st.save_file({k: v for k, v in {**tensors(directory), **changed}.items() if v is not None}, directory / WHOLE)


class Bomb:
  """Unpickled, it makes a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


def test_both_are_read_as_they_are(good, sharded):
  jax.tree.map(np.testing.assert_array_equal, pretrained.load(good).variables, pretrained.load(sharded).variables)


@pytest.mark.parametrize('kept', (4, 8, 200, -1))
def test_a_file_cut_off(copy, kept, monkeypatch):
  data = (copy / WHOLE).read_bytes()
  (copy / WHOLE).write_bytes(data[:kept])
  refused(copy, 'cannot be read as safetensors.*cut off', monkeypatch)


def test_bytes_behind_the_last_tensor(copy, monkeypatch):
  with open(copy / WHOLE, 'ab') as file:
    file.write(b'more')
  refused(copy, 'cannot be read as safetensors', monkeypatch)


def test_a_shard_cut_off(shards, monkeypatch):
  last = sorted(shards.glob('*.safetensors'))[-1]
  last.write_bytes(last.read_bytes()[:-3])
  refused(shards, f'{last.name} cannot be read', monkeypatch)


def test_a_shard_that_is_not_there(shards, monkeypatch):
  last = sorted(shards.glob('*.safetensors'))[-1]
  last.unlink()
  refused(shards, f'names the shard {last.name!r}, which is not there', monkeypatch)


def index(directory, change):
  found = json.loads((directory / INDEX).read_text())
  change(found['weight_map'])
  (directory / INDEX).write_text(json.dumps(found))


def test_an_index_that_names_the_wrong_shard(shards, monkeypatch):
  def swap(where):
    a, b = (next(n for n in where if where[n] == shard) for shard in sorted(set(where.values()))[:2])
    where[a], where[b] = where[b], where[a]
  index(shards, swap)
  refused(shards, 'which does not have it', monkeypatch)


def test_an_index_that_leaves_a_tensor_out(shards, monkeypatch):
  index(shards, lambda where: where.pop(sorted(where)[0]))
  refused(shards, 'does not name there', monkeypatch)


@pytest.mark.parametrize('place', ('../outside.safetensors', '/etc/passwd', 'model.bin', 'a/b.safetensors'))
def test_an_index_that_leads_elsewhere(shards, place, monkeypatch):
  index(shards, lambda where: where.update({sorted(where)[0]: place}))
  refused(shards, "shards are \\*.safetensors beside it", monkeypatch)


@pytest.mark.parametrize('text', ('[]', '{"weight_map": 3}', '{"weight_map": {"a": 3}}', '{', '[' * 100_000),
                         ids=('list', 'number', 'numbers', 'open', 'deep'))
def test_an_index_that_is_none(shards, text, monkeypatch):
  (shards / INDEX).write_text(text)
  refused(shards, 'JSON|weight_map', monkeypatch)


def test_a_tensor_is_missing(copy, monkeypatch):
  store(copy, **{'transformer.h.1.mlp.c_fc.weight': None})
  refused(copy, "tensor 'transformer.h.1.mlp.c_fc.weight' is missing", monkeypatch)


def test_a_tensor_too_many(copy, monkeypatch):
  store(copy, **{'transformer.h.2.ln_1.weight': np.ones(8, np.float32)})
  refused(copy, "nothing uses: transformer.h.2.ln_1.weight", monkeypatch)


@pytest.mark.parametrize('shape', ((8, 31), (32, 8), (256,), (1, 8, 32)))
def test_a_tensor_of_another_shape(copy, shape, monkeypatch):
  store(copy, **{'transformer.h.1.mlp.c_fc.weight': np.ones(shape, np.float32)})
  refused(copy, "'transformer.h.1.mlp.c_fc.weight'.* shape", monkeypatch)


def test_layers_of_several_dtypes_are_not_scanned_together(copy, monkeypatch):
  store(copy, **{'transformer.h.1.ln_1.weight': np.ones(8, np.float16)})
  assert pretrained.load(copy, scan=False).variables['params']['stage_0']
  with pytest.raises(ValueError, match='another dtype in other layers'):
    pretrained.load(copy, scan=True)


def test_tied_tensors_that_differ(copy, monkeypatch):
  store(copy, **{'lm_head.weight': np.ones((20, 8), np.float32)})
  refused(copy, 'tied by the config and differ', monkeypatch)


@pytest.mark.parametrize('change, message', (
    (dict(model_type='gpt22'), "model_type is 'gpt22'.*gpt2"),
    (dict(model_type=None), 'model_type'),
    (dict(model_type='../gpt2'), 'model_type'),
    (dict(model_type=['gpt2']), 'model_type'),
    (dict(architectures=['GPT2ForTelepathy']), 'architectures is .*GPT2ForTelepathy.*supported'),
    (dict(twisted=3), "field 'twisted' = 3"),
    (dict(n_layer=1), 'nothing uses: transformer.h.1'),
    (dict(n_layer=3), "transformer.h.2.* is missing"),
    (dict(n_head=3), 'heads|divi'),
    (dict(quantization_config=dict(bits=4)), 'quantised checkpoints are not read')))
def test_a_config_of_something_else(copy, change, message, monkeypatch):
  ref.change(copy, **change)
  refused(copy, message, monkeypatch)


@pytest.mark.parametrize('text', ('', '{', '[]', '\xff', '{"a":' * 50_000),
                         ids=('empty', 'open', 'list', 'bytes', 'deep'))
def test_a_config_that_is_none(copy, text, monkeypatch):
  (copy / 'config.json').write_bytes(text.encode('latin-1'))
  refused(copy, 'JSON', monkeypatch)


def test_no_config(copy, monkeypatch):
  (copy / 'config.json').unlink()
  refused(copy, 'there is no file', monkeypatch)


def header(directory, entries, data=b'', length=None):
  text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
  (directory / WHOLE).write_bytes(struct.pack('<Q', len(text) if length is None else length) + text + data)


def entry(start, end, shape=(2,), dtype='F32'):
  return {'dtype': dtype, 'shape': list(shape), 'data_offsets': [start, end]}


@pytest.mark.parametrize('length', (2 ** 64 - 1, 2 ** 63, 2 ** 62, 200_000_000, 10_000, 0, 3))
def test_a_header_that_lies_of_its_length(copy, length, monkeypatch):
  header(copy, {'a': entry(0, 8)}, b'x' * 8, length)
  refused(copy, 'cannot be read as safetensors', monkeypatch)


@pytest.mark.parametrize('entries', (
    {'a': entry(0, 2 ** 40)}, {'a': entry(0, 16)}, {'a': entry(0, 4)}, {'a': entry(8, 0)}, {'a': entry(4, 12)},
    {'a': entry(0, 8), 'b': entry(4, 12)}, {'a': entry(0, 8, (2 ** 62, 2 ** 62))}, {'a': entry(0, 8, (2 ** 64,))},
    {'a': entry(-8, 0)}, {'a': entry(0, 8, (-2,))}, {'a': {'dtype': 'F32'}}, {'a': 3}, [], b'{', b'\xff\xfe',
    b'{"a":' * 20_000))
def test_a_header_that_lies_of_its_tensors(copy, entries, monkeypatch):
  header(copy, entries, b'x' * 8)
  refused(copy, 'cannot be read as safetensors', monkeypatch)


def test_a_dtype_that_numpy_does_not_have(copy, monkeypatch):
  header(copy, {'a': entry(0, 8, (8,), 'F8_E4M3')}, b'x' * 8)
  refused(copy, "the dtype F8_E4M3", monkeypatch)


@pytest.mark.parametrize('name', (WHOLE, 'pytorch_model.bin', 'model.pt', 'flax_model.msgpack'))
def test_a_pickle_is_not_opened(copy, name, tmp_path, monkeypatch):
  (copy / WHOLE).unlink()
  (copy / name).write_bytes(pickle.dumps(Bomb(tmp_path / 'executed')))
  refused(copy, 'pickle is not opened|is not opened: a pickle', monkeypatch)
  assert not (tmp_path / 'executed').exists()


def test_a_pickle_beside_the_tensors_is_left_alone(copy, tmp_path):
  (copy / 'training_args.bin').write_bytes(pickle.dumps(Bomb(tmp_path / 'executed')))
  pretrained.load(copy)
  assert not (tmp_path / 'executed').exists()


def test_several_files_without_an_index(copy, monkeypatch):
  shutil.copyfile(copy / WHOLE, copy / 'other.safetensors')
  (copy / WHOLE).rename(copy / 'first.safetensors')
  refused(copy, 'has 2 \\*.safetensors files and no', monkeypatch)


def test_a_directory_that_is_none(tmp_path):
  for place in (tmp_path / 'nothing', '/dev/null', 'hf://'):
    with pytest.raises(ValueError):
      pretrained.load(place)
