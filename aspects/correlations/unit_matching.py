"""Convergent learning: how far single units of two layers find a partner in each other (Li et al. 2015, arXiv:1511.07543).

c_ij is the correlation of unit i of one layer with unit j of the other over all rows. Units are matched
  hard   one to one, by the assignment that maximises the sum (Kuhn 1955): min(D, E) pairs, the other units are left out
  semi   each unit of the row's layer with its best partner, repeats allowed: not symmetric
  soft   the mean of semi in both directions
`signed` matches c itself, `absolute` |c|: a unit and its negative are then the same feature, which suits linear and
odd units; rectified units have a sign. Units that do not vary correlate 0 with all, and a warning counts them.
"""
import dataclasses
from typing import NamedTuple
import warnings

import numpy as np
from scipy import optimize
import xarray as xr

from aspects.nn import cross_moments as moments
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossCovariance, CrossMoments

KINDS = ('hungarian', 'semi')
RARE = 0.5
SAID = {
    'match_hard_signed_score': dict(long_name='correlation of units matched one to one', limits=[-1, 1],
                                    registry='hard_correlation_match'),
    'match_hard_absolute_score': dict(long_name='absolute correlation of units matched one to one', limits=[0, 1]),
    'match_soft_signed_score': dict(long_name='correlation of units with their best partners', limits=[-1, 1],
                                    registry='soft_correlation_match'),
    'match_soft_absolute_score': dict(long_name='absolute correlation of units with their best partners',
                                      limits=[0, 1]),
    'match_semi_absolute_score': dict(
        long_name='absolute correlation of the units of the row\'s layer with their best partners', limits=[0, 1]),
    'match_rare_share': dict(long_name=f'share of matched units with an absolute correlation below {RARE}',
                             limits=[0, 1])}


class Matching(NamedTuple):
  """Unit `unit[k]` of one layer goes with `partner[k]` of the other; their correlation as it was matched."""
  unit: np.ndarray
  partner: np.ndarray
  correlation: np.ndarray


def unit_correlation(cross: CrossMoments, site: str, other: str) -> np.ndarray:
  """Correlations [D, E] of the units of two sites; 0 for units that do not vary."""
  size = [np.sqrt(moments.variance(cross, s)) for s in (site, other)]
  product = np.outer(*size)
  return np.where(product > 0, moments.scatter(cross, site, other) / np.where(product > 0, product, 1), 0.0)


def match_units(c: np.ndarray, how: str = 'hungarian') -> Matching:
  """Matches the rows of `c` [D, E] with its columns, one to one ('hungarian') or each with its best ('semi').

  It is `c` that is maximised: pass |c| to match units with their negatives.

  Raises:
    ValueError: there is no such way."""
  if how not in KINDS:
    raise ValueError(f'how {how!r} is not one of {", ".join(KINDS)}')
  if how == 'semi':
    unit, partner = np.arange(len(c)), c.argmax(1)
  else:
    unit, partner = optimize.linear_sum_assignment(c, maximize=True)
  return Matching(unit, partner, c[unit, partner])


@dataclasses.dataclass(frozen=True)
class UnitMatching:
  """Mean correlations of matched units for all pairs of `sites` [site, other], exact on the full stream.

  `match_rare_share` is over the pairs of the absolute one-to-one matching. At least three rows are needed: of two, all
  units correlate 1. Many units find good partners by chance when rows are few; an untrained network or shuffled rows
  say how good. The one-to-one matching takes O(D^3) on the host for each pair.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'

  invariant = {name: ('permutation', 'scale', 'translation') for name in SAID}

  def needs(self, specs):
    return {'cross': CrossCovariance(select(self.sites, specs), self.pool)}

  def compute(self, cross: CrossMoments) -> xr.Dataset:
    moments.enough(cross.n, 3, 'correlations of units need')
    if dead := {s: k for s in cross.mean if (k := int((moments.variance(cross, s) == 0).sum()))}:
      said = ', '.join(f'{s} ({k} of {len(cross.mean[s])})' for s, k in dead.items())
      warnings.warn(f'units of these sites do not vary over the {cross.n:g} rows: {said}; their correlations are 0',
                    stacklevel=2)
    values = moments.fill(cross.mean, lambda a, b: scores(unit_correlation(cross, a, b)), tuple(SAID))
    return moments.maps(
        cross.mean, values, SAID, title='Matching of units', question='Do single units of two layers see the same?',
        source='Li et al. 2015, arXiv:1511.07543', pool=self.pool, rows=float(cross.n),
        headline='match_hard_absolute_score')


def scores(c: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """The values of `SAID` for correlations [D, E], and for their transpose."""
  size = np.abs(c)
  hard = match_units(size).correlation
  soft = lambda m: (m.max(1).mean() + m.max(0).mean()) / 2
  both = match_units(c).correlation.mean(), hard.mean(), soft(c), soft(size)
  return tuple((*both, m.max(1).mean(), (hard < RARE).mean()) for m in (size, size.T))
