"""How often units are active, and how far they go."""
import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp

from aspects import stats


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
    stats.check_pool(self.pool)
    def empty(spec):
      d, t = stats.width(spec, self.pool), stats.working(spec.dtype)
      bound = lambda value: jnp.full((d,), value, t)
      return Extremes(stats.Sum.zeros((), t), stats.Sum.zeros((d,), t), bound(jnp.inf), bound(-jnp.inf))
    return {s: empty(specs[s]) for s in self.sites}

  def update(self, state, acts, batch):
    new = {}
    for s in self.sites:
      x, weight = stats.rows(acts[s], batch, self.pool)
      real = weight[:, None] > 0
      active = jnp.where(real & (x > self.threshold), weight[:, None], 0).sum(0)
      new[s] = Extremes(stats.Sum(weight.sum(), 0), stats.Sum(active, 0), jnp.where(real, x, jnp.inf).min(0),
                        jnp.where(real, x, -jnp.inf).max(0))
    return self.merge(state, new)

  def merge(self, a, b):
    return {s: Extremes(a[s].n.plus(b[s].n), a[s].active.plus(b[s].active), jnp.minimum(a[s].least, b[s].least),
                        jnp.maximum(a[s].greatest, b[s].greatest)) for s in self.sites}

  def finish(self, state):
    return {s: stats.float64(state[s]) for s in self.sites}
