"""Canonical correlations of all pairs of layers: mean, mean squared, SVCCA and PWCCA, from one pass of moments.

With centred rows X, Y and canonical correlations rho_1 >= ... >= rho_k, k = min(rank X, rank Y):
  cca_mean          sum rho_i / k                                  (Raghu et al. 2017, arXiv:1706.05806)
  cca_mean_squared  sum rho_i^2 / k                                (Kornblith et al. 2019, arXiv:1905.00414)
  svcca_mean        cca_mean of the fewest principal components that hold `variance` of either layer (Raghu et al.)
  pwcca             sum a_i rho_i / sum a_i,  a_i = sum_j |h_i' x_j|        (Morcos et al. 2018, arXiv:1806.05759)
with h_i the canonical variates of X, of length 1, and x_j the units of X. X is the layer on the axis `site`: pwcca is
not symmetric.

Directions without variance have no correlation. Units are scaled to one variance, which canonical correlations do not
see, so that a few massive units decide nothing; then eigenvalues below `tolerance` of the largest count as zero. The
default stands two decades above the rounding of float32 moments, so that a mean over directions is right to 1e-4.
`rank` says what is left.

The code that Morcos et al. published weights by the QR basis of U'(X - mean) + mean, which depends on the signs that a
library gives to singular vectors; values computed with it differ from the definition, and from machine to machine.
Where canonical correlations coincide the variates are not unique, nor are then the weights of the definition.
"""
import dataclasses
import warnings

import numpy as np
import xarray as xr

from aspects import inference
from aspects import stats
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossCovariance, CrossMoments

FORMS = {'cca_mean': 'mean canonical correlation', 'cca_mean_squared': 'mean squared canonical correlation',
         'svcca_mean': 'mean canonical correlation of principal components',
         'pwcca': 'canonical correlation, weighted by projections of the row\'s layer'}


@dataclasses.dataclass(frozen=True)
class Cca:
  """Canonical correlations of all pairs of `sites` [site, other], in four forms, and the rank of each [site].

  The null of the mean squared is max(rank, rank) / (n - 1), its expectation for independent rows. A layer whose rank
  reaches n - 1 correlates perfectly with everything; a warning names it. A layer that does not vary has no correlation:
  NaN, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  variance: float = 0.99
  tolerance: float = 3e-5

  invariant = {'cca_mean': ('permutation', 'rotation', 'scale', 'translation', 'linear'),
               'cca_mean_squared': ('permutation', 'rotation', 'scale', 'translation', 'linear'),
               'svcca_mean': ('permutation', 'rotation', 'scale', 'translation'),
               'pwcca': ('permutation', 'scale', 'translation')}

  def __post_init__(self):
    if not 0 < self.variance <= 1:
      raise ValueError(f'variance {self.variance} is not a share in (0, 1]; SVCCA is published with 0.99')
    if not 0 < self.tolerance < 1:
      raise ValueError(f'tolerance {self.tolerance} is not a ratio of eigenvalues in (0, 1)')

  def needs(self, specs):
    return {'cross': CrossCovariance(select(self.sites, specs), self.pool)}

  def compute(self, cross: CrossMoments) -> xr.Dataset:
    n, names = cross.n, list(cross.mean)
    if n < 3:
      raise ValueError(f'canonical correlations need at least 3 rows, got {n:g}: two rows always correlate perfectly; '
                       'use more examples or pool=tokens')
    most = int(n) - 1
    def bases(site):
      scatter = finite(cross.scatter[site, site], site)
      full = whitening(scatter, most, self.tolerance)
      return full, scatter @ full, leading(scatter, most, self.variance, self.tolerance)
    full, loadings, principal = (dict(zip(names, part)) for part in zip(*stats.side_by_side(bases, names)))
    rank = np.array([full[s].shape[1] for s in names])
    self._warn(names, rank, int(n))
    def pair(ij):
      a, b = (names[k] for k in ij)
      u, rho, vt = np.linalg.svd(full[a].T @ cross.scatter[a, b] @ full[b], full_matrices=False)
      reduced = np.linalg.svd(principal[a].T @ cross.scatter[a, b] @ principal[b], compute_uv=False)
      both = rho.mean(), (rho ** 2).mean(), reduced.mean()
      return (*both, projected(rho, loadings[a] @ u)), (*both, projected(rho, loadings[b] @ vt.T))
    varying = np.flatnonzero(rank)
    pairs = [(i, j) for i in varying for j in varying if i <= j]
    values = np.full((len(FORMS), len(names), len(names)), np.nan)
    for (i, j), (there, back) in zip(pairs, stats.side_by_side(pair, pairs)):
      values[:, j, i] = back
      values[:, i, j] = there
    return self._dataset(names, values, rank, n)

  def _dataset(self, names, values, rank, n):
    dims, null = ('site', 'other'), inference.null_cca((rank[:, None], rank[None]), int(n))
    variables = {form: (dims, value) for form, value in zip(FORMS, values)}
    out = xr.Dataset(variables, {'site': names, 'other': names}, attrs=dict(
        aspect='correlations', title='Canonical correlations',
        question='Which layers hold the same information, whatever the basis?',
        source='Raghu et al. 2017, arXiv:1706.05806; Morcos et al. 2018, arXiv:1806.05759', pool=self.pool,
        rows=float(n), variance=self.variance, tolerance=self.tolerance, headline='cca_mean_squared'))
    out['null_mean_squared'] = dims, np.where((rank[:, None] > 0) & (rank[None] > 0), null, np.nan)
    out['rank'] = 'site', rank.astype(float)
    for form, long_name in FORMS.items():
      out[form].attrs = dict(long_name=long_name, units='1', figure='map', limits=[0, 1])
    out['cca_mean_squared'].attrs |= dict(null='null_mean_squared', null_label='independent rows')
    out['null_mean_squared'].attrs = dict(long_name='mean squared canonical correlation of independent rows', units='1',
                                          figure='none')
    out['rank'].attrs = dict(long_name='directions with variance', units='directions', figure='none')
    return out

  @staticmethod
  def _warn(names, rank, n):
    constant = [s for s, r in zip(names, rank) if r == 0]
    if constant:
      warnings.warn(f'sites {constant} do not vary over the {n} rows: their canonical correlations are NaN',
                    stacklevel=3)
    full = [s for s, r in zip(names, rank) if r >= n - 1]
    if full:
      warnings.warn(f'sites {full} have rank n - 1 = {n - 1}: they correlate perfectly with any layer, and their '
                    'null is 1; use more rows than units', stacklevel=3)


def finite(scatter: np.ndarray, site: str) -> np.ndarray:
  """`scatter`, symmetric to the last digit.

  Raises:
    ValueError: it holds NaN or infinity."""
  if not np.isfinite(scatter).all():
    raise ValueError(f'site {site!r} has activations that are not finite, or too large to square in float32')
  return (scatter + scatter.T) / 2


def whitening(scatter: np.ndarray, most: int, tolerance: float) -> np.ndarray:
  """W [D, rank] with W' scatter W = 1 over the directions that vary; `most` is the highest rank that rows allow."""
  deviation = np.sqrt(np.diag(scatter))
  scale = np.where(deviation > 0, deviation, np.inf)
  value, vector = np.linalg.eigh(scatter / scale[:, None] / scale)
  kept = _kept(value, most, tolerance)
  return vector[:, kept] / np.sqrt(value[kept]) / scale[:, None]


def leading(scatter: np.ndarray, most: int, variance: float, tolerance: float) -> np.ndarray:
  """W [D, k] with W' scatter W = 1 over the fewest principal components that hold `variance` of the trace."""
  value, vector = np.linalg.eigh(scatter)
  share = np.cumsum(value[::-1]) / max(value.sum(), np.finfo(float).tiny)
  # the tolerance of rounding keeps variance=1 from asking for noise
  enough = int(np.searchsorted(share, variance * (1 - 1e-12)) + 1)
  kept = _kept(value, min(most, enough), min(tolerance, 1e-6))
  return vector[:, kept] / np.sqrt(value[kept])


def _kept(value, most, tolerance):
  """Positions of the eigenvalues (ascending) that count, at most `most`."""
  kept = np.flatnonzero((value > tolerance * value[-1]) & (value > 0))
  return kept[len(kept) - min(most, len(kept)):]


def projected(rho: np.ndarray, loadings: np.ndarray) -> float:
  """Mean of `rho` [k] weighted by sum_j |h_i' x_j|; `loadings` [D, k] holds h_i' x_j."""
  weight = np.abs(loadings).sum(0)
  return weight @ rho / weight.sum()
