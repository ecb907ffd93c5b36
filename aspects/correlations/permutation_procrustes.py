"""Permutation Procrustes: how far apart layers are after the best one-to-one matching of units (Williams et al. 2021, arXiv:2110.14739).

With centred rows X [N, D], Y [N, E] and the best assignment of units (Kuhn 1955, by the cross-scatter X'Y)
  m = max_P <X P, Y>,  P a permutation
  angular score        m / (|X|_F |Y|_F)
  angular distance     its arc cosine, radians in [0, pi / 2]
  Euclidean distance   sqrt(|X|_F^2 + |Y|_F^2 - 2 m), in the units of the activations; it grows with the root of N
Layers of unequal widths: the narrower one is padded by units of zero, as in netrep; whatever is matched with one counts
as unmatched, so that a negative cross-scatter is never taken if there is padding to take instead. Both distances are
metrics, and never smaller than those of Procrustes.
"""
import dataclasses

import numpy as np
from scipy import optimize
import xarray as xr

from aspects.correlations.procrustes import shapes
from aspects.nn import cross_moments as moments
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossCovariance, CrossMoments

SAID = {
    'permutation_procrustes_angular_score': dict(
        long_name='score of the best matching of units', limits=[0, 1], registry='permutation_metric-score'),
    'permutation_procrustes_angular_distance': dict(
        long_name='angular distance after the best matching of units', units='rad', limits=[0, np.pi / 2],
        registry='permutation_metric-distance=angular'),
    'permutation_procrustes_euclidean_distance': dict(
        long_name='Euclidean distance after the best matching of units', units='activation',
        registry='permutation_metric-distance=euclidean')}


@dataclasses.dataclass(frozen=True)
class PermutationProcrustes:
  """Distances of all pairs of `sites` [site, other] after the best permutation of units, exact on the full stream.

  At least two rows are needed. A layer that does not vary is no shape: its score and angle are NaN, and a warning
  names it; a unit that does not vary is like padding. The matching takes O(D^3) on the host for each pair.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'

  invariant = {'permutation_procrustes_angular_score': ('permutation', 'scale', 'translation'),
               'permutation_procrustes_angular_distance': ('permutation', 'scale', 'translation'),
               'permutation_procrustes_euclidean_distance': ('permutation', 'translation')}

  def needs(self, specs):
    return {'cross': CrossCovariance(select(self.sites, specs), self.pool)}

  def compute(self, cross: CrossMoments) -> xr.Dataset:
    moments.enough(cross.n, 2, 'permutation Procrustes distances need')
    varies = moments.varying(cross, 'their angular permutation distances are NaN')
    def pair(a, b):
      block = moments.scatter(cross, a, b)
      return ((np.trace(block) if a == b else matched(block),),) * 2
    aligned = moments.fill(cross.mean, pair, ('aligned',))['aligned']
    return moments.maps(
        cross.mean, dict(zip(SAID, shapes(aligned, varies))), SAID, title='Permutation Procrustes distances',
        question='Which layers are the same up to the order of their units?',
        source='Williams et al. 2021, arXiv:2110.14739', pool=self.pool, rows=float(cross.n),
        headline='permutation_procrustes_angular_distance')


def matched(block: np.ndarray) -> float:
  """The largest sum over a one-to-one matching of rows and columns of [D, E], padded by zeros to a square."""
  side = max(block.shape)
  square = np.pad(block, [(0, side - size) for size in block.shape])
  return square[optimize.linear_sum_assignment(square, maximize=True)].sum()
