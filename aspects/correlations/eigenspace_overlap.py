"""Eigenspace overlap: how far two layers span the same space of functions of the data (May et al. 2019, arXiv:1909.01264).

With orthonormal bases U, V of the column spaces of X [N, D] and Y [N, E]
  eigenspace_overlap_score           |U'V|_F^2 / max(rank X, rank Y), X and Y as they are
  eigenspace_overlap_centred_score   the same of centred rows: the mean squared canonical correlation, but over the
                                     larger rank and not the smaller
1 says that one linear layer on top fits the same functions on either. The first has no intercept, as in the paper, so
that the mean counts as a direction. The paper divides by widths, which are the ranks of layers without idle units.

Both are read off the cross-moments. With W whitening the centred rows and m = W' mean, the inverse root of
W'X'X W = 1 + n m m' is known, so that a mean of many deviations costs no digits.
"""
import dataclasses

import numpy as np
import xarray as xr

from aspects.correlations import cca
from aspects.nn import cross_moments as moments
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossCovariance, CrossMoments

APART = 1e-3             # of the scaled mean: more than this outside the directions that vary is one of its own
SAID = {
    'eigenspace_overlap_score': dict(long_name='eigenspace overlap', limits=[0, 1],
                                     registry='eigenspace_overlap_score'),
    'eigenspace_overlap_centred_score': dict(long_name='eigenspace overlap of centred layers', limits=[0, 1])}


@dataclasses.dataclass(frozen=True)
class EigenspaceOverlap:
  """Eigenspace overlap of all pairs of `sites` [site, other], with and without the mean, exact on the full stream.

  Directions with an eigenvalue below `tolerance` of the largest, units scaled to one variance, do not count. At least
  two rows are needed; a layer of rank n holds all others. A layer that does not vary spans its mean at most: its
  centred overlap is NaN, and so is the other if its mean is zero; a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  tolerance: float = 3e-5

  invariant = {'eigenspace_overlap_score': ('permutation', 'rotation', 'scale', 'linear'),
               'eigenspace_overlap_centred_score': ('permutation', 'rotation', 'scale', 'translation', 'linear')}

  def __post_init__(self):
    if not 0 < self.tolerance < 1:
      raise ValueError(f'tolerance {self.tolerance} is not a ratio of eigenvalues in (0, 1)')

  def needs(self, specs):
    return {'cross': CrossCovariance(select(self.sites, specs), self.pool)}

  def compute(self, cross: CrossMoments) -> xr.Dataset:
    moments.enough(cross.n, 2, 'eigenspace overlap needs')
    moments.varying(cross, 'their eigenspaces are that of the mean')
    bases = {s: self._basis(cross, s) for s in cross.mean}
    def pair(a, b):
      (w, turn), (v, back) = bases[a], bases[b]
      centred = w.T @ moments.scatter(cross, a, b) @ v
      # The functions 1 / sqrt(n) and w' (x - mean) are orthonormal; `turn` has the basis of X in these.
      whole = turn.T @ np.block([[np.ones((1, 1)), np.zeros((1, v.shape[1]))],
                                 [np.zeros((w.shape[1], 1)), centred]]) @ back
      return ((overlap(whole), overlap(centred)),) * 2
    values = moments.fill(cross.mean, pair, tuple(SAID))
    return moments.maps(
        cross.mean, values, SAID, title='Eigenspace overlap', question='Do layers span the same functions of the data?',
        source='May et al. 2019, arXiv:1909.01264', pool=self.pool, rows=float(cross.n), tolerance=self.tolerance,
        headline='eigenspace_overlap_score')

  def _basis(self, cross, site: str) -> tuple[np.ndarray, np.ndarray]:
    """(W [D, rank] whitening the centred rows, the basis of X in the functions 1 / sqrt(n) and W'(x - mean))."""
    scatter = moments.scatter(cross, site, site)
    idle = np.diag(scatter) == 0
    w = cca.whitening(scatter, int(cross.n) - 1, self.tolerance)
    mean, rank = cross.mean[site], w.shape[1]
    size = np.sqrt(np.where(idle, np.inf, np.diag(scatter)))
    outside = mean / size - (scatter @ w @ (w.T @ mean)) / size
    if (idle & (mean != 0)).any() or np.linalg.norm(outside) > APART * np.linalg.norm(mean / size):
      return w, np.eye(1 + rank)                     # some mix of units is constant: 1 is in the space
    m = np.sqrt(cross.n) * (w.T @ mean)
    # Column space of [m'; 1] [1 + rank, rank]: orthonormal by the inverse root of 1 + m m'.
    length = np.sqrt(m @ m)
    along = m / length if length > 0 else m
    shrink = 1 / np.hypot(1, length)
    return w, np.concatenate([length * shrink * along[None], np.eye(rank) + (shrink - 1) * np.outer(along, along)])


def overlap(product: np.ndarray) -> float:
  """|U'V|_F^2 over the larger rank; NaN where one of them is 0."""
  return (product ** 2).sum() / max(product.shape) if min(product.shape) else np.nan
