"""Representational similarity analysis of all pairs of layers: dissimilarities between examples compared (Kriegeskorte, Mur & Bandettini 2008, doi:10.3389/neuro.06.004.2008).

The dissimilarity matrix D of a layer holds, for the m = n (n - 1) / 2 pairs of n sampled examples, the Euclidean or
squared Euclidean distance, 1 - correlation over units, or 1 - cosine. Two layers are compared by
  pearson, spearman   correlation of the m entries, or of their ranks
  tau_a               Kendall's (concordant - discordant) / (m (m - 1) / 2), ties are neither (Nili et al. 2014)
  cosine              <d, e> / |d| |e|
  cosine_cov          the same in the metric V^-1, V the covariance of distances between noise patterns
  corr_cov            the same of entries without their mean               (Diedrichsen et al. 2020, arXiv:2007.02789)
For independent noise of equal variance V = 2 + B B', B the incidence of pairs and examples, and d' V^-1 e =
<HDH, HEH> / 4: whitening is double centring, costs n^2 instead of m^3, and `cosine_cov` of squared Euclidean distances
is linear CKA. Entries are rounded to 10^-12 of the largest before they are ranked, so that ties are ties.
"""
import dataclasses

import numpy as np
from scipy import stats as scipy_stats
import xarray as xr

from aspects import measure
from aspects import stats
from aspects.nn import distances
from aspects.nn import hsic
from aspects.nn import kendall
from aspects.nn import pairs
from aspects.sites import select
from aspects.statistics.sample import Rows, Sample

COMPARE = ('pearson', 'spearman', 'tau_a', 'cosine', 'cosine_cov', 'corr_cov')
LONG = {'pearson': 'Pearson\'s correlation', 'spearman': 'Spearman\'s correlation', 'tau_a': 'Kendall\'s tau-a',
        'cosine': 'cosine', 'cosine_cov': 'whitened cosine', 'corr_cov': 'whitened correlation',
        'euclidean': 'Euclidean distances', 'squared_euclidean': 'squared Euclidean distances',
        'correlation': 'correlation distances'}
MOVES = {'euclidean': ('permutation', 'rotation', 'scale', 'translation'),
         'squared_euclidean': ('permutation', 'rotation', 'scale', 'translation'),
         'correlation': ('permutation', 'scale'), 'cosine': ('permutation', 'rotation', 'scale')}
CONDITIONS = ('example', 'label')
REGISTERED = {'correlation': COMPARE, 'squared_euclidean': COMPARE, 'euclidean': ('pearson', 'spearman'),
              'cosine': ('pearson', 'spearman')}


@dataclasses.dataclass(frozen=True)
class Rsa:
  """Comparisons of dissimilarity matrices of all pairs of `sites`: rsa_<rdm>_<compare> [site, other], 1 = alike.

  One variable for each of `rdm` and of `compare`, over a fixed sample of at most `size` rows. A condition is a
  sampled row, or with conditions='label' the mean of the sampled rows of a class. A layer whose dissimilarities are all
  zero, or all equal where a comparison is centred or ranked, has no value: NaN, and a warning names it. Rows without a
  direction have correlation and cosine 0 with every other row, and a warning names the layer; a layer of such rows
  alone has nothing to compare.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  rdm: tuple[str, ...] = ('squared_euclidean', 'correlation')
  compare: tuple[str, ...] = ('spearman', 'cosine_cov')
  conditions: str = 'example'
  size: int = 512
  seed: int = 0
  classes: int | None = None

  examples = (dict(rdm=distances.KINDS, compare=COMPARE),)

  def __post_init__(self):
    for field, known in (('rdm', distances.KINDS), ('compare', COMPARE)):
      chosen = getattr(self, field)
      if isinstance(chosen, str) or not chosen or set(chosen) - set(known):
        raise ValueError(f'{field} {chosen!r} is not a tuple of some of {", ".join(known)}')
    if self.conditions not in CONDITIONS:
      raise ValueError(f'conditions {self.conditions!r} is not one of {", ".join(CONDITIONS)}')

  @property
  def invariant(self):
    return {f'rsa_{rdm}_{compare}': MOVES[rdm] for rdm in self.rdm for compare in self.compare}

  def needs(self, specs):
    classes = measure.classes_of(specs, self.classes) if self.conditions == 'label' else 0
    return {'rows': Sample(select(self.sites, specs), self.size, self.pool, seed=self.seed, classes=classes)}

  def compute(self, rows: Rows) -> xr.Dataset:
    n, names = pairs.sampled(rows, 3, 'RSA'), list(rows.x)
    x = rows.x if self.conditions == 'example' else class_means(rows)
    variables, void, directionless = {}, {}, {}
    for rdm in self.rdm:
      vectors, some = zip(*stats.side_by_side(lambda s: vector(x[s], rdm), names))
      directionless |= {s: None for s, lengthless in zip(names, some) if lengthless}
      values = compared(np.stack(vectors), self.compare)
      for compare in self.compare:
        void |= {s: None for s, own in zip(names, np.diag(values[compare])) if np.isnan(own)}
        variables[f'rsa_{rdm}_{compare}'] = values[compare], self._attrs(rdm, compare)
    pairs.warn(directionless, 'have rows of length zero, or equal in all units', 'these have cosine and correlation 0')
    pairs.warn(void, 'have dissimilarities that do not vary', 'comparisons with them are NaN')
    return pairs.dataset(names, variables, title='Representational similarity analysis',
                         question='Which layers find the same examples alike?',
                         source='Kriegeskorte et al. 2008, doi:10.3389/neuro.06.004.2008', conditions=self.conditions,
                         headline=next(iter(variables)), **pairs.sample_attrs(n, self.pool, self.size, self.seed))

  @staticmethod
  def _attrs(rdm, compare):
    limits = [0, 1] if compare in ('cosine', 'cosine_cov') else [-1, 1]
    return dict(long_name=f'{LONG[compare]} of {LONG.get(rdm, "cosine distances")}', figure='map', limits=limits,
                **({'registry': f'rsa-rdm={rdm}-compare={compare}'} if compare in REGISTERED[rdm] else {}))


def class_means(rows: Rows) -> dict[str, np.ndarray]:
  """{site: [C, D]}: the mean of the rows of each label that occurs.

  Raises:
    ValueError: fewer than three labels occur."""
  labels = np.unique(rows.label)
  if len(labels) < 3:
    raise ValueError(f"RSA needs at least 3 conditions, got the labels {labels.tolist()}; use conditions='example'")
  return {s: np.stack([x[rows.label == c].mean(0) for c in labels]) for s, x in rows.x.items()}


def vector(x: np.ndarray, rdm: str) -> tuple[np.ndarray, bool]:
  """(dissimilarities [m] of rows [N, D], whether some rows have no direction); zeros if none of them has one."""
  lengthless = distances.directions(x, rdm)[1] if rdm in ('correlation', 'cosine') else np.zeros(len(x), bool)
  found = distances.upper(distances.dissimilarity(x, rdm))
  return (np.zeros_like(found), False) if lengthless.all() else (found, bool(lengthless.any()))


def square(vectors: np.ndarray) -> np.ndarray:
  """The inverse of `distances.upper`: [L, m] -> [L, n, n], symmetric with a zero diagonal."""
  n = int(np.sqrt(2 * vectors.shape[1])) + 1
  out = np.zeros((len(vectors), n, n))
  out[:, distances.above(n)] = vectors
  return out + out.transpose(0, 2, 1)


def compared(vectors: np.ndarray, compare: tuple[str, ...]) -> dict[str, np.ndarray]:
  """{name: [L, L]} for dissimilarities `vectors` [L, m]; NaN where a vector has nothing to compare."""
  centred = distances.deviations(vectors)
  forms = {'pearson': lambda: distances.cosines(centred), 'spearman': lambda: distances.cosines(ranks(vectors)),
           'tau_a': lambda: taus(vectors), 'cosine': lambda: distances.cosines(vectors),
           'cosine_cov': lambda: whitened(vectors), 'corr_cov': lambda: whitened(centred)}
  return {name: forms[name]() for name in compare}


def whitened(vectors: np.ndarray) -> np.ndarray:
  """Cosines of all pairs of `vectors` [L, m] in the metric V^-1 of the module's docstring."""
  return distances.cosines(hsic.centred(square(vectors)).reshape(len(vectors), -1))


def ranks(vectors: np.ndarray) -> np.ndarray:
  """Mean ranks of each vector [L, m], centred."""
  each = stats.side_by_side(lambda v: scipy_stats.rankdata(distances.for_ranks(v)), vectors)
  return np.stack(each) - (vectors.shape[1] + 1) / 2


def taus(vectors: np.ndarray) -> np.ndarray:
  """tau-a of all pairs of `vectors` [L, m]; with itself a vector has 1 less its share of ties."""
  each = stats.side_by_side(lambda v: kendall.ranked(distances.for_ranks(v)), vectors)
  out = np.full((len(each),) * 2, np.nan)
  which = [i for i, r in enumerate(each) if r.rank.max() > 0]
  both = [(i, j) for i in which for j in which if i <= j]
  for (i, j), tau in zip(both, stats.side_by_side(lambda ij: kendall.tau_a(each[ij[0]], each[ij[1]]), both)):
    out[i, j] = out[j, i] = tau
  return out
