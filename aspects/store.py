"""Activations on disk: paired rows of several sites in sharded zarr, written while a network runs, read as a source.

A store is a directory of zarr (version 3) arrays, which any reader of that format opens:

    manifest.json      what is stored, of which network and tokens, and how far
    resid_post.3/      [N, D], one array a site; row n of all arrays is the same position of the same example
    place/             [N, 2] int32, the example's index in the source that the stream read, and the position in it,
                       which is 0 unless the pool is `tokens` or `sample k`

Rows of weight 0 are not stored. Writing goes shard by shard, a file of each array; the manifest counts the rows whose
shards are on disk and names the place in the stream behind them. A killed run goes on from there and leaves the same
bytes as one that was never stopped. The blocks of a shard carry CRC-32C checksums, and a block that is not there is an
error, never the fill value of zarr.
"""
import collections
import dataclasses
import hashlib
import json
import pathlib
import re
from typing import Any, Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore
import tqdm

from aspects import data, files, measure, sites as sites_lib, stats

BLOCK = 16                                           # rows that are read together: few, for random access
# How far a store is: `rows` on disk, the last of them the first `used` of batch `step`; `tokens` hashes what was read.
# At the end `step` is the number of batches.
Written = collections.namedtuple('Written', 'rows step used tokens')


def write(net, variables, stream, directory, sites, pool: str = 'tokens', dtype: str = 'bfloat16', *,
          shard: int = 2 ** 27, place: Callable = lambda x: x, progress: bool = True, **call) -> 'Stored':
  """Stores the rows of `sites` over one pass of `stream`, made in one compiled program with the forward pass.

  The same call goes on after an interruption, and computes nothing where all is there; to see that the batches are the
  same it reads again what it has read. Memory holds a few batches and four shards, however long the stream. A directory
  has one writer; of several processes each has its own, and its slice of the stream.

  Args:
    stream: has `batch(step)` and a length (`data.Stream`).
    sites: patterns; the sites must have the same positions where the pool keeps positions apart.
    pool: how a tensor [B, ..., D] becomes rows [N, D]; see `stats`.
    dtype: of the rows, 'bfloat16' or 'float32'.
    shard: bytes, of all arrays together, that are written and counted at once.
    place: puts a batch onto the devices.
    call: further keywords of `net.apply`.

  Raises:
    ValueError: a setting or site that does not exist; a directory that holds something else, with the differences.
    FloatingPointError: a row that is not finite in `dtype`; names sites and batch.
  """
  directory, sites = pathlib.Path(directory), (sites,) if isinstance(sites, str) else tuple(sites)
  stats.check_pool(pool)
  if dtype not in ('bfloat16', 'float32') or not sites or getattr(stream, 'repeat', False):
    raise ValueError(f'give sites, here {sites}; bfloat16 or float32, here {dtype!r}; and a stream with repeat=False')

  def rows(variables, batch):
    inputs, kwargs = measure.network_inputs(net, batch)
    acts = sites_lib.forward(net, variables, *inputs, record=sites, **kwargs, **call)[1]
    values, weight = stats.paired(acts, tuple(acts), batch, pool)
    arrays = collections.OrderedDict((s, x.astype(dtype)) for s, x in values.items())
    finite = {s: (jnp.isfinite(x).all(1) | (weight == 0)).all() for s, x in arrays.items()}
    arrays['place'] = jnp.stack(stats.row_ids(next(iter(acts.values())), batch, pool), 1).astype(jnp.int32)
    return arrays, weight > 0, finite

  program = jax.jit(rows).lower(variables, place(stream.batch(0)))
  specs = program.out_info[0]
  text = re.sub(' at 0x[0-9a-f]+', '', f'{net!r} {sorted(call.items())} {jax.tree.structure(variables)}')
  whole = {'format': 'aspects/store/1', 'network': _hash(text, dict(enumerate(jax.tree.leaves(variables)))),
           'arrays': {n: x.shape[1] for n, x in specs.items()}, 'pool': pool, 'dtype': dtype, 'steps': len(stream),
           'shard': BLOCK * max(shard // BLOCK // sum(x.shape[1] * x.dtype.itemsize for x in specs.values()), 1)}
  at = _start(directory, whole, stream)
  if at.step < len(stream):
    bound = 0 if at.rows else len(stream) * specs['place'].shape[0]
    arrays, run = {name: _array(directory, name, whole, bound) for name in specs}, program.compile()
    steps = tqdm.trange(at.step, len(stream), initial=at.step, total=len(stream), desc='store', disable=not progress)
    made = ((k, batch, run(variables, place(batch))) for k, batch in ((k, stream.batch(k)) for k in steps))
    writes = ((at, [arrays[name][at.rows - len(x):at.rows].write(x, can_reference_source_data_indefinitely=True)
                    for name, x in shard.items()]) for at, shard in _shards(data.prefetch(made), at, whole['shard']))
    for at, parts in data.prefetch(writes, 1):
      for part in parts:
        part.result()
      for x in arrays.values() if at.step == len(stream) else ():
        x.resize(exclusive_max=[at.rows, None], resize_metadata_only=True).result()
      files.write(directory / 'manifest.json', json.dumps(whole | {'written': at._asdict()}, indent=1).encode())
  return open(directory)


def _shards(made: Iterator, at: Written, size: int) -> Iterator:
  """(what is written with it, {array: [size, D]}) of each shard; the last has the rows that are left, or none."""
  shard, tokens = {}, at.tokens
  for step, batch, computed in made:
    arrays, keep, finite = jax.device_get(computed)
    if bad := [s for s in finite if not finite[s]]:
      raise FloatingPointError(f'batch {step}: {", ".join(bad)} not finite in {arrays[bad[0]].dtype}')
    used, arrays = at.used if step == at.step else 0, {name: x[keep] for name, x in arrays.items()}
    tokens = tokens if used else _hash(tokens, batch)
    while used < keep.sum():
      fill = at.rows % size
      shard = shard if fill else {name: np.zeros((size, x.shape[1]), x.dtype) for name, x in arrays.items()}
      for name, x in arrays.items():
        shard[name][fill:fill + len(x) - used] = x[used:used + size - fill]
      some = min(len(x) - used, size - fill)
      at, used = Written(at.rows + some, step, used + some, tokens), used + some
      if at.rows % size == 0:
        yield at, shard
  yield Written(at.rows, step + 1, 0, tokens), {name: x[:at.rows % size] for name, x in shard.items()}


def _hash(text: str, arrays: Mapping[str, Any]) -> str:
  """SHA-256 (hex) of `text` and of named arrays, to the bit."""
  digest = hashlib.sha256(text.encode())
  for name, x in ((name, np.asarray(x)) for name, x in arrays.items()):
    digest.update(f'{name} {x.dtype} {x.shape}'.encode() + x.tobytes())
  return digest.hexdigest()


# --- the directory --------------------------------------------------------------------------------------------------

def _load(directory: pathlib.Path) -> tuple[dict[str, Any], Written]:
  try:
    found = json.loads((directory / 'manifest.json').read_bytes())
    return found, Written(**found['written'])
  except (OSError, KeyError, TypeError, ValueError) as error:
    raise ValueError(f'{directory} is not a store, or its manifest.json is damaged: {error!r}') from error


def _start(directory: pathlib.Path, whole: Mapping[str, Any], stream) -> Written:
  """Where writing goes on; what holds something else is refused and not touched."""
  if not directory.exists() or all(path.name[0] == '.' for path in directory.iterdir()):
    files.write(directory / 'manifest.json', json.dumps(whole | {'written': Written(0, 0, 0, '')._asdict()}).encode())
  (found, at), tokens = _load(directory), ''
  for k in range(min(at.step + 1, len(stream)) if at.rows else 0):
    tokens = _hash(tokens, stream.batch(k))
  pairs = {'tokens': (at.tokens, tokens)} | {k: (found.get(k), whole[k]) for k in whole}
  if differ := [f'{k} was {was!r} and is {now!r}' for k, (was, now) in pairs.items() if was != now]:
    raise ValueError(f'{directory} holds something else; give another directory, or remove it: ' + '; '.join(differ))
  return at


def _array(directory: pathlib.Path, name: str, whole: Mapping[str, Any], most: int = 0) -> tensorstore.TensorStore:
  """The array `name` as it is, or made anew for up to `most` rows."""
  width, kind = whole['arrays'][name], 'int32' if name == 'place' else whole['dtype']
  grid, checked = {'chunk_shape': [whole['shard'], width]}, [{'name': 'bytes'}, {'name': 'crc32c'}]
  blocks = {'chunk_shape': [BLOCK if width <= 4096 else 1, width], 'codecs': checked, 'index_codecs': checked}
  layout = {'data_type': kind, 'chunk_grid': {'name': 'regular', 'configuration': grid},
            'codecs': [{'name': 'sharding_indexed', 'configuration': blocks}]}
  spec = {'driver': 'zarr3', 'kvstore': {'driver': 'file', 'path': str(directory / name.replace('/', '%2F'))},
          'metadata': layout, 'store_data_equal_to_fill_value': True, 'fill_missing_data_reads': False}
  return tensorstore.open(spec, **dict(create=True, delete_existing=True, shape=[most, width]) if most else {}).result()


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
  """The rows of a store, a `data.Source`: `stored[positions]` gathers {array: [B, D]}. From `open`."""
  manifest: Mapping[str, Any]
  arrays: Mapping[str, tensorstore.TensorStore]

  def __len__(self) -> int:
    return self.manifest['written']['rows']

  def __getitem__(self, positions) -> dict[str, np.ndarray]:
    reads = {name: array[data.check_positions(positions, len(self))].read() for name, array in self.arrays.items()}
    return {name: read.result() for name, read in reads.items()}


def open(directory: str | pathlib.Path, *arrays: str) -> Stored:
  """A complete store as a source for `data.Stream`, which shuffles it; values are in the dtype that is stored.

  `arrays` are patterns of what a batch shall have, all by default; no others are read. `data.Mapped` gives them the
  names of a batch, `{'input': rows['resid_mid.3'], 'target': rows['mlp_out.3']}`.

  Raises:
    ValueError: no store, or one that is not complete; an array that is not there; a shard that is missing or cut short.
  """
  manifest, at = _load(directory := pathlib.Path(directory))
  if at.step < manifest['steps'] or not at.rows:
    raise ValueError(f'{directory} has {at.rows} rows of {at.step} of {manifest["steps"]} batches; store.write goes on')
  names = sites_lib.select(arrays or '*', manifest['arrays'])
  stored = Stored(manifest, {name: _array(directory, name, manifest) for name in names})
  stored[np.append(np.arange(0, at.rows, manifest['shard']), at.rows - 1)]       # a block of every shard, and the last
  return stored
