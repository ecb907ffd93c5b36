"""Learned feature representations are biased by complexity, learning order, position, and more: the share of a layer's variance that each label explains (Lampinen, Chan & Hermann 2024, arXiv:2405.05847).

A row z [D] of a layer carries K labels ("factors"). With centred rows Z [N, D], centred indicators F_k [N, C - 1] of
the values of label k, and F = [F_1 ... F_K]:
  marginal     |F_k G_k|^2 / |Z|^2,  G_k the least-squares fit of Z on F_k alone: the variance between its values
  share        |F_k B_k|^2 / |Z|^2,  B = [B_1; ...; B_K] the fit on all labels at once, so that one label does not
               answer for another that it happens to go with
  explained    |F B|^2 / |Z|^2, all labels together
  units_won    number of units of whose variance label k alone explains more than any other label does
For labels of two values, f in {-1, 1} and no others, share = |f (f'Z) / (f'f)|^2 / |Z|^2. Where the labels are
uncorrelated in the data, share = marginal, and they sum to `explained`.

All from one pass: cross-moments of indicators and units, O(K C D) memory a site. Shares are not clamped or debiased: a
label drawn at random has the marginal `chance` = (C - 1) / (N - 1) on average over the orders of its values.
"""
import dataclasses
from typing import Any, NamedTuple
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from aspects import measure
from aspects import stats
from aspects.sites import select

TOLERANCE = 1e-5                                     # eigenvalues of correlations below it are rounding of float32
CENTRED = ('permutation', 'rotation', 'scale', 'translation')


class LabelMoments(NamedTuple):
  """Of n rows (f, x) with P indicators f and D units x: mean [P + D], scatter f'(f, x) [P, P + D] and x'x [D]."""
  n: Any
  mean: Any
  scatter: Any
  power: Any


@dataclasses.dataclass(frozen=True)
class LabelCovariance:
  """Cross-moments of each site with the labels of its examples: {site: LabelMoments}.

  Labels are [B, factors], or [B] and [B, T] for one factor, each a number below `classes`; the first value has no
  indicator, as it is where all others are not.
  """
  sites: tuple[str, ...]
  factors: int
  classes: int
  pool: str = 'mean'

  def init(self, specs):
    stats.check_pool(self.pool)
    p = self.factors * (self.classes - 1)
    def empty(spec):
      d, t = stats.width(spec, self.pool), stats.working(spec.dtype)
      zeros = lambda *shape: stats.Sum.zeros(shape, t)
      return LabelMoments(zeros(), zeros(p + d), zeros(p, p + d), zeros(d))
    return {s: empty(specs[s]) for s in self.sites}

  def update(self, state, acts, batch):
    p, new = self.factors * (self.classes - 1), {}
    for s in self.sites:
      x, weight = stats.rows(acts[s], batch, self.pool)
      joined = jnp.concatenate([self._indicators(acts[s], batch).astype(x.dtype), x], 1)
      n, mean, z = stats.centre(joined, weight)
      power = (z[:, p:] ** 2).sum(0)
      new[s] = LabelMoments(stats.Sum(n, jnp.zeros_like(n)), mean, stats.Sum(stats.product(z[:, :p], z), 0),
                            stats.Sum(power, 0))
    return self.merge(state, new)

  def _indicators(self, x, batch):
    """[N, factors * (classes - 1)] of zeros and ones."""
    label = batch['label']
    if self.factors > 1 and label.shape[1:] != (self.factors,):
      raise ValueError(f'labels {label.shape} are not [B, {self.factors}]: factors is how many labels an example has')
    columns = [label] if self.factors == 1 else [label[:, k] for k in range(self.factors)]
    rows = [stats.row_field(c, x, batch, self.pool) for c in columns]
    return jnp.concatenate([jax.nn.one_hot(r, self.classes)[:, 1:] for r in rows], 1)

  def merge(self, a, b):
    def join(a, b):
      n, mean, left, right = stats.joint(a.n, a.mean, b.n, b.mean)
      p = a.scatter.hi.shape[0]
      between = sum(m.value() * by[:p, None] * by[None] for m, by in ((a.n, left), (b.n, right)))
      power = sum(m.value() * by[p:] ** 2 for m, by in ((a.n, left), (b.n, right)))
      return LabelMoments(n, mean, a.scatter.plus(b.scatter).plus(between), a.power.plus(b.power).plus(power))
    return {s: join(a[s], b[s]) for s in self.sites}

  def finish(self, state):
    return {s: stats.float64(state[s]) for s in self.sites}


@dataclasses.dataclass(frozen=True)
class VarianceShare:
  """share, marginal, units_won, chance [site, factor] and explained [site] of layers `sites`.

  An example has `factors` labels, [B, factors], or one, [B]; each takes values below `classes`, None: two if there are
  several labels, else the width of the site `logits`. Rows are pooled by `pool` (see `aspects.stats`). A layer that
  does not vary, and labels of which some determine another, have no shares: NaN, with a warning that says which.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  factors: int = 1
  classes: int | None = None
  pool: str = 'mean'

  invariant = {'share': CENTRED, 'marginal': CENTRED, 'explained': CENTRED}

  def __post_init__(self):
    if self.factors < 1:
      raise ValueError(f'factors is {self.factors}; an example has one label or more')
    if self.classes is not None and self.classes < 2:
      raise ValueError(f'classes is {self.classes}; a label takes two values or more')

  def needs(self, specs):
    classes = measure.classes_of(specs, self.classes or (2 if self.factors > 1 else None))
    return {'moments': LabelCovariance(select(self.sites, specs), self.factors, classes, self.pool)}

  def compute(self, moments: dict[str, LabelMoments]) -> xr.Dataset:
    names = list(moments)
    found = [_shares(name, moments[name], self.factors) for name in names]
    dims = lambda key: ('site', 'factor')[:found[0][key].ndim + 1]
    out = xr.Dataset({key: (dims(key), np.stack([f[key] for f in found])) for key in found[0]},
                     {'site': names, 'factor': np.arange(self.factors)}, attrs=dict(
        aspect='representations', title='Variance shares of labels', headline='share', pool=self.pool,
        question='How much of what a layer represents is which label?', rows=float(moments[names[0]].n),
        source='Lampinen, Chan & Hermann 2024, arXiv:2405.05847'))
    texts = dict(share='share of the variance, all labels fitted together', marginal='share of the variance between '
                 'values of the label', units_won='units that the label explains best', chance='marginal share of a '
                 'label in random order', explained='share of the variance that all labels explain')
    for key, text in texts.items():
      out[key].attrs = dict(long_name=text, units='units' if key == 'units_won' else '1',
                            figure='curve' if key == 'explained' else 'none' if key == 'chance' else 'map')
    for key in ('share', 'marginal', 'explained'):
      out[key].attrs['limits'] = [0, 1]
    out.marginal.attrs |= dict(null='chance', null_label='labels in random order')
    return out


def _shares(site: str, m: LabelMoments, factors: int) -> dict[str, np.ndarray]:
  """The variables of one site."""
  columns = len(m.scatter)
  inner, cross, total = m.scatter[:, :columns], m.scatter[:, columns:], m.power.sum()
  blocks = np.split(np.arange(columns), factors)
  alone = [_pseudo_inverse(inner[np.ix_(b, b)]) for b in blocks]
  whole, rank = _pseudo_inverse(inner)
  chance = np.array([r for _, r in alone]) / (m.n - 1)
  undefined = dict(share=np.full(factors, np.nan), marginal=np.full(factors, np.nan), explained=np.array(np.nan),
                   units_won=np.full(factors, np.nan), chance=chance)
  if not total:
    warnings.warn(f'site {site!r} does not vary over its {m.n:g} rows: no label has a share of it')
    return undefined
  fits = [cross[b] * (inverse @ cross[b]) for b, (inverse, _) in zip(blocks, alone)]
  each = np.stack([f.sum(0) for f in fits])                                          # [K, D] explained by label alone
  alive = each.max(0) > 0
  won = np.bincount(each[:, alive].argmax(0), minlength=factors).astype(np.float64)
  out = undefined | dict(marginal=each.sum(1) / total, units_won=won)
  if rank < sum(r for _, r in alone):
    warnings.warn(f'some labels determine another in the {m.n:g} rows at site {site!r}: none has a share of its own')
    return out
  weights = whole @ cross                                                            # B [P, D]
  share = [(weights[b] * (inner[np.ix_(b, b)] @ weights[b])).sum() for b in blocks]
  return out | dict(share=np.array(share) / total, explained=np.array((weights * cross).sum() / total))


def _pseudo_inverse(a: np.ndarray) -> tuple[np.ndarray, int]:
  """(the inverse of a scatter [P, P] where it is not singular, its rank), decided on the scale of correlations."""
  size = np.sqrt(np.diag(a))
  scale = np.where(size > 0, 1 / np.where(size > 0, size, 1), 0)
  values, vectors = np.linalg.eigh(a * scale[:, None] * scale[None])
  kept = values > TOLERANCE * len(a)
  inverse = (vectors[:, kept] / values[kept][None]) @ vectors[:, kept].T
  return inverse * scale[:, None] * scale[None], int(kept.sum())
