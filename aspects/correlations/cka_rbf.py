"""CKA with a Gaussian kernel of all pairs of layers (Kornblith et al. 2019, arXiv:1905.00414).

k(x, y) = exp(-|x - y|^2 / (2 s^2)) on a sample of rows, with either width
  median  s^2 = fraction^2 median |x_i - x_j|^2: as in the authors' demo, the median of *squared* distances over all n^2
          pairs, i = j included; the paper's fractions are 0.2 to 0.8
  sigma   s = sigma, in the layer's own units, equal for all layers
and HSIC by `gretton`, `song` or `lange` (see `aspects.nn.hsic`), normalised by that of each layer with itself. Kernels
are taken as k - 1, which no centring sees, so that wide ones keep their digits. `song` and `lange` may be negative:
nothing is clamped.
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
class CkaRbf:
  """CKA of Gaussian kernels of all pairs of `sites`: cka_rbf_<median|sigma>_<estimator> [site, other], 1 = alike.

  `fraction` of the median or None; `sigma`, a fixed width, or None; both give both. Over a fixed sample of at most
  `size` rows, four at least. A layer that does not vary, or more than half of whose pairs are equal where the width is
  the median, or whose HSIC with itself is not positive because rows are few, has no CKA: NaN, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  fraction: float | None = 0.5
  sigma: float | None = None
  estimators: tuple[str, ...] = ('song', 'gretton')
  size: int = 512
  seed: int = 0

  examples = (dict(sigma=2., estimators=('song', 'gretton', 'lange')),)

  def __post_init__(self):
    if not self._widths():
      raise ValueError('CKA with a Gaussian kernel needs a width; give fraction=0.5 of the median, or sigma')
    for width, value in self._widths().items():
      if not value > 0:
        raise ValueError(f'{width} width {value} is not positive')
    if isinstance(self.estimators, str) or not self.estimators:
      raise ValueError(f"estimators {self.estimators!r} is not a tuple such as ('song', 'gretton')")
    for estimator in self.estimators:
      hsic.check_estimator(estimator)

  def _widths(self):
    return {k: v for k, v in (('median', self.fraction), ('sigma', self.sigma)) if v is not None}

  @property
  def invariant(self):
    moves = {'median': ('permutation', 'rotation', 'scale', 'translation'),
             'sigma': ('permutation', 'rotation', 'translation')}
    return {f'cka_rbf_{width}_{e}': moves[width] for width in self._widths() for e in self.estimators}

  def needs(self, specs):
    return {'rows': Sample(select(self.sites, specs), self.size, self.pool, seed=self.seed)}

  def compute(self, rows: Rows) -> xr.Dataset:
    n, names = pairs.sampled(rows, 4, 'CKA with a Gaussian kernel'), list(rows.x)
    square = stats.side_by_side(distances.squared_euclidean, rows.x.values())
    variables, void = {}, {}
    for width, value in self._widths().items():
      grams = np.stack([gram(d, value ** 2 * (np.median(d) if width == 'median' else 1)) for d in square])
      for estimator in self.estimators:
        cka = normalised(hsic.hsic(grams, estimator))
        void |= {s: None for s, own in zip(names, np.diag(cka)) if np.isnan(own)}
        variables[f'cka_rbf_{width}_{estimator}'] = cka, self._attrs(width, value, estimator)
    pairs.warn(void, f'do not vary over the {n} rows, or most of their pairs are equal, or no more than chance allows',
               'their CKA is NaN; use more examples, or sigma instead of the median')
    return pairs.dataset(names, variables, title='Centred kernel alignment, Gaussian kernel',
                         question='Which layers see the same examples as near?',
                         source='Kornblith et al. 2019, arXiv:1905.00414', headline=next(iter(variables)),
                         **pairs.sample_attrs(n, self.pool, self.size, self.seed))

  @staticmethod
  def _attrs(width, value, estimator):
    said = f'{value:g} of the median' if width == 'median' else f'width {value:g}'
    registry = {} if width == 'median' else {'registry': f'cka-kernel=(rbf-sigma={value:g})-hsic={estimator}-score'}
    return dict(long_name=f'CKA, Gaussian kernel of {said}, {estimator}', figure='map', limits=[0, 1], **registry)


def gram(square: np.ndarray, variance: float) -> np.ndarray:
  """exp(-d^2 / (2 variance)) - 1 of squared distances [n, n]; zeros, which have no HSIC, without a width."""
  return np.expm1(-square / (2 * variance)) if variance > 0 else np.zeros_like(square)
