"""Eigenspectrum of each layer's covariance: how many dimensions its features fill, by every published count.

With eigenvalues l_1 >= ... >= l_D of the centred scatter and singular values s_k of the rows:
  participation_ratio           (sum l)^2 / sum l^2  (Gao et al. 2017, bioRxiv 214262)
  participation_ratio_debiased  ratio of unbiased estimates of (tr C)^2 and tr C^2 for Gaussian rows (Srivastava 2005)
  rankme_singular               exp(-sum p log p), p = s / sum s + epsilon, rows *not* centred, so that a large mean
                                makes it small  (Garrido et al. 2023, arXiv:2210.02885)
  rankme_eigenvalue             the same with p = l / sum l + epsilon, as the code `reptrix` computes it
  effective_rank                exp(-sum p log p), p = sqrt(l) / sum sqrt(l)  (Roy & Vetterli 2007)
  stable_rank                   sum l / l_1  (Rudelson & Vershynin 2007)
  alpha                         l_k ~ k^-alpha, least squares of log l on log k over `ranks` with weights 1/k, so that
                                octaves count alike  (Stringer et al. 2019, doi:10.1038/s41586-019-1346-5; as a score
                                of representations Agrawal et al. 2022, alpha-ReQ)
Eigenvalues below `tolerance` of the largest are rounding of float32 moments and count as zero.
"""
import dataclasses
import warnings

import numpy as np
import xarray as xr

from aspects import inference
from aspects import stats
from aspects.sites import select
from aspects.statistics.covariance import Covariance, Moments

CENTRED = ('permutation', 'rotation', 'scale', 'translation')
COUNTS = {'participation_ratio': 'participation ratio',
          'participation_ratio_debiased': 'participation ratio, debiased for Gaussian rows',
          'effective_rank': 'effective rank (entropy of singular values, centred)',
          'rankme_singular': 'RankMe (singular values, not centred)',
          'rankme_eigenvalue': 'RankMe (eigenvalues, centred)', 'stable_rank': 'stable rank'}
ALPHA = {'alpha': ('power-law exponent of the eigenspectrum', '1', 'curve'),
         'alpha_r2': ('R2 of the power law', '1', 'none'), 'alpha_first': ('first rank of the fit', 'rank', 'none'),
         'alpha_last': ('last rank of the fit', 'rank', 'none')}


@dataclasses.dataclass(frozen=True)
class Spectrum:
  """Dimension counts, power-law exponent [site] and normalised eigenspectrum [site, rank] of `sites`.

  `ranks` are the first and last rank of the fit, as Stringer et al. chose them. A layer with r non-zero eigenvalues is
  fitted up to rank r at most and from rank r // 4 at the latest: `alpha_first` and `alpha_last` say what was used. One
  with fewer than three has no exponent and one that does not vary no spectrum: NaN, and a warning names it. The
  spectrum sums to 1 and is padded with NaN beyond a layer's width.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'tokens'
  ranks: tuple[int, int] = (11, 500)
  epsilon: float = 1e-7
  tolerance: float = 1e-7

  invariant = {name: CENTRED for name in (*COUNTS, 'alpha', 'spectrum') if name != 'rankme_singular'} | {
      'rankme_singular': ('permutation', 'rotation', 'scale')}

  def __post_init__(self):
    if not 1 <= self.ranks[0] < self.ranks[1] - 1:
      raise ValueError(f'ranks {self.ranks} are not (first, last) of three ranks or more, counted from 1')

  def needs(self, specs):
    return {'moments': Covariance(select(self.sites, specs), self.pool)}

  def compute(self, moments: dict[str, Moments]) -> xr.Dataset:
    names = list(moments)
    widest = max(m.mean.size for m in moments.values())
    columns = {name: np.full(len(names), np.nan) for name in (*COUNTS, *ALPHA)}
    spectrum, null = np.full((len(names), widest), np.nan), np.full(len(names), np.nan)
    for site, m in moments.items():
      if m.n < 3:
        raise ValueError(f'site {site!r} has {m.n:g} rows; a spectrum needs at least 3: use more examples or '
                         'pool=tokens')
    eigenvalues = stats.side_by_side(self._eigenvalues, moments.items())
    for i, ((site, m), (value, uncentred)) in enumerate(zip(moments.items(), eigenvalues)):
      if not value.sum():
        warnings.warn(f'site {site!r} does not vary over its {m.n:g} rows: it has no spectrum', stacklevel=2)
        continue
      for name, count in self._counts(value, uncentred, m.n).items():
        columns[name][i] = count
      spectrum[i, :value.size] = value / value.sum()
      null[i] = inference.null_participation(value.size, m.n)
      for name, fitted in zip(ALPHA, self._power_law(value, site)):
        columns[name][i] = fitted
    return self._dataset(names, columns, spectrum, null, float(min(m.n for m in moments.values())))

  def _eigenvalues(self, item):
    """Descending eigenvalues [D] of the centred and of the uncentred scatter, those below the tolerance zero."""
    site, m = item
    if not np.isfinite(m.scatter).all():
      raise ValueError(f'site {site!r} has activations that are not finite, or too large to square in float32')
    value, vector = np.linalg.eigh((m.scatter + m.scatter.T) / 2)
    value = np.where(value > self.tolerance * value[-1], value, 0)
    value[:max(0, value.size - int(m.n) + 1)] = 0            # n centred rows have rank n - 1 at most
    uncentred = np.linalg.eigvalsh((vector * value) @ vector.T + m.n * np.outer(m.mean, m.mean))
    return value[::-1], np.maximum(uncentred[::-1], 0)       # negative by rounding only: a scatter matrix has none

  def _counts(self, value, uncentred, n):
    total, square, m = value.sum(), (value ** 2).sum(), n - 1
    most = min(int(n), value.size)
    with np.errstate(divide='ignore'):                       # rows of equal length at right angles: no bound is seen
      debiased = ((m + 1) * total ** 2 - 2 * square) / (m * square - total ** 2)
    return {'participation_ratio': total ** 2 / square, 'participation_ratio_debiased': debiased,
            'effective_rank': perplexity(np.sqrt(value)), 'stable_rank': total / value[0],
            'rankme_singular': perplexity(np.sqrt(uncentred[:most]), self.epsilon),
            'rankme_eigenvalue': perplexity(value[:most], self.epsilon)}

  def _power_law(self, value, site):
    """[alpha, weighted R2 of the fit, first and last rank fitted]."""
    count = int((value > 0).sum())
    rank = np.arange(max(1, min(self.ranks[0], count // 4)), min(self.ranks[1], count) + 1)
    if rank.size < 3:
      warnings.warn(f'site {site!r} has {count} eigenvalues above rounding, too few for a power law: its alpha is NaN; '
                    'use more rows', stacklevel=3)
      return np.full(4, np.nan)
    x, y, weight = np.log(rank), np.log(value[rank - 1]), 1 / rank
    x, y = x - weight @ x / weight.sum(), y - weight @ y / weight.sum()
    slope, spread = weight @ (x * y) / (weight @ x ** 2), weight @ y ** 2
    explained = slope ** 2 * (weight @ x ** 2) / spread if spread else np.nan     # a flat one leaves nothing to explain
    return -slope, explained, rank[0], rank[-1]

  def _dataset(self, names, columns, spectrum, null, rows):
    out = xr.Dataset({k: ('site', v) for k, v in columns.items()},
                     {'site': names, 'rank': np.arange(1, spectrum.shape[1] + 1)}, attrs=dict(
        aspect='features', title='Eigenspectrum', question='How many dimensions do the features of each layer fill?',
        source='Gao et al. 2017; Garrido et al. 2023, arXiv:2210.02885; Stringer et al. 2019', pool=self.pool,
        rows=rows, ranks=list(self.ranks), epsilon=self.epsilon, tolerance=self.tolerance,
        headline='participation_ratio'))
    out['null_participation'] = 'site', null
    out['spectrum'] = ('site', 'rank'), spectrum
    for name, long_name in COUNTS.items():
      out[name].attrs = dict(long_name=long_name, units='dimensions', figure='curve')
    out['participation_ratio'].attrs |= dict(null='null_participation', null_label='isotropic sample')
    out['null_participation'].attrs = dict(long_name='participation ratio of an isotropic sample', units='dimensions',
                                           figure='none')
    for name, (long_name, units, figure) in ALPHA.items():
      out[name].attrs = dict(long_name=long_name, units=units, figure=figure)
    out['spectrum'].attrs = dict(long_name='share of variance', units='1', figure='spectrum')
    return out


def perplexity(size: np.ndarray, epsilon: float = 0.) -> float:
  """exp of the entropy of `size` [K] / sum + epsilon."""
  p = size / size.sum() + epsilon
  p = p[p > 0]
  return float(np.exp(-(p * np.log(p)).sum()))
