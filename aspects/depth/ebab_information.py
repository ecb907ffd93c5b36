"""Adaptive estimators of I(X;T) and I(T;Y): bins of equal mass and kernel bounds (Chelombiev, Houghton & O'Donnell 2019, arXiv:1902.09037).

Both follow the activations of the layer at hand, so that layers without bounds (ReLU) can be compared along training:
  EBAB  edges such that each bin holds as many of the layer's distinct values, which are pooled over units; a value that
        many rows share (the zero of ReLU) has a bin of its own. I(X;T) = H(T), I(T;Y) = H(T) - H(T|Y) of the vectors
        of bins
  aKDE  a Gaussian of variance s^2 around each of N rows; the entropy of the mixture less that of a Gaussian lies
        between -mean_i log mean_j exp(-|x_i - x_j|^2 / 8 s^2) and the same with 2 s^2 (Kolchinsky & Tracey 2017,
        arXiv:1706.02419), with s^2 = s_0^2 max|x|
All are in bits and at most log2 N. Edges and noise change as a network trains, so that a part of any change is theirs.
"""
import dataclasses
from typing import NamedTuple
import warnings

import numpy as np
import xarray as xr

from aspects import measure
from aspects.nn.information import Information, information
from aspects.sites import select
from aspects.statistics.sample import Rows, Sample


class Bounds(NamedTuple):
  """I(X;T) between a lower and an upper bound, and I(T;Y) as the difference of entropies bounded alike; in bits."""
  ixt_lower: float
  ixt_upper: float
  ity_lower: float
  ity_upper: float


TEXTS = {'ixt': 'I(X;T), adaptive bins', 'ity': 'I(T;Y), adaptive bins', 'kde_ixt_lower': 'I(X;T), lower kernel bound',
         'kde_ixt_upper': 'I(X;T), upper kernel bound', 'kde_ity_lower': 'I(T;Y) of lower kernel bounds',
         'kde_ity_upper': 'I(T;Y) of upper kernel bounds'}


@dataclasses.dataclass(frozen=True)
class EbabInformation:
  """I(X;T) and I(T;Y) of each site in adaptive bins, and kernel bounds of both: ixt, ity, kde_* [site], in bits.

  Rows are the first `size` of a fixed seeded order, all of them if there are no more; the kernel bounds are those of
  the first `kernel_size` of these. `noise` is s_0, in roots of the units of the site; `apart` the value with a bin of
  its own. Labels are the batch's, below `classes` (None: the width of the site `logits`). A site with values that are
  not finite is NaN, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  bins: int = 30
  noise: float = 0.1
  apart: float = 0.0
  size: int = 4096
  kernel_size: int = 512
  classes: int | None = None
  pool: str = 'mean'

  examples = (dict(bins=2, noise=2.0),)              # so coarse that a few rows do not all differ
  invariant = {'ixt': ('permutation', 'scale'), 'kde_ixt_upper': ('permutation',), 'kde_ixt_lower': ('permutation',)}

  def __post_init__(self):
    if self.bins < 1 or self.size < 1 or self.kernel_size < 1 or not self.noise > 0:
      raise ValueError(f'bins {self.bins}, size {self.size} and kernel_size {self.kernel_size} are counts from 1, and '
                       f'noise {self.noise} must be above 0')

  def needs(self, specs):
    names = select(self.sites, specs)
    return {'sample': Sample(names, self.size, self.pool, classes=measure.classes_of(specs, self.classes))}

  def compute(self, sample: Rows) -> xr.Dataset:
    names, n = list(sample.x), len(sample.index)
    if not n:
      raise ValueError('adaptive bins need rows, got 0; give them examples')
    some = slice(min(n, self.kernel_size))
    found = {name: [] for name in TEXTS}
    for site in names:
      x = sample.x[site]
      binned = mi_binned(x, adaptive_bins(x, self.bins, self.apart), sample.label, self.apart)
      bounds = mi_kde(x[some], sample.label[some], self.noise)
      for name, value in zip(TEXTS, (*binned, *bounds)):
        found[name].append(value)
    if bad := [s for s, value in zip(names, found['ixt']) if np.isnan(value)]:
      warnings.warn(f'sites {bad} have values that are not finite: their information is NaN', stacklevel=2)
    out = xr.Dataset({k: ('site', v) for k, v in found.items()}, {'site': names}, attrs=dict(
        aspect='depth', title='Information in adaptive bins', headline='ixt', pool=self.pool, rows=float(n),
        question='How much of the input and of the label does each layer hold, at its own scale?',
        source="Chelombiev, Houghton & O'Donnell 2019, arXiv:1902.09037", bins=self.bins, noise=self.noise,
        rows_kernel=some.stop, sample=f'fixed seeded samples of at most {self.size} rows, and {self.kernel_size} of '
        'these for the kernel bounds'))
    for name, text in TEXTS.items():
      out[name].attrs = dict(long_name=text, units='bits', figure='curve')
    return out


def adaptive_bins(x: np.ndarray, bins: int = 30, apart: float = 0.0) -> np.ndarray:
  """Inner edges [at most bins - 1] between which lie equally many, to one, of the distinct values of x [N, U].

  `apart` is not counted. Edges lie halfway between neighbouring values; with fewer values than bins each has its own.
  """
  values = np.unique(x)
  values = values[np.isfinite(values) & (values != apart)]
  count = min(bins, len(values))
  first = np.arange(1, count) * len(values) // max(count, 1)        # the first value of each bin but the lowest
  return (values[first - 1] + values[first]) / 2


def mi_binned(x: np.ndarray, edges: np.ndarray, labels: np.ndarray, apart: float = 0.0) -> Information:
  """I(X;T) and I(T;Y) in bits of rows x [N, U] between `edges` [K], where `apart` is a bin of its own, and labels [N].

  NaN if some x is not finite.
  """
  if not np.isfinite(x).all():
    return Information(np.nan, np.nan)
  return information(np.where(x == apart, len(edges) + 1, np.searchsorted(edges, x, side='right')), labels)


def mi_kde(x: np.ndarray, labels: np.ndarray, sigma0: float = 0.1, adaptive: bool = True) -> Bounds:
  """Bounds in bits of rows x [N, U] under Gaussian noise of variance sigma0^2, times max|x| if `adaptive`.

  A layer of zeros has no information. NaN if some x is not finite.
  """
  if not np.isfinite(x).all():
    return Bounds(np.nan, np.nan, np.nan, np.nan)
  variance = sigma0 ** 2 * (np.abs(x).max() if adaptive else 1.0)
  if not variance:
    return Bounds(0.0, 0.0, 0.0, 0.0)
  x = np.asarray(x, np.float64) - np.mean(x, 0, dtype=np.float64)[None]
  square = (x ** 2).sum(1)
  far = np.maximum(square[:, None] + square[None] - 2 * x @ x.T, 0) / variance
  np.fill_diagonal(far, 0)
  alike = (labels[:, None] == labels[None]).astype(np.float64)
  ixt, ity = [], []
  near = np.exp(-far / 8)
  for kernel in (near, np.square(np.square(near))):        # entropies above that of one Gaussian
    ixt.append(-float(np.log2(kernel.mean(1)).mean()))
    given = -float(np.log2((kernel * alike).sum(1) / alike.sum(1)).mean())
    ity.append(ixt[-1] - given)
  return Bounds(*ixt, *ity)
