"""Mean and covariance of sites, in one pass (Chan, Golub & LeVeque 1983)."""
import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp

from aspects import stats


class Moments(NamedTuple):
  """n rows, their mean [D] and their centred scatter sum (x-mean)(x-mean)' [D, D]."""
  n: Any
  mean: Any
  scatter: Any


@dataclasses.dataclass(frozen=True)
class Covariance:
  """Mean and covariance of each site: {site: Moments}, O(D^2) memory a site."""
  sites: tuple[str, ...]
  pool: str = 'tokens'
  fold: str = 'all'

  def init(self, specs):
    stats.check_pool(self.pool)
    def empty(spec):
      d, t = stats.width(spec, self.pool), stats.working(spec.dtype)
      return Moments(stats.Sum.zeros((), t), stats.Sum.zeros((d,), t), stats.Sum.zeros((d, d), t))
    return {s: empty(specs[s]) for s in self.sites}

  def update(self, state, acts, batch):
    new = {}
    for s in self.sites:
      x, weight = stats.rows(acts[s], batch, self.pool)
      n, mean, x = stats.centre(x, weight * stats.in_fold(acts[s], batch, self.pool, self.fold))
      new[s] = Moments(stats.Sum(n, jnp.zeros_like(n)), mean, stats.Sum(stats.product(x, x), 0))
    return self.merge(state, new)

  def merge(self, a, b):
    def join(a, b):
      n, mean, left, right = stats.joint(a.n, a.mean, b.n, b.mean)
      between = a.n.value() * left[:, None] * left[None] + b.n.value() * right[:, None] * right[None]
      return Moments(n, mean, a.scatter.plus(b.scatter).plus(between))
    return {s: join(a[s], b[s]) for s in self.sites}

  def finish(self, state):
    return {s: stats.float64(state[s]) for s in self.sites}
