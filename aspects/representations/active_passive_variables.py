"""Be More Active! Understanding the Differences between Mean and Sampled Representations of Variational Autoencoders (Bonheme & Grzes 2021, arXiv:2109.12679).

An encoder gives every example a mean mu and a variance s^2 for each latent. Averaged over examples, a latent is
  passive  where s^2 is above `hi`: its posterior is the prior
  active   where s^2 is below `lo`
  mixed    between, passive on some examples and active on others.
The mean representation is mu, the sampled one mu + s eps with eps ~ N(0, 1). The covariance of the sampled one over
examples and noise is cov(mu) + diag(E s^2), exactly, so that nothing is drawn here. With the correlations R of a set of
latents,
  total_correlation  -log det(R) / 2 nats, of Gaussians
  pair_correlation   mean of |R_ij| over pairs
  gap                total_correlation of the mean minus that of the sampled representation
  shrinkage          the share of the gap that goes when passive latents are left out
  null_shrinkage     the same when as many random latents that are not passive are left out, all where there are fewer;
                     mean of `draws`

Latents are standardised: a passive mean is small, and its correlations are seen only so; that is what noise of variance
1 hides. R gets `jitter` on its diagonal and is scaled back, so that a set of dependent latents has a finite value; a
latent that does not vary is independent of all others.

Differs from the paper: moments instead of samples; averaged mutual information is left out, as of Gaussians it is a
function of the same correlations. The thresholds are ours.
"""
import dataclasses

import numpy as np
import xarray as xr

from aspects.sites import select
from aspects.statistics.covariance import Covariance, Moments

LABELS = ('passive', 'mixed', 'active')
SUBSETS = ('all', 'active', 'passive', 'not passive')
FORMS = ('mean', 'sampled')


@dataclasses.dataclass(frozen=True)
class ActivePassiveVariables:
  """Activity [unit] of latents, 0 passive, 1 mixed, 2 active, and correlations [subset, representation] among them.

  `mean` and `variance` are sites of one width that hold mu and s^2. A subset of fewer than two latents has total
  correlation 0 and no pairs: NaN. shrinkage and what is compared with it need two passive latents and another: else
  NaN, as there is nothing to test.
  """
  mean: str = 'latent_mean'
  variance: str = 'latent_variance'
  pool: str = 'mean'
  lo: float = 0.1
  hi: float = 0.9
  jitter: float = 1e-6
  draws: int = 100
  seed: int = 0

  invariant = {}
  examples = ({'mean': 'channel_act.0', 'variance': 'channel_act.1', 'lo': 0.2, 'hi': 0.3},)

  def __post_init__(self):
    if not 0 <= self.lo <= self.hi or self.jitter <= 0 or self.draws < 1:
      raise ValueError(f'lo {self.lo}, hi {self.hi}: variances with 0 <= lo <= hi; jitter {self.jitter} is above 0, '
                       f'draws {self.draws} at least 1')

  @property
  def sites(self) -> tuple[str, ...]:
    return self.mean, self.variance

  def needs(self, specs):
    chosen = [select((name,), specs) for name in self.sites]
    if any(len(names) != 1 for names in chosen) or chosen[0] == chosen[1]:
      raise ValueError(f'mean {self.mean!r} and variance {self.variance!r} name the sites {chosen}; name one each')
    widths = [specs[names[0]].shape[-1] for names in chosen]
    if widths[0] != widths[1]:
      raise ValueError(f'mean and variance have {widths[0]} and {widths[1]} units; name the two sites of one encoder')
    return {name: Covariance(names, self.pool) for name, names in zip(('mean', 'variance'), chosen)}

  def compute(self, mean: dict[str, Moments], variance: dict[str, Moments]) -> xr.Dataset:
    (mu,), (s2,) = mean.values(), variance.values()
    if mu.n < 3:
      raise ValueError(f'correlations need at least 3 examples, got {mu.n:g}; use more')
    if (s2.mean < 0).any():
      raise ValueError(f'site {self.variance!r} has negative means; give the variance itself, not its logarithm')
    covariances = dict(zip(FORMS, (mu.scatter / mu.n, mu.scatter / mu.n + np.diag(s2.mean))))
    activity = latent_activity(s2.mean, self.lo, self.hi)
    chosen = dict(zip(SUBSETS, (activity >= 0, activity == 2, activity == 0, activity > 0)))
    per = lambda f: np.array([[f(covariances[form][np.ix_(m, m)]) for form in FORMS] for m in chosen.values()])
    total, pairs = per(lambda c: gaussian_tc(c, self.jitter)), per(pair_correlation)
    gap = total[:, 0] - total[:, 1]
    return self._dataset(mu, s2, activity, chosen, total, pairs, gap, self._shrinkage(covariances, activity, gap))

  def _shrinkage(self, covariances, activity, gap) -> tuple[float, float]:
    """(the share of the gap that goes without passive latents, the same for as many random others)."""
    others, passive = np.flatnonzero(activity > 0), int((activity == 0).sum())
    if passive < 2 or not len(others) or not gap[0] > 0:
      return np.nan, np.nan
    rng, left = np.random.default_rng(self.seed), []
    for _ in range(self.draws):
      kept = np.delete(np.arange(len(activity)), rng.choice(others, min(passive, len(others)), replace=False))
      mean, sampled = (gaussian_tc(covariances[form][np.ix_(kept, kept)], self.jitter) for form in FORMS)
      left.append(mean - sampled)
    return 1 - gap[3] / gap[0], 1 - np.mean(left) / gap[0]

  def _dataset(self, mu, s2, activity, chosen, total, pairs, gap, shrinkage):
    grid = 'subset', 'representation'
    out = xr.Dataset({
        'activity': ('unit', activity), 'posterior_variance': ('unit', s2.mean),
        'posterior_variance_spread': ('unit', np.diag(s2.scatter) / s2.n),
        'mean_variance': ('unit', np.diag(mu.scatter) / mu.n), 'count': ('subset', [m.sum() for m in chosen.values()]),
        'total_correlation': (grid, total), 'pair_correlation': (grid, pairs), 'gap': ('subset', gap),
        'shrinkage': ((), shrinkage[0]), 'null_shrinkage': ((), shrinkage[1]),
        'shrinkage_excess': ((), shrinkage[0] - shrinkage[1])},
        {'unit': np.arange(len(activity)), 'subset': list(SUBSETS), 'representation': list(FORMS)}, attrs=dict(
            aspect='representations', title='Active and passive variables',
            question='Which latents carry information, and which only correlate?',
            source='Bonheme & Grzes 2021, arXiv:2109.12679', pool=self.pool, rows=float(mu.n), lo=self.lo, hi=self.hi,
            jitter=self.jitter, labels=', '.join(f'{i} {name}' for i, name in enumerate(LABELS)),
            headline='posterior_variance'))
    for name, (long_name, units) in {
        'activity': ('0 passive, 1 mixed, 2 active', '1'),
        'posterior_variance': ('variance of the posterior, mean over examples', '1'),
        'posterior_variance_spread': ('its variance over examples', '1'),
        'mean_variance': ('variance of the mean over examples', '1'), 'count': ('latents', 'latents'),
        'total_correlation': ('total correlation of a Gaussian', 'nats'),
        'pair_correlation': ('absolute correlation of two latents, mean of pairs', '1'),
        'gap': ('total correlation of the mean minus that of the sampled representation', 'nats'),
        'shrinkage': ('share of the gap that goes without passive latents', '1'),
        'null_shrinkage': ('share of the gap that goes without as many random others', '1'),
        'shrinkage_excess': ('the share without passive latents minus that of random others', '1')}.items():
      out[name].attrs = dict(long_name=long_name, units=units, figure='none')
    out['posterior_variance'].attrs['figure'] = 'curve'
    out['shrinkage'].attrs |= dict(null='null_shrinkage', null_label='random others left out')
    return out


def latent_activity(variance: np.ndarray, lo: float = 0.1, hi: float = 0.9) -> np.ndarray:
  """0 passive, 1 mixed or 2 active for each latent [D], by its posterior `variance` averaged over examples [D]."""
  return np.where(variance > hi, 0, np.where(variance < lo, 2, 1))


def correlations(covariance: np.ndarray) -> np.ndarray:
  """R [K, K] of a covariance [D, D], of the K units that vary."""
  own = np.diag(covariance)
  # What rounding leaves of a unit that is constant is no variance.
  varies = own > 1e-20 * max(own.max(initial=0), np.finfo(float).tiny)
  kept = covariance[np.ix_(varies, varies)]
  deviation = np.sqrt(np.diag(kept))
  return kept / np.outer(deviation, deviation)


def gaussian_tc(covariance: np.ndarray, jitter: float = 1e-6) -> float:
  """Total correlation of a Gaussian of this covariance [D, D] in nats: -log det((R + jitter) / (1 + jitter)) / 2."""
  r = correlations(covariance)
  if len(r) < 2:
    return 0.0
  value = np.linalg.eigvalsh(r)
  return float(-0.5 * np.log((np.maximum(value, 0) + jitter) / (1 + jitter)).sum())


def pair_correlation(covariance: np.ndarray) -> float:
  """The mean of |R| over pairs of units that vary; NaN without a pair."""
  r = np.abs(correlations(covariance))
  return float(r[np.triu_indices(len(r), 1)].mean()) if len(r) > 1 else np.nan
