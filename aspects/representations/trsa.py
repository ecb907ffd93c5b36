"""The Topology and Geometry of Neural Representations: RSA of distances whose small and large values were made equal (Lin & Kriegeskorte 2023, arXiv:2309.11028).

D [n, n] holds the distances of n sampled examples in a layer; l and u are quantiles of them, l = 0 for quantile 0.
  rdm   D, the geometry
  rgtm  f(D), f(d) = 0 up to l, (d - l) / (u - l) between, 1 from u on: near pairs and far pairs count as equal
  rgdm  lengths of the shortest paths in the graph of the pairs with d <= u, weighted by f(d), here with l = 0: edges of
        length zero, a fifth of all pairs, would join all examples and leave no distances
For u = l, f is 0 up to it and 1 beyond: the neighbourhood graph alone. Pairs that no path joins get the length of the
longest path, the diameter of the graph, and 1 at least, which no edge exceeds. Two layers are compared by Pearson's
correlation of the n (n - 1) / 2 entries, since saturated entries are ties and make ranks unstable.
"""
import dataclasses

import numpy as np
import xarray as xr

from aspects import stats
from aspects.nn import distances
from aspects.nn import pairs
from aspects.sites import select
from aspects.statistics.sample import Rows, Sample

FORMS = {'rdm': 'distances', 'rgtm': 'geo-topological distances', 'rgdm': 'geodesic distances'}
DISTANCES = {'euclidean': ('permutation', 'rotation', 'scale', 'translation'), 'correlation': ('permutation', 'scale')}


@dataclasses.dataclass(frozen=True)
class Trsa:
  """Correlations of distances, geo-topological and geodesic distances of all pairs of `sites`: trsa_* [site, other].

  `lower` and `upper` are the quantiles of the thresholds; `distance` is euclidean or correlation. Over a fixed sample
  of at most `size` rows, three at least. A layer whose entries do not vary has no correlation: NaN, and a warning
  names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  distance: str = 'euclidean'
  lower: float = 0.2
  upper: float = 0.8
  size: int = 512
  seed: int = 0

  def __post_init__(self):
    if self.distance not in DISTANCES:
      raise ValueError(f'distance {self.distance!r} is not one of {", ".join(DISTANCES)}')
    check_quantiles(self.lower, self.upper)

  @property
  def invariant(self):
    return {f'trsa_{form}': DISTANCES[self.distance] for form in FORMS}

  def needs(self, specs):
    return {'rows': Sample(select(self.sites, specs), self.size, self.pool, seed=self.seed)}

  def compute(self, rows: Rows) -> xr.Dataset:
    n, names = pairs.sampled(rows, 3, 'topological RSA'), list(rows.x)
    layers = stats.side_by_side(lambda x: matrices(distances.dissimilarity(x, self.distance), self.lower, self.upper),
                                rows.x.values())
    values = {form: correlations([layer[form] for layer in layers]) for form in FORMS}
    void = [s for i, s in enumerate(names) if any(np.isnan(value[i, i]) for value in values.values())]
    pairs.warn(void, f'have distances that do not vary over the {n} rows', 'correlations of them are NaN')
    about = lambda form: dict(long_name=f'correlation of {FORMS[form]}', figure='map', limits=[-1, 1])
    return pairs.dataset(names, {f'trsa_{form}': (value, about(form)) for form, value in values.items()},
                         aspect='representations', title='Topology and geometry',
                         question='Which layers join the same examples, however far apart the others are?',
                         source='Lin & Kriegeskorte 2023, arXiv:2309.11028', lower=self.lower, upper=self.upper,
                         distance=self.distance, headline='trsa_rgtm',
                         **pairs.sample_attrs(n, self.pool, self.size, self.seed))


def check_quantiles(lower: float, upper: float) -> None:
  if not 0 <= lower <= upper <= 1:
    raise ValueError(f'quantiles lower {lower} and upper {upper} are not 0 <= lower <= upper <= 1')


def matrices(distance: np.ndarray, lower: float, upper: float) -> dict[str, np.ndarray]:
  """{form: [n, n]} of the distances [n, n] of one layer."""
  return {'rdm': distance, 'rgtm': geo_topological(distance, lower, upper),
          'rgdm': geo_topological(distance, 0., upper, geodesic=True)}


def geo_topological(distance: np.ndarray, lower: float, upper: float, geodesic: bool = False) -> np.ndarray:
  """f(D) [n, n] of distances [n, n] with thresholds at quantiles of the entries above the diagonal, or geodesics."""
  check_quantiles(lower, upper)
  low, high = np.quantile(distances.upper(distance), (lower, upper))
  low *= lower > 0
  if high > low:
    value = np.clip((distance - low) / (high - low), 0, 1)
  else:
    value = (distance > low).astype(float)
  np.fill_diagonal(value, 0)
  return shortest(np.where(distance <= high, value, np.inf)) if geodesic else value


def shortest(edges: np.ndarray) -> np.ndarray:
  """Lengths of the shortest paths [n, n] of a graph [n, n], inf for no edge (Floyd 1962).

  Where there is no path: the longest of the others, and 1 at least."""
  path = edges.copy()
  for k in range(len(path)):
    np.minimum(path, path[:, k, None] + path[None, k], out=path)
  joined = np.isfinite(path)
  return np.where(joined, path, max(path[joined].max(), 1))


def correlations(layers) -> np.ndarray:
  """Pearson's correlation of the entries above the diagonal of all pairs of matrices, L of [n, n] -> [L, L]."""
  return distances.cosines(distances.deviations(np.stack([distances.upper(layer) for layer in layers])))
