"""Procrustes distances of all pairs of layers: how far apart after the best rotation (Williams et al. 2021, arXiv:2110.14739).

With centred rows X [N, D], Y [N, E], the narrower one padded by units of zero, and the nuclear norm of X'Y
  max_Q <X Q, Y> = |X'Y|_*,  Q orthogonal                              (Schoenemann 1966)
  angular score        |X'Y|_* / (|X|_F |Y|_F)
  angular distance     its arc cosine, radians in [0, pi / 2]
  Euclidean distance   sqrt(|X|_F^2 + |Y|_F^2 - 2 |X'Y|_*), in the units of the activations; it grows with the root of N
Both distances are metrics. The score is also the normalised Bures similarity (fidelity) of the Gram matrices XX', YY'
(Harvey et al. 2023, arXiv:2311.11436). All of it is read off the cross-moments of the full stream. Ding et al. (2021,
arXiv:2108.01661) use the squared Euclidean distance of layers of norm 1, which is 2 - 2 score.
"""
import dataclasses

import numpy as np
import xarray as xr

from aspects.nn import cross_moments as moments
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossCovariance, CrossMoments

SAID = {
    'procrustes_angular_score': dict(long_name='Procrustes score', limits=[0, 1], registry='procrustes-score'),
    'procrustes_angular_distance': dict(long_name='angular Procrustes distance', units='rad', limits=[0, np.pi / 2],
                                        registry='procrustes-distance=angular'),
    'procrustes_euclidean_distance': dict(long_name='Euclidean Procrustes distance', units='activation',
                                          registry='procrustes-distance=euclidean')}


@dataclasses.dataclass(frozen=True)
class Procrustes:
  """Procrustes score, angular and Euclidean distance of all pairs of `sites` [site, other], exact on the full stream.

  Rows are pooled by `pool` (see `aspects.stats`); at least two are needed. A distance of two different layers below a
  thousandth of their size is rounding, the root of that of float32 moments. A layer that does not vary is no shape: its
  score and angle are NaN, its Euclidean distance is the size of the other layer, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'

  invariant = {'procrustes_angular_score': ('permutation', 'rotation', 'scale', 'translation'),
               'procrustes_angular_distance': ('permutation', 'rotation', 'scale', 'translation'),
               'procrustes_euclidean_distance': ('permutation', 'rotation', 'translation')}

  def needs(self, specs):
    return {'cross': CrossCovariance(select(self.sites, specs), self.pool)}

  def compute(self, cross: CrossMoments) -> xr.Dataset:
    moments.enough(cross.n, 2, 'Procrustes distances need')
    varies = moments.varying(cross, 'their angular Procrustes distances are NaN')
    def pair(a, b):
      block = moments.scatter(cross, a, b)
      nuclear = np.trace(block) if a == b else np.linalg.svd(block, compute_uv=False).sum()
      return ((nuclear,),) * 2
    aligned = moments.fill(cross.mean, pair, ('aligned',))['aligned']
    shape = shapes(aligned, varies)
    return moments.maps(
        cross.mean, dict(zip(SAID, shape)), SAID, title='Procrustes distances',
        question='Which layers have the same shape, up to a rotation?',
        source='Williams et al. 2021, arXiv:2110.14739; Schoenemann 1966', pool=self.pool, rows=float(cross.n),
        headline='procrustes_angular_distance')


def shapes(aligned: np.ndarray, varies) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(score, angle, Euclidean distance) [L, L] of the inner products [L, L] of aligned layers, their squared sizes on
  the diagonal; score and angle are NaN for layers that do not vary."""
  square = np.diag(aligned)
  size = np.sqrt(np.where(list(varies.values()), square, np.nan))
  score = aligned / np.outer(size, size)
  apart = square[:, None] + square[None] - 2 * aligned
  return score, np.arccos(np.clip(score, -1, 1)), np.sqrt(np.maximum(apart, 0))
