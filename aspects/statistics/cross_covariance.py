"""Cross-moments of all pairs of sites, in one pass, with the fourth-order sums of debiased HSIC (Song et al. 2012)."""
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aspects import stats

Array = jax.Array
CHUNK = 5120                          # rows gathered before they are multiplied: thin products waste a machine


class CrossMoments(NamedTuple):
  """n rows; mean {site: [D]}; scatter {(site, other): [D, E]} for sites in order; quartic [L, L] = sum |x|^2 |y|^2."""
  n: Any
  mean: Any
  scatter: Any
  quartic: Any


class _Moments(NamedTuple):
  """Sums over rows about `point`, the mean of the first rows."""
  n: stats.Sum
  point: Array                       # [sum of widths]
  first: stats.Sum                   # [sum of widths]
  scatter: tuple[stats.Sum, ...]     # per site i: against sites i, i+1, ...: [D_i, widths from i on]
  cubic: stats.Sum                   # [L, sum of widths]: sum |x_i|^2 x_j
  quartic: stats.Sum                 # [L, L]


class _CrossState(NamedTuple):
  moments: _Moments
  x: Array                           # [places, rows of a batch, sum of widths]: about the point, not yet multiplied
  root: Array                        # [places, rows of a batch]: of their weight, with which they are multiplied
  waiting: Array                     # batches


@dataclasses.dataclass(frozen=True)
class CrossCovariance:
  """Cross-moments of all pairs of sites, which give biased and debiased linear CKA, CCA and Procrustes exactly.

  All sums are about the mean of the first rows and corrected to the mean of all in float64; each pair is multiplied
  once. Rows wait until some thousands are together, so that the products are large; a batch of another size than that
  of `init` does not wait. Memory is O((sum of widths)^2 / 2), and CHUNK rows.
  """
  sites: tuple[str, ...]
  pool: str = 'mean'
  fold: str = 'all'

  def init(self, specs):
    stats.check_pool(self.pool)
    widths = [stats.width(specs[s], self.pool) for s in self.sites]
    t = functools.reduce(jnp.promote_types, (stats.working(specs[s].dtype) for s in self.sites))
    total, count = sum(widths), len(widths)
    scatter = tuple(stats.Sum.zeros((w, sum(widths[i:])), t) for i, w in enumerate(widths))
    zeros = lambda *shape: stats.Sum.zeros(shape, t)
    moments = _Moments(zeros(), jnp.zeros((total,), t), zeros(total), scatter, zeros(count, total), zeros(count, count))
    first = specs[self.sites[0]]
    rows = first.shape[0] * stats.positions(first, self.pool)
    places = max(CHUNK // rows, 1)
    return _CrossState(moments, jnp.zeros((places, rows, total), t), jnp.zeros((places, rows), t),
                       jnp.zeros((), jnp.int32))

  def update(self, state, acts, batch):
    parts, weight = stats.paired(acts, self.sites, batch, self.pool, self.fold)
    moments, x, root = _arrived(state.moments, jnp.concatenate(list(parts.values()), 1), weight)
    places, rows, _ = state.x.shape
    if places == 1 or len(x) != rows:
      return state._replace(moments=_added(moments, x, root))
    # The first axis is not sharded: a batch is laid down where its devices are.
    put = lambda buffer, new: jax.lax.dynamic_update_index_in_dim(buffer, new, state.waiting, 0)
    state = _CrossState(moments, put(state.x, x), put(state.root, root), state.waiting + 1)
    full = lambda s: s._replace(moments=_added(s.moments, *_flat(s)), waiting=jnp.zeros_like(s.waiting))
    return jax.lax.cond(state.waiting == places, full, lambda s: s, state)

  def merge(self, a, b):
    a, b = self._multiplied(a), self._multiplied(b)
    return a._replace(moments=_merged(a.moments, b.moments))

  def _multiplied(self, state: _CrossState) -> _CrossState:
    """The state with nothing waiting."""
    here = jnp.arange(len(state.x)) < state.waiting
    x, root = jnp.where(here[:, None, None], state.x, 0), jnp.where(here[:, None], state.root, 0)
    state = state._replace(x=x, root=root, waiting=jnp.zeros_like(state.waiting))
    return state._replace(moments=_added(state.moments, *_flat(state)))

  def finish(self, state):
    state = _finished(self, state) if int(state.waiting) else state
    moments = jax.device_get(state.moments)
    n, point, first, cubic, quartic = stats.float64(
        (moments.n, moments.point, moments.first, moments.cubic, moments.quartic))
    spans, shift = _spans(moments.scatter), -first / np.maximum(n, 1)
    length = np.array([shift[s] @ shift[s] for s in spans])
    pairs, (trace, tilt, bent) = {}, (np.zeros(len(spans)), np.zeros_like(quartic), np.zeros_like(quartic))
    for i, (a, c, span) in enumerate(zip(self.sites, moments.scatter, spans)):
      for j, (b, other) in enumerate(zip(self.sites[i:], spans[i:]), i):
        part = slice(other.start - span.start, other.stop - span.start)
        block = np.add(c.hi[:, part], c.lo[:, part], dtype=np.float64)
        bent[i, j] = bent[j, i] = shift[span] @ block @ shift[other]
        trace[i] = np.trace(block) if i == j else trace[i]
        block -= (n * shift[span])[:, None] * shift[None, other]
        pairs[a, b] = block
      tilt[i] = [cubic[i, s] @ shift[s] for s in spans]
    # Expanded from |x + a|^2 |y + b|^2 with sum x = -n a.
    quartic = (quartic + 2 * tilt + 2 * tilt.T + np.outer(trace, length) + np.outer(length, trace) + 4 * bent
               - 3 * n * np.outer(length, length))
    return CrossMoments(n, {s: point[span] - shift[span] for s, span in zip(self.sites, spans)}, pairs, quartic)


_finished = jax.jit(lambda statistic, state: statistic._multiplied(state), static_argnums=0)


def _spans(scatter) -> list[slice]:
  """Where the units of each site stand among those of all."""
  edges = np.cumsum([0] + [c.hi.shape[0] for c in scatter])
  return [slice(a, b) for a, b in zip(edges[:-1], edges[1:])]


def _flat(state: _CrossState) -> tuple[Array, Array]:
  return state.x.reshape(-1, state.x.shape[-1]), state.root.reshape(-1)


def _arrived(state: _Moments, x: Array, weight: Array) -> tuple[_Moments, Array, Array]:
  """Rows x [N, sum of widths] with weights [N]: the sums with their point; rows about it, times the root of their
  weight; and that root."""
  root = jnp.sqrt(weight)
  # Rows of weight 0 may hold anything, NaN included; they must not reach a product.
  x = jnp.where(weight[:, None] > 0, x.astype(state.point.dtype), 0)
  n = state.n.plus(weight.sum())
  # With a point of another row nothing is wrong but the last digits, so that the first rows decide.
  point = jax.lax.cond(state.n.value() > 0, lambda: state.point,
                       lambda: stats.total(weight, x).value() / jnp.maximum(weight.sum(), 1))
  return state._replace(n=n, point=point), (x - point[None]) * root[:, None], root


def _added(state: _Moments, x: Array, root: Array) -> _Moments:
  """The sums of products with rows that arrived; old sums are only added to, so nothing is copied."""
  spans = _spans(state.scatter)
  norms = jnp.stack([(x[:, s] ** 2).sum(1) for s in spans], 1) / jnp.where(root > 0, root, 1)[:, None]
  # Debiased HSIC is a small difference of large sums, and this is the one whose rounding it feels.
  eights = stats.eights(norms)
  quartic = stats.added_up((eights[..., :, None] * eights[..., None, :]).sum(1))
  return state._replace(first=state.first.plus(stats.total(root, x)),
                        scatter=tuple(map(_plus, state.scatter, _products(x, spans))),
                        cubic=state.cubic.plus(stats.product(norms, x)),
                        quartic=state.quartic.plus(quartic))


def _products(x: Array, spans: list[slice]) -> list[Array]:
  """x_i' x_j of every site with itself and those after it: [D_i, widths from i on].

  Sites halve again and again: each half times the other is one product, larger and faster than a row of pairs."""
  if len(spans) == 1:
    return [stats.product(x[:, spans[0]], x[:, spans[0]])]
  half = len(spans) // 2
  left, right = spans[:half], spans[half:]
  across = stats.product(x[:, left[0].start:left[-1].stop], x[:, right[0].start:right[-1].stop])
  inside, start = _products(x, left), left[0].start
  rows = [jnp.concatenate([own, across[s.start - start:s.stop - start]], 1) for own, s in zip(inside, left)]
  return rows + _products(x, right)


def _plus(a: stats.Sum, x: Array) -> stats.Sum:
  """`a.plus(x)` in an order in which a compiler overwrites `a`: hi waits for lo, which reads hi; neither is copied.

  A copy would be made whenever rows come, not only when they are added: a branch that is not taken copies, too.
  """
  new = a.plus(x)
  return stats.Sum(a.hi + x + 0 * new.lo, new.lo)


def _merged(a: _Moments, b: _Moments) -> _Moments:
  point = jnp.where(a.n.value() > 0, a.point, b.point)
  a, b = _moved(a, a.point - point), _moved(b, b.point - point)
  add = lambda x, y: x.plus(y)
  return _Moments(a.n.plus(b.n), point, a.first.plus(b.first), tuple(map(add, a.scatter, b.scatter)),
                  a.cubic.plus(b.cubic), a.quartic.plus(b.quartic))


def _moved(state: _Moments, by: Array) -> _Moments:
  """The sums about a point from which all rows lie `by` [sum of widths] further."""
  widths, spans = [c.hi.shape[0] for c in state.scatter], _spans(state.scatter)
  n, first, cubic = state.n.value(), state.first.value(), state.cubic.value()
  trace = jnp.stack([jnp.trace(c.value()[:, :w]) for c, w in zip(state.scatter, widths)])
  length = jnp.stack([(by[s] ** 2).sum() for s in spans])
  along = jnp.stack([(by[s] * first[s]).sum() for s in spans])
  # Row i of `bent` is C_ij' by_i for all j: right of the diagonal from the blocks C_i:, left from their columns.
  member = jnp.asarray(np.repeat(np.eye(len(spans)), widths, axis=0), by.dtype)  # [sum of widths, L]
  each = by[:, None] * member
  right, left = [], []
  for i, (c, span) in enumerate(zip(state.scatter, spans)):
    row = stats.product(by[span, None], c.value())[0]
    right.append(jnp.pad(row, (span.start, 0)))
    left.append(jnp.pad(stats.product(each[span.start:, i + 1:], c.value().T), ((i + 1, 0), (0, 0))))
  bent = jnp.stack(right) + jnp.concatenate(left, 1)                             # [L, sum of widths]
  # sum |x + a|^2 (y + b) and sum |x + a|^2 |y + b|^2, expanded
  far = (2 * along + n * length)[:, None]
  new_cubic = trace[:, None] * by[None] + 2 * bent + length[:, None] * first[None] + far * by[None]
  pick = lambda m: stats.product(m.T, each)                                      # [L, L]: m_ij . by_j
  tilt, square = pick(cubic), length[:, None] * length[None]
  cross = trace[:, None] * length[None] + 2 * along[:, None] * length[None]
  new_quartic = 2 * tilt + 2 * tilt.T + cross + cross.T + 4 * pick(bent) + n * square
  scatter = tuple(c.plus(first[s][:, None] * by[None, s.start:] + by[s][:, None] * first[None, s.start:]
                         + n * by[s][:, None] * by[None, s.start:]) for c, s in zip(state.scatter, spans))
  return state._replace(first=state.first.plus(n * by), scatter=scatter, cubic=state.cubic.plus(new_cubic),
                        quartic=state.quartic.plus(new_quartic))
