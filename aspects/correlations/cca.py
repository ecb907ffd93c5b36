"""Canonical correlations of all pairs of layers: mean, mean squared, SVCCA and PWCCA, from one pass of moments.

With centred rows X, Y and canonical correlations rho_1 >= ... >= rho_k, k = min(rank X, rank Y):
  cca_mean          sum rho_i / k                                  (Raghu et al. 2017, arXiv:1706.05806)
  cca_mean_squared  sum rho_i^2 / k                                (Kornblith et al. 2019, arXiv:1905.00414)
  svcca_mean        cca_mean of the fewest principal components that hold `variance` of either layer (Raghu et al.)
  pwcca             sum a_i rho_i / sum a_i,  a_i = sum_j |h_i' x_j|        (Morcos et al. 2018, arXiv:1806.05759)
  pwcca_symmetric   the mean of pwcca in both directions
with h_i the canonical variates of X, of length 1, and x_j the units of X. X is the layer on the axis `site`: pwcca is
not symmetric. With a `regularisation` kappa > 0, a share of the mean variance of the units, there is also
  cca_regularised_mean, _mean_squared   of the singular values of (S_x + kappa)^(-1/2) S_xy (S_y + kappa)^(-1/2)
(canonical ridge, Vinod 1976, doi:10.1016/0304-4076(76)90010-5), over min(D, E) of them. They shrink with every
direction of small variance, so that a layer scores below 1 even with itself.

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
from aspects.nn import cross_moments as moments
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossCovariance, CrossMoments

FORMS = {'cca_mean': 'mean canonical correlation', 'cca_mean_squared': 'mean squared canonical correlation',
         'svcca_mean': 'mean canonical correlation of principal components',
         'pwcca': 'canonical correlation, weighted by projections of the row\'s layer',
         'pwcca_symmetric': 'canonical correlation, weighted by projections of either layer'}
REGULARISED = {'cca_regularised_mean': 'mean regularised canonical correlation',
               'cca_regularised_mean_squared': 'mean squared regularised canonical correlation'}
REGISTRY = {'cca_mean': 'cca-score', 'cca_mean_squared': 'cca-squared_score', 'pwcca': 'pwcca-score',
            'svcca_mean': 'svcca-var={variance:g}-score'}


@dataclasses.dataclass(frozen=True)
class Cca:
  """Canonical correlations of all pairs of `sites` [site, other], in five forms, and the rank of each [site].

  The null of the mean squared is max(rank, rank) / (n - 1), its expectation for independent rows. A layer whose rank
  reaches n - 1 correlates perfectly with everything; a warning names it. A layer that does not vary has no correlation:
  NaN, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  variance: float = 0.99
  tolerance: float = 3e-5
  regularisation: float = 0.0

  examples = ({'regularisation': 0.1},)

  @property
  def invariant(self):
    always = ('permutation', 'scale', 'translation')
    out = {'cca_mean': (*always, 'rotation', 'linear'), 'cca_mean_squared': (*always, 'rotation', 'linear'),
           'svcca_mean': (*always, 'rotation'), 'pwcca': always, 'pwcca_symmetric': always}
    return out | {form: (*always, 'rotation') for form in REGULARISED if self.regularisation > 0}

  def __post_init__(self):
    if not 0 < self.variance <= 1:
      raise ValueError(f'variance {self.variance} is not a share in (0, 1]; SVCCA is published with 0.99')
    if not 0 < self.tolerance < 1:
      raise ValueError(f'tolerance {self.tolerance} is not a ratio of eigenvalues in (0, 1)')
    if self.regularisation < 0:
      raise ValueError(f'regularisation {self.regularisation} is a share of the variance, from 0; 0 leaves it out')

  def needs(self, specs):
    return {'cross': CrossCovariance(select(self.sites, specs), self.pool)}

  def compute(self, cross: CrossMoments) -> xr.Dataset:
    n, names = cross.n, list(cross.mean)
    if n < 3:
      raise ValueError(f'canonical correlations need at least 3 rows, got {n:g}: two rows always correlate perfectly; '
                       'use more examples or pool=tokens')
    most = int(n) - 1
    def bases(site):
      scatter = moments.scatter(cross, site, site)
      full = whitening(scatter, most, self.tolerance)
      return (full, scatter @ full, leading(scatter, most, self.variance, self.tolerance),
              regularised(scatter, self.regularisation) if self.regularisation > 0 else None)
    full, loadings, principal, ridge = (dict(zip(names, part)) for part in zip(*stats.side_by_side(bases, names)))
    rank = np.array([full[s].shape[1] for s in names])
    self._warn(names, rank, int(n))
    forms = FORMS | (REGULARISED if self.regularisation > 0 else {})
    def pair(a, b):
      block = moments.scatter(cross, a, b)
      u, rho, vt = np.linalg.svd(full[a].T @ block @ full[b], full_matrices=False)
      reduced = np.linalg.svd(principal[a].T @ block @ principal[b], compute_uv=False)
      weighted = projected(rho, loadings[a] @ u), projected(rho, loadings[b] @ vt.T)
      both, after = (rho.mean(), (rho ** 2).mean(), reduced.mean()), (np.mean(weighted),)
      if self.regularisation > 0:
        shrunk = np.linalg.svd(ridge[a].T @ block @ ridge[b], compute_uv=False)
        after += shrunk.mean(), (shrunk ** 2).mean()
      return tuple((*both, w, *after) for w in weighted)
    values = moments.fill(names, pair, tuple(forms), dict(zip(names, rank > 0)))
    return self._dataset(names, forms, values, rank, n)

  def _dataset(self, names, forms, values, rank, n):
    null = inference.null_cca((rank[:, None], rank[None]), int(n))
    null = {'null_mean_squared': np.where((rank[:, None] > 0) & (rank[None] > 0), null, np.nan)}
    said = {form: dict(long_name=long_name, limits=[0, 1]) for form, long_name in forms.items()}
    for form, registry in REGISTRY.items():
      said[form]['registry'] = registry.format(variance=self.variance)
    said['cca_mean_squared'] |= dict(null='null_mean_squared', null_label='independent rows')
    said['null_mean_squared'] = dict(long_name='mean squared canonical correlation of independent rows', figure='none')
    out = moments.maps(
        names, values | null, said, title='Canonical correlations',
        question='Which layers hold the same information, whatever the basis?',
        source='Raghu et al. 2017, arXiv:1706.05806; Morcos et al. 2018, arXiv:1806.05759', pool=self.pool,
        rows=float(n), variance=self.variance, tolerance=self.tolerance, regularisation=self.regularisation,
        headline='cca_mean_squared')
    out['rank'] = 'site', rank.astype(float)
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


def regularised(scatter: np.ndarray, share: float) -> np.ndarray:
  """W [D, D] with W W' = (scatter + kappa)^-1, kappa the `share` of its mean eigenvalue."""
  value, vector = np.linalg.eigh(scatter)
  value = np.maximum(value, 0) + share * value.mean()
  return vector / np.sqrt(np.where(value > 0, value, np.inf))


def _kept(value, most, tolerance):
  """Positions of the eigenvalues (ascending) that count, at most `most`."""
  kept = np.flatnonzero((value > tolerance * value[-1]) & (value > 0))
  return kept[len(kept) - min(most, len(kept)):]


def projected(rho: np.ndarray, loadings: np.ndarray) -> float:
  """Mean of `rho` [k] weighted by sum_j |h_i' x_j|; `loadings` [D, k] holds h_i' x_j."""
  weight = np.abs(loadings).sum(0)
  return weight @ rho / weight.sum()
