"""Streaming statistics: `init / update / merge / finish`, accumulated while data pass by.

A statistic, a file of `aspects/statistics/`, is a frozen dataclass without arrays, so that equal ones are computed
once. Its state is a pytree of arrays on the device; `update` and `merge` are pure and run inside the program that runs
the network; `finish` gives float64 on the host. A row of weight 0 (padding) changes nothing. Sums are centred and
compensated, pairs `hi + lo` of floats, so that neither a large mean nor a long stream costs digits.

How a tensor `[B, ..., D]` becomes rows `[N, D]` is its `pool`:
  tokens   every position is a row, N = B * positions
  mean     the mean over positions, N = B
  first    the first position (a class token), N = B
  last     the last position that is not masked, N = B
  flatten  positions and units side by side, masked ones as zeros, N = B
  sample k k positions of each example, drawn by a hash of its index, N = B * k: as `tokens`, for less
"""
from concurrent import futures
import os
import re
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl

Array = jax.Array
POOLS = ('tokens', 'mean', 'first', 'last', 'flatten')
FOLDS = ('all', 'fit', 'held', 'first', 'second')


class Statistic(Protocol):
  """What a measure may ask for; see the module's docstring for the laws."""
  sites: tuple[str, ...]

  def init(self, specs: Mapping[str, jax.ShapeDtypeStruct]) -> Any: ...
  def update(self, state: Any, acts: Mapping[str, Array], batch: Mapping[str, Array]) -> Any: ...
  def merge(self, a: Any, b: Any) -> Any: ...
  def finish(self, state: Any) -> Any: ...


# --- exact sums -----------------------------------------------------------------------------------------------------

class Sum(NamedTuple):
  """An unevaluated pair: the value is `hi + lo` (Knuth's two-sum; Dekker 1971)."""
  hi: Array
  lo: Array

  @classmethod
  def zeros(cls, shape=(), dtype=jnp.float32):
    return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

  def plus(self, x: 'Sum | Array') -> 'Sum':
    """This sum and `x`, an array or another sum of the same shape."""
    hi, lo = x if isinstance(x, Sum) else (x, 0.0)
    total = self.hi + hi
    back = total - self.hi
    return Sum(total, self.lo + ((self.hi - (total - back)) + (hi - back) + lo))

  def minus(self, x: 'Sum') -> 'Sum':
    return self.plus(Sum(-x.hi, -x.lo))

  def value(self) -> Array:
    """The sum, rounded to the working precision."""
    return self.hi + self.lo

  def scale(self, factor: Array) -> 'Sum':
    return Sum(self.hi * factor, self.lo * factor)


def float64(tree):
  """Finished arrays on the host: sums evaluated in float64, integers as they are."""
  def leaf(x):
    if isinstance(x, Sum):
      return np.asarray(x.hi, np.float64) + np.asarray(x.lo, np.float64)
    x = np.asarray(x)
    return x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) or x.dtype == jnp.bfloat16 else x
  return jax.tree.map(leaf, tree, is_leaf=lambda x: isinstance(x, Sum))


def side_by_side(function: Callable, items: Iterable) -> list:
  """`[function(i) for i in items]` on the host, a thread per core, each with BLAS to itself.

  BLAS's own threads wait by spinning: on a busy machine that makes one decomposition a hundred times slower.
  """
  with threadpoolctl.threadpool_limits(1), futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    return list(threads.map(function, items))


def product(a: Array, b: Array) -> Array:
  """`a.T @ b` in full precision on every platform: [N, D], [N, E] -> [D, E]."""
  return jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())), precision=jax.lax.Precision.HIGHEST)


def working(dtype) -> jnp.dtype:
  """The dtype in which activations of `dtype` are accumulated: float32 or better."""
  return jnp.promote_types(dtype, jnp.float32)


# --- rows -----------------------------------------------------------------------------------------------------------

def check_pool(pool: str) -> None:
  if pool not in POOLS and not re.fullmatch(r'sample [1-9]\d*', str(pool)):
    raise ValueError(f'pool {pool!r} is not one of {", ".join(POOLS)}, or `sample k` for k positions of each example')


def positions(spec, pool: str) -> int:
  """Rows that one example gives."""
  places = int(np.prod(spec.shape[1:-1]))
  if pool.startswith('sample'):
    return min(int(pool.split()[1]), places)
  return places if pool == 'tokens' else 1


def width(spec, pool: str) -> int:
  """Units of a row."""
  return int(np.prod(spec.shape[1:])) if pool == 'flatten' else spec.shape[-1]


def _mask(x: Array, batch) -> Array:
  """[B, T] of ones where a position counts, for `x` of [B, T, D]."""
  count = int(np.prod(x.shape[1:-1]))
  mask = batch['mask'] if 'mask' in batch else None
  if mask is not None and mask.shape == (x.shape[0], count):
    return mask.astype(working(x.dtype))
  return jnp.ones((x.shape[0], count), working(x.dtype))


def rows(x: Array, batch: Mapping[str, Array], pool: str) -> tuple[Array, Array]:
  """(rows [N, D], weight [N]) of a tensor [B, ..., D] under `pool`."""
  weight = batch['weight'].astype(working(x.dtype))
  if x.shape[0] != weight.shape[0]:
    raise ValueError(f'a tensor of shape {x.shape} has another batch axis than the weights {weight.shape}; '
                     'a site is measured over its first axis')
  x = x.astype(working(x.dtype))
  if x.ndim == 1:
    x = x[:, None]
  if x.ndim == 2:
    return x, weight
  mask = _mask(x, batch)
  flat = x.reshape(x.shape[0], -1, x.shape[-1])
  if pool.startswith('sample'):
    places = _drawn(x, batch, pool)
    flat, mask = jnp.take_along_axis(flat, places[..., None], 1), jnp.take_along_axis(mask, places, 1)
    pool = 'tokens'
  if pool == 'tokens':
    return flat.reshape(-1, x.shape[-1]), (weight[:, None] * mask).reshape(-1)
  # Masked positions may hold anything, NaN included; an example without the position that is asked for is no row.
  flat = jnp.where(mask[..., None] > 0, flat, 0)
  weight = weight * ((mask[:, 0] if pool == 'first' else mask.max(1)) > 0)
  if pool == 'flatten':
    return flat.reshape(x.shape[0], -1), weight
  if pool == 'mean':
    share = mask / jnp.maximum(mask.sum(1, keepdims=True), 1)
    return jnp.einsum('btd,bt->bd', flat, share, precision=jax.lax.Precision.HIGHEST), weight
  if pool == 'first':
    return flat[:, 0], weight
  last = (jnp.arange(flat.shape[1])[None] * (mask > 0)).argmax(1)
  return flat[jnp.arange(flat.shape[0]), last], weight


def paired(acts: Mapping[str, Array], sites, batch, pool: str, fold: str = 'all') -> tuple[dict[str, Array], Array]:
  """({site: rows [N, D]}, weight [N]) of several sites whose rows are the same examples and positions.

  Raises:
    ValueError: the sites have different numbers of positions, and the pool keeps positions apart."""
  parts = {s: rows(acts[s], batch, pool) for s in sites}
  weight = parts[sites[0]][1]
  apart = pool == 'tokens' or pool.startswith('sample')
  if any(len(x) != len(weight) for x, _ in parts.values()) or apart and len({
      int(np.prod(acts[s].shape[1:-1])) for s in sites}) > 1:
    raise ValueError(f'sites with different numbers of positions cannot be paired under pool {pool!r}: '
                     f"{ {s: acts[s].shape for s in sites} }; pool by 'mean' or choose sites of one stage")
  return {s: x for s, (x, _) in parts.items()}, weight * in_fold(acts[sites[0]], batch, pool, fold)


def _drawn(x: Array, batch, pool: str) -> Array:
  """int32 [B, k]: the positions of each example that `sample k` draws, masked ones last."""
  index, (b, count) = batch['index'].astype(jnp.uint32), (x.shape[0], int(np.prod(x.shape[1:-1])))
  key = mix(jnp.broadcast_to(index[:, None], (b, count)), jnp.broadcast_to(jnp.arange(count)[None], (b, count)), 11)
  key = jnp.where(_mask(x, batch) > 0, key >> 1, jnp.uint32(2 ** 32 - 1))
  return jnp.argsort(key, axis=1)[:, :positions(x, pool)]


def row_field(value: Array, x: Array, batch, pool: str) -> Array:
  """A field of the examples, [B] or [B, T], for each row of `x` under `pool`: [N]."""
  count = int(np.prod(x.shape[1:-1])) if x.ndim > 2 else 1
  drawn = x.ndim > 2 and pool.startswith('sample')
  if value.ndim == 1:
    return jnp.repeat(value, positions(x, pool)) if pool == 'tokens' or drawn else value
  value = value.reshape(value.shape[0], -1)
  if value.shape[1] == count and drawn:
    return jnp.take_along_axis(value, _drawn(x, batch, pool), 1).reshape(-1)
  if value.shape[1] == 1:
    return row_field(value[:, 0], x, batch, pool)
  if value.shape[1] != count or pool in ('mean', 'flatten'):
    raise ValueError(f'a field of shape {value.shape} gives no value to each row of a tensor {x.shape} pooled by '
                     f'{pool!r}; pool by tokens, first or last')
  if pool == 'tokens':
    return value.reshape(-1)
  if pool == 'first':
    return value[:, 0]
  last = (jnp.arange(count)[None] * (_mask(x, batch) > 0)).argmax(1)
  return value[jnp.arange(value.shape[0]), last]


def row_ids(x: Array, batch, pool: str) -> tuple[Array, Array]:
  """(index of the example, position in it) of each row, uint32 [N]."""
  index = batch['index'].astype(jnp.uint32)
  if x.ndim > 2 and pool.startswith('sample'):
    place = _drawn(x, batch, pool)
    return jnp.repeat(index, place.shape[1]), place.reshape(-1).astype(jnp.uint32)
  count = int(np.prod(x.shape[1:-1])) if x.ndim > 2 and pool == 'tokens' else 1
  place = jnp.tile(jnp.arange(count, dtype=jnp.uint32), index.shape[0])
  return jnp.repeat(index, count), place


def mix(*words: Array) -> Array:
  """A hash of uint32 words, uniform over uint32 (the finaliser of MurmurHash3, Appleby 2011)."""
  h = jnp.uint32(0x9E3779B9)
  for word in words:
    h = h ^ jnp.asarray(word).astype(jnp.uint32) * jnp.uint32(0xCC9E2D51)
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    h = h ^ (h >> 16)
  return h


def in_fold(x: Array, batch, pool: str, fold: str) -> Array:
  """1 for the rows of a fold, else 0; all rows of an example are in one.

  `all`; `fit`, four examples of five, and `held`, the fifth; the halves `first` and `second`: by a hash of the index.
  """
  if fold not in FOLDS:
    raise ValueError(f'fold {fold!r} is not one of {", ".join(FOLDS)}')
  if fold == 'all':
    return jnp.ones((), working(x.dtype))
  index = row_ids(x, batch, pool)[0]
  inside = mix(index, 5) % 5 == 0 if fold in ('fit', 'held') else mix(index, 7) % 2 == 0
  return (inside if fold in ('held', 'second') else ~inside).astype(working(x.dtype))


def centre(x: Array, weight: Array) -> tuple[Array, Sum, Array]:
  """(n, mean as a pair, centred rows times the root of their weight).

  The mean's rounding error is measured on the residuals and removed. With the root in the rows a scatter is the
  product of one array with itself, which XLA computes in little more than half the time of that of two.
  """
  n = weight.sum()
  safe = jnp.maximum(n, 1)
  # Rows of weight 0 may hold anything, NaN included; they must not reach a product.
  x = jnp.where(weight[:, None] > 0, x, 0)
  mean = total(weight, x).value() / safe
  x = x - mean[None]
  rest = total(weight, x).value() / safe
  return n, Sum(mean, rest), (x - rest[None]) * jnp.sqrt(weight)[:, None]


def total(weight: Array, x: Array) -> Sum:
  """sum w x over rows, [N], [N, D] -> [D], as exact as `added_up`."""
  return added_up(weight[:, None] * x)


def eights(x: Array) -> Array:
  """Rows [N, D] as [N / 8, 8, D], zeros behind the last."""
  return jnp.pad(x, ((0, -len(x) % 8), (0, 0))).reshape(-1, 8, x.shape[1])


def added_up(terms: Array) -> Sum:
  """The sum over the first axis, the same to the last digits in whatever order and on however many devices it is taken.

  Each term is cut at a digit that is fixed by the largest: the upper parts add up without rounding, so that what is
  lost is of the second order (error-free extraction: Rump, Ogita & Oishi 2008, doi:10.1137/050645671).
  """
  bits = jnp.finfo(terms.dtype)
  power = jax.lax.reduce_precision(jnp.abs(terms).max(0), bits.nexp, 0)          # within a factor of 2 of the largest
  cut = 4 * 2 ** (len(terms) - 1).bit_length() * power
  upper = (terms + cut[None]) - cut[None]
  return Sum(upper.sum(0), (terms - upper).sum(0))


def joint(a_n, a_mean: Sum, b_n, b_mean: Sum):
  """(n, joint mean, shift of a's rows, shift of b's rows) when two samples become one."""
  n = a_n.plus(b_n)
  share = b_n.value() / jnp.maximum(n.value(), 1)
  gap = b_mean.minus(a_mean)
  mean = a_mean.plus(gap.scale(share))
  return n, mean, -gap.value() * share, gap.value() * (1 - share)


def row_labels(x: Array, batch, pool: str, classes: int, labels: str) -> Array:
  """int32 [N]: the batch's labels, or uniform ones drawn from a hash of each row."""
  if labels == 'random':
    return random_labels(*row_ids(x, batch, pool), classes)
  return row_field(batch['label'], x, batch, pool)


def random_labels(index: Array, position: Array, classes: int) -> Array:
  """int32 [N]: uniform labels below `classes`, drawn from a hash of each row."""
  return (mix(index, position, 77) % jnp.uint32(classes)).astype(jnp.int32)
