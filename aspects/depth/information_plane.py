"""Opening the black box: where each layer stands in the plane of I(X;T) and I(T;Y) (Shwartz-Ziv & Tishby 2017, arXiv:1703.00810).

Every unit is cut into equal bins whose edges never move; T is the vector of a layer's bins, and with all inputs equally
likely I(X;T) = H(T), I(T;Y) = H(T) - H(T|Y), in bits. Over all inputs this is exact given the bins; both are at most
log2 N. The values are known to depend on the bins and on whether units saturate (Saxe et al. 2018, "On the information
bottleneck theory of deep learning"); they are quantities of this estimator and not of the layer alone.

`gradient_snr` and `bottleneck_beta` are the two other quantities of the paper.
"""
import dataclasses
from typing import NamedTuple
import warnings

import numpy as np
from scipy import optimize
import xarray as xr

from aspects import measure
from aspects.nn.information import Information, information
from aspects.sites import select
from aspects.statistics.sample import Rows, Sample


@dataclasses.dataclass(frozen=True)
class InformationPlane:
  """I(X;T) and I(T;Y) of each site: ixt, ity [site], in bits.

  `span` is the range that is cut into `bins` equal bins, one pair for all sites or a pair for each; what lies outside
  counts to the outer bins. Rows are the first `size` of a fixed seeded order, all of them if there are no more. Labels
  are the batch's, below `classes` (None: the width of the site `logits`). A site with values that are not finite is
  NaN, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  bins: int = 30
  span: tuple = (-1., 1.)
  size: int = 4096
  classes: int | None = None
  pool: str = 'mean'

  examples = (dict(bins=2, span=(-1., 2.)),)         # so coarse that a few rows do not all differ
  invariant = {'ixt': ('permutation',)}

  def __post_init__(self):
    for pair in self.spans(len(self.span)) if np.ndim(self.span) == 2 else self.spans(1):
      if len(pair) != 2 or not pair[0] < pair[1]:
        raise ValueError(f'span {pair} is no range; give (low, high) with low < high, once or for each site')
    if self.bins < 1 or self.size < 1:
      raise ValueError(f'bins {self.bins} and size {self.size} are counts from 1')

  def spans(self, count: int) -> tuple:
    """A range for each of `count` sites."""
    return tuple(self.span) if np.ndim(self.span) == 2 else (tuple(self.span),) * count

  def needs(self, specs):
    names = select(self.sites, specs)
    if len(self.spans(len(names))) != len(names):
      raise ValueError(f'span gives {len(self.span)} ranges for {len(names)} sites {names}; give one, or one each')
    return {'sample': Sample(names, self.size, self.pool, classes=measure.classes_of(specs, self.classes))}

  def compute(self, sample: Rows) -> xr.Dataset:
    names, n = list(sample.x), len(sample.index)
    if not n:
      raise ValueError('the information plane needs rows, got 0; give it examples')
    found = [plane(sample.x[s], sample.label, self.bins, span) for s, span in zip(names, self.spans(len(names)))]
    if bad := [s for s, one in zip(names, found) if np.isnan(one.ixt)]:
      warnings.warn(f'sites {bad} have values that are not finite: their information is NaN', stacklevel=2)
    out = xr.Dataset({k: ('site', [getattr(one, k) for one in found]) for k in Information._fields}, {'site': names},
                     attrs=dict(aspect='depth', title='Information plane', headline='ixt', pool=self.pool,
                                question='How much of the input and of the label does each layer hold?',
                                source='Shwartz-Ziv & Tishby 2017, arXiv:1703.00810', rows=float(n),
                                sample=f'a fixed seeded sample of at most {self.size} rows', bins=self.bins,
                                span=[list(map(float, pair)) for pair in self.spans(len(names))]))
    for name, text in dict(ixt='I(X;T), information on the input', ity='I(T;Y), information on the label').items():
      out[name].attrs = dict(long_name=text, units='bits', figure='curve')
    return out


def plane(x: np.ndarray, labels: np.ndarray, bins: int = 30, span: tuple = (-1., 1.)) -> Information:
  """I(X;T) and I(T;Y) in bits of rows x [N, U] in equal bins over `span`, and labels [N]; NaN if some x is."""
  if not np.isfinite(x).all():
    return Information(np.nan, np.nan)
  low, high = span
  return information(np.clip(np.floor((x - low) / (high - low) * bins), 0, bins - 1), labels)


# --- phases of the gradient -----------------------------------------------------------------------------------------

class Phase(NamedTuple):
  """Norms of a layer's mean gradient and of its deviation over batches, in units of the weights' norm; their ratio."""
  mean: float
  deviation: float
  snr: float


def gradient_snr(grads: np.ndarray, weights: np.ndarray) -> Phase:
  """Drift or diffusion: of gradients [S, ...] over S batches of a layer with `weights` [...].

  mean = |E g| / |W|, deviation = (E |g - E g|^2)^1/2 / |W|, snr = mean / deviation: above 1 while gradients agree.
  Equal gradients have infinite snr, and none at all 0. The norms are Frobenius'.
  Raises:
    ValueError: fewer than two batches."""
  grads, size = np.asarray(grads, np.float64), np.linalg.norm(np.asarray(weights, np.float64))
  if len(grads) < 2:
    raise ValueError(f'the deviation of a gradient needs at least 2 batches, got {len(grads)}')
  drift = np.linalg.norm(grads.mean(0))
  diffusion = np.sqrt(((grads - grads.mean(0, keepdims=True)) ** 2).sum() / len(grads))
  with np.errstate(divide='ignore'):
    snr = float(np.divide(drift, diffusion)) if drift else 0.0
  return Phase(float(drift / size), float(diffusion / size), snr)


# --- the bottleneck's equation --------------------------------------------------------------------------------------

def bottleneck_beta(encoder: np.ndarray, labels: np.ndarray, most: float = 1e4) -> float:
  """The beta at which an encoder p(t|x) [N, T] satisfies the bottleneck's self-consistent equation best.

  With p(y|x) `labels` [N, C] and inputs equally likely, q(t|x) ~ p(t) exp(-beta KL(p(y|x) || p(y|t))); beta minimises
  the mean of KL(p(t|x) || q(t|x)) over x, which is convex in it. For labels that are a function of x it is 1 whatever
  the encoder is, as q(t|x) is p(t|y) there. NaN if all states say the same of the label; at most `most`.
  """
  encoder, labels = np.asarray(encoder, np.float64), np.asarray(labels, np.float64)
  encoder = encoder[:, encoder.sum(0) > 0]
  p_t = encoder.mean(0)                                             # [T]
  p_y = encoder.T @ labels / (len(encoder) * p_t[:, None])          # [T, C]: p(y|t)
  with np.errstate(divide='ignore', invalid='ignore'):
    own = np.where(labels > 0, labels * np.log(labels), 0).sum(1)   # [N]
    cross = np.where(labels[:, None] > 0, labels[:, None] * np.log(p_y)[None], 0).sum(2)
  far = own[:, None] - cross                                        # [N, T]: KL, infinite where a state excludes x
  near = np.where(np.isfinite(far), far, 0)
  if near.max() - near.min() < 1e-12 and np.isfinite(far).all():
    return np.nan

  def slope(beta):
    log_q = np.where(np.isfinite(far), np.log(p_t)[None] - beta * near, -np.inf)
    q = np.exp(log_q - log_q.max(1, keepdims=True))
    return ((encoder - q / q.sum(1, keepdims=True)) * near).sum(1).mean()
  if slope(0.0) >= 0:
    return 0.0
  return most if slope(most) < 0 else float(optimize.brentq(slope, 0.0, most, xtol=1e-10))
