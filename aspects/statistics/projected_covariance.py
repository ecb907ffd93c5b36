"""Cross-moments of random projections of wide sites (count sketch: Charikar, Chen & Farach-Colton 2002)."""
import dataclasses
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from aspects import stats
from aspects.statistics.cross_covariance import CrossCovariance

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class ProjectedCovariance:
  """CrossMoments whose sites are (site, group): each site projected `groups` times to `width` units at most."""
  sites: tuple[str, ...]
  pool: str = 'flatten'
  fold: str = 'all'
  width: int = 256
  groups: int = 4
  seed: int = 0

  @property
  def _cross(self) -> CrossCovariance:
    # The rows of a projection are rows already, and a number a row is theirs.
    return CrossCovariance(tuple((s, g) for s in self.sites for g in range(self.groups)), 'tokens', 'all')

  def init(self, specs):
    stats.check_pool(self.pool)
    def projected(spec):
      rows = spec.shape[0] * stats.positions(spec, self.pool)
      return jax.ShapeDtypeStruct((rows, min(stats.width(spec, self.pool), self.width)), stats.working(spec.dtype))
    return self._cross.init({(s, g): projected(specs[s]) for s in self.sites for g in range(self.groups)})

  def update(self, state, acts, batch):
    parts, weight = stats.paired(acts, self.sites, batch, self.pool, self.fold)
    rows = {}
    for s, x in parts.items():
      x = jnp.where(weight[:, None] > 0, x, 0)       # rows of weight 0 may hold anything, NaN included
      for g in range(self.groups):
        rows[s, g] = project(x, self.width, zlib.crc32(f'{s} {g} {self.seed}'.encode()))
    return self._cross.update(state, rows, {'weight': weight})

  def merge(self, a, b):
    return self._cross.merge(a, b)

  def finish(self, state):
    return self._cross.finish(state)


def project(x: Array, width: int, seed: int) -> Array:
  """Rows x [N, D] -> [N, width], or [N, D] if that is less: signed sums over random buckets of equal size."""
  d = x.shape[1]
  if d <= width:
    return x
  rng = np.random.default_rng(seed)
  order = np.concatenate([rng.permutation(d), np.full(-d % width, d)])
  sign = rng.choice(np.array([-1, 1], np.int8), d)
  x = jnp.pad(x * jnp.asarray(sign, x.dtype)[None], ((0, 0), (0, 1)))
  return x[:, order].reshape(len(x), -1, width).sum(1)
