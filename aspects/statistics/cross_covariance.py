"""Cross-moments of all pairs of sites, in one pass, with the fourth-order sums of debiased HSIC (Song et al. 2012)."""
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aspects import stats

Array = jax.Array


class CrossMoments(NamedTuple):
  """n rows; mean {site: [D]}; scatter {(site, other): [D, E]} for sites in order; quartic [L, L] = sum |x|^2 |y|^2."""
  n: Any
  mean: Any
  scatter: Any
  quartic: Any


class _CrossState(NamedTuple):
  n: stats.Sum
  mean: stats.Sum                    # [sum of widths]
  scatter: tuple[stats.Sum, ...]     # per site i: against sites i, i+1, ...: [D_i, widths from i on]
  cubic: stats.Sum                   # [L, sum of widths]: sum |x_i|^2 x_j
  quartic: stats.Sum                  # [L, L]


@dataclasses.dataclass(frozen=True)
class CrossCovariance:
  """Cross-moments of all pairs of sites, which give biased and debiased linear CKA, CCA and Procrustes exactly.

  All sums are about the running mean; each pair is multiplied once. Memory is O((sum of widths)^2 / 2).
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
    return _CrossState(zeros(), zeros(total), scatter, zeros(count, total), zeros(count, count))

  def update(self, state, acts, batch):
    parts = [stats.rows(acts[s], batch, self.pool) for s in self.sites]
    weight = parts[0][1] * stats.in_fold(acts[self.sites[0]], batch, self.pool, self.fold)
    if any(x.shape[0] != weight.shape[0] for x, _ in parts):
      shapes = {s: acts[s].shape for s in self.sites}
      raise ValueError(f'sites with different numbers of rows cannot be paired under pool {self.pool!r}: {shapes}; '
                       "pool by 'mean' or choose sites of one stage")
    n, mean, x = stats.centre(jnp.concatenate([x for x, _ in parts], 1), weight)
    edges = np.cumsum([0] + [p.shape[1] for p, _ in parts])
    spans = [slice(a, b) for a, b in zip(edges[:-1], edges[1:])]
    scatter = tuple(stats.Sum(stats.product(x[:, s], x[:, s.start:]), 0) for s in spans)
    root = jnp.sqrt(jnp.where(weight > 0, weight, 1))[:, None]
    norms = jnp.stack([(x[:, s] ** 2).sum(1) for s in spans], 1) / root
    cubic, quartic = stats.Sum(stats.product(norms, x), 0), stats.Sum(stats.product(norms, norms), 0)
    new = _CrossState(stats.Sum(n, jnp.zeros_like(n)), mean, scatter, cubic, quartic)
    return self.merge(state, new)

  def merge(self, a, b):
    n, mean, left, right = stats.joint(a.n, a.mean, b.n, b.mean)
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
    # Row i of `bent` is C_ij' by_i for all j: right of the diagonal from the blocks C_i:, left from their columns.
    member = jnp.asarray(np.repeat(np.eye(len(spans)), widths, axis=0), by.dtype)  # [sum of widths, L]
    each = by[:, None] * member
    right, left = [], []
    for i, (c, span) in enumerate(zip(state.scatter, spans)):
      row = stats.product(by[span, None], c.value())[0]
      right.append(jnp.pad(row, (span.start, 0)))
      left.append(jnp.pad(stats.product(each[span.start:, i + 1:], c.value().T), ((i + 1, 0), (0, 0))))
    bent = jnp.stack(right) + jnp.concatenate(left, 1)                             # [L, sum of widths]
    new_cubic = trace[:, None] * by[None] + 2 * bent + n * length[:, None] * by[None]
    pick = lambda m: stats.product(m.T, each)                                            # [L, L]: m_ij . by_j
    tilt = pick(cubic)
    new_quartic = (2 * tilt + 2 * tilt.T + trace[:, None] * length[None] + length[:, None] * trace[None]
                   + 4 * pick(bent) + n * length[:, None] * length[None])
    scatter = tuple(c.plus(n * by[s][:, None] * by[None, s.start:]) for c, s in zip(state.scatter, spans))
    return state._replace(scatter=scatter, cubic=state.cubic.plus(new_cubic), quartic=state.quartic.plus(new_quartic))

  def finish(self, state):
    n, mean, scatter, _, quartic = stats.float64(state)
    widths = [c.shape[0] for c in scatter]
    edges = np.cumsum([0] + widths)
    pairs = {}
    for i, c in enumerate(scatter):
      for j in range(i, len(widths)):
        start = edges[j] - edges[i]
        pairs[self.sites[i], self.sites[j]] = c[:, start:start + widths[j]]
    means = {s: mean[edges[i]:edges[i + 1]] for i, s in enumerate(self.sites)}
    return CrossMoments(n, means, pairs, quartic)
