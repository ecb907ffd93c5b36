"""Distance correlation of all pairs of layers: dependence of any form, zero only under independence (Szekely, Rizzo & Bakirov 2007, arXiv:0803.4101).

With Euclidean distances a_ij, b_ij between the rows of two layers, A and B the doubly centred matrices,
  distance_correlation_biased            sqrt(<A, B> / |A| |B|)                             (Szekely et al. 2007)
  distance_correlation_squared_debiased  <A*, B*> / |A*| |B*|, A* U-centred with a zero diagonal
                                                                     (Szekely & Rizzo 2014, arXiv:1310.2926)
The first is in [0, 1] and, for independent rows, goes to 1 as units grow in number; the second estimates its square, is
about 0 there, and may be negative: nothing is clamped. They are CKA of -distance as the kernel, gretton and song.
"""
import dataclasses

import numpy as np
import xarray as xr

from aspects import stats
from aspects.correlations.cka import normalised
from aspects.nn import distances
from aspects.nn import hsic
from aspects.nn import pairs
from aspects.sites import select
from aspects.statistics.sample import Rows, Sample


@dataclasses.dataclass(frozen=True)
class DistanceCorrelation:
  """Distance correlation of all pairs of `sites`, biased and debiased: distance_correlation_* [site, other], 1 = alike.

  Over a fixed sample of at most `size` rows, four at least. A layer that does not vary, or whose debiased variance is
  not positive because rows are few, has none: NaN, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  size: int = 512
  seed: int = 0

  invariant = {f'distance_correlation_{form}': ('permutation', 'rotation', 'scale', 'translation')
               for form in ('biased', 'squared_debiased')}

  def needs(self, specs):
    return {'rows': Sample(select(self.sites, specs), self.size, self.pool, seed=self.seed)}

  def compute(self, rows: Rows) -> xr.Dataset:
    n, names = pairs.sampled(rows, 4, 'distance correlation'), list(rows.x)
    distance = np.stack(stats.side_by_side(lambda x: scaled(distances.dissimilarity(x, 'euclidean')), rows.x.values()))
    squared = {estimator: normalised(hsic.hsic(distance, estimator)) for estimator in ('gretton', 'song')}
    pairs.warn([s for s, own in zip(names, np.diag(squared['song'])) if np.isnan(own)],
               f'do not vary over the {n} rows beyond what few rows do by chance',
               'their debiased distance correlation is NaN; use more examples')
    about = dict(figure='map', limits=[0, 1])
    variables = {
        'distance_correlation_biased': (
            # <A, B> >= 0 for Euclidean distances; what is below is rounding
            np.sqrt(np.maximum(squared['gretton'], 0)),
            about | dict(long_name='distance correlation, biased', registry='distance_correlation')),
        'distance_correlation_squared_debiased': (
            squared['song'], about | dict(long_name='squared distance correlation, debiased'))}
    return pairs.dataset(names, variables, title='Distance correlation',
                         question='Which layers depend on each other in any way?',
                         source='Szekely et al. 2007, arXiv:0803.4101',
                         headline='distance_correlation_squared_debiased',
                         **pairs.sample_attrs(n, self.pool, self.size, self.seed))


def scaled(distance: np.ndarray) -> np.ndarray:
  """Distances over the largest, so that products neither overflow nor vanish; zeros stay."""
  return distance / (distance.max() or 1)
