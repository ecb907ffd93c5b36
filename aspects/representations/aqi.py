"""Alignment Quality Index: how well labelled clusters are separated at every layer (Borah et al. 2025, arXiv:2506.13901).

With K labelled clusters of n_k of N rows x, centroids c_k, the mean c, W = sum |x - c_y|^2 and B = sum n_k |c_k - c|^2:
  xie_beni           W / (N min |c_k - c_l|^2), low is good                      (Xie & Beni 1991)
  calinski_harabasz  [B / (K - 1)] / [W / (N - K)], high is good                 (Calinski & Harabasz 1974)
  davies_bouldin     mean of max over l of (s_k + s_l) / |c_k - c_l|, s_k the mean distance to the centroid, low is
                     good                                                        (Davies & Bouldin 1979)
  dunn               least distance of rows of two clusters / largest distance within one, high is good  (Dunn 1974)
  silhouette         mean of (b - a) / max(a, b), a the mean distance to the own cluster, b to the nearest other, high
                     is good; 0 for the only row of a cluster                    (Rousseeuw 1987)
  aqi                gamma ch' + (1 - gamma) xb',   ' scales calinski_harabasz and 1 / xie_beni to [0, 1]
The first two are exact on all rows, from moments; the others compare rows with rows, on a fixed sample.

`aqi` is relative: the scaling is joint over all that is compared. In the results of the measure these are the layers of
one network, and only their order can be read. Models are compared by one call of `combined` over all of them: each
model scaled by itself would say nothing, as the best layer of each would be 1.

Differs from the paper: the index of a layer needs no reduction of dimensions first; 1 / xie_beni is scaled by its
range, where the authors' code takes a sigmoid about its median; weights of layers are not learned, but given or equal.
"""
import dataclasses
import warnings

import numpy as np
from scipy.spatial import distance as distances
import xarray as xr

from aspects import measure
from aspects import stats
from aspects.sites import select
from aspects.statistics.class_covariance import ClassCovariance, ClassMoments
from aspects.statistics.sample import Rows, Sample

EXACT = {'xie_beni': 'Xie-Beni index', 'calinski_harabasz': 'Calinski-Harabasz index'}
SAMPLED = {'davies_bouldin': 'Davies-Bouldin index', 'dunn': 'Dunn index', 'silhouette': 'silhouette'}


@dataclasses.dataclass(frozen=True)
class Aqi:
  """Five indices of labelled clusters [site] and their combination `aqi` [site]; `pooled_*` [] of a mix of layers.

  `size` rows are sampled for davies_bouldin, dunn, silhouette and what is pooled. `weights` mixes the layers to
  z = sum of weight x layer: `uniform`, or a number of at least 0 for each site, made to sum to 1 (a single 1 is one
  layer); pooled values are NaN where layers differ in width. Clusters without rows are left out. Where all centroids
  coincide, or no cluster has any extent, an index is not defined: NaN, and a warning names the layer.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  classes: int | None = None
  pool: str = 'mean'
  size: int = 512
  gamma: float = 0.5
  weights: str | tuple[float, ...] = 'uniform'

  invariant = {name: ('permutation', 'rotation', 'scale', 'translation') for name in (*EXACT, *SAMPLED, 'aqi')}

  def __post_init__(self):
    if not 0 <= self.gamma <= 1:
      raise ValueError(f'gamma {self.gamma} is the share of calinski_harabasz in aqi; give a number from 0 to 1')
    if isinstance(self.weights, str) and self.weights != 'uniform':
      raise ValueError(f"weights {self.weights!r} is not 'uniform'; give that or one number a site")
    if not isinstance(self.weights, str) and (min(self.weights, default=-1) < 0 or not sum(self.weights)):
      raise ValueError(f'weights {self.weights} must be at least 0 and not all of them; give one number a site')

  def needs(self, specs):
    names, classes = select(self.sites, specs), measure.classes_of(specs, self.classes)
    if not isinstance(self.weights, str) and len(self.weights) != len(names):
      raise ValueError(f'{len(self.weights)} weights for {len(names)} sites; give one number a site')
    return {'moments': ClassCovariance(names, classes, self.pool),
            'sample': Sample(names, self.size, self.pool, classes=classes)}

  def compute(self, moments: dict[str, ClassMoments], sample: Rows) -> xr.Dataset:
    names = list(moments)
    _refuse_few(moments[names[0]].count, sample.label)
    def one(name):
      return {**of_moments(moments[name]), **of_rows(sample.x[name], sample.label)}
    found = stats.side_by_side(one, names)
    for name, each in zip(names, found):
      if lost := [k for k, v in each.items() if not np.isfinite(v)]:
        warnings.warn(f'at site {name!r} clusters coincide or have no extent: {", ".join(lost)} not defined there')
    values = {k: np.array([each[k] for each in found]) for k in found[0]}
    values = {k: np.where(np.isfinite(v), v, np.nan) for k, v in values.items()}
    values['aqi'] = combined(values['calinski_harabasz'], values['xie_beni'], self.gamma)
    return self._dataset(names, values, self._pooled(sample, names), moments[names[0]], len(sample.label))

  def _pooled(self, sample: Rows, names) -> dict[str, float]:
    if len({sample.x[s].shape[1] for s in names}) > 1:
      return dict.fromkeys((*EXACT, *SAMPLED), np.nan)
    weights = np.ones(len(names)) if isinstance(self.weights, str) else np.asarray(self.weights, np.float64)
    mixed = sum(w * sample.x[s] for w, s in zip(weights / weights.sum(), names))
    found = {**of_moments(class_moments(mixed, sample.label)), **of_rows(mixed, sample.label)}
    return {k: v if np.isfinite(v) else np.nan for k, v in found.items()}

  def _dataset(self, names, values, pooled, moments: ClassMoments, rows: int) -> xr.Dataset:
    present = int((moments.count > 0).sum())
    out = xr.Dataset({k: ('site', v) for k, v in values.items()}, {'site': names}, attrs=dict(
        aspect='representations', title='Alignment quality index', question='Where are the labelled clusters apart?',
        source='Borah et al. 2025, arXiv:2506.13901', pool=self.pool, rows=float(moments.n), rows_sampled=rows,
        classes=present, classes_absent=len(moments.count) - present, gamma=self.gamma,
        normalised='jointly over the layers of this network', headline='calinski_harabasz'))
    # With labels that say nothing, both its terms estimate the same variance.
    out['null_calinski_harabasz'] = 'site', np.ones(len(names))
    for k, v in pooled.items():
      out[f'pooled_{k}'] = (), float(v)
    texts = EXACT | SAMPLED | {'aqi': 'alignment quality index, relative to the other layers'}
    for k in out:
      if k.startswith('null_'):
        out[k].attrs = dict(long_name='Calinski-Harabasz index of labels that say nothing', units='1', figure='none')
      elif k.startswith('pooled_'):
        out[k].attrs = dict(long_name=f'{texts[k[7:]]} of the mixed layers', units='1', figure='none')
      else:
        out[k].attrs = dict(long_name=texts[k], units='1', figure='curve')
    out['calinski_harabasz'].attrs |= dict(null='null_calinski_harabasz', null_label='labels that say nothing')
    out['aqi'].attrs |= dict(limits=[0, 1])
    out['silhouette'].attrs |= dict(limits=[-1, 1])
    return out


def _refuse_few(count: np.ndarray, label: np.ndarray) -> None:
  """Raises ValueError for fewer than two clusters, or no row more than clusters."""
  clusters, n = int((count > 0).sum()), float(count.sum())
  if clusters < 2 or len(np.unique(label)) < 2:
    raise ValueError(f'cluster indices compare two clusters or more, got rows of {clusters}; use more examples')
  if n <= clusters or len(label) <= len(np.unique(label)):
    raise ValueError(f'{n:g} rows of {clusters} clusters leave none to tell the spread within them; '
                     f'give at least {clusters + 1}, better many in each')


def of_moments(moments: ClassMoments) -> dict[str, float]:
  """xie_beni and calinski_harabasz of all rows; not finite where clusters coincide or have no extent."""
  kept = moments.count > 0
  count, means = moments.count[kept], moments.class_mean[kept]
  about = means - moments.mean
  between = count @ (about ** 2).sum(1)
  # Below the rounding of the traces there is no extent.
  within = np.trace(moments.scatter) - between
  within = within if within > 1e-9 * np.trace(moments.scatter) else 0.0
  apart = distances.pdist(about, 'sqeuclidean').min()
  apart = apart if apart > 1e-9 * max((about ** 2).sum(1).max(), np.finfo(float).tiny) else 0.0
  freedom = (len(count) - 1) / (moments.n - len(count))
  with np.errstate(divide='ignore', invalid='ignore'):
    return {'xie_beni': float(np.divide(within, moments.n * apart)),
            'calinski_harabasz': float(np.divide(between, within * freedom))}


def of_rows(x: np.ndarray, label: np.ndarray) -> dict[str, float]:
  """davies_bouldin, dunn and silhouette of rows x [N, D] with labels [N]."""
  present, y, count = np.unique(label, return_inverse=True, return_counts=True)
  x = x - x.mean(0)
  hot = (y[:, None] == np.arange(len(present))).astype(np.float64)
  means = hot.T @ x / count[:, None]
  spread = hot.T @ np.sqrt(((x - means[y]) ** 2).sum(1)) / count
  different = ~np.eye(len(present), dtype=bool)
  distance = distances.cdist(x, x)
  same = y[:, None] == y
  total = distance @ hot                                                     # [N, K]
  own = total[np.arange(len(x)), y] / np.maximum(count[y] - 1, 1)
  nearest = np.where(hot > 0, np.inf, total / count).min(1)
  with np.errstate(divide='ignore', invalid='ignore'):
    ratio = (spread[:, None] + spread) / distances.cdist(means, means)
    silhouettes = (nearest - own) / np.maximum(own, nearest)
    dunn = np.divide(distance[~same].min(), distance[same].max())
  silhouettes = np.where(count[y] == 1, 0., silhouettes)
  return {'davies_bouldin': float(np.where(different, ratio, -np.inf).max(1).mean()), 'dunn': float(dunn),
          'silhouette': float(silhouettes.mean())}


def combined(calinski_harabasz: np.ndarray, xie_beni: np.ndarray, gamma: float = 0.5) -> np.ndarray:
  """AQI of all that is compared, layers and models alike: arrays of one shape -> the same shape, in [0, 1].

  Both are scaled by their least and greatest finite value over the whole of the arrays; where these coincide they tell
  nothing apart and all get 1/2. NaN stays NaN.
  """
  def scaled(values):
    values = np.where(np.isfinite(values), np.asarray(values, np.float64), np.nan)
    known = values[np.isfinite(values)]
    if not len(known) or known.max() == known.min():
      return np.where(np.isfinite(values), 0.5, np.nan)
    return (values - known.min()) / (known.max() - known.min())
  with np.errstate(divide='ignore', invalid='ignore'):
    inverse = np.divide(1., xie_beni)
  return gamma * scaled(calinski_harabasz) + (1 - gamma) * scaled(inverse)


def class_moments(x: np.ndarray, label: np.ndarray) -> ClassMoments:
  """The moments of rows x [N, D] at hand, with labels [N]."""
  present, y, count = np.unique(label, return_inverse=True, return_counts=True)
  mean = x.mean(0)
  means = np.stack([x[y == k].mean(0) for k in range(len(present))])
  return ClassMoments(float(len(x)), mean, (x - mean).T @ (x - mean), count.astype(np.float64), means)

