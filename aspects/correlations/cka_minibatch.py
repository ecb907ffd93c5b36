"""Minibatch CKA: debiased CKA of wide layers from small Gram matrices (Nguyen, Raghu & Kornblith 2021, arXiv:2010.15327).

Debiased HSIC (Song et al. 2012) is unbiased for every block of rows, so that its mean over blocks estimates the same
value as all rows together, with Gram matrices of block x block only. Where the width of a layer allows it,
`correlations/cka` gives the value of all rows exactly; its blocks all count by their rows, so that the last, smaller
one does not weigh more.
"""
import dataclasses
import warnings

import numpy as np
import xarray as xr

from aspects.correlations.cka import finite, normalised
from aspects.sites import select
from aspects.statistics.minibatch_hsic import FEWEST, KERNELS, BlockHsic, MinibatchHsic


@dataclasses.dataclass(frozen=True)
class CkaMinibatch:
  """Debiased CKA of all pairs of `sites`, averaged over blocks of rows: cka_<kernel>_song_minibatch [site, other].

  Args:
    block: rows of a Gram matrix; a batch is cut into such blocks.
    kernel: linear, or rbf with the standard deviation `width`, or, if that is 0, `fraction` of the median distance
      within a block (Kornblith et al. 2019 use 0.5 and name values from 0.2 to 0.8).

  A layer that does not vary has no CKA: NaN, and a warning names it, as it names rows that were left out because their
  block had fewer than four.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  block: int = 256
  kernel: str = 'linear'
  width: float = 0.
  fraction: float = 0.5

  examples = (dict(block=8), dict(block=8, kernel='rbf'))

  def __post_init__(self):
    if self.kernel not in KERNELS:
      raise ValueError(f'kernel {self.kernel!r} is not one of {", ".join(KERNELS)}')
    if self.block < FEWEST:
      raise ValueError(f'block {self.block}: debiased HSIC needs {FEWEST} rows in a block; 256 is usual')
    if self.width < 0 or not self.fraction > 0:
      raise ValueError(f'width {self.width} is 0 (by the median) or above, fraction {self.fraction} above 0')

  @property
  def invariant(self):
    scale = () if self.kernel == 'rbf' and self.width else ('scale',)
    return {self._name: ('permutation', 'rotation', 'translation', *scale)}

  @property
  def _name(self):
    return f'cka_{self.kernel}_song_minibatch'

  def needs(self, specs):
    return {'hsic': MinibatchHsic(select(self.sites, specs), self.pool, block=self.block, kernel=self.kernel,
                                  width=self.width, fraction=self.fraction)}

  def compute(self, hsic: BlockHsic) -> xr.Dataset:
    if not hsic.blocks:
      raise ValueError(f'minibatch CKA needs a block of at least {FEWEST} rows; {hsic.left:g} rows came in smaller '
                       'ones: use larger batches or pool=tokens')
    finite(hsic.sites, np.diag(hsic.hsic))
    if hsic.left:
      warnings.warn(f'{hsic.left:g} of {hsic.rows + hsic.left:g} rows stood in blocks of fewer than {FEWEST} and were '
                    'left out; choose a batch that divides the examples', stacklevel=2)
    if flat := [s for s, own in zip(hsic.sites, np.diag(hsic.hsic)) if not own > 0]:
      warnings.warn(f'sites {flat} do not vary over the {hsic.rows:g} rows beyond what few rows do by chance: their '
                    'CKA is NaN; use more examples', stacklevel=2)
    names = list(hsic.sites)
    out = xr.Dataset({self._name: (('site', 'other'), normalised(hsic.hsic))}, {'site': names, 'other': names},
                     attrs=dict(aspect='correlations', title='Minibatch CKA', source='Nguyen, Raghu & Kornblith 2021, '
                                'arXiv:2010.15327', question='Which layers see the data alike, block by block?',
                                pool=self.pool, rows=hsic.rows, blocks=float(hsic.blocks), block=float(self.block),
                                headline=self._name))
    width = ''
    if self.kernel == 'rbf':
      width = f', width {self.width:g}' if self.width else f', width {self.fraction:g} of the median distance'
    out[self._name].attrs = dict(long_name=f'{self.kernel} CKA, debiased in blocks{width}', units='1', figure='map',
                                 limits=[0, 1], registry=f'cka-kernel={self.kernel}-hsic=song-score')
    return out
