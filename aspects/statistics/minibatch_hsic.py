"""Debiased HSIC of all pairs of sites, averaged over small blocks of rows (Nguyen, Raghu & Kornblith 2021)."""
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aspects import stats

Array = jax.Array
KERNELS = ('linear', 'rbf')
FEWEST = 4                                            # rows of a block, below which debiased HSIC is not defined


class BlockHsic(NamedTuple):
  """`rows` in `blocks` blocks of at least four; hsic [L, L] of `sites`, the mean of their debiased HSIC, weighted by
  rows; `left` rows stood in smaller blocks and count for nothing."""
  sites: tuple[str, ...]
  rows: float
  blocks: int
  left: float
  hsic: Any


class _HsicState(NamedTuple):
  rows: stats.Sum
  blocks: Array
  left: stats.Sum
  hsic: stats.Sum                    # [L, L], times rows


@dataclasses.dataclass(frozen=True)
class MinibatchHsic:
  """Mean debiased HSIC over blocks of `block` rows: BlockHsic. O(block^2) memory a site, whatever the width.

  The rows of each batch that are there are cut into blocks in their order, so that another order or batch gives another
  estimate of the same value. `kernel` linear, or rbf, exp(-|x-y|^2 / (2 s^2)) with s = `width`, or, if that is 0,
  `fraction` of the median distance within the block.
  """
  sites: tuple[str, ...]
  pool: str = 'mean'
  fold: str = 'all'
  block: int = 256
  kernel: str = 'linear'
  width: float = 0.
  fraction: float = 0.5

  by_blocks = True                   # rows count in groups, so that their order matters

  def init(self, specs):
    stats.check_pool(self.pool)
    t = functools.reduce(jnp.promote_types, (stats.working(specs[s].dtype) for s in self.sites))
    zero = lambda *shape: stats.Sum.zeros(shape, t)
    return _HsicState(zero(), jnp.zeros((), jnp.int32), zero(), zero(len(self.sites), len(self.sites)))

  def update(self, state, acts, batch):
    parts, weight = stats.paired(acts, self.sites, batch, self.pool, self.fold)
    # A debiased estimate knows whole rows only, so a weight is there or not.
    present, xs = (weight > 0).astype(weight.dtype), tuple(parts.values())
    # Without padding nothing is moved, not even copied.
    return jax.lax.cond(present.min() > 0, self._cut, lambda state, *rows: self._cut(state, *_packed(*rows)),
                        state, present, xs)

  def _cut(self, state: _HsicState, present: Array, xs) -> _HsicState:
    rows = present.shape[0]
    size = min(self.block, rows)
    if size == rows:
      return self._add(state, (present, xs))
    cut = lambda x: jnp.pad(x, ((0, -rows % size), *((0, 0),) * (x.ndim - 1))).reshape(-1, size, *x.shape[1:])
    return jax.lax.scan(lambda state, part: (self._add(state, part), None), state, jax.tree.map(cut, (present, xs)))[0]

  def _add(self, state: _HsicState, part) -> _HsicState:
    present, xs = part
    n = present.sum()
    # Enough rows for the divisions below even where the block is left out.
    safe = jnp.maximum(n, FEWEST)
    hsic = (linear if self.kernel == 'linear' else self._rbf)(xs, present, safe)
    counts = n >= FEWEST
    return _HsicState(state.rows.plus(jnp.where(counts, n, 0)), state.blocks + counts,
                      state.left.plus(jnp.where(counts, 0, n)), state.hsic.plus(jnp.where(counts, n * hsic, 0)))

  def _rbf(self, xs, present, n):
    size = present.shape[0]
    both = present[:, None] * present[None] * (1 - jnp.eye(size))
    def gram(x):
      distance = jnp.maximum(squared_distances(_centred(x, present, n)), 0)
      scale = self.width ** 2 if self.width else self.fraction ** 2 * _median(distance, both)
      kernel = jnp.exp(-distance / (2 * jnp.maximum(scale, jnp.finfo(x.dtype).tiny))) * both
      # Debiased HSIC does not see a constant off the diagonal; without it float32 keeps its digits.
      kernel = kernel - kernel.sum() / (n * (n - 1)) * both
      row = kernel.sum(0) / (n - 2)
      return (kernel - row[:, None] - row[None] + row.sum() / (n - 1)) * both
    flat = jnp.stack([gram(x).reshape(-1) for x in xs])
    return _rows_product(flat, flat) / (n * (n - 3))

  def merge(self, a, b):
    return _HsicState(a.rows.plus(b.rows), a.blocks + b.blocks, a.left.plus(b.left), a.hsic.plus(b.hsic))

  def finish(self, state):
    rows, blocks, left, hsic = stats.float64(state)
    return BlockHsic(self.sites, float(rows), int(blocks), float(left), hsic / max(rows, 1))


def _packed(present: Array, xs):
  """Rows that are there before those that are not, in their order: padding leaves the blocks as they would be."""
  order = jnp.argsort(1 - present, stable=True)
  return jax.tree.map(lambda x: x[order], (present, xs))


def _centred(x: Array, present: Array, n: Array) -> Array:
  """Rows [b, D] about their mean, zeros where no row is. A first shift to one of them keeps digits of far rows."""
  x = jnp.where(present[:, None] > 0, x - x[:1], 0)
  return (x - x.sum(0, keepdims=True) / n) * present[:, None]


def linear(xs, present: Array, n: Array) -> Array:
  """Debiased HSIC [L, L] of rows xs ([b, D_l], ...) with the linear kernel; `present` [b] is 1 or 0 and n its sum."""
  half = (present.shape[0] + 1) // 2
  xs = [_centred(x, present, n) for x in xs]
  first, second = slice(None, half), slice(half, None)
  grams = lambda left, right: jnp.stack([_rows_product(x[left], x[right]) for x in xs])
  def product(k):
    flat = k.reshape(len(k), -1)
    return _rows_product(flat, flat)
  # Of the two equal blocks off the diagonal one is computed, and counts twice.
  above, below = grams(first, first), grams(second, second)
  square = product(above) + product(below) + 2 * product(grams(first, second))
  norms = jnp.concatenate([jnp.diagonal(k, axis1=1, axis2=2) for k in (above, below)], 1)
  quartic = _rows_product(norms, norms)
  trace = norms.sum(1)
  far = trace[:, None] * trace[None] / ((n - 1) * (n - 2)) - 2 * quartic / (n - 2)
  return (square - quartic + far) / (n * (n - 3))


def _rows_product(a: Array, b: Array) -> Array:
  return jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST)


def squared_distances(x: Array) -> Array:
  """|x_i - x_j|^2 of all rows [n, D] -> [n, n]."""
  gram = _rows_product(x, x)
  return jnp.diag(gram)[:, None] + jnp.diag(gram)[None] - 2 * gram


def _median(distance: Array, both: Array) -> Array:
  """The median over the pairs that are there: the lower of two middle ones."""
  ordered = jnp.sort(jnp.where(both > 0, distance, jnp.inf).reshape(-1))
  return ordered[jnp.maximum((both.sum().astype(jnp.int32) - 1) // 2, 0)]
