"""Shape distances between CCA and Procrustes, by partial whitening (Williams et al. 2021, arXiv:2110.14739).

A layer with centred rows X and eigenvalues lambda of X'X is whitened in part, then rotated:
  X_alpha = X (alpha I + (1 - alpha) (X'X)^(-1/2))
  distance = arccos(|X_alpha' Y_alpha|_* / (|X_alpha|_F |Y_alpha|_F))
alpha = 1 is the angular Procrustes distance, alpha = 0 that of canonical correlations, whose cosine is
sum rho / sqrt(rank X rank Y). Every alpha is a metric, in radians.

X'X is a sum over rows, as in netrep: between 0 and 1 the weight of the two ends then depends on the units of the
activations and on the number of rows. `normalise='variance'` first divides each layer by the root of its mean
eigenvalue, so that the same alpha means the same for any scale and any number of rows. Directions with an eigenvalue
below `tolerance` of the largest are not whitened.
"""
import dataclasses

import numpy as np
import xarray as xr

from aspects.correlations.procrustes import shapes
from aspects.nn import cross_moments as moments
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossCovariance, CrossMoments

NORMS = ('none', 'variance')


@dataclasses.dataclass(frozen=True)
class ShapeDistance:
  """Angular shape distances of all pairs of `sites` [site, other], one variable for each of `alphas`.

  At least two rows are needed. With alpha = 0 a layer whose rank reaches n - 1 holds all other layers. A layer that
  does not vary has no shape: NaN, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  alphas: tuple[float, ...] = (0.0, 0.5)
  normalise: str = 'none'
  tolerance: float = 1e-6

  def __post_init__(self):
    if not self.alphas or not all(0 <= a <= 1 for a in self.alphas):
      raise ValueError(f'alphas {self.alphas} are not in [0, 1]: 0 whitens (CCA), 1 only rotates (Procrustes)')
    if self.normalise not in NORMS:
      raise ValueError(f'normalise {self.normalise!r} is not one of {", ".join(NORMS)}')
    if not 0 < self.tolerance < 1:
      raise ValueError(f'tolerance {self.tolerance} is not a ratio of eigenvalues in (0, 1)')

  @property
  def invariant(self):
    always = ('permutation', 'rotation', 'translation')
    scale = lambda a: ('scale',) if a in (0, 1) or self.normalise == 'variance' else ()
    return {form(a): (*always, *scale(a), *(('linear',) if a == 0 else ())) for a in self.alphas}

  def needs(self, specs):
    return {'cross': CrossCovariance(select(self.sites, specs), self.pool)}

  def compute(self, cross: CrossMoments) -> xr.Dataset:
    moments.enough(cross.n, 2, 'shape distances need')
    varies = moments.varying(cross, 'their shape distances are NaN')
    names = list(cross.mean)
    values = {form(a): self._distances(cross, names, varies, a) for a in self.alphas}
    said = {form(a): dict(long_name=f'angular shape distance, alpha {a:g}', units='rad', limits=[0, np.pi / 2],
                          registry=f'shape_metric-alpha={a:g}-distance=angular') for a in self.alphas}
    return moments.maps(
        names, values, said, title='Shape distances', question='Which layers have the same shape, between any linear '
        'map and a rotation?', source='Williams et al. 2021, arXiv:2110.14739', pool=self.pool, rows=float(cross.n),
        normalise=self.normalise, tolerance=self.tolerance, headline=form(self.alphas[-1]))

  def _distances(self, cross, names, varies, alpha: float) -> np.ndarray:
    """[L, L], radians."""
    maps = {s: self._map(cross, s, alpha) for s in names if varies[s]}
    def pair(a, b):
      mapped = maps[a].T @ moments.scatter(cross, a, b) @ maps[b]
      return ((np.trace(mapped) if a == b else np.linalg.svd(mapped, compute_uv=False).sum(),),) * 2
    return shapes(moments.fill(names, pair, ('aligned',), varies)['aligned'], varies)[1]

  def _map(self, cross, site: str, alpha: float) -> np.ndarray:
    """alpha I + (1 - alpha) (X'X)^(-1/2) [D, D] for the rows of a site, normalised."""
    scatter = moments.scatter(cross, site, site)
    size = np.sqrt(np.trace(scatter) / len(scatter)) if self.normalise == 'variance' else 1
    value, vector = np.linalg.eigh(scatter / size ** 2)
    kept = value > self.tolerance * value[-1]
    inverse = np.where(kept, 1 / np.sqrt(np.where(kept, value, 1)), 0)
    return (vector * (alpha + (1 - alpha) * inverse)) @ vector.T / size


def form(alpha: float) -> str:
  return f'shape_angular_distance_alpha_{alpha:g}'
