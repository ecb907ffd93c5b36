"""Similarity of Neural Network Representations Revisited: linear CKA of all pairs of layers (Kornblith et al. 2019, arXiv:1905.00414).

With centred rows x, y and C = sum x y', three estimators of HSIC(X, Y) are normalised by the same estimator of
HSIC(X, X) and HSIC(Y, Y):
  gretton  |C|_F^2, biased                                             (Gretton et al. 2005)
  song     [|C|_F^2 - q + t_x t_y / ((n-1)(n-2)) - 2 q / (n-2)] / (n (n-3)), debiased,   q = sum |x|^2 |y|^2,
           t = sum |x|^2                                               (Song et al. 2012, JMLR 13)
  lange    |C|_F^2 - q, the centred Gram matrices without their diagonals     (Lange et al. 2023, arXiv:2206.10999)
Written in moments they are exact on the full stream without any n x n matrix; Nguyen, Raghu & Kornblith (2021,
arXiv:2010.15327) average song over batches instead: `correlations/cka_minibatch`. song may be negative, and nothing is
clamped.
"""
import dataclasses
from typing import Sequence
import warnings

import numpy as np
import xarray as xr

from aspects import inference
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossCovariance, CrossMoments

FORMS = {'song': 'debiased', 'gretton': 'biased', 'lange': 'without the diagonal'}


@dataclasses.dataclass(frozen=True)
class Cka:
  """Linear CKA of all pairs of `sites` by three estimators: cka_linear_song, _gretton, _lange [site, other].

  Rows are pooled by `pool` (see `aspects.stats`). The debiased form needs at least four. A layer that does not vary, or
  whose debiased HSIC with itself is not positive because rows are few, has no CKA: NaN, and a warning names it.
  Activations that are not finite are refused with the name of their site.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'

  invariant = {f'cka_linear_{form}': ('permutation', 'rotation', 'scale', 'translation') for form in FORMS}

  def needs(self, specs):
    return {'cross': CrossCovariance(select(self.sites, specs), self.pool)}

  def compute(self, cross: CrossMoments) -> xr.Dataset:
    n, names = cross.n, list(cross.mean)
    if n < 4:
      raise ValueError(f'debiased CKA needs at least 4 rows, got {n:g}; use more examples or pool=tokens')
    finite(names, [np.diag(cross.scatter[s, s]).sum() for s in names])
    square, trace = squares(cross), np.array([np.trace(cross.scatter[s, s]) for s in names])
    forms = {'song': unbiased(square, cross.quartic, trace, n), 'gretton': square, 'lange': square - cross.quartic}
    if flat := [s for s, own in zip(names, np.diag(forms['song'])) if not own > 0]:
      warnings.warn(f'sites {flat} do not vary over the {n:g} rows beyond what few rows do by chance: their debiased '
                    'CKA is NaN; use more examples', stacklevel=2)
    widths = np.array([cross.scatter[s, s].shape[0] for s in names])
    dims, coords = ('site', 'other'), {'site': names, 'other': names}
    variables = {f'cka_linear_{form}': (dims, normalised(hsic)) for form, hsic in forms.items()}
    out = xr.Dataset(variables, coords, attrs=dict(
        aspect='correlations', title='Centred kernel alignment', question='Which layers see the data alike?',
        source='Kornblith et al. 2019, arXiv:1905.00414', pool=self.pool, rows=float(n), headline='cka_linear_song'))
    out['null_gretton'] = dims, inference.null_cka((widths[:, None], widths[None]), int(n))
    for form, name in FORMS.items():
      out[f'cka_linear_{form}'].attrs = dict(long_name=f'linear CKA, {name}', units='1', figure='map', limits=[0, 1],
                                             registry=f'cka-kernel=linear-hsic={form}-score')
    out['cka_linear_gretton'].attrs |= dict(null='null_gretton', null_label='independent isotropic Gaussians')
    out['null_gretton'].attrs = dict(long_name='linear CKA, biased, of independent rows', units='1', figure='none')
    return out


def finite(sites: Sequence[str], sums: Sequence[float]) -> None:
  """Refuses sites whose sums of squares, one a site, are not finite.

  Raises:
    ValueError: names them."""
  if bad := [s for s, value in zip(sites, sums) if not np.isfinite(value)]:
    raise ValueError(f'sites {bad} have activations that are not finite, or too large to square in float32')


def squares(cross: CrossMoments) -> np.ndarray:
  """|C|_F^2 of all pairs: [L, L]."""
  names = list(cross.mean)
  out = np.zeros((len(names), len(names)))
  for i, a in enumerate(names):
    for j, b in enumerate(names[i:], i):
      out[i, j] = out[j, i] = np.vdot(cross.scatter[a, b], cross.scatter[a, b])
  return out


def unbiased(square: np.ndarray, quartic: np.ndarray, trace: np.ndarray, n: float) -> np.ndarray:
  """Debiased HSIC [L, L] from sums over centred rows: |C|^2, sum |x|^2 |y|^2 and sum |x|^2 (Song et al. 2012)."""
  far = np.outer(trace, trace) / ((n - 1) * (n - 2)) - 2 * quartic / (n - 2)
  return (square - quartic + far) / (n * (n - 3))


def normalised(hsic: np.ndarray) -> np.ndarray:
  """HSIC [L, L] over the geometric mean of its diagonal; NaN where that is not positive."""
  own = np.where(np.diag(hsic) > 0, np.diag(hsic), np.nan)
  return hsic / np.sqrt(np.outer(own, own))
