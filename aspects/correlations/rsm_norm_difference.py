"""RSM norm difference: how far apart the similarity matrices of layers are, as matrices (Klabunde et al. 2023, arXiv:2305.06329).

With centred rows x_i, y_i, C = sum x_i y_i', t = sum |x|^2, q = sum |x|^2 |y|^2, norms of two kinds of differences are
exact on the full stream, |S - S'|^2 = <S, S> - 2 <S, S'> + <S', S'>, from the moments alone:
  linear              S_ij = x_i'x_j, all entries             <S, S'> = |C|_F^2
  squared Euclidean   S_ij = |x_i - x_j|^2, pairs i < j       <S, S'> = n q + t t' + 2 |C|_F^2
  Euclidean           S_ij = |x_i - x_j|, pairs i < j         of a fixed, seeded sample of rows: no polynomial of them
The last is what most code computes. All grow with the number of rows that they are over and with the units of the
activations: compare values over equally many. ReSi takes the spectral norm of the whole matrix of Euclidean distances,
where its comment says the norm of the pairs; the latter is meant here.
"""
import dataclasses

import numpy as np
from scipy.spatial import distance
import xarray as xr

from aspects import stats
from aspects.nn import cross_moments as moments
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossCovariance, CrossMoments
from aspects.statistics.sample import Rows, Sample

SAID = {
    'rsm_norm_difference_linear': dict(long_name='norm of the difference of Gram matrices', units='activation^2'),
    'rsm_norm_difference_squared_euclidean': dict(
        long_name='norm of the difference of squared Euclidean distances', units='activation^2'),
    'rsm_norm_difference_euclidean': dict(
        long_name='norm of the difference of Euclidean distances, of a sample', units='activation',
        registry='rsm_norm_difference')}


@dataclasses.dataclass(frozen=True)
class RsmNormDifference:
  """Norms of differences of similarity matrices for all pairs of `sites` [site, other]; 0 is alike.

  Two are over all rows, `rsm_norm_difference_euclidean` over a uniform sample of at most `size`, drawn with `seed`; the
  attribute `sampled` says how many it has. At least two rows are needed. A layer that does not vary has a matrix of
  zeros; a warning names it. A difference below a thousandth of the norms of the matrices is rounding.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  size: int = 512
  seed: int = 0

  invariant = {name: ('permutation', 'rotation', 'translation') for name in SAID}

  def needs(self, specs):
    chosen = select(self.sites, specs)
    return {'cross': CrossCovariance(chosen, self.pool), 'rows': Sample(chosen, self.size, self.pool, seed=self.seed)}

  def compute(self, cross: CrossMoments, rows: Rows) -> xr.Dataset:
    moments.enough(cross.n, 2, 'differences of similarity matrices need')
    moments.varying(cross, 'their similarity matrices are zero')
    def pair(a, b):
      return (((moments.scatter(cross, a, b) ** 2).sum(),),) * 2
    square = moments.fill(cross.mean, pair, ('square',))['square']
    trace = np.array([np.trace(cross.scatter[s, s]) for s in cross.mean])
    euclidean = cross.n * cross.quartic + np.outer(trace, trace) + 2 * square
    values = dict(zip(SAID, (apart(square), apart(euclidean), of_pairs(list(rows.x.values())))))
    return moments.maps(
        cross.mean, values, SAID, title='RSM norm difference',
        question='How far apart are the similarities that layers give to the examples?',
        source='Klabunde et al. 2023, arXiv:2305.06329', pool=self.pool, rows=float(cross.n), sampled=len(rows.index),
        sample=f'rsm_norm_difference_euclidean: at most {self.size} rows, drawn uniformly with seed {self.seed}',
        headline='rsm_norm_difference_linear')


def apart(inner: np.ndarray) -> np.ndarray:
  """Distances [L, L] of vectors with these inner products [L, L]."""
  own = np.diag(inner)
  return np.sqrt(np.maximum(own[:, None] + own[None] - 2 * inner, 0))


def of_pairs(rows: list[np.ndarray]) -> np.ndarray:
  """|d - d'| [L, L] of the Euclidean distances of all pairs of rows, each [N, D]."""
  vectors = stats.side_by_side(distance.pdist, rows)
  return np.array([[np.linalg.norm(a - b) for b in vectors] for a in vectors])
