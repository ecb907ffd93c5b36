"""Linear CKA of layers of any width from random projections, with its standard error (count sketch: Charikar, Chen & Farach-Colton 2002; Weinberger et al. 2009, arXiv:0902.2206).

Each layer is projected `groups` times, independently, to `width` numbers: units get random signs and are added up in
random buckets of equal size. A projection keeps every inner product of rows on average, so that the debiased HSIC of
two independent projections is an unbiased estimate of that of the layers; a layer with itself is estimated from pairs
of different groups. Everything else is exact on the full stream, as in `correlations/cka`. The standard error of the
ratio, over projections and not over rows, is that of the jackknife over groups; as that counts twice what only a pair
of projections shares, it errs on the safe side, by up to 1.7 times. A layer no wider than `width` is not changed by a
projection, and its error is 0.
"""
import dataclasses
import warnings

import numpy as np
import xarray as xr

from aspects.correlations.cka import finite, normalised, squares, unbiased
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossMoments
from aspects.statistics.projected_covariance import ProjectedCovariance


@dataclasses.dataclass(frozen=True)
class CkaProjected:
  """Debiased linear CKA of all pairs of `sites` from random projections: cka_linear_song_projected [site, other].

  `error_projected` [site, other] is its standard error over projections, NaN, and a warning names the layer, where one
  projection less leaves too little. Memory is that of `groups` layers of `width`
  units a layer. Raises ValueError for fewer than four rows; a layer that does not vary has NaN, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'flatten'
  width: int = 256
  groups: int = 4
  seed: int = 0

  examples = (dict(width=4, groups=3),)
  invariant = {'cka_linear_song_projected': ('scale', 'translation')}

  def __post_init__(self):
    if self.groups < 3 or self.width < 1:
      raise ValueError(f'{self.groups} groups of width {self.width}: a standard error needs 3 groups or more, of one '
                       'unit or more; 4 of 256 is usual')

  def needs(self, specs):
    return {'cross': ProjectedCovariance(select(self.sites, specs), self.pool, width=self.width, groups=self.groups,
                                         seed=self.seed)}

  def compute(self, cross: CrossMoments) -> xr.Dataset:
    n, keys = cross.n, list(cross.mean)
    if n < 4:
      raise ValueError(f'debiased CKA needs at least 4 rows, got {n:g}; use more examples or pool=tokens')
    names = list(dict.fromkeys(s for s, _ in keys))
    trace = np.array([np.trace(cross.scatter[k, k]) for k in keys])
    finite(names, trace.reshape(-1, self.groups).sum(1))
    hsic = unbiased(squares(cross), cross.quartic, trace, n).reshape(len(names), self.groups, len(names), self.groups)
    value = normalised(averaged(hsic))
    without = np.stack([normalised(averaged(np.delete(np.delete(hsic, g, 1), g, 3))) for g in range(self.groups)])
    error = np.sqrt((self.groups - 1) * ((without - without.mean(0)) ** 2).mean(0))
    if flat := [s for s, v in zip(names, np.diag(value)) if np.isnan(v)]:
      warnings.warn(f'sites {flat} do not vary over the {n:g} rows beyond what few rows and projections do by chance: '
                    'their CKA is NaN; use more examples, or a larger width', stacklevel=2)
    if unsure := [s for s, v, e in zip(names, np.diag(value), np.diag(error)) if np.isnan(e) and not np.isnan(v)]:
      warnings.warn(f'sites {unsure} have a debiased HSIC over the {n:g} rows that is not positive without one of the '
                    'projections: their standard error is NaN; use more examples, or groups', stacklevel=2)
    dims = ('site', 'other')
    out = xr.Dataset({'cka_linear_song_projected': (dims, value), 'error_projected': (dims, error)},
                     {'site': names, 'other': names}, attrs=dict(
        aspect='correlations', title='Projected CKA', question='Which wide layers see the data alike?',
        source='Kornblith et al. 2019, arXiv:1905.00414; Weinberger et al. 2009, arXiv:0902.2206', pool=self.pool,
        rows=float(n), projection=f'{self.groups} of width {self.width}, seed {self.seed}',
        headline='cka_linear_song_projected'))
    out['cka_linear_song_projected'].attrs = dict(
        long_name=f'linear CKA, debiased, {self.groups} projections to {self.width}', units='1', figure='map',
        limits=[0, 1], registry='cka-kernel=linear-hsic=song-score')
    out['error_projected'].attrs = dict(long_name='standard error of projected CKA', units='1', figure='none')
    return out


def averaged(hsic: np.ndarray) -> np.ndarray:
  """Mean over groups [L, G, L, G] -> [L, L]; a layer with itself over different groups only."""
  count, groups = hsic.shape[:2]
  out = hsic.mean((1, 3))
  for i in range(count):
    own = hsic[i, :, i]
    out[i, i] = (own.sum() - np.trace(own)) / (groups * (groups - 1))
  return out
