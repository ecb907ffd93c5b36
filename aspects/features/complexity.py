"""Understanding Visual Feature Reliance through the Lens of Complexity (Fel et al. 2024, arXiv:2407.06076).

A feature is the coordinate z >= 0 of an atom of a non-negative factorisation of the last site, A ~ Z H. Its
complexity is
  K = 1 - mean over sites of I(f -> z),
with the information about z that linear predictors can use (V-information, Xu et al. 2020, arXiv:2002.10689). With
Gaussian errors of fixed variance that is the share of variance explained, R^2; with a fitted variance it is
-log(1 - R^2) / 2 nats.

Both are held out: atoms and ridge probes are fitted on half of the sampled examples and scored on the others, the
baseline being the mean of the fitted half. A probe's penalty is a multiple of its layer's total variance, so that
layers of all widths and scales choose from equal penalties; it is the one with the least leave-one-out error on the
fitted half. K takes max(R^2, 0), as a predictor may ignore its input; `r2`, `r2_mean` and `information` are as they
come.

Differs from the paper: one factorisation, of at most as many atoms as fitted rows, for all classes; activations that
are somewhere negative are split into positive and negative parts, side by side.

The importance of a feature is gradient times input of an output along its atom v. A linear head with weights w_c has
the gradient <v, w_c>, so that it is E |z <v, w_c>| (`importance`). It needs the weights that read the last site, which
a measure of activations does not see: the function is for callers that have them, and where another head follows there
is no such form and no value.
"""
import dataclasses
from typing import NamedTuple
import warnings

import numpy as np
import scipy.linalg
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning
import xarray as xr

from aspects import stats
from aspects.sites import select
from aspects.statistics.sample import Rows, Sample


@dataclasses.dataclass(frozen=True)
class Complexity:
  """Held-out R^2 and information [site, atom] of the last site's features, and their complexity [atom], simplest first.

  `size` rows of each site are sampled (memory: size x width a site). Nulls: `null_random`, the complexity of as many
  random directions of the last site; `null_shuffled` and `null_shuffled_r2`, those of the atoms with their rows
  shuffled. An atom that does not vary over the held-out rows has no complexity: NaN, and a warning says so. `explained`
  is the share of the last site's held-out sum of squares that the atoms reconstruct.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  atoms: int = 10
  size: int = 2048
  pool: str = 'mean'
  penalties: tuple[float, ...] = tuple(10. ** k for k in range(-8, 3))
  iterations: int = 400
  seed: int = 0

  invariant = {name: ('permutation', 'scale') for name in ('complexity', 'r2', 'r2_mean', 'information')}

  def __post_init__(self):
    if self.atoms < 1 or not self.penalties or min(self.penalties) <= 0:
      raise ValueError(f'atoms {self.atoms}, penalties {self.penalties}: give one atom or more and penalties above 0')

  def needs(self, specs):
    return {'rows': Sample(select(self.sites, specs), self.size, self.pool)}

  def compute(self, rows: Rows) -> xr.Dataset:
    names = list(rows.x)
    for s in names:
      if not np.isfinite(rows.x[s]).all():
        raise ValueError(f'site {s!r} has activations that are not finite')
    fit, rng = first_half(rows.index), np.random.default_rng(self.seed)
    if min(fit.sum(), (~fit).sum()) < max(3, self.atoms):
      raise ValueError(f'{len(fit)} sampled rows make halves of {fit.sum()} and {(~fit).sum()}, too few for '
                       f'{self.atoms} atoms; use more examples, a larger size or fewer atoms')
    last = rows.x[names[-1]]
    (codes, explained, _), = stats.side_by_side(lambda x: factorised(x, fit, self.atoms, self.iterations), [last])
    direction = rng.normal(size=(last.shape[1], self.atoms))
    targets = np.concatenate([codes, codes[rng.permutation(len(codes))], last @ direction], 1)
    scored = stats.side_by_side(lambda s: held_out(rows.x[s], targets, fit, self.penalties), names)
    r2, information = (np.stack(part) for part in zip(*scored))
    r2, shuffled, random = np.split(r2, 3, 1)
    silent = np.isnan(r2).any(0).sum()
    if silent:
      warnings.warn(f'{silent} of {self.atoms} atoms of site {names[-1]!r} do not vary over the held-out rows: their '
                    'complexity is NaN; use fewer atoms or more examples', stacklevel=2)
    order = np.argsort(complexity_of(r2), kind='stable')
    return self._dataset(names, r2[:, order], information[:, :self.atoms][:, order], shuffled, random, dict(
        rows=float(len(fit)), explained=explained, activations='signed, split' if (last < 0).any() else 'non-negative'))

  def _dataset(self, names, r2, information, shuffled, random, facts):
    grid, explained = ('site', 'atom'), facts.pop('explained')
    out = xr.Dataset({
        'complexity': ('atom', complexity_of(r2)), 'null_random': ('atom', np.sort(complexity_of(random))),
        'null_shuffled': ('atom', np.sort(complexity_of(shuffled))), 'r2': (grid, r2), 'r2_mean': ('site', r2.mean(1)),
        'null_shuffled_r2': ('site', shuffled.mean(1)), 'information': (grid, information),
        'explained': ((), explained)}, {'site': names, 'atom': np.arange(self.atoms)}, attrs=dict(
            aspect='features', title='Feature complexity',
            question='At which depth can each feature of the last layer be read?',
            source='Fel et al. 2024, arXiv:2407.06076', pool=self.pool, headline='complexity', **facts))
    for name, (long_name, units, figure) in {
        'complexity': ('complexity of a feature', '1', 'curve'),
        'r2_mean': ('R2 of the last layer\'s features, mean of atoms', '1', 'curve'),
        'r2': ('R2 of the last layer\'s features', '1', 'map'),
        'information': ('linearly usable information on a feature', 'nats', 'none'),
        'null_random': ('complexity of random directions', '1', 'none'),
        'null_shuffled': ('complexity with rows shuffled', '1', 'none'),
        'null_shuffled_r2': ('R2 with rows shuffled, mean of atoms', '1', 'none'),
        'explained': ('share of the last layer reconstructed by the atoms', '1', 'none')}.items():
      out[name].attrs = dict(long_name=long_name, units=units, figure=figure)
    out['complexity'].attrs |= dict(null='null_random', null_label='random directions', limits=[0, 1])
    out['r2_mean'].attrs |= dict(null='null_shuffled_r2', null_label='rows shuffled', limits=[0, 1])
    out['r2'].attrs['limits'] = [0, 1]
    return out


def complexity_of(r2: np.ndarray) -> np.ndarray:
  """1 - mean over sites of max(R^2, 0): [site, atom] -> [atom]."""
  return 1 - np.maximum(r2, 0).mean(0)


def first_half(index: np.ndarray) -> np.ndarray:
  """bool [N]: the rows of the first half of the examples, in the order of the sample; an example is never in both."""
  _, first, example = np.unique(index, return_index=True, return_inverse=True)
  place = np.argsort(np.argsort(first))
  return place[example] < (len(first) + 1) // 2


class Factors(NamedTuple):
  """Codes [N, K] of rows, the share of the held-out sum of squares that they explain, and signed atoms [K, D]."""
  codes: np.ndarray
  explained: float
  atoms: np.ndarray


def factorised(x: np.ndarray, fit: np.ndarray, atoms: int, iterations: int) -> Factors:
  """A non-negative factorisation of rows x [N, D], fitted on the rows `fit` [N]: x ~ codes @ atoms.

  The dictionary starts from the rows that a pivoted QR decomposition picks (successive projection, Gillis & Vavasis
  2014), so that neither a draw nor the order of the units matters.
  """
  width = x.shape[1]
  if (x < 0).any():
    x = np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)], 1)
  if not x[fit].any():
    return Factors(np.zeros((len(x), atoms)), np.nan, np.zeros((atoms, width)))
  scale = x[fit].mean()
  x = x / scale
  picked = scipy.linalg.qr(x[fit].T, mode='r', pivoting=True)[1][:atoms]
  start = np.full((fit.sum(), atoms), 1. / atoms)
  model = NMF(atoms, init='custom', tol=1e-5, max_iter=iterations)
  with warnings.catch_warnings():
    # Whether the last digits have settled does not matter: `explained` says how good the atoms are.
    warnings.simplefilter('ignore', ConvergenceWarning)
    model.fit_transform(x[fit], W=start, H=x[fit][picked].copy())
    codes = model.transform(x)
  rest = x[~fit] - codes[~fit] @ model.components_
  explained = 1 - (rest ** 2).sum() / (x[~fit] ** 2).sum() if x[~fit].any() else np.nan
  signed = model.components_[:, :width] - model.components_[:, width:] if x.shape[1] > width else model.components_
  return Factors(codes, explained, scale * signed)


def importance(codes: np.ndarray, atoms: np.ndarray, weights: np.ndarray,
               classes: np.ndarray | None = None) -> np.ndarray:
  """E |z <v, w>| of each atom [K]: what it moves an output by, when a linear head reads the site of the atoms.

  Args:
    codes: z [N, K]; `atoms` v [K, D]; `weights` of the head [D, C].
    classes: the output [N] that is asked about for each row, such as the predicted class; None for the mean of all.
  """
  gradient = atoms @ weights
  if gradient.shape[0] != codes.shape[1]:
    raise ValueError(f'codes of shape {codes.shape} and {gradient.shape[0]} atoms: give one column of codes an atom')
  if classes is None:
    return np.abs(codes).mean(0) * np.abs(gradient).mean(1)
  return np.abs(codes * gradient[:, classes].T).mean(0)


def held_out(x: np.ndarray, z: np.ndarray, fit: np.ndarray, penalties) -> tuple[np.ndarray, np.ndarray]:
  """(R^2 [M], information in nats [M]) of targets z [N, M] from ridge probes of x [N, D]; NaN for constant targets."""
  x, z = x - x[fit].mean(0), z - z[fit].mean(0)
  left, right = principal(x[fit], x[~fit])
  energy = (left ** 2).sum(0)
  left = left / np.sqrt(energy)
  projected, n = left.T @ z[fit], len(left)
  shrinks = [energy / (energy + penalty * energy.sum()) for penalty in penalties]
  errors = []
  for shrink in shrinks:
    leverage = 1 / n + left ** 2 @ shrink
    errors.append((((z[fit] - left @ (shrink[:, None] * projected)) / (1 - leverage)[:, None]) ** 2).sum(0))
  chosen = np.argmin(errors, 0)
  weights = np.stack([shrink[:, None] * projected for shrink in shrinks])[chosen, :, np.arange(z.shape[1])].T
  rest = ((z[~fit] - right @ (weights / np.sqrt(energy)[:, None])) ** 2).sum(0)
  total = (z[~fit] ** 2).sum(0)
  total = np.where(np.ptp(z[~fit], axis=0) > 0, total, np.nan)
  with np.errstate(divide='ignore'):                         # a target read without error carries unbounded information
    return 1 - rest / total, 0.5 * np.log(total / rest)


def principal(x: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Coordinates of both sets of rows along the principal axes of x [N, D] that vary."""
  wide = x.shape[1] > len(x)
  energy, vector = np.linalg.eigh(x @ x.T if wide else x.T @ x)
  kept = energy > 1e-12 * energy[-1]
  axes = vector[:, kept]
  if wide:
    axes = x.T @ axes / np.sqrt(energy[kept])
  return x @ axes, other @ axes
