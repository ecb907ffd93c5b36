"""Similarity of Neural Network Representations Revisited: linear CKA of all pairs of layers (Kornblith et al. 2019, arXiv:1905.00414).

With centred rows x, y and C = sum x y', two estimators of HSIC(X, Y) are normalised by the same estimator of
HSIC(X, X) and HSIC(Y, Y):
  biased    |C|_F^2                                                    (Gretton et al. 2005)
  debiased  [|C|_F^2 - q + t_x t_y / ((n-1)(n-2)) - 2 q / (n-2)] / (n (n-3)),   q = sum |x|^2 |y|^2,  t = sum |x|^2
The second is the U-statistic of Song et al. (2012, JMLR 13) for the linear kernel, written in moments, so that it is
exact on the full stream without any n x n matrix; Nguyen, Raghu & Kornblith (2021, arXiv:2010.15327) average it over
batches instead. It may be negative, and nothing is clamped.
"""
import dataclasses
import warnings

import numpy as np
import xarray as xr

from aspects import inference
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossCovariance, CrossMoments


@dataclasses.dataclass(frozen=True)
class Cka:
  """Linear CKA, biased and debiased, of all pairs of `sites`: cka_linear_* [site, other].

  Rows are pooled by `pool` (see `aspects.stats`). At least four rows are needed for the debiased form. A layer that
  does not vary, or whose debiased HSIC with itself is not positive because rows are few, has no CKA: NaN, and a
  warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'

  invariant = {f'cka_linear_{form}': ('permutation', 'rotation', 'scale', 'translation')
               for form in ('biased', 'debiased')}

  def needs(self, specs):
    return {'cross': CrossCovariance(select(self.sites, specs), self.pool)}

  def compute(self, cross: CrossMoments) -> xr.Dataset:
    n, names = cross.n, list(cross.mean)
    if n < 4:
      raise ValueError(f'debiased CKA needs at least 4 rows, got {n:g}; use more examples or pool=tokens')
    count = len(names)
    square, trace = np.zeros((count, count)), np.zeros(count)
    for i, a in enumerate(names):
      trace[i] = np.trace(cross.scatter[a, a])
      for j, b in enumerate(names[i:], i):
        square[i, j] = square[j, i] = (cross.scatter[a, b] ** 2).sum()
    q = cross.quartic
    unbiased = (square - q + np.outer(trace, trace) / ((n - 1) * (n - 2)) - 2 * q / (n - 2)) / (n * (n - 3))
    if flat := [s for s, own in zip(names, np.diag(unbiased)) if not own > 0]:
      warnings.warn(f'sites {flat} do not vary over the {n:g} rows beyond what few rows do by chance: their debiased '
                    'CKA is NaN; use more examples', stacklevel=2)
    widths = [cross.scatter[s, s].shape[0] for s in names]
    null = np.array([[inference.null_cka((a, b), int(n)) for b in widths] for a in widths])
    dims, coords = ('site', 'other'), {'site': names, 'other': names}
    variables = {'cka_linear_debiased': (dims, normalised(unbiased)), 'cka_linear_biased': (dims, normalised(square)),
                 'null_biased': (dims, null)}
    out = xr.Dataset(variables, coords, attrs=dict(
        aspect='correlations', title='Centred kernel alignment', question='Which layers see the data alike?',
        source='Kornblith et al. 2019, arXiv:1905.00414', pool=self.pool, rows=float(n),
        headline='cka_linear_debiased'))
    for form in ('debiased', 'biased'):
      out[f'cka_linear_{form}'].attrs = dict(long_name=f'linear CKA, {form}', units='1', figure='map', limits=[0, 1])
    out['cka_linear_biased'].attrs |= dict(null='null_biased', null_label='independent isotropic Gaussians')
    out['null_biased'].attrs = dict(long_name='linear CKA, biased, of independent rows', units='1', figure='none')
    return out


def normalised(hsic: np.ndarray) -> np.ndarray:
  """HSIC [L, L] over the geometric mean of its diagonal; NaN where that is not positive."""
  own = np.sqrt(np.where(np.diag(hsic) > 0, np.diag(hsic), np.nan))
  return hsic / np.outer(own, own)
