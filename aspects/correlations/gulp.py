"""GULP: how differently two layers predict, in the worst ridge regression on top (Boix-Adsera et al. 2022, arXiv:2210.06545).

With centred layers of total variance 1, covariances S_x, S_y, S_xy and R_x = (S_x + lambda)^-1,
  d^2 = tr (R_x S_x)^2 + tr (R_y S_y)^2 - 2 tr R_x S_xy R_y S_yx,
the largest mean squared difference of the predictions over all tasks of norm 1. It is a metric for every lambda; at
lambda = 0 it is rank X + rank Y - 2 sum rho^2 of the canonical correlations rho, and for large lambda it tends to that
of Gram matrices, as in linear CKA. lambda is a share of the total variance, and not of a unit's.
"""
import dataclasses

import numpy as np
import xarray as xr

from aspects.correlations import cca
from aspects.nn import cross_moments as moments
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossCovariance, CrossMoments


@dataclasses.dataclass(frozen=True)
class Gulp:
  """GULP distances, and their squares, of all pairs of `sites` [site, other] for each of `lambdas`.

  Without regularisation (lambda = 0) directions with an eigenvalue below `tolerance` of the largest, units scaled to
  one variance, do not count. At least two rows are needed. A layer that does not vary cannot be normalised: NaN, and a
  warning names it. A distance below a thousandth of the root of the ranks is rounding.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  lambdas: tuple[float, ...] = (0.0, 0.01)
  tolerance: float = 3e-5

  def __post_init__(self):
    if not self.lambdas or min(self.lambdas) < 0:
      raise ValueError(f'lambdas {self.lambdas} are strengths of a ridge, from 0; the paper uses 0 to 1')
    if not 0 < self.tolerance < 1:
      raise ValueError(f'tolerance {self.tolerance} is not a ratio of eigenvalues in (0, 1)')

  @property
  def invariant(self):
    always = ('permutation', 'rotation', 'scale', 'translation')
    return {form: always + (('linear',) if strength == 0 else ()) for strength in self.lambdas
            for form in forms(strength)}

  def needs(self, specs):
    return {'cross': CrossCovariance(select(self.sites, specs), self.pool)}

  def compute(self, cross: CrossMoments) -> xr.Dataset:
    moments.enough(cross.n, 2, 'GULP distances need')
    varies = moments.varying(cross, 'their GULP distances are NaN')
    values, said = {}, {}
    for strength in self.lambdas:
      distance, squared = forms(strength)
      square = self._squares(cross, varies, strength)
      values |= {distance: np.sqrt(np.maximum(square, 0)), squared: square}
      said |= {distance: dict(long_name=f'GULP distance, lambda {strength:g}',
                              unlimited='grows with the root of the ranks'),
               squared: dict(long_name=f'squared GULP distance, lambda {strength:g}', figure='none',
                             **(dict(registry='gulp') if strength == 0 else {}))}
    return moments.maps(
        cross.mean, values, said, title='GULP', question='Which layers predict alike, whatever the task?',
        source='Boix-Adsera et al. 2022, arXiv:2210.06545', pool=self.pool, rows=float(cross.n),
        tolerance=self.tolerance, headline=forms(self.lambdas[-1])[0])

  def _squares(self, cross, varies, strength: float) -> np.ndarray:
    """Squared distances [L, L]; 0 on the diagonal, and elsewhere as they come out, not clamped."""
    roots = {s: self._root(cross, s, strength) for s in cross.mean if varies[s]}
    def pair(a, b):
      return ((((roots[a].T @ moments.scatter(cross, a, b) @ roots[b]) ** 2).sum(),),) * 2
    inner = moments.fill(cross.mean, pair, ('inner',), varies)['inner']
    own = np.diag(inner)
    return own[:, None] + own[None] - 2 * inner

  def _root(self, cross, site: str, strength: float) -> np.ndarray:
    """W [D, k] with W W' = (X'X + lambda |X|_F^2)^-1 of centred rows."""
    scatter = moments.scatter(cross, site, site)
    if strength == 0:
      return cca.whitening(scatter, int(cross.n) - 1, self.tolerance)
    value, vector = np.linalg.eigh(scatter)
    return vector / np.sqrt(np.maximum(value, 0) + strength * np.trace(scatter))


def forms(strength: float) -> tuple[str, str]:
  """The names of the distance and its square."""
  return f'gulp_distance_lambda_{strength:g}', f'gulp_squared_distance_lambda_{strength:g}'
