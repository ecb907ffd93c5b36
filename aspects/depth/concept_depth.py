"""Exploring Concept Depth: how deep a concept can be read off, and where reading it no longer gets better (Jin et al. 2024, arXiv:2404.07066).

A logistic regression for each layer, fitted on fold `fit` and scored on fold `held`, gives an accuracy a_l. Its rate of
change is b_l = a_l / a_(l-1). At relative depth l / L, layers l = 1, ..., L in the order of `sites`:
  jump       the first l / L with b_l >= `jump`, where a concept appears at once
  converge   the last l / L with |b_l - 1| >= `tolerance`: behind it the accuracy is flat
Either is NaN where there is none, as is every depth of a concept that no layer reads better than its commonest class by
`least`. Also for the loss of the same probes, which moves where accuracies are all at their ceiling:
  half       depth at which half of the fall of the loss from the commonest class's to the least is reached

Differs from the paper: streams are scaled to unit variance, one number a layer, so that the penalty |w|^2 / (2 C) means
the same in all layers; several classes at once; `half` and `least` are ours.
"""
import dataclasses

import numpy as np
import scipy.optimize
import scipy.special
import xarray as xr

from aspects import measure
from aspects import stats
from aspects.sites import select
from aspects.statistics.sample import Rows, Sample

CURVES = {'accuracy': ('held-out accuracy of logistic regression', '1'),
          'nll': ('held-out cross-entropy of logistic regression', 'nats'),
          'rate': ('accuracy over that of the layer before', '1')}
DEPTHS = {'jump': 'depth at which the accuracy jumps', 'converge': 'depth behind which the accuracy is flat',
          'half': 'depth at which half of the loss is gone'}


@dataclasses.dataclass(frozen=True)
class ConceptDepth:
  """Accuracy, loss and rate of probes [site], and the depths of jump, convergence and half of the loss.

  `size` rows of each fold are kept, pooled by `pool`; labels are the batch's, [B], or [B, T] with pool `tokens`,
  `first` or `last`. `strength` is C, over the sum of the losses of all rows. `classes` None is the width of
  the site `logits`.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  classes: int | None = None
  pool: str = 'last'
  size: int = 2048
  strength: float = 1.0
  jump: float = 1.1
  tolerance: float = 0.03
  least: float = 0.02

  invariant = {'nll': ('permutation', 'rotation', 'scale', 'translation')}

  def __post_init__(self):
    if self.strength <= 0 or self.jump <= 1 or self.tolerance <= 0:
      raise ValueError(f'strength {self.strength} and tolerance {self.tolerance} must be above 0, jump {self.jump} '
                       'above 1')

  def needs(self, specs):
    names, classes = select(self.sites, specs), measure.classes_of(specs, self.classes)
    return {fold: Sample(names, self.size, self.pool, fold, classes=classes) for fold in ('fit', 'held')}

  def compute(self, fit: Rows, held: Rows) -> xr.Dataset:
    classes = np.unique(fit.label)
    if len(classes) < 2 or not len(held.label):
      raise ValueError(f'a concept needs two classes in fold fit and rows in fold held, got {len(classes)} and '
                       f'{len(held.label)}; use more examples')
    names = list(fit.x)
    score = lambda name: scored(fit.x[name], fit.label, held.x[name], held.label, self.strength)
    accuracy, nll = np.array(stats.side_by_side(score, names)).T
    common, prior = majority(fit.label, held.label)
    found = depths(accuracy, nll, common, prior, self.jump, self.tolerance, self.least)
    rate = np.concatenate([[np.nan], accuracy[1:] / np.where(accuracy[:-1] > 0, accuracy[:-1], np.nan)])
    lines = dict(accuracy=accuracy, nll=nll, rate=rate, null_accuracy=np.full(len(names), common),
                 null_nll=np.full(len(names), prior))
    out = xr.Dataset({n: ('site', x) for n, x in lines.items()} | {n: ((), x) for n, x in found.items()},
                     {'site': names}, attrs=dict(
                         aspect='depth', title='Concept depth', question='How deep is the concept read?',
                         source='Jin et al. 2024, arXiv:2404.07066', pool=self.pool, rows=len(fit.label),
                         rows_held=len(held.label), headline='accuracy'))
    for name in out:
      text, units = CURVES[name.removeprefix('null_')] if name not in DEPTHS else (DEPTHS[name], 'share of the layers')
      null = name.startswith('null_')
      out[name].attrs = dict(long_name='of the commonest class: ' * null + text, units=units,
                             figure='curve' if name in CURVES else 'none')
      if f'null_{name}' in out:
        out[name].attrs |= dict(null=f'null_{name}', null_label='commonest class')
    return out


def depths(accuracy, nll, common: float, prior: float, jump=1.1, tolerance=0.03, least=0.02) -> dict[str, float]:
  """{jump, converge, half} as shares of L layers, NaN where there is none; accuracy, nll [L]."""
  nothing = dict.fromkeys(DEPTHS, np.nan)
  if accuracy.max() < common + least:
    return nothing
  count = len(accuracy)
  rate = accuracy[1:] / np.where(accuracy[:-1] > 0, accuracy[:-1], np.nan)
  first = lambda found: (found[0] + 2) / count if len(found) else np.nan
  at = {'jump': first(np.flatnonzero(rate >= jump)),
        'converge': first(np.flatnonzero(np.abs(rate - 1) >= tolerance)[::-1])}
  fall = prior - nll
  return nothing | at | {'half': (np.flatnonzero(fall >= fall.max() / 2)[0] + 1) / count if fall.max() > 0 else np.nan}


def majority(fit: np.ndarray, held: np.ndarray) -> tuple[float, float]:
  """(accuracy, cross-entropy) on labels `held` of the frequencies of the classes in `fit`, one added to each count."""
  classes, counts = np.unique(fit, return_counts=True)
  places = max(fit.max(), held.max()) + 1
  p = (np.bincount(fit, minlength=places) + 1) / (len(fit) + places)
  return (held == classes[counts.argmax()]).mean(), -np.log(p[held]).mean()


def logistic_regression(x: np.ndarray, label: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
  """(weights [D, K], biases [K]) that minimise sum of losses + |W|^2 / (2 strength), classes 0 to K - 1 = max label.

  Of two classes what is penalised is |W_1 - W_0|^2, as in a regression with one vector of weights."""
  (n, d), classes = x.shape, int(label.max()) + 1
  strength = strength / 2 if classes == 2 else strength      # W_1 = -W_0, so that |W|^2 is half of that
  onehot = np.eye(classes)[label]
  def objective(flat):
    weight, bias = flat[:d * classes].reshape(d, classes), flat[d * classes:]
    log_p = scipy.special.log_softmax(x @ weight + bias, -1)
    error = np.exp(log_p) - onehot
    value = -(onehot * log_p).sum() + (weight ** 2).sum() / (2 * strength)
    return value / n, np.concatenate([(x.T @ error + weight / strength).ravel(), error.sum(0)]) / n
  found = scipy.optimize.minimize(objective, np.zeros((d + 1) * classes), jac=True, method='L-BFGS-B',
                                  options=dict(maxiter=1000, gtol=1e-6, ftol=1e-12))
  return found.x[:d * classes].reshape(d, classes), found.x[d * classes:]


def scored(x, label, held, truth, strength: float) -> tuple[float, float]:
  """(accuracy, cross-entropy) on rows `held` [M, D], `truth` [M], of the regression on x [N, D], label [N]."""
  mean = x.mean(0)
  unit = np.sqrt(((x - mean) ** 2).sum() / x.size) or 1.0
  weight, bias = logistic_regression((x - mean) / unit, label, strength)
  z = (held - mean) / unit @ weight + bias
  # A class that the fit fold lacks is never read: its probability is that of one row more.
  z = np.pad(z, ((0, 0), (0, max(0, truth.max() + 1 - z.shape[1]))), constant_values=-np.log(len(x)))
  return (z.argmax(1) == truth).mean(), -scipy.special.log_softmax(z, -1)[np.arange(len(truth)), truth].mean()
