"""Covariance and class means of sites in one pass, for ridge probes and class geometry (Chan, Golub & LeVeque 1983)."""
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aspects import stats
from aspects.statistics.covariance import Covariance, Moments


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
    t = {s: stats.working(specs[s].dtype) for s in self.sites}
    def empty(s):
      shape = (self.classes, stats.width(specs[s], self.pool))
      return stats.Sum.zeros(shape[:1], t[s]), stats.Sum.zeros(shape, t[s])
    return self._rows.init(specs), {s: empty(s) for s in self.sites}

  def update(self, state, acts, batch):
    moments, sums = {}, {}
    for s in self.sites:
      x, weight = stats.rows(acts[s], batch, self.pool)
      weight = weight * stats.in_fold(acts[s], batch, self.pool, self.fold)
      labels = stats.row_labels(acts[s], batch, self.pool, self.classes, self.labels)
      hot = jax.nn.one_hot(labels, self.classes, dtype=x.dtype)
      n, mean, x = stats.centre(x, weight)
      moments[s] = Moments(stats.Sum(n, jnp.zeros_like(n)), mean, stats.Sum(stats.product(x, x), 0))
      total = stats.product(hot * jnp.sqrt(weight)[:, None], x)
      sums[s] = (stats.Sum((hot * weight[:, None]).sum(0), 0), stats.Sum(total, 0))
    return self.merge(state, (moments, sums))

  def merge(self, a, b):
    def join(a_moments, a_sums, b_moments, b_sums):
      _, _, left, right = stats.joint(a_moments.n, a_moments.mean, b_moments.n, b_moments.mean)
      moved = a_sums[0].value()[:, None] * left[None] + b_sums[0].value()[:, None] * right[None]
      return a_sums[0].plus(b_sums[0]), a_sums[1].plus(b_sums[1]).plus(moved)
    sums = {s: join(a[0][s], a[1][s], b[0][s], b[1][s]) for s in self.sites}
    return self._rows.merge(a[0], b[0]), sums

  def finish(self, state):
    out = {}
    for s in self.sites:
      m, (count, total) = stats.float64(state[0][s]), stats.float64(state[1][s])
      out[s] = ClassMoments(m.n, m.mean, m.scatter, count,
                            m.mean[None] + total / np.maximum(count, 1)[:, None])
    return out
