"""The Lazy Neuron Phenomenon: how many units are active, per layer and per unit (Li et al. 2022, arXiv:2210.06313).

A unit is active on a row (a token, by default) where its value exceeds `threshold`. For rectified units and threshold
0 this is the share of non-zeros; gelu and silu have no exact zeros, and there it is the share of positive values. A
unit whose pre-activation is as often above 0 as below has density 1/2, the reference drawn: at initialisation layers
are near it.

Units that are never active are reported apart (`dead`), since they lower the mean density as sparse ones do and mean
something else; `density_live` leaves them out. `always` is the share of units active on every row.
"""
import dataclasses

import numpy as np
import xarray as xr

from aspects.sites import select
from aspects.statistics import density as counts


@dataclasses.dataclass(frozen=True)
class Density:
  """Share of active units [site], of each unit [site, unit], sorted [site, rank]; dead and always active units [site].

  Layers narrower than the widest are filled with NaN. Memory is O(D) a site.
  """
  sites: tuple[str, ...] = ('channel_act.*',)
  threshold: float = 0.0
  pool: str = 'tokens'

  @property
  def invariant(self):
    return {k: ('permutation',) + ('scale',) * (self.threshold == 0) for k in ('density', 'profile')}

  def needs(self, specs):
    return {'active': counts.Density(select(self.sites, specs), self.threshold, self.pool)}

  def compute(self, active: dict[str, counts.Extremes]) -> xr.Dataset:
    names = list(active)
    n = active[names[0]].n
    if not all(e.n > 0 for e in active.values()):
      raise ValueError(f'density needs a row of data at every site, got {n:g}')
    widest = max(len(e.active) for e in active.values())
    share = np.full((len(names), widest), np.nan)
    for row, e in zip(share, active.values()):
      row[:len(e.active)] = e.active / e.n
    dead = np.stack([(e.active == 0).mean() for e in active.values()])
    always = np.stack([(e.active == e.n).mean() for e in active.values()])
    mean = np.nanmean(share, 1)
    with np.errstate(invalid='ignore'):              # a layer of dead units has no live one
      live = mean / np.where(dead < 1, 1 - dead, np.nan)
    curve, units = ('site',), np.arange(widest)
    values = {'density': (curve, mean), 'density_live': (curve, live), 'dead': (curve, dead), 'always': (curve, always),
              'density_unit': (('site', 'unit'), share), 'profile': (('site', 'rank'), -np.sort(-share, 1))}
    if self.threshold == 0:
      values['null_symmetric'] = (curve, np.full(len(names), 0.5))
    out = xr.Dataset(values, {'site': names, 'unit': units, 'rank': units}, attrs=dict(
        aspect='locality', title='Active units', question='How few units answer to an input?',
        source='Li et al. 2022, arXiv:2210.06313', threshold=self.threshold, pool=self.pool, rows=float(n),
        headline='density'))
    texts = {'density': 'share of active units', 'density_live': 'share of active units among those ever active',
             'dead': 'share of units never active', 'always': 'share of units active on every row',
             'density_unit': 'share of rows on which a unit is active', 'profile': 'share of rows, units sorted',
             'null_symmetric': 'density of symmetric pre-activations'}
    figures = {'profile': 'spectrum', 'density_unit': 'none', 'null_symmetric': 'none'}
    for k in out:
      out[k].attrs = dict(long_name=texts[k], units='1', figure=figures[k] if k in figures else 'curve', limits=[0, 1])
    if self.threshold == 0:
      out['density'].attrs |= dict(null='null_symmetric', null_label='symmetric')
    return out
