"""The examples on which each unit is greatest."""
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aspects import stats


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
    stats.check_pool(self.pool)
    def empty(spec):
      shape = (stats.width(spec, self.pool), self.k)
      last = lambda: jnp.full(shape, jnp.iinfo(jnp.uint32).max, jnp.uint32)        # a buffer is donated once
      return Top(jnp.full(shape, -jnp.inf, stats.working(spec.dtype)), last(), last())
    return {s: empty(specs[s]) for s in self.sites}

  def update(self, state, acts, batch):
    new = {}
    for s in self.sites:
      x, weight = stats.rows(acts[s], batch, self.pool)
      ids = [jnp.broadcast_to(i[None], x.T.shape) for i in stats.row_ids(acts[s], batch, self.pool)]
      new[s] = Top(jnp.where(weight[None] > 0, x.T, -jnp.inf), *ids)
    return self.merge(state, new)

  def merge(self, a, b):
    def join(a, b):
      value, index, position = (jnp.concatenate(pair, 1) for pair in zip(a, b))
      value, index, position = jax.lax.sort((-value, index, position), dimension=1, num_keys=3)
      return Top(-value[:, :self.k], index[:, :self.k], position[:, :self.k])
    return {s: join(a[s], b[s]) for s in self.sites}

  def finish(self, state):
    return {s: stats.float64(state[s]) for s in self.sites}
