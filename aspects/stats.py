"""Streaming statistics: `init / update / merge / finish`, accumulated while data pass by.

A statistic is a frozen dataclass without arrays, so that equal ones are computed once. Its state is a pytree of arrays on
the device; `update` and `merge` are pure and run inside the program that runs the network; `finish` gives float64 on the
host. A row of weight 0 (padding) changes nothing. Sums are centred and compensated: each is an unevaluated pair `hi + lo`
of floats, so that neither a large mean nor a long stream costs digits.

How a tensor `[B, ..., D]` becomes rows `[N, D]` is its `pool`:
  tokens   every position is a row, N = B * positions
  mean     the mean over positions, N = B
  first    the first position (a class token), N = B
  last     the last position that is not masked, N = B
  flatten  positions and units side by side, masked ones as zeros, N = B
"""
from concurrent import futures
import dataclasses
import functools
import os
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl

Array = jax.Array
POOLS = ('tokens', 'mean', 'first', 'last', 'flatten')


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
  if pool not in POOLS:
    raise ValueError(f'pool {pool!r} is not one of {", ".join(POOLS)}')


def positions(spec, pool: str) -> int:
  """Rows that one example gives."""
  return int(np.prod(spec.shape[1:-1])) if pool == 'tokens' else 1


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


def row_field(value: Array, x: Array, batch, pool: str) -> Array:
  """A field of the examples, [B] or [B, T], for each row of `x` under `pool`: [N]."""
  count = int(np.prod(x.shape[1:-1])) if x.ndim > 2 else 1
  if value.ndim == 1:
    return jnp.repeat(value, count) if pool == 'tokens' else value
  value = value.reshape(value.shape[0], -1)
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
  """1 for the rows of a fold, else 0: `all`, or `fit` (four examples of five) and `held` (the fifth), by index."""
  if fold == 'all':
    return jnp.ones((), working(x.dtype))
  held = mix(row_ids(x, batch, pool)[0], 5) % 5 == 0
  return (held if fold == 'held' else ~held).astype(working(x.dtype))


# --- moments --------------------------------------------------------------------------------------------------------

class Moments(NamedTuple):
  """n rows, their mean [D] and their centred scatter sum (x-mean)(x-mean)' [D, D]."""
  n: Any
  mean: Any
  scatter: Any


def _centre(x: Array, weight: Array) -> tuple[Array, Sum, Array]:
  """(n, mean as a pair, centred rows times the root of their weight).

  The mean's rounding error is measured on the residuals and removed. With the root in the rows a scatter is the
  product of one array with itself, which XLA computes in little more than half the time of that of two.
  """
  n = weight.sum()
  safe = jnp.maximum(n, 1)
  # Rows of weight 0 may hold anything, NaN included; they must not reach a product.
  x = jnp.where(weight[:, None] > 0, x, 0)
  mean = product(weight[:, None], x)[0] / safe
  x = x - mean[None]
  rest = product(weight[:, None], x)[0] / safe
  return n, Sum(mean, rest), (x - rest[None]) * jnp.sqrt(weight)[:, None]


def _shift(a_n, a_mean: Sum, b_n, b_mean: Sum):
  """(n, joint mean, shift of a's rows, shift of b's rows) when two samples become one."""
  n = a_n.plus(b_n)
  share = b_n.value() / jnp.maximum(n.value(), 1)
  gap = b_mean.minus(a_mean)
  mean = a_mean.plus(gap.scale(share))
  return n, mean, -gap.value() * share, gap.value() * (1 - share)


@dataclasses.dataclass(frozen=True)
class Covariance:
  """Mean and covariance of each site: {site: Moments}, O(D^2) memory a site."""
  sites: tuple[str, ...]
  pool: str = 'tokens'
  fold: str = 'all'

  def init(self, specs):
    check_pool(self.pool)
    def empty(spec):
      d, t = width(spec, self.pool), working(spec.dtype)
      return Moments(Sum.zeros((), t), Sum.zeros((d,), t), Sum.zeros((d, d), t))
    return {s: empty(specs[s]) for s in self.sites}

  def update(self, state, acts, batch):
    new = {}
    for s in self.sites:
      x, weight = rows(acts[s], batch, self.pool)
      n, mean, x = _centre(x, weight * in_fold(acts[s], batch, self.pool, self.fold))
      new[s] = Moments(Sum(n, jnp.zeros_like(n)), mean, Sum(product(x, x), 0))
    return self.merge(state, new)

  def merge(self, a, b):
    def join(a, b):
      n, mean, left, right = _shift(a.n, a.mean, b.n, b.mean)
      between = a.n.value() * left[:, None] * left[None] + b.n.value() * right[:, None] * right[None]
      return Moments(n, mean, a.scatter.plus(b.scatter).plus(between))
    return {s: join(a[s], b[s]) for s in self.sites}

  def finish(self, state):
    return {s: float64(state[s]) for s in self.sites}


class ClassMoments(NamedTuple):
  """Moments, and the count [C] and mean [C, D] of each class."""
  n: Any
  mean: Any
  scatter: Any
  count: Any
  class_mean: Any


@dataclasses.dataclass(frozen=True)
class ClassCovariance:
  """Covariance and class means of each site: {site: ClassMoments}; what ridge probes and class geometry read.

  `labels`: `label` (the batch's), or `random`, uniform labels drawn from a hash of the row, as a null.
  """
  sites: tuple[str, ...]
  classes: int
  pool: str = 'mean'
  fold: str = 'all'
  labels: str = 'label'

  @property
  def _rows(self):
    return Covariance(self.sites, self.pool, self.fold)

  def init(self, specs):
    t = {s: working(specs[s].dtype) for s in self.sites}
    sums = {s: (Sum.zeros((self.classes,), t[s]), Sum.zeros((self.classes, width(specs[s], self.pool)), t[s]))
            for s in self.sites}
    return self._rows.init(specs), sums

  def update(self, state, acts, batch):
    moments, sums = {}, {}
    for s in self.sites:
      x, weight = rows(acts[s], batch, self.pool)
      weight = weight * in_fold(acts[s], batch, self.pool, self.fold)
      labels = row_labels(acts[s], batch, self.pool, self.classes, self.labels)
      hot = jax.nn.one_hot(labels, self.classes, dtype=x.dtype)
      n, mean, x = _centre(x, weight)
      moments[s] = Moments(Sum(n, jnp.zeros_like(n)), mean, Sum(product(x, x), 0))
      total = product(hot * jnp.sqrt(weight)[:, None], x)
      sums[s] = (Sum((hot * weight[:, None]).sum(0), 0), Sum(total, 0))
    return self.merge(state, (moments, sums))

  def merge(self, a, b):
    def join(a_moments, a_sums, b_moments, b_sums):
      _, _, left, right = _shift(a_moments.n, a_moments.mean, b_moments.n, b_moments.mean)
      moved = a_sums[0].value()[:, None] * left[None] + b_sums[0].value()[:, None] * right[None]
      return a_sums[0].plus(b_sums[0]), a_sums[1].plus(b_sums[1]).plus(moved)
    sums = {s: join(a[0][s], a[1][s], b[0][s], b[1][s]) for s in self.sites}
    return self._rows.merge(a[0], b[0]), sums

  def finish(self, state):
    out = {}
    for s in self.sites:
      m, (count, total) = float64(state[0][s]), float64(state[1][s])
      out[s] = ClassMoments(m.n, m.mean, m.scatter, count,
                            m.mean[None] + total / np.maximum(count, 1)[:, None])
    return out


def row_labels(x: Array, batch, pool: str, classes: int, labels: str) -> Array:
  """int32 [N]: the batch's labels, or uniform ones drawn from a hash of each row."""
  if labels == 'random':
    return random_labels(*row_ids(x, batch, pool), classes)
  return row_field(batch['label'], x, batch, pool)


def random_labels(index: Array, position: Array, classes: int) -> Array:
  """int32 [N]: uniform labels below `classes`, drawn from a hash of each row."""
  return (mix(index, position, 77) % jnp.uint32(classes)).astype(jnp.int32)


class CrossMoments(NamedTuple):
  """n rows; mean {site: [D]}; scatter {(site, other): [D, E]} for sites in order; quartic [L, L] = sum |x|^2 |y|^2."""
  n: Any
  mean: Any
  scatter: Any
  quartic: Any


class _CrossState(NamedTuple):
  n: Sum
  mean: Sum                     # [sum of widths]
  scatter: tuple[Sum, ...]      # per site i: against sites i, i+1, ...: [D_i, widths from i on]
  cubic: Sum                    # [L, sum of widths]: sum |x_i|^2 x_j
  quartic: Sum                  # [L, L]


@dataclasses.dataclass(frozen=True)
class CrossCovariance:
  """Cross-moments of all pairs of sites, which give biased and debiased linear CKA, CCA and Procrustes exactly.

  All sums are about the running mean; each pair is multiplied once. Memory is O((sum of widths)^2 / 2).
  """
  sites: tuple[str, ...]
  pool: str = 'mean'
  fold: str = 'all'

  def init(self, specs):
    check_pool(self.pool)
    widths = [width(specs[s], self.pool) for s in self.sites]
    t = functools.reduce(jnp.promote_types, (working(specs[s].dtype) for s in self.sites))
    total, count = sum(widths), len(widths)
    scatter = tuple(Sum.zeros((w, sum(widths[i:])), t) for i, w in enumerate(widths))
    return _CrossState(Sum.zeros((), t), Sum.zeros((total,), t), scatter, Sum.zeros((count, total), t),
                       Sum.zeros((count, count), t))

  def update(self, state, acts, batch):
    parts = [rows(acts[s], batch, self.pool) for s in self.sites]
    weight = parts[0][1] * in_fold(acts[self.sites[0]], batch, self.pool, self.fold)
    if any(x.shape[0] != weight.shape[0] for x, _ in parts):
      shapes = {s: acts[s].shape for s in self.sites}
      raise ValueError(f'sites with different numbers of rows cannot be paired under pool {self.pool!r}: {shapes}; '
                       "pool by 'mean' or choose sites of one stage")
    n, mean, x = _centre(jnp.concatenate([x for x, _ in parts], 1), weight)
    edges = np.cumsum([0] + [p.shape[1] for p, _ in parts])
    spans = [slice(a, b) for a, b in zip(edges[:-1], edges[1:])]
    scatter = tuple(Sum(product(x[:, s], x[:, s.start:]), 0) for s in spans)
    root = jnp.sqrt(jnp.where(weight > 0, weight, 1))[:, None]
    norms = jnp.stack([(x[:, s] ** 2).sum(1) for s in spans], 1) / root
    cubic, quartic = Sum(product(norms, x), 0), Sum(product(norms, norms), 0)
    new = _CrossState(Sum(n, jnp.zeros_like(n)), mean, scatter, cubic, quartic)
    return self.merge(state, new)

  def merge(self, a, b):
    n, mean, left, right = _shift(a.n, a.mean, b.n, b.mean)
    a, b = self._moved(a, left), self._moved(b, right)
    plus = lambda x, y: x.plus(y)
    return _CrossState(n, mean, tuple(map(plus, a.scatter, b.scatter)), plus(a.cubic, b.cubic),
                       plus(a.quartic, b.quartic))

  @staticmethod
  def _moved(state: _CrossState, by: Array) -> _CrossState:
    """The sums about the mean, written about a point from which all rows lie `by` [sum of widths] further."""
    widths = [c.hi.shape[0] for c in state.scatter]
    edges = np.cumsum([0] + widths)
    spans = [slice(a, b) for a, b in zip(edges[:-1], edges[1:])]
    n, cubic = state.n.value(), state.cubic.value()
    trace = jnp.stack([jnp.trace(c.value()[:, :w]) for c, w in zip(state.scatter, widths)])
    length = jnp.stack([(by[s] ** 2).sum() for s in spans])
    # Row i of `bent` is C_ij' by_i for all j: right of the diagonal from the blocks C_i:, left of it from their columns.
    member = jnp.asarray(np.repeat(np.eye(len(spans)), widths, axis=0), by.dtype)  # [sum of widths, L]
    each = by[:, None] * member
    right, left = [], []
    for i, (c, span) in enumerate(zip(state.scatter, spans)):
      row = product(by[span, None], c.value())[0]
      right.append(jnp.pad(row, (span.start, 0)))
      left.append(jnp.pad(product(each[span.start:, i + 1:], c.value().T), ((i + 1, 0), (0, 0))))
    bent = jnp.stack(right) + jnp.concatenate(left, 1)                             # [L, sum of widths]
    new_cubic = trace[:, None] * by[None] + 2 * bent + n * length[:, None] * by[None]
    pick = lambda m: product(m.T, each)                                            # [L, L]: m_ij . by_j
    tilt = pick(cubic)
    new_quartic = (2 * tilt + 2 * tilt.T + trace[:, None] * length[None] + length[:, None] * trace[None]
                   + 4 * pick(bent) + n * length[:, None] * length[None])
    scatter = tuple(c.plus(n * by[s][:, None] * by[None, s.start:]) for c, s in zip(state.scatter, spans))
    return state._replace(scatter=scatter, cubic=state.cubic.plus(new_cubic), quartic=state.quartic.plus(new_quartic))

  def finish(self, state):
    n, mean, scatter, _, quartic = float64(state)
    widths = [c.shape[0] for c in scatter]
    edges = np.cumsum([0] + widths)
    pairs = {}
    for i, c in enumerate(scatter):
      for j in range(i, len(widths)):
        start = edges[j] - edges[i]
        pairs[self.sites[i], self.sites[j]] = c[:, start:start + widths[j]]
    means = {s: mean[edges[i]:edges[i + 1]] for i, s in enumerate(self.sites)}
    return CrossMoments(n, means, pairs, quartic)


# --- densities and histograms ---------------------------------------------------------------------------------------

class Extremes(NamedTuple):
  """n rows; per unit [D]: how many rows exceed the threshold, and the least and greatest value."""
  n: Any
  active: Any
  least: Any
  greatest: Any


@dataclasses.dataclass(frozen=True)
class Density:
  """How often each unit exceeds `threshold`, and its extremes: {site: Extremes}, O(D) memory a site."""
  sites: tuple[str, ...]
  threshold: float = 0.0
  pool: str = 'tokens'

  def init(self, specs):
    check_pool(self.pool)
    def empty(spec):
      d, t = width(spec, self.pool), working(spec.dtype)
      return Extremes(Sum.zeros((), t), Sum.zeros((d,), t), jnp.full((d,), jnp.inf, t), jnp.full((d,), -jnp.inf, t))
    return {s: empty(specs[s]) for s in self.sites}

  def update(self, state, acts, batch):
    new = {}
    for s in self.sites:
      x, weight = rows(acts[s], batch, self.pool)
      real = weight[:, None] > 0
      active = jnp.where(real & (x > self.threshold), weight[:, None], 0).sum(0)
      new[s] = Extremes(Sum(weight.sum(), 0), Sum(active, 0), jnp.where(real, x, jnp.inf).min(0),
                        jnp.where(real, x, -jnp.inf).max(0))
    return self.merge(state, new)

  def merge(self, a, b):
    return {s: Extremes(a[s].n.plus(b[s].n), a[s].active.plus(b[s].active), jnp.minimum(a[s].least, b[s].least),
                        jnp.maximum(a[s].greatest, b[s].greatest)) for s in self.sites}

  def finish(self, state):
    return {s: float64(state[s]) for s in self.sites}


class Histograms(NamedTuple):
  """Per quantity [Q]: weighted counts in bins [Q, K], total, mean and extremes; `edges` [K + 1] are common."""
  edges: Any
  counts: Any
  n: Any
  mean: Any
  least: Any
  greatest: Any

  def quantile(self, q) -> np.ndarray:
    """Quantiles [Q, len(q)], interpolated in the bin; the error is at most the width of the bin it falls in."""
    q, out = np.atleast_1d(q), []
    for counts, least, greatest in zip(self.counts, self.least, self.greatest):
      below = np.concatenate([[0.0], np.cumsum(counts)])
      edges = np.clip(self.edges, least, greatest)
      keep = np.concatenate([[True], np.diff(below) > 0])
      out.append(np.interp(q * below[-1], below[keep], edges[keep]) if below[-1] else np.full(len(q), np.nan))
    return np.asarray(out)


@dataclasses.dataclass(frozen=True)
class Histogram:
  """Distributions over rows of scalar quantities, each `(kind, site)` or `(kind, site, other)`.

  Kinds: `value` (every unit), `norm` |x|, `ratio` |x| / |y|, `cosine` of x and y. Bins are linear on [-1, 1] for cosines
  and logarithmic in magnitude otherwise, `per_decade` bins a decade between 1e-`decades` and 1e`decades` for either sign,
  so that a quantile is exact to a factor 10**(1/per_decade).
  """
  quantities: tuple[tuple[str, ...], ...]
  per_decade: int = 64
  decades: int = 6
  linear: bool = False
  pool: str = 'tokens'

  @property
  def sites(self):
    return tuple(dict.fromkeys(s for q in self.quantities for s in q[1:]))

  def edges(self) -> np.ndarray:
    if self.linear:
      return np.linspace(-1, 1, 2 * self.per_decade * self.decades + 1)
    size = 10 ** np.linspace(-self.decades, self.decades, 2 * self.per_decade * self.decades + 1)
    return np.concatenate([-size[::-1], size])

  def init(self, specs):
    for kind, *sites in self.quantities:
      if (kind, len(sites)) not in (('value', 1), ('norm', 1), ('ratio', 2), ('cosine', 2)):
        raise ValueError(f'quantity {(kind, *sites)}: kinds are value, norm (one site), ratio, cosine (two)')
    count, t = len(self.quantities), jnp.float32
    return Histograms((), Sum.zeros((count, len(self.edges()) - 1), t), Sum.zeros((count,), t),
                      Sum.zeros((count,), t), jnp.full((count,), jnp.inf, t), jnp.full((count,), -jnp.inf, t))

  def update(self, state, acts, batch):
    edges = jnp.asarray(self.edges(), jnp.float32)
    new = []
    for kind, *names in self.quantities:
      parts = [rows(acts[s], batch, self.pool) for s in names]
      value = _scalars(kind, [x.astype(jnp.float32) for x, _ in parts])
      weight = jnp.repeat(parts[0][1].astype(jnp.float32), value.size // parts[0][1].size)
      value = jnp.where(weight > 0, value.reshape(-1), 0)
      slot = jnp.clip(jnp.searchsorted(edges, value, side='right') - 1, 0, len(edges) - 2)
      n = weight.sum()
      new.append((jnp.bincount(slot, weight, length=len(edges) - 1), n, (weight * value).sum() / jnp.maximum(n, 1),
                  jnp.where(weight > 0, value, jnp.inf).min(), jnp.where(weight > 0, value, -jnp.inf).max()))
    counts, n, mean, least, greatest = (jnp.stack(column) for column in zip(*new))
    pair = lambda x: Sum(x, jnp.zeros_like(x))
    return self.merge(state, Histograms((), pair(counts), pair(n), pair(mean), least, greatest))

  def merge(self, a, b):
    n, mean, _, _ = _shift(a.n, a.mean, b.n, b.mean)
    return Histograms((), a.counts.plus(b.counts), n, mean, jnp.minimum(a.least, b.least),
                      jnp.maximum(a.greatest, b.greatest))

  def finish(self, state):
    return float64(state)._replace(edges=self.edges())


def _scalars(kind: str, parts: list[Array]) -> Array:
  """The quantity `kind` of each row; 0 / 0 is 0."""
  if kind == 'value':
    return parts[0]
  norms = [jnp.linalg.norm(x, axis=-1) for x in parts]
  if kind == 'norm':
    return norms[0]
  if kind == 'ratio':
    return norms[0] / jnp.maximum(norms[1], jnp.finfo(jnp.float32).tiny)
  return (parts[0] * parts[1]).sum(-1) / jnp.maximum(norms[0] * norms[1], jnp.finfo(jnp.float32).tiny)


# --- examples -------------------------------------------------------------------------------------------------------

class Top(NamedTuple):
  """Per unit [D, k], greatest first: the value, the index of its example, the position in it. Empty places: -inf."""
  value: Any
  index: Any
  position: Any


@dataclasses.dataclass(frozen=True)
class TopExamples:
  """The `k` rows on which each unit is greatest: {site: Top}. Ties go to the lower index, then the lower position."""
  sites: tuple[str, ...]
  k: int = 8
  pool: str = 'tokens'

  def init(self, specs):
    check_pool(self.pool)
    def empty(spec):
      shape = (width(spec, self.pool), self.k)
      last = lambda: jnp.full(shape, jnp.iinfo(jnp.uint32).max, jnp.uint32)        # a buffer is donated once
      return Top(jnp.full(shape, -jnp.inf, working(spec.dtype)), last(), last())
    return {s: empty(specs[s]) for s in self.sites}

  def update(self, state, acts, batch):
    new = {}
    for s in self.sites:
      x, weight = rows(acts[s], batch, self.pool)
      ids = [jnp.broadcast_to(i[None], x.T.shape) for i in row_ids(acts[s], batch, self.pool)]
      new[s] = Top(jnp.where(weight[None] > 0, x.T, -jnp.inf), *ids)
    return self.merge(state, new)

  def merge(self, a, b):
    def join(a, b):
      value, index, position = (jnp.concatenate(pair, 1) for pair in zip(a, b))
      value, index, position = jax.lax.sort((-value, index, position), dimension=1, num_keys=3)
      return Top(-value[:, :self.k], index[:, :self.k], position[:, :self.k])
    return {s: join(a[s], b[s]) for s in self.sites}

  def finish(self, state):
    return {s: float64(state[s]) for s in self.sites}


class Rows(NamedTuple):
  """A sample of N rows in a fixed order: {site: [N, D]}, labels [N], index and position of each."""
  x: Any
  label: Any
  index: Any
  position: Any


class _SampleState(NamedTuple):
  key: Array          # [k] the priority of the row in each place; the least are kept
  index: Array
  position: Array
  label: Array
  x: dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Sample:
  """A uniform sample of `size` rows, the same whatever the batches, hosts or order: Rows.

  Each row draws its priority from a hash of its index, position and `seed`, and the least are kept (bottom-k sampling,
  Cohen & Kaplan 2007), so that samples merge. Memory is `size` rows a site.
  """
  sites: tuple[str, ...]
  size: int = 2048
  pool: str = 'mean'
  fold: str = 'all'
  seed: int = 0
  classes: int = 0              # > 0: labels are kept, as integers below it

  def init(self, specs):
    check_pool(self.pool)
    last = lambda: jnp.full((self.size,), jnp.iinfo(jnp.uint32).max, jnp.uint32)   # a buffer is donated once
    x = {s: jnp.zeros((self.size, width(specs[s], self.pool)), working(specs[s].dtype)) for s in self.sites}
    return _SampleState(last(), last(), last(), jnp.zeros((self.size,), jnp.int32), x)

  def update(self, state, acts, batch):
    first = acts[self.sites[0]]
    parts = {s: rows(acts[s], batch, self.pool) for s in self.sites}
    if len({x.shape[0] for x, _ in parts.values()}) > 1:
      raise ValueError(f'sites with different numbers of rows cannot be sampled together under pool {self.pool!r}: '
                       f"{ {s: acts[s].shape for s in self.sites} }; pool by 'mean' or choose sites of one stage")
    weight = parts[self.sites[0]][1] * in_fold(first, batch, self.pool, self.fold)
    index, position = row_ids(first, batch, self.pool)
    last = jnp.uint32(jnp.iinfo(jnp.uint32).max)
    key = jnp.where(weight > 0, jnp.minimum(mix(index, position, self.seed), last - 1), last)
    label = row_labels(first, batch, self.pool, self.classes, 'label') if self.classes else jnp.zeros(
        key.shape, jnp.int32)
    return self.merge(state, _SampleState(key, index, position, label, {s: x for s, (x, _) in parts.items()}))

  def merge(self, a, b):
    places, offered = a.key.shape[0], b.key.shape[0]
    both = [jnp.concatenate(pair) for pair in zip(a[:3], b[:3])]
    order = jax.lax.sort((*both, jnp.arange(places + offered)), num_keys=3)[-1]
    kept = jnp.zeros((places + offered,), bool).at[order[:self.size]].set(True)
    # A kept newcomer takes the place of a row that left; rows that stay do not move, so nothing is copied.
    free = jnp.argsort(kept[:places], stable=True)
    newcomer = kept[places:]
    target = jnp.where(newcomer, free[jnp.minimum(jnp.cumsum(newcomer) - 1, places - 1)], places)
    put = lambda old, new: old.at[target].set(new, mode='drop')
    return jax.tree.map(put, a, b)

  def finish(self, state):
    filled = np.asarray(state.key) < np.iinfo(np.uint32).max
    order = np.lexsort((np.asarray(state.position), np.asarray(state.index), np.asarray(state.key)))
    order = order[filled[order]]
    take = lambda v: np.asarray(v)[order]
    return Rows({s: take(v).astype(np.float64) for s, v in state.x.items()}, take(state.label), take(state.index),
                take(state.position))
