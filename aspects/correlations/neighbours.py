"""Do layers agree on each example's nearest neighbours? (Klabunde et al. 2023, arXiv:2305.06329; Huh et al. 2024, arXiv:2405.07987)

N(i) and M(i) are the k nearest neighbours of example i in two layers, i left out, with ranks r(j), s(j) from 1; means
over the examples i of a sample of
  mutual_knn           |N n M| / k                                                           (Huh et al. 2024)
  jaccard              |N n M| / |N u M|                                                     (Schumacher et al. 2020)
  rank_similarity      sum over N n M of 2 / ((1 + |r - s|) (r + s)), over 1 + 1/2 + ... + 1/|N n M| (Wang et al. 2020)
  second_order_cosine  1 - the cosine of the vectors of cosines between i and each of N u M  (Hamilton et al. 2016)
Neighbours are by cosine or Euclidean distance; the last is defined for cosines only. Among equal distances (to 10^-12
of the largest) the earlier row of the sample is nearer. An example without a common neighbour has rank similarity 0.
The last is a distance: cosines of neighbours are all near 1, and so then is that of their vectors. ReSi's code takes
the cosine of vectors of cosine *distances* instead, whose value is another; here it is the published definition.
"""
import dataclasses

import numpy as np
from scipy import stats as scipy_stats
import xarray as xr

from aspects import inference
from aspects import stats
from aspects.nn import distances
from aspects.nn import pairs
from aspects.sites import select
from aspects.statistics.sample import Rows, Sample

METRICS = ('cosine', 'euclidean')
LONG = {'mutual_knn': 'shared nearest neighbours', 'jaccard': 'Jaccard index of nearest neighbours',
        'rank_similarity': 'rank similarity of nearest neighbours',
        'second_order_cosine': 'second-order cosine distance of nearest neighbours'}
REGISTRY = {'jaccard': 'jaccard_similarity', 'rank_similarity': 'rank_similarity'}


@dataclasses.dataclass(frozen=True)
class Neighbours:
  """Agreement on the `k` nearest neighbours of all pairs of `sites`: <form>_<metric>_score [site, other], 1 = alike,
  and second_order_cosine_distance, 0 = alike.

  Over a fixed sample of at most `size` rows, k + 2 at least. The nulls are the values of independent layers,
  k / (n - 1) for mutual_knn. A layer whose rows are all equal (in direction, for the cosine), or all of length zero
  there, has no neighbours: NaN, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  k: int = 10
  metric: str = 'cosine'
  size: int = 512
  seed: int = 0

  def __post_init__(self):
    if self.metric not in METRICS:
      raise ValueError(f'metric {self.metric!r} is not one of {", ".join(METRICS)}')
    if self.k < 1:
      raise ValueError(f'k {self.k} is not a number of neighbours from 1 up')

  def _forms(self):
    forms = {form: f'{form}_{self.metric}_score' for form in tuple(LONG)[:3]}
    return forms | ({'second_order_cosine': 'second_order_cosine_distance'} if self.metric == 'cosine' else {})

  @property
  def invariant(self):
    moves = ('permutation', 'rotation', 'scale') + ('translation',) * (self.metric == 'euclidean')
    return {variable: moves for variable in self._forms().values()}

  def needs(self, specs):
    return {'rows': Sample(select(self.sites, specs), self.size, self.pool, seed=self.seed)}

  def compute(self, rows: Rows) -> xr.Dataset:
    n = pairs.sampled(rows, self.k + 2, f'agreement on {self.k} neighbours')
    names, count = list(rows.x), len(rows.x)
    spaces = stats.side_by_side(lambda x: space(x, self.k, self.metric), rows.x.values())
    which = [i for i, s in enumerate(spaces) if s is not None]
    pairs.warn([s for s, found in zip(names, spaces) if found is None],
               f'have {n} rows that are equal' + ' in direction, or have none' * (self.metric == 'cosine'),
               'their neighbours, and agreement on them, are NaN')
    both = [(i, j) for i in which for j in which if i <= j]
    values = np.full((len(LONG), count, count), np.nan)
    for (i, j), found in zip(both, stats.side_by_side(lambda ij: agreement(*(spaces[x] for x in ij)), both)):
      values[:, i, j] = values[:, j, i] = found
    variables = {variable: (value, self._attrs(form)) for (form, variable), value in zip(self._forms().items(), values)}
    for form, null in (('mutual_knn', inference.null_neighbours(self.k, n)), ('jaccard', null_jaccard(self.k, n))):
      about = dict(long_name=f'{LONG[form]}, independent layers', figure='none')
      variables[f'null_{form}'] = np.full((count, count), null), about
    return pairs.dataset(names, variables, title='Nearest neighbours', question='Which layers agree on what is near?',
                         source='Klabunde et al. 2023, arXiv:2305.06329; Huh et al. 2024, arXiv:2405.07987', k=self.k,
                         headline=f'mutual_knn_{self.metric}_score',
                         **pairs.sample_attrs(n, self.pool, self.size, self.seed))

  def _attrs(self, form):
    about = dict(long_name=f'{LONG[form]}, {self.metric}', figure='map', limits=[0, 1])
    if form in ('mutual_knn', 'jaccard'):
      about |= dict(null=f'null_{form}', null_label='independent layers')
    registry = REGISTRY | {'mutual_knn': f'mutual_knn-topk={self.k}'}
    return about | ({'registry': registry[form]} if form in registry and self.metric == 'cosine' else {})


def space(x: np.ndarray, k: int, metric: str):
  """(neighbours [n, k] nearest first, rank [n, n] with 0 for others, cosines [n, n]) of rows [n, D]; None if equal,
  or without a direction where that is what counts."""
  distance = distances.for_ranks(distances.dissimilarity(x, metric))
  unit, lengthless = distances.directions(x, 'cosine')
  if not distance.any() or metric == 'cosine' and lengthless.all():
    return None
  np.fill_diagonal(distance, np.inf)
  nearest = np.argsort(distance, axis=1, kind='stable')[:, :k]
  rank = np.zeros(distance.shape, np.int32)
  np.put_along_axis(rank, nearest, np.broadcast_to(np.arange(1, k + 1, dtype=np.int32), nearest.shape), 1)
  return nearest, rank, unit @ unit.T


def agreement(a, b) -> tuple[float, ...]:
  """The four values of two spaces, in the order of `LONG`."""
  (near_a, rank_a, cosine_a), (near_b, rank_b, cosine_b) = a, b
  n, k = near_a.shape
  there = np.take_along_axis(rank_b, near_a, 1)            # [n, k] the rank in b of a's neighbours, 0 if none
  shared = there > 0
  common = shared.sum(1)
  here = np.arange(1, k + 1)
  terms = np.where(shared, 2 / ((1 + np.abs(here - there)) * (here + there)), 0).sum(1)
  harmonic = np.concatenate([[1], np.cumsum(1 / here)])[common]
  # the union is a's neighbours and those of b that are not among them
  alone = np.take_along_axis(rank_a, near_b, 1) == 0
  def total(p, q):
    at = lambda near: np.take_along_axis(p, near, 1) * np.take_along_axis(q, near, 1)
    return at(near_a).sum(1) + np.where(alone, at(near_b), 0).sum(1)
  norms = np.sqrt(total(cosine_a, cosine_a) * total(cosine_b, cosine_b))
  second = np.where(norms > 0, total(cosine_a, cosine_b) / np.where(norms > 0, norms, 1), 0)
  return (common / k).mean(), (common / (2 * k - common)).mean(), (terms / harmonic).mean(), 1 - second.mean()


def null_jaccard(k: int, n: int) -> float:
  """E[h / (2k - h)] of the overlap h of two independent sets of k among n - 1, which is hypergeometric."""
  h = np.arange(k + 1)
  return float(scipy_stats.hypergeom.pmf(h, n - 1, k, k) @ (h / (2 * k - h)))
