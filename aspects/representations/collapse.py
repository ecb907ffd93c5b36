"""Prevalence of neural collapse during the terminal phase of deep learning training: NC1 to NC4 of every layer (Papyan, Han & Donoho 2020, arXiv:2008.08186).

With the mean m_c of each of C classes, their mean m, the rows M_c = m_c - m, S_W the covariance of rows about their
class mean and S_B = M'M / C, all from one pass:
  nc1              tr(S_W S_B^+) / C, over the singular values of M above 1e-6 of the greatest
  nc1_ratio        tr S_W / tr S_B
  nc2_equinorm     standard deviation over mean of |M_c|
  nc2_equiangular  mean over pairs of |cos(M_c, M_c') + 1 / (C - 1)|
  nc2_etf          |MM' / |MM'| - (I - 11'/C) / sqrt(C - 1)|, Frobenius norms (Zhu et al. 2021, arXiv:2105.02375)
  nc3              |W / |W| - M / |M||
  nc4              share of held-out rows on which the nearest class mean and the classifier W agree
  nc4_network      the same with the network's own prediction, the largest of `logits`
A collapsed simplex ETF has 0, 0, 0, 0, 0, 0, 1, 1. Nothing is clamped: rounding may leave nc1 just below 0. Errors
against float64 on float32 activations are below 2e-5 of the value; where nc3 is 0 its error is about 1e-6 / `ridge`.

Differs from the papers: they look at the last layer and its trained classifier. Here every layer gets its own, W the
least-squares classifier of the centred rows on the one-hot labels from the same moments, with a penalty on |W|^2 of
`ridge` mean eigenvalues so that it exists where units are dead or dependent. m is the mean of the class means and S_W
pools all rows, so unequal classes weigh equally in M only. Classes without rows are left out of everything, C included.
"""
import dataclasses
import warnings

import numpy as np
import scipy.linalg
import xarray as xr

from aspects import measure
from aspects import stats
from aspects.sites import select
from aspects.statistics.class_covariance import ClassCovariance, ClassMoments
from aspects.statistics.sample import Rows, Sample

QUANTITIES = {
    'nc1': 'NC1, tr(S_W S_B^+) / C', 'nc1_ratio': 'NC1, tr S_W / tr S_B',
    'nc2_equinorm': "NC2, variation of the class means' norms", 'nc2_equiangular': 'NC2, deviation from -1/(C-1)',
    'nc2_etf': 'NC2, distance from a simplex', 'nc3': 'NC3, distance of classifier and means',
    'nc4': 'NC4, agreement of nearest mean and classifier'}


@dataclasses.dataclass(frozen=True)
class Collapse:
  """NC1 to NC4 [site] with the layer's own classifier, and null_* with random labels.

  Moments are of fold `fit`, agreements on at most `size` rows of fold `held` (NaN if it is empty). Rows are pooled by
  `pool` (see `aspects.stats`). Where all class means coincide there is no geometry: NaN, with a warning that names the
  layer.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  classes: int | None = None
  pool: str = 'mean'
  size: int = 2048
  ridge: float = 1e-3

  invariant = {name: ('permutation', 'rotation', 'scale', 'translation') for name in QUANTITIES if name != 'nc4'}

  def __post_init__(self):
    if self.ridge <= 0:
      raise ValueError(f'ridge {self.ridge} must be above 0; without it the classifier of a wide layer is not unique')

  def needs(self, specs):
    names, classes = select(self.sites, specs), measure.classes_of(specs, self.classes)
    needs = {
        'fit': ClassCovariance(names, classes, self.pool, 'fit'),
        'random': ClassCovariance(names, classes, self.pool, 'fit', labels='random'),
        'held': Sample(names, self.size, self.pool, 'held', classes=classes)}
    if 'logits' in specs and paired(specs[names[0]], specs['logits'], self.pool):
      needs['logits'] = Sample(('logits',), self.size, self.pool, 'held', classes=classes)
    return needs

  def compute(self, fit: dict[str, ClassMoments], random: dict[str, ClassMoments], held: Rows,
              logits: Rows | None = None) -> xr.Dataset:
    names = list(fit)
    predicted = None if logits is None else logits.x['logits'].argmax(-1)
    def one(name):
      real = geometry(fit[name], held.x[name], self.ridge, predicted)
      return real, geometry(random[name], held.x[name], self.ridge)
    found = stats.side_by_side(one, names)
    for name, (real, _) in zip(names, found):
      if np.isnan(real['nc1']):
        warnings.warn(f'all class means coincide at site {name!r}: collapse is not defined there')
    values = {k: [real[k] for real, _ in found] for k in found[0][0]}
    values |= {f'null_{k}': [null[k] for _, null in found] for k in QUANTITIES}
    present = fit[names[0]].count > 0
    out = xr.Dataset({k: ('site', np.asarray(v)) for k, v in values.items()}, {'site': names}, attrs=dict(
        aspect='representations', title='Neural collapse', question='Where do the classes fall onto their means?',
        source='Papyan, Han & Donoho 2020, arXiv:2008.08186', pool=self.pool, rows=float(fit[names[0]].n),
        rows_held=len(held.label), classes=int(present.sum()), classes_absent=int((~present).sum()), headline='nc1'))
    texts = QUANTITIES | {'nc4_network': 'NC4, agreement of nearest mean and network'}
    for k in out:
      null = k.startswith('null_')
      out[k].attrs = dict(long_name=f'{texts[k[5:]]}, random labels' if null else texts[k], units='1',
                          figure='none' if null else 'curve')
      if f'null_{k}' in out:
        out[k].attrs |= dict(null=f'null_{k}', null_label='random labels')
      if k.startswith('nc4'):
        out[k].attrs |= dict(limits=[0, 1])
    return out


def paired(site, logits, pool: str) -> bool:
  """Whether each row of `site` under `pool` has its own row of `logits`."""
  if len(logits.shape) == 2:
    return stats.positions(site, pool) == 1
  return pool in ('tokens', 'first', 'last') and site.shape[1:-1] == logits.shape[1:-1]


def geometry(moments: ClassMoments, x: np.ndarray, ridge: float, predicted: np.ndarray | None = None) -> dict:
  """The quantities of one layer from its moments, and the agreements on rows x [N, D].

  Raises:
    ValueError: fewer than two classes have rows.
  """
  present = np.flatnonzero(moments.count)
  if len(present) < 2:
    raise ValueError(f'collapse needs rows of two classes or more, got {len(present)}; use more examples')
  count, centred = moments.count[present, None], moments.class_mean[present] - moments.mean
  within = (moments.scatter - centred.T @ (count * centred)) / moments.n
  means = moments.class_mean[present] - moments.class_mean[present].mean(0)                    # M [C, D]
  out = between(means, within)
  if np.isnan(out['nc1']):
    return out | dict.fromkeys(('nc3', 'nc4') + (() if predicted is None else ('nc4_network',)), np.nan)
  penalty = ridge * np.trace(moments.scatter) / len(moments.mean) * np.eye(len(moments.mean))
  weights = scipy.linalg.solve(moments.scatter + penalty, (count * centred).T, assume_a='pos')     # W' [D, C]
  distance = weights.T / np.linalg.norm(weights) - means / np.linalg.norm(means)
  rows = x - moments.mean
  nearest = present[(((centred ** 2).sum(1) / 2)[None] - rows @ centred.T).argmin(1)]
  chosen = present[(rows @ weights + count.T / moments.n).argmax(1)]
  share = lambda other: (nearest == other).mean() if len(x) else np.nan
  network = {} if predicted is None else {'nc4_network': share(predicted)}
  return out | {'nc3': np.linalg.norm(distance), 'nc4': share(chosen)} | network


def between(means: np.ndarray, within: np.ndarray) -> dict:
  """nc1 and nc2 of the centred class means [C, D] and the within-class covariance [D, D]."""
  classes, norms = len(means), np.linalg.norm(means, axis=1)
  _, values, directions = np.linalg.svd(means, full_matrices=False)
  if values[0] == 0:
    return dict.fromkeys(('nc1', 'nc1_ratio', 'nc2_equinorm', 'nc2_equiangular', 'nc2_etf'), np.nan)
  kept = directions[values > 1e-6 * values[0]]
  spread = ((kept @ within) * kept).sum(1)
  unit = means / np.maximum(norms, np.finfo(np.float64).tiny)[:, None]
  cosines = (unit @ unit.T)[~np.eye(classes, dtype=bool)]
  gram = means @ means.T
  frame = (np.eye(classes) - 1 / classes) / np.sqrt(classes - 1)
  return {'nc1': (spread / values[:len(kept)] ** 2).sum(),
          'nc1_ratio': classes * np.trace(within) / (values ** 2).sum(),
          'nc2_equinorm': norms.std() / norms.mean(),
          'nc2_equiangular': abs(cosines + 1 / (classes - 1)).mean(),
          'nc2_etf': np.linalg.norm(gram / np.linalg.norm(gram) - frame)}
