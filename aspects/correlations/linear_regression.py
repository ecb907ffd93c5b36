"""Linear regression between layers: how much of one is linear in the other, fitted on one half and scored on the other (Kornblith et al. 2019, arXiv:1905.00414).

Y is predicted from X by least squares with an intercept; with B the coefficients of the first half of the examples
  R2 = 1 - sum |y - prediction|^2 / sum |y - mean y|^2
over rows and units, on the second half about its own mean: 1 is perfect, 0 is as good as the mean, and a fit that does
not carry over is negative. `in_sample` fits and scores on all rows, |Q_X' Y|_F^2 / |Y|_F^2 of centred layers in
Kornblith et al.: it only grows with the units of X and is 1 once they are as many as the rows. All of it is read off
the cross-moments of the two halves. `ridge` adds this share of the mean variance of the units of X to their covariance.
"""
import dataclasses
import warnings

import numpy as np
import xarray as xr

from aspects.correlations import cca
from aspects.nn import cross_moments as moments
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossCovariance, CrossMoments

SAID = {
    'linear_regression_r2': dict(long_name='R2 of the column\'s layer, predicted from the row\'s, on other examples',
                                 limits=[0, 1]),
    'linear_regression_r2_in_sample': dict(
        long_name='R2 of the column\'s layer, predicted from the row\'s, in sample', limits=[0, 1],
        registry='linear_regression')}


@dataclasses.dataclass(frozen=True)
class LinearRegression:
  """R2 of predicting the layer on the axis `other` from that on the axis `site`: [site, other], not symmetric.

  Examples are halved by a hash of their index (folds `first` and `second`). Without ridge, directions of X whose
  eigenvalue is below `tolerance` of the largest, units scaled to one variance, are left out, so that copies and
  constants change nothing and layers wider than the rows get the shortest solution; a warning names these. A layer
  that does not vary predicts nothing, and R2 of it is NaN; a warning names it. Each half needs two rows.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  ridge: float = 0.0
  tolerance: float = 3e-5

  invariant = {name: ('permutation', 'rotation', 'scale', 'translation') for name in SAID}

  def __post_init__(self):
    if self.ridge < 0:
      raise ValueError(f'ridge {self.ridge} is a share of the variance, from 0')
    if not 0 < self.tolerance < 1:
      raise ValueError(f'tolerance {self.tolerance} is not a ratio of eigenvalues in (0, 1)')

  def needs(self, specs):
    chosen = select(self.sites, specs)
    return {fold: CrossCovariance(chosen, self.pool, fold) for fold in ('first', 'second')}

  def compute(self, first: CrossMoments, second: CrossMoments) -> xr.Dataset:
    moments.enough(min(first.n, second.n), 2, f'of {first.n + second.n:g} rows each half of a regression needs')
    whole = joined(first, second)
    varies = {s: all(moments.variance(half, s).any() for half in (first, second)) for s in whole.mean}
    if constant := [s for s, v in varies.items() if not v]:
      warnings.warn(f'sites {constant} do not vary over the rows of both halves: their R2 is NaN', stacklevel=2)
    names = list(whole.mean)
    fits = {s: (self._root(first, s), self._root(whole, s)) for s in names if varies[s]}
    if full := [s for s, (root, _) in fits.items() if root.shape[1] >= first.n - 1 and self.ridge == 0]:
      warnings.warn(f'sites {full} have as many directions as the {first.n:g} rows that are fitted: anything is '
                    'predicted without error there; use more examples or ridge', stacklevel=2)
    def r2(x, y):
      each = zip((first, whole), (second, whole), fits[x])
      return tuple(explained(root, *parts, x, y) for *parts, root in each)
    values = moments.fill(names, lambda a, b: (r2(a, b), r2(b, a)), tuple(SAID), varies)
    return moments.maps(
        names, values, SAID, title='Linear regression', question='Which layers can be read off which, linearly?',
        source='Kornblith et al. 2019, arXiv:1905.00414', pool=self.pool, rows=float(whole.n),
        rows_fitted=float(first.n), rows_scored=float(second.n), ridge=self.ridge, tolerance=self.tolerance,
        headline='linear_regression_r2')

  def _root(self, cross, site: str) -> np.ndarray:
    """W [D, rank] with W W' = (X'X + ridge)^-1 of centred rows, on the directions that count."""
    scatter = moments.scatter(cross, site, site)
    if self.ridge == 0:
      return cca.whitening(scatter, int(cross.n) - 1, self.tolerance)
    value, vector = np.linalg.eigh(scatter)
    return vector / np.sqrt(np.maximum(value, 0) + self.ridge * value.mean())


def joined(a: CrossMoments, b: CrossMoments) -> CrossMoments:
  """The moments of both samples together; without the fourth-order sums, which this measure does not use."""
  n = a.n + b.n
  gap = {s: b.mean[s] - a.mean[s] for s in a.mean}
  between = lambda s, t: np.outer(gap[s], gap[t]) * a.n * b.n / n
  mean = {s: a.mean[s] + gap[s] * b.n / n for s in a.mean}
  return CrossMoments(n, mean, {k: a.scatter[k] + b.scatter[k] + between(*k) for k in a.scatter}, None)


def explained(root: np.ndarray, fitted: CrossMoments, scored: CrossMoments, x: str, y: str) -> float:
  """R2 of `y` on the rows `scored`, predicted from `x` by least squares on `fitted`, whose inverse is `root root'`."""
  b = root @ (root.T @ moments.scatter(fitted, x, y))
  shift = scored.mean[y] - fitted.mean[y] - (scored.mean[x] - fitted.mean[x]) @ b
  total = np.trace(moments.scatter(scored, y, y))
  left = total - 2 * (b * moments.scatter(scored, x, y)).sum() + (b * (moments.scatter(scored, x, x) @ b)).sum()
  return 1 - (left + scored.n * (shift ** 2).sum()) / total
