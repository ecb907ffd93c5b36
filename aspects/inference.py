"""Intervals, nulls, multiple testing, noise ceilings and the three-way verdict on a claim.

Host side, numpy and scipy in float64. A value that is not finite is an error, never dropped: a run
that diverged takes the worst value before it comes here. One seed has an estimate and no interval
(NaN). `alpha` is one-sided everywhere, so that .025 is the two-sided 95 % interval. S seeds,
K items (layers, conditions), `...` axes that are carried along."""
import collections
import functools
import math
import zlib
from typing import Callable, NamedTuple, Sequence

import numpy as np
from scipy import special, stats

ALPHA = .025
TIE = 1e-12              # relative: sums that differ by rounding only count as equal
VERDICTS = ('holds', 'fails', 'inconclusive')
Prior = tuple[float, float]      # variance and its degrees of freedom, from earlier runs


class Interval(NamedTuple):
  """An estimate with its bounds, each [...]: the axes that were not averaged."""
  estimate: np.ndarray
  low: np.ndarray
  high: np.ndarray


class Paired(NamedTuple):
  """`ours - baseline` over `n` seeds; `rho` correlates the arms, `p` is Student's, two-sided."""
  n: int
  estimate: np.ndarray
  low: np.ndarray
  high: np.ndarray
  sd: np.ndarray
  rho: np.ndarray
  p: np.ndarray


class Trend(NamedTuple):
  """`rho` [S] of each seed; their mean and its bounds were taken in Fisher's z."""
  rho: np.ndarray
  estimate: float
  low: float
  high: float


class Ceiling(NamedTuple):
  """The best possible model of the data scores between these (Nili et al. 2014): or Intervals."""
  lower: float | Interval
  upper: float | Interval


class Moments(NamedTuple):
  """Mean, standard deviation and skewness of a null distribution, each [...]; no skewness where sd is 0."""
  mean: np.ndarray
  sd: np.ndarray
  skewness: np.ndarray


def _sample(values, axis=0):
  """`values` as float64 with `axis` first; refuses what no statistic here is defined for."""
  x = np.moveaxis(np.asarray(values, np.float64), axis, 0)
  if not len(x):
    raise ValueError(f'no values along axis {axis} of shape {np.shape(values)}; give at least one')
  if bad := int((~np.isfinite(x)).sum()):
    raise ValueError(f'{bad} of {x.size} values are not finite; give diverged runs the worst value')
  return x


def _mean_error(x, prior):
  """[S, ...] -> mean, its standard error, degrees of freedom; the error of one value is NaN."""
  n, mean = len(x), x.mean(0)
  if n < 2:
    return mean, np.full_like(mean, np.nan), 1
  variance, df = x.var(0, ddof=1), n - 1
  if prior is not None:
    variance, df = (df * variance + prior[1] * prior[0]) / (df + prior[1]), df + prior[1]
  return mean, np.sqrt(variance / n), df


def interval(values, *, axis: int = 0, alpha: float = ALPHA,
             prior: Prior | None = None) -> Interval:
  """Student's interval of the mean along `axis`, for all other axes at once.

  `prior` (s0^2, f0) shrinks the variance to (f s^2 + f0 s0^2) / (f + f0), with f + f0 degrees
  (Smyth 2004, doi:10.2202/1544-6115.1027). One value: bounds are NaN, with a prior too.

  Raises:
    ValueError: a value is not finite, or there is none."""
  mean, error, df = _mean_error(_sample(values, axis), prior)
  half = stats.t.ppf(1 - alpha, df) * error
  return Interval(mean, mean - half, mean + half)


def student(values, *, axis: int = 0, tau: float = 0., side: str = 'two-sided',
            prior: Prior | None = None) -> np.ndarray:
  """p of Student's test of mean `tau` along `axis`; `side`: two-sided, greater or less.

  Without spread a mean of exactly `tau` has p 1 (one-sided 1/2), any other 0 or 1. One value: NaN.
  Raises ValueError as `interval`, and for another side."""
  mean, error, df = _mean_error(_sample(values, axis) - tau, prior)
  with np.errstate(divide='ignore', invalid='ignore'):
    t = np.where((mean == 0) & (error == 0), 0., mean / error)
  upper = {'two-sided': abs(t), 'greater': t, 'less': -t}
  if side not in upper:
    raise ValueError(f'unknown side {side!r}; one of {list(upper)}')
  return stats.t.sf(upper[side], df) * (2 if side == 'two-sided' else 1)


def paired(ours, baseline, *, axis: int = 0, alpha: float = ALPHA,
           prior: Prior | None = None) -> Paired:
  """Interval of `ours - baseline` over the seeds along `axis`; entry s of both arms is seed s.

  `rho` is 0 where an arm does not vary. Raises ValueError as `interval`, and for unlike shapes."""
  x, y = _sample(ours, axis), _sample(baseline, axis)
  if x.shape != y.shape:
    raise ValueError(f'arms of shapes {x.shape} and {y.shape} do not pair; give both equal seeds')
  d, one = x - y, len(x) < 2
  rho = (_unit(np.moveaxis(x, 0, -1)) * _unit(np.moveaxis(y, 0, -1))).sum(-1)
  sd = np.full(d.shape[1:], np.nan) if one else d.std(0, ddof=1)
  return Paired(len(d), *interval(d, alpha=alpha, prior=prior), sd, np.where(one, np.nan, rho),
                student(d, prior=prior))


def signflip(differences, *, tau: float = 0., draws: int = 20000, seed: int = 0) -> float:
  """One-sided p of mean(differences [S]) > `tau`, if signs about `tau` are symmetric (Fisher 1935).

  Exact over all 2^S signs up to S = 16, then (1 + hits) / (1 + draws). For `<`, negate both.
  The smallest p that S seeds can give is 2^-S."""
  d = _sample(differences) - tau
  if len(d) <= 16:
    sums = np.zeros(1)
    for value in d:
      sums = np.concatenate([sums - value, sums + value])
  else:
    sums = _signs(len(d), draws, seed) @ d
  hits = int((sums >= d.sum() - TIE * abs(d).sum()).sum())
  return hits / len(sums) if len(d) <= 16 else (1 + hits) / (1 + draws)


@functools.lru_cache(maxsize=8)
def _signs(n, draws, seed):
  return np.random.default_rng(seed).integers(0, 2, (draws, n)) * 2. - 1


def permutation_null(statistic: Callable, n: int, *, draws: int = 1000,
                     seed: int = 0) -> np.ndarray:
  """`statistic(index)` under random permutations of 0..n-1 -> [draws, ...].

  The statistic indexes what it has cached, as `(K * L[index][:, index]).sum()` for two Grams; its
  observed value is `statistic(np.arange(n))`."""
  rng = np.random.default_rng(seed)
  return np.stack([np.asarray(statistic(rng.permutation(n)), np.float64) for _ in range(draws)])


def gram_null(left, right, *, draws: int = 1000, seed: int = 0) -> np.ndarray:
  """sum_ij left[l]_ij right[m]_p(i)p(j) for random permutations p -> [draws, L, M].

  The permutation null of every HSIC, CKA or RV coefficient of layers whose rows are shuffled:
  centring, U-centring and norms commute with p, so that a draw is one index and one product. All
  pairs of a draw share p, so that layers of one network stay as dependent as they are, for
  `p_best`. The draws of p are those of `permutation_null`.

  Args: left [L, n, n], right [M, n, n], symmetric, as an estimator prepared them (aspects.nn.hsic);
    scale the result as the observed inner products.
  Raises ValueError for shapes that do not fit."""
  left, right = _grams(left, 'left'), _grams(right, 'right')
  n = left.shape[-1]
  if right.shape[-1] != n:
    raise ValueError(f'left has {n} rows and right {right.shape[-1]}; give Gram matrices of the same rows')
  i, j = np.triu_indices(n)
  half = left[:, i, j] * np.where(i == j, 1., 2.)
  entries = np.ascontiguousarray(right.reshape(len(right), -1).T)   # an index moves M values at once
  size = max(2 ** 15 // len(right), 1)               # what is moved stays in a core's cache
  starts = range(0, len(i), size)
  parts, buffer = [np.ascontiguousarray(half[:, s:s + size]) for s in starts], np.zeros((size, len(right)))
  def draw(p):
    index, total = p[i] * n + p[j], 0.
    for s, part in zip(starts, parts):               # mode clip: straight into the buffer
      total = total + part @ entries.take(index[s:s + size], axis=0, out=buffer[:part.shape[1]], mode='clip')
    return total
  return permutation_null(draw, n, draws=draws, seed=seed)


def _grams(values, name):
  x = np.asarray(values, np.float64)
  if x.ndim != 3 or x.shape[1] != x.shape[2]:
    raise ValueError(f'{name} of shape {x.shape} is not [layers, n, n]; give a stack of Gram matrices')
  return x


def gram_moments(left, right) -> Moments:
  """Exact moments [L, M] of what `gram_null` draws, over all n! permutations, from n = 3 on.

  For symmetric matrices whose rows sum to 0, as centred and U-centred ones do (Kazi-Aoual et al.
  1995). With their traces removed the mean is 0, and the moment of order k is the sum, over the
  ways in which 2k indices coincide, of the products of both matrices' sums over unlike indices.
  Raises ValueError for other shapes."""
  left, right = _grams(left, 'left'), _grams(right, 'right')
  n = left.shape[-1]
  traces = [np.trace(x, axis1=1, axis2=2) for x in (left, right)]
  plane = (np.eye(n) - 1 / n) / (n - 1)                # of trace 1; a permutation leaves it as it is
  sums = [_graphs(x - t[:, None, None] * plane) for x, t in zip((left, right), traces)]
  second, third = (_power(*sums, n, order) for order in (2, 3))
  sd = np.sqrt(np.maximum(second, 0))
  return Moments(np.outer(*traces) / (n - 1), sd, np.where(sd > 0, third / np.where(sd > 0, sd, 1) ** 3, 0.))


def _graphs(x):
  """{(loops, degrees): [L]}: sums over all indices of products of 2 or 3 entries, their edges.

  Where an index occurs once, or a trace is a factor, the sum is 0 and left out."""
  diagonal = lambda y: np.diagonal(y, axis1=1, axis2=2)
  d, square, product = diagonal(x), x ** 2, x @ x
  return {(0, (2, 2)): square.sum((1, 2)), (2, (4,)): (d ** 2).sum(1),
          (0, (2, 2, 2)): (product * x).sum((1, 2)), (0, (3, 3)): (square * x).sum((1, 2)),
          (1, (2, 4)): (diagonal(product) * d).sum(1), (2, (3, 3)): ((x @ d[..., None])[..., 0] * d).sum(1),
          (3, (6,)): (d ** 3).sum(1)}


def _power(left, right, n, order):
  """The mean of the `order`-th power [L, M] from the sums of both sides."""
  blocks, turn = _unlike(order)
  sides = [sum(np.outer(turn[g], side[g]) for g in turn) for side in (left, right)]
  ways = np.array([max(math.perm(n, b), 1) for b in blocks])    # fewer rows than blocks: the sums are 0
  return (sides[0] / ways[:, None]).T @ sides[1]


@functools.cache
def _unlike(order):
  """Sums over unlike indices from those over all: blocks [P] of each partition of 2 order indices, {graph: [P]}.

  Moebius inversion over the coarser partitions (Rota 1964)."""
  partitions = [()]
  for _ in range(2 * order):
    partitions = [(*p, b) for p in partitions for b in range(max(p, default=-1) + 2)]
  graph = lambda p: (sum(a == b for a, b in zip(p[::2], p[1::2])),
                     tuple(sorted(collections.Counter(p).values())))
  known = set(_graphs(np.zeros((1, 1, 1))))
  turn = {g: np.zeros(len(partitions)) for g in map(graph, partitions) if g in known}
  for row, p in enumerate(partitions):
    for q in (q for q in partitions if graph(q) in turn):
      joined = dict(zip(p, q))
      if len(joined) == len(set(zip(p, q))):            # q is coarser than p
        sizes = collections.Counter(joined.values()).values()
        turn[graph(q)][row] += math.prod((-1) ** (m - 1) * math.factorial(m - 1) for m in sizes)
  return [len(set(p)) for p in partitions], turn


def p_moments(observed, moments: Moments) -> np.ndarray:
  """Approximate upper p [...] by the Pearson type III law of these moments (Josse, Pages & Husson 2008).

  A check of permutations, and an extrapolation below 1 / (1 + draws). Where sd is 0 the p is 1."""
  spread = np.where(moments.sd > 0, moments.sd, 1)
  p = stats.pearson3.sf((np.asarray(observed, np.float64) - moments.mean) / spread, moments.skewness)
  return np.where(moments.sd > 0, p, 1.)


def threshold(null, alpha: float) -> np.ndarray:
  """What `observed` exceeds exactly where its `p_value` is at most `alpha`: null [draws, ...] -> [...].

  Raises:
    ValueError: fewer draws than 1 / alpha - 1, with which no p is that small."""
  x = np.sort(_sample(null), axis=0)[::-1]
  above = math.floor(alpha * (1 + len(x)) * (1 + TIE)) - 1
  if not 0 <= above < len(x):
    raise ValueError(f'alpha {alpha} with {len(x)} draws: no p is that small, or all are; '
                     f'give alpha in (0, 1) and at least {math.ceil(1 / min(max(alpha, TIE), 1)) - 1} draws')
  return x[above]


def calibrated(observed, null, *, alpha: float | None = None, most: float = 1.) -> np.ndarray:
  """Scores [...] on a scale where chance is 0 and the largest possible score, `most`, is 1: (s - c) / (most - c).

  c is the mean of the null [draws, ...], as in the adjusted Rand index (Hubert & Arabie 1985), or
  with `alpha` its `threshold`: positive exactly where p <= alpha (Groger et al. 2026,
  arXiv:2602.14486, who clamp at 0). Nothing is clamped here. NaN where chance scores `most`."""
  chance = _sample(null).mean(0) if alpha is None else threshold(null, alpha)
  return (np.asarray(observed, np.float64) - chance) / np.where(chance == most, np.nan, most - chance)


def p_value(observed, null) -> np.ndarray:
  """(1 + #{null >= observed}) / (1 + draws) per entry (Phipson & Smyth 2010, arXiv:1603.05766).

  Args: observed [...], null [draws, ...]. Large is extreme: negate both where small is."""
  observed, null = np.asarray(observed, np.float64), _sample(null)
  return (1 + (null >= observed - TIE * abs(observed)).sum(0)) / (1 + len(null))


def p_best(observed, null) -> np.ndarray:
  """p of each entry, corrected for a search of the whole family, as for the best layer pair.

  Compares with the maximum over all entries of each draw (Westfall & Young 1993). Entries on
  unlike scales are standardised first, by the mean and deviation of their null."""
  best = _sample(null).reshape(len(null), -1).max(1)
  return p_value(observed, best.reshape(-1, *(1,) * np.ndim(observed)))


def bootstrap(values, statistic: Callable = np.mean, *, axis: int = 0, method: str = 'bca',
              draws: int = 2000, alpha: float = ALPHA, seed: int = 0) -> Interval:
  """Bootstrap interval of `statistic(values, axis=...)` along `axis`, all other axes at once.

  `method`: percentile, or bca, bias-corrected and accelerated (Efron 1987). At five seeds it
  covers 84 % where 95 % is asked, so prefer `interval` for means. One value: bounds are NaN.
  Raises ValueError as `interval`, and for another method."""
  if method not in ('percentile', 'bca'):
    raise ValueError(f"unknown method {method!r}; 'percentile' or 'bca'")
  x = _sample(values, axis)
  n, estimate = len(x), np.asarray(statistic(x, axis=0), np.float64)
  if n < 2:
    return Interval(estimate, *np.full((2, *estimate.shape), np.nan))
  index = np.random.default_rng(seed).integers(0, n, (draws, n))
  blocks = np.array_split(index, 1 + (index.size * x[0].size >> 23))   # 64 MB of resamples each
  boot = np.sort(np.concatenate([statistic(x[i], axis=1) for i in blocks]), axis=0)
  levels = [np.full_like(estimate, a) for a in (alpha, 1 - alpha)]
  if method == 'bca':
    levels = [_bca_level(x, statistic, boot, a) for a in levels]
  return Interval(estimate, *(_quantiles(boot, a) for a in levels))


def _bca_level(x, statistic, boot, level):
  """Percentile [...] that corrects `level` for bias and skewness; itself where nothing varies."""
  estimate = statistic(x, axis=0)
  share = ((boot < estimate).mean(0) + (boot <= estimate).mean(0)) / 2
  bias = stats.norm.ppf(np.clip(share, .5 / len(boot), 1 - .5 / len(boot)))
  jackknife = np.stack([statistic(np.delete(x, i, 0), axis=0) for i in range(len(x))])
  pull = jackknife.mean(0) - jackknife
  spread = (pull ** 2).sum(0)
  skew = (pull ** 3).sum(0) / (6 * np.where(spread > 0, spread, 1) ** 1.5)
  z = bias + stats.norm.ppf(level)
  return np.where(spread > 0, stats.norm.cdf(bias + z / (1 - skew * z)), level)


def _quantiles(ordered, level):
  """[draws, ...] and a level [...] per entry -> [...], interpolated linearly."""
  position = level * (len(ordered) - 1)
  below = np.floor(position).astype(int)
  a, b = (np.take_along_axis(ordered, i[None], 0)[0]
          for i in (below, np.minimum(below + 1, len(ordered) - 1)))
  return a + (b - a) * (position - below)


def jackknife(values, statistic: Callable, *, alpha: float = ALPHA) -> Interval:
  """Student's interval of `statistic(values [S, ...])`, its error from S values without one entry.

  For smooth functions of all entries together (Tukey 1958). Fewer than three entries: bounds are
  NaN. Raises ValueError as `interval`."""
  x = _sample(values)
  n, estimate = len(x), np.asarray(statistic(x), np.float64)
  if n < 3:
    return Interval(estimate, *np.full((2, *estimate.shape), np.nan))
  without = np.stack([statistic(np.delete(x, i, 0)) for i in range(n)])
  half = stats.t.ppf(1 - alpha, n - 1) * np.sqrt((n - 1) / n * ((without - without.mean(0)) ** 2).sum(0))
  return Interval(estimate, estimate - half, estimate + half)


def null_cka(widths, n: int) -> np.ndarray:
  """Biased linear CKA of n independent isotropic Gaussians: sqrt(d e / ((d + n) (e + n))).

  Args: widths (d, e), broadcast together. The ratio of exact expectations, E tr W^2 =
  d m (d + m + 1) of a Wishart matrix of m = n - 1 degrees; within 2 % of the mean CKA from n = 20
  on. The debiased estimator has null 0."""
  d, e = (np.asarray(w, np.float64) for w in widths)
  return np.sqrt(d / (d + n) * (e / (e + n)))


def null_cca(widths, n: int) -> np.ndarray:
  """Mean squared canonical correlation of n independent samples: max(d, e) / (n - 1), at most 1.

  Args: widths (d, e), broadcast together; centred samples."""
  return np.minimum(np.maximum(*(np.asarray(w, np.float64) for w in widths)) / (n - 1), 1)


def null_participation(width, n: int) -> np.ndarray:
  """Participation ratio of n isotropic Gaussian samples, centred: about d / (1 + d / (n - 1)).

  The ratio of the exact E (tr W)^2 and E tr W^2 of a Wishart matrix W of n - 1 degrees."""
  d, m = np.asarray(width, np.float64), n - 1
  return (m * d + 2) / (m + d + 1)


def null_neighbours(k: int, n: int) -> float:
  """Expected share of `k` nearest neighbours that two independent spaces of n samples share."""
  return k / (n - 1)


def _family(p):
  flat = np.array(p, np.float64).ravel()     # a copy: the callers write into it
  if not ((flat >= 0) & (flat <= 1)).all():
    raise ValueError(f'p outside [0, 1] or NaN among {flat[:8]}; leave out tests without a p')
  return flat, np.argsort(flat), np.shape(p)


def benjamini_hochberg(p) -> np.ndarray:
  """q-values of a family of any shape: min over larger p of p m / rank (Benjamini 1995)."""
  flat, order, shape = _family(p)
  scaled = flat[order] * flat.size / np.arange(1, flat.size + 1)
  flat[order] = np.minimum.accumulate(scaled[::-1])[::-1]
  return flat.reshape(shape)


def holm(p) -> np.ndarray:
  """Corrected p, any shape: max over smaller p of p (m + 1 - rank), at most 1 (Holm 1979)."""
  flat, order, shape = _family(p)
  flat[order] = np.maximum.accumulate(flat[order] * np.arange(flat.size, 0, -1))
  return np.minimum(flat, 1).reshape(shape)


def _unit(x):
  """Centred rows of length 1; a constant row is zero: it correlates with nothing."""
  x = np.where(np.ptp(x, axis=-1, keepdims=True) > 0, x - x.mean(-1, keepdims=True), 0.)
  norm = np.linalg.norm(x, axis=-1, keepdims=True)
  return x / np.where(norm > 0, norm, 1)


def _curves(values):
  x = _sample(values)
  if x.ndim != 2 or len(x) < 2:
    raise ValueError(f'values of shape {x.shape}: give [seeds, items], two seeds or more')
  return x


def spearman_brown(r, *, factor: float = 2.) -> np.ndarray:
  """Reliability of a mean of `factor` times as many measurements: f r / (1 + (f - 1) r)."""
  return factor * np.asarray(r, np.float64) / (1 + (factor - 1) * np.asarray(r, np.float64))


def split_half(values, *, splits: int = 100, seed: int = 0) -> float:
  """Reliability of the mean over seeds [S, K]: random halves correlated, stepped up to S seeds.

  An odd S leaves one seed out of each split. Raises ValueError for fewer than two seeds."""
  x = _curves(values)
  return float(_reliability(x, len(x), splits, seed))


def _reliability(x, size, splits=20, seed=0):
  """[..., S, K] -> [...]: of the mean of `size` seeds."""
  seeds, rng, total = x.shape[-2], np.random.default_rng(seed), 0.
  for _ in range(splits):
    order = rng.permutation(seeds)[:seeds // 2 * 2].reshape(2, -1)
    a, b = (_unit(x[..., half, :].mean(-2)) for half in order)
    total = total + (a * b).sum(-1)
  return spearman_brown(total / splits, factor=size / (seeds // 2))


def ceiling(values, *, kind: str = 'pearson') -> Ceiling:
  """Mean correlation of each seed [S, K] with the mean of the others, and with the mean of all.

  Seeds are standardised (spearman: ranked) before they are averaged (Nili et al. 2014,
  doi:10.1371/journal.pcbi.1003553). Raises ValueError for one seed or another kind."""
  return Ceiling(*(float(bound) for bound in _agreement(_curves(values), kind).mean(-1)))


def _agreement(x, kind):
  """[..., S, K] -> [..., 2, S]: each seed with the mean of the others, and of all."""
  scores = {'pearson': _unit, 'spearman': lambda x: stats.rankdata(x, axis=-1)}
  if kind not in scores:
    raise ValueError(f'unknown kind {kind!r}; one of {list(scores)}')
  each = scores[kind](x)
  total = each.sum(-2, keepdims=True)     # of ranks, not of unit ranks: ties must stay exact
  pools = [_unit(scores[kind](pool)) for pool in (total - each, total)]
  return np.stack([(_unit(each) * pool).sum(-1) for pool in pools], -2)


def reliability(values, *, over: str = 'items', **options) -> Interval:
  """`split_half` of [S, K] over 20 splits, with an interval as in `noise_ceiling`."""
  x = _curves(values)
  return _interval_over(x, lambda x: _reliability(x, len(values)), over, options)


def noise_ceiling(values, *, kind: str = 'pearson', over: str = 'items', **options) -> Ceiling:
  """`ceiling` of [S, K] whose bounds are Intervals.

  `over` items: K exchangeable items, as conditions or pairs are: a `bootstrap` of items, which
  covers 90 to 93 % where 95 % are asked from K = 20 on. `over` seeds: K fixed items, as layers are,
  and S exchangeable seeds: a `jackknife`, for a seed beside its own copy would raise the ceiling.
  `options` are those of the two. Raises ValueError for another."""
  found = _interval_over(_curves(values), lambda x: _agreement(x, kind).mean(-1), over, options)
  return Ceiling(*(Interval(*bound) for bound in zip(*found)))


def _interval_over(x, statistic, over, options):
  """Interval of `statistic([..., S, K])`, a function of the last two axes."""
  if over not in ('items', 'seeds'):
    raise ValueError(f"unknown axis {over!r}; 'items' or 'seeds'")
  if over == 'seeds':
    return jackknife(x, statistic, **options)
  return bootstrap(x.T, lambda x, axis: statistic(np.moveaxis(x, axis, -1)), **options)


def fisher(r, n: int, *, alpha: float = ALPHA, rank: bool = False) -> Interval:
  """Interval of a correlation of n pairs in Fisher's z, with error 1 / sqrt(n - 3).

  `rank`: Spearman's, with error sqrt(1.06 / (n - 3)) (Fieller et al. 1957). n <= 3: NaN.
  Raises ValueError for |r| >= 1."""
  r = np.asarray(r, np.float64)
  if not (abs(r) < 1).all():
    raise ValueError(f'correlation {r} is not inside (-1, 1), where its z is finite')
  error = np.sqrt((1.06 if rank else 1.) / (n - 3)) if n > 3 else np.nan
  half = stats.norm.ppf(1 - alpha) * error
  return Interval(r, np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half))


def rank_correlation(curves, order) -> np.ndarray:
  """Spearman's correlation of each curve [S, K] with `order` [K] -> [S]; a constant curve has 0."""
  return _unit(stats.rankdata(_sample(curves), axis=1)) @ _unit(stats.rankdata(_sample(order)))


def rank_z(rho, points: int) -> np.ndarray:
  """Fisher's z of rank correlations of `points` values.

  z of 1 is infinite, so |rho| goes at most halfway from 1 to 1 - 12 / (K^3 - K), the value of one
  swapped pair."""
  most = 1 - 6 / (points ** 3 - points)
  return np.arctanh(np.clip(rho, -most, most))


def trend(curves, *, order=None, alpha: float = ALPHA) -> Trend:
  """Rank correlation of each seed's curve [S, K] with `order` [K] (0..K-1); t-interval in z.

  A constant curve has rho 0. Raises ValueError for fewer than 3 points."""
  x = _sample(curves)
  order = np.arange(x.shape[-1]) if order is None else _sample(order)
  if x.ndim != 2 or x.shape[1] < 3 or order.shape != x.shape[1:]:
    raise ValueError(f'curves {x.shape}, order {order.shape}: give [seeds, K] and [K], K >= 3')
  rho = rank_correlation(x, order)
  z = interval(rank_z(rho, x.shape[1]), alpha=alpha)
  return Trend(rho, *(float(np.tanh(bound)) for bound in z))


@functools.cache
def detectable(n: int, *, power: float = .8, alpha: float = ALPHA) -> float:
  """Smallest mean that the one-sided t-test over n seeds sees with chance `power`.

  In standard deviations of the paired difference, by the noncentral t. One seed: infinity."""
  if n < 2:
    return np.inf
  shift = special.nctdtrinc(n - 1, 1 - power, stats.t.ppf(1 - alpha, n - 1))
  return float(shift / np.sqrt(n))


def region(kind: str, *, tau: float = 0., eps: float | None = None,
           band: Sequence[float] | None = None) -> tuple[float, float, float, float]:
  """The decision table: inside (first, second) holds, below the third or above the fourth fails.

  Kinds: superior(tau, eps), noninferior(eps), equivalent(eps), band (a, b). A trend is decided as
  one of these, on the interval of its rho.

  Raises:
    ValueError: another kind, a margin `eps` that is missing or not positive, an empty band."""
  if kind == 'band':
    if band is None or not band[0] < band[1]:
      raise ValueError(f'band {band} is not (a, b) with a < b')
    return (*band, *band)
  margin = np.nan if eps is None else eps
  table = {'superior': (tau, np.inf, tau + margin, np.inf),
           'noninferior': (-margin, np.inf, -margin, np.inf),
           'equivalent': (-margin, margin, -margin, margin)}
  if kind not in table:
    raise ValueError(f"unknown kind {kind!r}; one of {[*table, 'band']}")
  if not margin > 0:
    raise ValueError(f'{kind} with eps {eps}: give the smallest effect worth having, above 0')
  return table[kind]


def decide(kind: str, *, low: float, high: float, **margins) -> str:
  """The verdict of an interval of the difference; `margins` as in `region`. NaN decides nothing."""
  above, below, fails_below, fails_above = region(kind, **margins)
  if low > above and (high < below or below == np.inf):
    return 'holds'
  return 'fails' if high < fails_below or low > fails_above else 'inconclusive'


def second_opinion(differences, kind: str, *, alpha: float = ALPHA, **margins) -> str:
  """The verdict of the table by sign flips of the differences [S]; `margins` as in `region`."""
  low, high, fails_below, fails_above = region(kind, **margins)
  d = _sample(differences)
  def above(bound):
    return bound < np.inf and signflip(d, tau=bound) <= alpha
  def below(bound):
    return bound == np.inf or signflip(-d, tau=-bound) <= alpha
  if above(low) and below(high):
    return 'holds'
  return 'fails' if below(fails_below) or above(fails_above) else 'inconclusive'


def combine(verdicts: Sequence[str]) -> str:
  """Intersection-union: one failure fails, all must hold, each at its full level (Berger 1982)."""
  if unknown := set(verdicts) - set(VERDICTS):
    raise ValueError(f'unknown verdicts {sorted(unknown)}; {VERDICTS}')
  if 'fails' in verdicts:
    return 'fails'
  return 'holds' if set(verdicts) == {'holds'} else 'inconclusive'


def arm_seed(claim: str, seed: int) -> int:
  """The integer in [0, 2^31) from which every arm of `claim` starts run `seed`.

  The arm is no argument, so arms are paired. Folded from CRC-32 of the texts: equal in every
  process, where Python's `hash` is not."""
  entropy = [zlib.crc32(claim.encode()), seed, 0]
  return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
