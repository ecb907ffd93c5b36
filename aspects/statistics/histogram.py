"""Distributions of norms, ratios, cosines and values, with quantiles."""
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aspects import stats

Array = jax.Array


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

  Kinds: `value` (every unit), `norm` |x|, `ratio` |x| / |y|, `cosine` of x and y. Bins are linear on [-1, 1] for
  cosines; otherwise logarithmic, `per_decade` bins a decade between 1e-`decades` and 1e`decades` for either sign,
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
    return Histograms((), stats.Sum.zeros((count, len(self.edges()) - 1), t), stats.Sum.zeros((count,), t),
                      stats.Sum.zeros((count,), t), jnp.full((count,), jnp.inf, t), jnp.full((count,), -jnp.inf, t))

  def update(self, state, acts, batch):
    edges = jnp.asarray(self.edges(), jnp.float32)
    new = []
    for kind, *names in self.quantities:
      parts = [stats.rows(acts[s], batch, self.pool) for s in names]
      value = _scalars(kind, [x.astype(jnp.float32) for x, _ in parts])
      weight = jnp.repeat(parts[0][1].astype(jnp.float32), value.size // parts[0][1].size)
      value = jnp.where(weight > 0, value.reshape(-1), 0)
      slot = jnp.clip(jnp.searchsorted(edges, value, side='right') - 1, 0, len(edges) - 2)
      n = weight.sum()
      new.append((jnp.bincount(slot, weight, length=len(edges) - 1), n, (weight * value).sum() / jnp.maximum(n, 1),
                  jnp.where(weight > 0, value, jnp.inf).min(), jnp.where(weight > 0, value, -jnp.inf).max()))
    counts, n, mean, least, greatest = (jnp.stack(column) for column in zip(*new))
    pair = lambda x: stats.Sum(x, jnp.zeros_like(x))
    return self.merge(state, Histograms((), pair(counts), pair(n), pair(mean), least, greatest))

  def merge(self, a, b):
    n, mean, _, _ = stats.joint(a.n, a.mean, b.n, b.mean)
    return Histograms((), a.counts.plus(b.counts), n, mean, jnp.minimum(a.least, b.least),
                      jnp.maximum(a.greatest, b.greatest))

  def finish(self, state):
    return stats.float64(state)._replace(edges=self.edges())


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
