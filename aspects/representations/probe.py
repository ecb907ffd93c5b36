"""Understanding intermediate layers using linear classifier probes (Alain & Bengio 2016, arXiv:1610.01644).

A ridge classifier per layer and regularisation strength, all of them from one pass over the data. On the rows of
fold `fit`, centred x with one-hot y, every strength a has the closed form
  W_a = (S + a I)^-1 X'Y,   S = X'X = U diag(l) U',   so that   W_a = U diag(1 / (l + a)) U' X'Y,
the minimiser of |Y - X W|^2 + a |W|^2 with a free intercept; the class is the largest of W_a'(x - mean) + share of
y. It is scored on a bounded sample of fold `held`.

The best strength is never chosen on the rows it is scored on: the held-out examples are halved by a hash of their
index, the strength that is most accurate on one half is scored on the other, and the two scores are pooled.

Differs from the paper: squared loss in place of logistic regression, which is what makes one pass enough. The null is
the better of two: always the commonest class of the fit fold, and the same probe of random labels, a control task
(Hewitt & Liang 2019, arXiv:1909.03368) with a label per row.
"""
import dataclasses

import numpy as np
import xarray as xr

from aspects import measure
from aspects import stats
from aspects.sites import select
from aspects.statistics.class_covariance import ClassCovariance, ClassMoments
from aspects.statistics.sample import Rows, Sample

HALVES = ('a', 'b')


@dataclasses.dataclass(frozen=True)
class Probe:
  """Held-out accuracy and R^2 of closed-form ridge probes [penalty, site], and of the best penalty [site].

  `penalties` multiply |W|^2 beside the sum of squared errors over all rows of the fit fold, as in scikit-learn's
  Ridge. Rows are pooled by `pool` (see `aspects.stats`); labels are the batch's, [B], or [B, T] with pool `tokens`.
  `classes` None is the width of the site `logits`. Memory: two covariances and `size` held-out rows a site.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  penalties: tuple[float, ...] = (1e-2, 1., 1e2, 1e4, 1e6)
  classes: int | None = None
  pool: str = 'mean'
  size: int = 2048

  invariant = {'r2': ('permutation', 'rotation', 'translation')}

  def __post_init__(self):
    if not self.penalties or min(self.penalties) <= 0:
      raise ValueError(f'penalties {self.penalties} must be above 0; without a penalty the probe is not unique')

  def needs(self, specs):
    names, classes = select(self.sites, specs), measure.classes_of(specs, self.classes)
    return {
        'fit': ClassCovariance(names, classes, self.pool, 'fit'),
        'random': ClassCovariance(names, classes, self.pool, 'fit', labels='random'),
        'held': Sample(names, self.size, self.pool, 'held', classes=classes)}

  def compute(self, fit: dict[str, ClassMoments], random: dict[str, ClassMoments],
              held: Rows) -> xr.Dataset:
    names = list(fit)
    counts = fit[names[0]].count
    half = np.asarray(stats.mix(held.index, 7)) % 2
    if not fit[names[0]].n or len(np.unique(half)) < 2:
      raise ValueError(f'a probe needs rows in the fit fold and in both halves of the held-out fold, got '
                       f'{fit[names[0]].n:g}, {(half == 0).sum()} and {(half == 1).sum()}; use more examples')
    labels = held.label, np.asarray(stats.random_labels(held.index, held.position, len(counts)))
    def score(name):
      both = judge(fit[name], random[name], held.x[name], labels, self.penalties)
      return [scores(right, error, y, half) for right, error, y in zip(*both, labels)]
    real, null = zip(*stats.side_by_side(score, names))
    accuracy, r2, best, chosen, best_r2 = (np.stack(column, -1) for column in zip(*real))
    guessed, majority = np.stack([s[2] for s in null]), (held.label == counts.argmax()).mean()
    grid, curve = ('penalty', 'site'), ('site',)
    out = xr.Dataset({
        'accuracy_best': (curve, best), 'accuracy': (grid, accuracy), 'r2': (grid, r2), 'r2_best': (curve, best_r2),
        'penalty_best': (('half', 'site'), np.asarray(self.penalties)[chosen]),
        'null_chance': (curve, np.maximum(guessed, majority)), 'null_random': (curve, guessed),
        'majority': (curve, np.full(len(names), majority))}, {
        'penalty': list(self.penalties), 'site': names, 'half': list(HALVES)}, attrs=dict(
            aspect='representations', title='Linear probes', question='From which layer can the label be read off?',
            source='Alain & Bengio 2016, arXiv:1610.01644', pool=self.pool, rows=float(fit[names[0]].n),
            rows_held=len(half), headline='accuracy_best'))
    return described(out)


def described(out: xr.Dataset) -> xr.Dataset:
  """The variables of a probe with their names, units and figures."""
  texts = {
      'accuracy_best': ('held-out accuracy of the best ridge probe', 'curve', [0, 1]),
      'accuracy': ('held-out accuracy of ridge probes', 'map', [0, 1]),
      'r2': ('held-out R^2 of ridge probes', 'none', None),
      'r2_best': ('held-out R^2 at the penalties of highest accuracy', 'curve', None),
      'penalty_best': ('penalty that is most accurate on the other half', 'none', None),
      'null_chance': ('the greater of null_random and majority', 'none', [0, 1]),
      'null_random': ('held-out accuracy of the best probe of random labels', 'none', [0, 1]),
      'majority': ('held-out accuracy of the commonest class', 'none', [0, 1])}
  for name, (text, figure, limits) in texts.items():
    out[name].attrs = dict(long_name=text, units='1', figure=figure) | ({'limits': limits} if limits else {})
  out['accuracy_best'].attrs |= dict(null='null_chance', null_label='chance')
  out['penalty'].attrs = dict(long_name='ridge penalty', units='units of the site, squared')
  return out


def judge(fit: ClassMoments, random: ClassMoments, x: np.ndarray, labels, penalties):
  """(right, squared error), each [2, P, N], of the probes of the labels and of random labels on rows x [N, D]."""
  values, vectors = np.linalg.eigh(fit.scatter)
  values = np.maximum(values, 0)                     # rounding of the float32 products may leave some just below 0
  both = [moments.count[:, None] * (moments.class_mean - moments.mean) for moments in (fit, random)]   # (X'Y)'
  turned = np.concatenate(both) @ vectors                                                              # [2 C, D]
  rows, share = x - fit.mean, np.concatenate([fit.count, random.count]) / fit.n
  right, error = np.zeros((2, 2, len(penalties), len(x)))
  for k, penalty in enumerate(penalties):            # one at a time: with many classes the outputs are large
    weights = turned / (values + penalty) @ vectors.T
    outputs = np.split(rows @ weights.T + share, 2, 1)
    for j, (out, y) in enumerate(zip(outputs, labels)):
      right[j, k] = out.argmax(1) == y
      error[j, k] = (out ** 2).sum(1) - 2 * out[np.arange(len(x)), y] + 1
  return right, error


def scores(right: np.ndarray, error: np.ndarray, labels: np.ndarray, half: np.ndarray) -> tuple:
  """(accuracy [P], R^2 [P], best accuracy, chosen penalty of each half [2], R^2 with it) of right, error [P, N].

  R^2 is one minus the squared error over the variance of the one-hot labels of the same rows, summed over classes.
  """
  rows, n = np.arange(len(labels)), len(labels)
  spread = n - (np.bincount(labels) ** 2.).sum() / n or np.nan
  # Ties go to the penalty that comes last in the list.
  accurate = [right[::-1, half == 1 - h].mean(-1) for h in (0, 1)]
  chosen = np.array([len(right) - 1 - a.argmax() for a in accurate])
  return (right.mean(-1), 1 - error.sum(-1) / spread, right[chosen[half], rows].mean(), chosen,
          1 - error[chosen[half], rows].sum() / spread)
