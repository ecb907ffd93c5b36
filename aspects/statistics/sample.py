"""A uniform sample of rows that does not depend on the order of the data (Cohen & Kaplan 2007)."""
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aspects import stats

Array = jax.Array


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
    stats.check_pool(self.pool)
    last = lambda: jnp.full((self.size,), jnp.iinfo(jnp.uint32).max, jnp.uint32)   # a buffer is donated once
    x = {s: jnp.zeros((self.size, stats.width(specs[s], self.pool)), stats.working(specs[s].dtype)) for s in self.sites}
    return _SampleState(last(), last(), last(), jnp.zeros((self.size,), jnp.int32), x)

  def update(self, state, acts, batch):
    first = acts[self.sites[0]]
    parts, weight = stats.paired(acts, self.sites, batch, self.pool, self.fold)
    index, position = stats.row_ids(first, batch, self.pool)
    last = jnp.uint32(jnp.iinfo(jnp.uint32).max)
    key = jnp.where(weight > 0, jnp.minimum(stats.mix(index, position, self.seed), last - 1), last)
    label = stats.row_labels(first, batch, self.pool, self.classes, 'label') if self.classes else jnp.zeros(
        key.shape, jnp.int32)
    return self.merge(state, _SampleState(key, index, position, label, parts))

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
    # The dict of a state comes back from a compiled program sorted by name, `resid_post.10` before `resid_post.2`.
    x = {s: take(state.x[s]).astype(np.float64) for s in self.sites}
    return Rows(x, take(state.label), take(state.index), take(state.position))
