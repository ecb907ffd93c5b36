"""Tensors of a directory in Hugging Face layout: `*.safetensors`, read through a memory map, written whole or not.

Nothing is unpickled or executed: a pickle, a truncated shard or a header that lies is an error."""
import json
import math
import os
import pathlib
import struct
from typing import Any, Iterable, Mapping, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from aspects import files

INDEX, WHOLE = 'model.safetensors.index.json', 'model.safetensors'
DTYPES = {'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16, 'I64': np.int64,
          'I32': np.int32, 'I16': np.int16, 'I8': np.int8, 'U8': np.uint8, 'BOOL': np.bool_}
PICKLES = ('*.bin', '*.pt', '*.pth', '*.ckpt', '*.pkl', '*.msgpack', '*.h5')


class Stored(NamedTuple):
  """Where a tensor lies; `read` maps it, without copying."""
  path: pathlib.Path
  dtype: np.dtype
  shape: tuple[int, ...]
  offset: int

  def read(self) -> np.ndarray:
    if not math.prod(self.shape):
      return np.zeros(self.shape, self.dtype)
    return np.memmap(self.path, self.dtype, 'r', self.offset, self.shape)


def parse(path: pathlib.Path, limit: int = 100_000_000, kind: type = dict) -> Any:
  """A JSON object of a file, or an array, `kind=list`.

  Raises:
    ValueError: there is no such file, it is larger than `limit` bytes, or not JSON of this kind."""
  if not path.is_file():
    raise ValueError(f'there is no file {path}; a checkpoint directory in Hugging Face layout has config.json and '
                     '*.safetensors')
  if path.stat().st_size > limit:
    raise ValueError(f'{path} has {path.stat().st_size:,} bytes; a file of settings has at most {limit:,}')
  try:
    out = json.loads(path.read_text(encoding='utf-8'))
  except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
    raise ValueError(f'{path} is not JSON: {error}') from error
  if not isinstance(out, kind):
    raise ValueError(f'{path} holds a JSON {type(out).__name__} where a {kind.__name__} is needed')
  return out


def find(directory: str | os.PathLike) -> dict[str, Stored]:
  """{name: where it is} of all tensors of a directory, whole or in shards; only headers are read.

  Raises:
    ValueError: no safetensors there (a pickle is never opened), a shard that is missing or damaged, a tensor that two
      shards have, or one whose shard lacks it.
  """
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    raise ValueError(f'{str(directory)!r} is not a directory; give that of a checkpoint in Hugging Face layout')
  if (directory / INDEX).exists():
    return _sharded(directory)
  found = [directory / WHOLE] if (directory / WHOLE).exists() else sorted(directory.glob('*.safetensors'))
  if len(found) != 1:
    pickles = sorted(p.name for kind in PICKLES for p in directory.glob(kind))
    raise ValueError(
        f'{directory} has {len(found)} *.safetensors files and no {INDEX}; one file, or shards with their index, are '
        'read' + (f'. {pickles[0]} is not opened: a pickle can run code; convert it where you trust it, with '
                  "transformers' save_pretrained(..., safe_serialization=True)" if pickles else ''))
  return header(found[0])


def _sharded(directory: pathlib.Path) -> dict[str, Stored]:
  index = parse(directory / INDEX)
  where = index['weight_map'] if 'weight_map' in index else None
  if not isinstance(where, dict) or not all(isinstance(v, str) for v in where.values()):
    raise ValueError(f'{directory / INDEX} has no weight_map from tensor to file')
  shards, out = {}, {}
  for shard in sorted(set(where.values())):
    if pathlib.PurePath(shard).name != shard or not shard.endswith('.safetensors'):
      raise ValueError(f'{directory / INDEX} names the shard {shard!r}; shards are *.safetensors beside it')
    if not (directory / shard).is_file():
      raise ValueError(f'{directory / INDEX} names the shard {shard!r}, which is not there; fetch it again')
    shards[shard] = header(directory / shard)
  for name, shard in where.items():
    if name not in shards[shard]:
      raise ValueError(f'{directory / INDEX} says that {name!r} is in {shard!r}, which does not have it')
    out[name] = shards[shard][name]
  extra = [(n, shard) for shard, tensors in shards.items() for n in tensors if where.get(n) != shard]
  if extra:
    raise ValueError(f'{directory / extra[0][1]} has the tensor {extra[0][0]!r}, which {INDEX} does not name there')
  return out


def header(path: pathlib.Path) -> dict[str, Stored]:
  """{name: where it is} of one file, whose header `safetensors` has checked: lengths, overlaps, holes, the end."""
  try:
    with safetensors.safe_open(path, framework='numpy'):
      pass
  except (safetensors.SafetensorError, OSError, ValueError) as error:
    raise ValueError(f'{path} cannot be read as safetensors: {error}; it is damaged, cut off or of another format '
                     '(a pickle is not opened); fetch it again') from error
  with open(path, 'rb') as file:
    length = struct.unpack('<Q', file.read(8))[0]
    entries = json.loads(file.read(length))
  out = {}
  for name, entry in entries.items():
    if name == '__metadata__':
      continue
    if entry['dtype'] not in DTYPES:
      raise ValueError(f'{path}: {name!r} has the dtype {entry["dtype"]}; known: {", ".join(DTYPES)}')
    out[name] = Stored(path, np.dtype(DTYPES[entry['dtype']]), tuple(entry['shape']),
                       8 + length + entry['data_offsets'][0])
  return out


def write(directory: str | os.PathLike, tensors: Iterable[tuple[str, np.ndarray]], sizes: Mapping[str, int],
          limit: int) -> None:
  """Writes tensors as model.safetensors, or as shards of at most `limit` bytes with their index, written last.

  `sizes` {name: bytes} are in the order of `tensors`, which are made one shard at a time.
  """
  directory, shards, room = pathlib.Path(directory), [[]], limit
  directory.mkdir(parents=True, exist_ok=True)
  for name, size in sizes.items():
    if shards[-1] and size > room:
      shards, room = [*shards, []], limit
    shards[-1].append(name)
    room -= size
  tensors, count, where = iter(tensors), len(shards), {}
  for i, names in enumerate(shards, 1):
    path = directory / (WHOLE if count == 1 else f'model-{i:05d}-of-{count:05d}.safetensors')
    held = {name: np.asarray(x, order='C') for name, x in (next(tensors) for _ in names)}
    with files.replacing(path) as temporary:
      safetensors.numpy.save_file(held, temporary, metadata={'format': 'pt'})
    where |= dict.fromkeys(names, path.name)
  if count > 1:
    index = {'metadata': {'total_size': sum(sizes.values())}, 'weight_map': where}
    files.write(directory / INDEX, json.dumps(index, indent=1).encode())
