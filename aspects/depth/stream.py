"""The Curse of Depth: how the scale of the stream grows from layer to layer (Sun et al. 2025, arXiv:2502.05795; Kim et al. 2025, arXiv:2502.02732).

Over all rows (tokens, by default) of the stream behind each layer:
  variance   mean over units of the variance over rows; in a pre-norm network it grows with depth
  rms        root of the mean square over rows and units
  largest    the largest absolute activation
  peak       largest / rms: massive activations stand out, whatever the scale
"""
import dataclasses

import numpy as np
import xarray as xr

from aspects.sites import select
from aspects.statistics.covariance import Covariance, Moments
from aspects.statistics.density import Density, Extremes

TEXTS = {'variance': ('variance of the stream', 'squared units of the site'),
         'rms': ('root mean square of the stream', 'units of the site'),
         'largest': ('largest absolute activation', 'units of the site'),
         'peak': ('largest absolute activation / rms', '1')}


@dataclasses.dataclass(frozen=True)
class Stream:
  """Variance, rms, largest absolute activation and its ratio to the rms, of each site: all [site]."""
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'tokens'

  invariant = {'variance': ('permutation', 'rotation', 'translation'), 'rms': ('permutation', 'rotation'),
               'largest': ('permutation',), 'peak': ('permutation', 'scale')}

  def needs(self, specs):
    sites = select(self.sites, specs)
    return {'moments': Covariance(sites, self.pool), 'extremes': Density(sites, 0.0, self.pool)}

  def compute(self, moments: dict[str, Moments], extremes: dict[str, Extremes]) -> xr.Dataset:
    if not all(m.n > 0 for m in moments.values()):
      raise ValueError(f'stream needs a row of data at every site, got {[float(m.n) for m in moments.values()]}')
    variance = np.array([np.trace(m.scatter) / m.n / len(m.mean) for m in moments.values()])
    rms = np.sqrt(variance + [np.mean(m.mean ** 2) for m in moments.values()])
    largest = np.array([max(e.greatest.max(), -e.least.min()) for e in extremes.values()])
    with np.errstate(invalid='ignore'):              # a stream of zeros has no peak
      values = {'variance': variance, 'rms': rms, 'largest': largest, 'peak': largest / np.where(rms > 0, rms, np.nan)}
    names = list(moments)
    out = xr.Dataset({k: ('site', v) for k, v in values.items()}, {'site': names}, attrs=dict(
        aspect='depth', title='Scale of the stream', question='Does the stream grow with depth?',
        source='Sun et al. 2025, arXiv:2502.05795', pool=self.pool, rows=float(moments[names[0]].n),
        headline='variance'))
    for name in out:
      out[name].attrs = dict(long_name=TEXTS[name][0], units=TEXTS[name][1], figure='curve')
    return out
