"""Intrinsic dimension of each layer's rows from the ratios of their distances to near neighbours.

Where the density is constant over the neighbourhood of a row, in any d dimensions, the ratio mu of its distances to
the n2-th and the n1-th neighbour depends on d alone. With r_k the distance to the k-th of N rows:
  two_nn_linear      mu = r_2 / r_1 has -log(1 - F) = d log mu: least squares through the origin, F = i / N of the i-th
                     smallest, the largest share `discard` left out  (Facco et al. 2017, arXiv:1803.06992)
  two_nn_likelihood  (N - 1) / sum log mu, the maximum of the likelihood N / sum log mu without its bias  (ibid.)
  gride              n2 = 2 n1 for n1 = 1, 2, 4, ...: the dimension at larger and larger scales, the root d of
                     (N - 1) / d + (n1 - 1) sum t / (1 - exp(-d t)) = (2 n1 - 1) sum t, t = log mu, which is the
                     derivative of the likelihood with N - 1 for N  (Denti et al. 2022, arXiv:2104.13832)
So gride at scale 1 is two_nn_likelihood, as in `DADApy`. Errors are one standard deviation of the estimate in the
model, as if the ratios of different rows were independent: that of the slope from the covariance of exponential order
statistics, d / sqrt(N - 2) of the likelihood, and for gride by the observed information, too small at large scales,
where neighbourhoods overlap. They hold no bias of a density that varies or ends within a neighbourhood: rows that fill
many dimensions have too small an estimate.
"""
import dataclasses

import numpy as np
from scipy import optimize
from scipy.spatial import distance
import xarray as xr

from aspects import stats
from aspects.nn import pairs
from aspects.sites import select
from aspects.statistics.sample import Rows, Sample

CENTRED = ('permutation', 'rotation', 'scale', 'translation')
ENTRIES = 2 ** 22        # distances held at once, 32 MiB
SAID = {'two_nn_linear': ('intrinsic dimension, 2NN by slope', 'dimensions', 'curve'),
        'two_nn_linear_error': ('standard error of 2NN by slope', 'dimensions', 'none'),
        'two_nn_likelihood': ('intrinsic dimension, 2NN by likelihood', 'dimensions', 'curve'),
        'two_nn_likelihood_error': ('standard error of 2NN by likelihood', 'dimensions', 'none'),
        'distinct_rows': ('rows that differ from all others before them', 'rows', 'none')}
SCALED = {'gride': ('intrinsic dimension by scale, Gride', 'dimensions', 'map'),
          'gride_error': ('standard error of Gride', 'dimensions', 'none'),
          'gride_distance': ('mean distance to the neighbours of a scale', 'units of the site', 'none')}


@dataclasses.dataclass(frozen=True)
class IntrinsicDimension:
  """2NN [site] and Gride [site, scale] estimates of the dimension of the rows of `sites`, each with its error.

  Over a fixed sample of at most `size` rows, 3 at least. `scale` is n1, the nearer of the two neighbours, up to half of
  `most_neighbours` and of the other rows; `gride_distance` is the mean distance to the two. Equal rows count once, and
  a warning names their site. A site with fewer than 3 distinct rows, or whose two nearest neighbours are equally far
  everywhere (a lattice), has no dimension: NaN, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  discard: float = 0.1
  most_neighbours: int = 64
  size: int = 512
  seed: int = 0

  invariant = {name: CENTRED for name in (*SAID, *SCALED) if name not in ('distinct_rows', 'gride_distance')} | {
      'gride_distance': ('permutation', 'rotation', 'translation')}

  def __post_init__(self):
    if not 0 <= self.discard < 1:
      raise ValueError(f'discard {self.discard} is not a share of rows from 0 to below 1; Facco et al. take 0.1')
    if self.most_neighbours < 2:
      raise ValueError(f'most_neighbours {self.most_neighbours} is below 2; ratios need two neighbours')

  def needs(self, specs):
    return {'rows': Sample(select(self.sites, specs), self.size, self.pool, seed=self.seed)}

  def compute(self, rows: Rows) -> xr.Dataset:
    n, names = pairs.sampled(rows, 3, 'an intrinsic dimension'), list(rows.x)
    scales = doubled(min(self.most_neighbours, n - 1))
    found = stats.side_by_side(lambda x: self._of_site(x, scales), rows.x.values())
    one, many = (np.stack(part) for part in zip(*found))                    # [L, quantities], [L, quantities, scales]
    distinct = one[:, list(SAID).index('distinct_rows')]
    named = lambda which: [s for s, w in zip(names, which) if w]
    pairs.warn(named((distinct < n) & (distinct >= 3)), f'have rows among their {n} that are equal', 'each counts once')
    pairs.warn(named(distinct < 3), f'have fewer than 3 distinct rows among their {n}', 'their dimension is NaN')
    pairs.warn(named((distinct >= 3) & np.isnan(one).any(1)), 'have two nearest neighbours that are equally far, but '
               f'for a share of {self.discard} of rows at most', 'their dimension by 2NN is NaN')
    variables = {name: ('site', one[:, i]) for i, name in enumerate(SAID)}
    variables |= {name: (('site', 'scale'), many[:, i]) for i, name in enumerate(SCALED)}
    out = xr.Dataset(variables, {'site': names, 'scale': scales}, attrs=dict(
        aspect='features', title='Intrinsic dimension', question='How many dimensions has the manifold of features?',
        source='Facco et al. 2017, arXiv:1803.06992; Denti et al. 2022, arXiv:2104.13832', discard=self.discard,
        most_neighbours=self.most_neighbours, headline='two_nn_linear',
        **pairs.sample_attrs(n, self.pool, self.size, self.seed)))
    for name, (long_name, units, figure) in (SAID | SCALED).items():
      out[name].attrs = dict(long_name=long_name, units=units, figure=figure)
    return out

  def _of_site(self, x, scales):
    """(the quantities of `SAID`, those of `SCALED` [3, scales]) of rows [n, D]."""
    x = x - x.mean(0) + 0.                                       # -0 becomes 0
    x = x[list({row.tobytes(): i for i, row in enumerate(x)}.values())]
    one, many = np.full(len(SAID), np.nan), np.full((len(SCALED), len(scales)), np.nan)
    one[-1] = len(x)
    if len(x) < 3:
      return one, many
    ranks = np.append(scales, 2 * scales[-1])
    ranks = ranks[ranks < len(x)]
    far = neighbour_distances(x, ranks)
    logs = np.log(far[:, 1:] / far[:, :-1])
    one[:2] = slope(logs[:, 0], self.discard)
    for i, t in enumerate(logs.T):
      many[:, i] = *gride(t, ranks[i]), far[:, i:i + 2].mean()
    one[2:4] = many[0, 0], many[0, 0] / np.sqrt(len(x) - 2)
    return one, many


def doubled(most: int) -> np.ndarray:
  """1, 2, 4, ... up to half of `most`."""
  return 2 ** np.arange(int(most).bit_length() - 1)


def neighbour_distances(x: np.ndarray, ranks: np.ndarray) -> np.ndarray:
  """Distance of each of `x` [N, D] to its k-th nearest other row, k of `ranks` [K] -> [N, K].

  From differences of rows, not from products, which lose the digits of near ones."""
  n, out = len(x), []
  step = max(1, ENTRIES // n)
  for start in range(0, n, step):
    block = distance.cdist(x[start:start + step], x)
    np.fill_diagonal(block[:, start:], np.inf)
    out.append(np.partition(block, ranks - 1, axis=1)[:, ranks - 1])
  return np.concatenate(out)


def slope(t: np.ndarray, discard: float) -> tuple[float, float]:
  """(d, its standard error) of log ratios t [N] by 2NN, the largest share `discard` left out; NaN if all are 0."""
  n = len(t)
  kept = min(max(1, int(n * (1 - discard) + 1e-9)), n - 1)       # at F = 1 the ordinate is infinite
  t, y = np.sort(t)[:kept], -np.log1p(-np.arange(1, kept + 1) / n)
  if not t.any():
    return np.nan, np.nan
  # d t are ordered exponential variables, whose gaps are independent with these means, which are their deviations too
  gaps = 1 / np.arange(n, n - kept, -1)
  mean = gaps.cumsum()
  first, second = y @ mean, mean @ mean
  gradient = y / second - 2 * mean * first / second ** 2
  relative = np.linalg.norm(gradient[::-1].cumsum()[::-1] * gaps) * second / first
  d = y @ t / (t @ t)
  return d, d * relative


def gride(t: np.ndarray, n1: int) -> tuple[float, float]:
  """(d, its standard error) of log ratios t [N] of the distances to neighbours 2 n1 and n1; NaN if all are 0."""
  n, total = len(t), t.sum()
  if not total:
    return np.nan, np.nan
  apart = t[t > 0]                                               # t / (1 - exp(-d t)) is 1 / d where t is 0
  tied = n - apart.size
  def derivative(d):
    return (n - 1) / d + (n1 - 1) * (tied / d - (apart / np.expm1(-d * apart)).sum()) - (2 * n1 - 1) * total
  # 1 / d and t are below t / (1 - exp(-d t)), and 1 / d + t is above
  least = (n * n1 - 1) / total / (2 * n1 - 1)
  d = least if n1 == 1 else optimize.brentq(derivative, least / 2, 2 * (2 * n1 - 1) / n1 * least, rtol=1e-12)
  curvature = (apart ** 2 * np.exp(-d * apart) / np.expm1(-d * apart) ** 2).sum()
  information = n / d ** 2 + (n1 - 1) * (tied / d ** 2 + curvature)
  return d, information ** -0.5
