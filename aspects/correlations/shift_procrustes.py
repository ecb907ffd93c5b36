"""Shift Procrustes: maps compared after the best rotation of channels and circular shift (Williams et al. 2021, arXiv:2110.14739, section 2.4).

For maps X [N, H, W, D], Y [N, H, W, E], centred by channel over examples and positions, with C_s the sum of
x[p] y[p + s]' over examples and positions p, taken modulo H and W:
  m = max_s |C_s|_*,   score m / (|X| |Y|),   angle arccos score,   Euclidean distance sqrt(|X|^2 + |Y|^2 - 2 m)
Rotations of channels and shifts are isometries and a group, so that both distances are metrics; at one position they
are those of Procrustes. A layer whose maps are moved against another's is at distance 0, where pooling would see
nothing of the positions and flattening would see another layer.
"""
import dataclasses

import numpy as np
import xarray as xr

from aspects.correlations.procrustes import shapes
from aspects.nn import cross_moments as moments
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossMoments
from aspects.statistics.shift_covariance import ShiftCovariance, ShiftMoments

TIE = 1e-6               # of the best: what the rounding of float32 moments may turn around
SAID = {
    'shift_procrustes_angular_score': dict(long_name='Procrustes score after the best shift', limits=[0, 1]),
    'shift_procrustes_angular_distance': dict(
        long_name='angular Procrustes distance after the best shift', units='rad', limits=[0, np.pi / 2]),
    'shift_procrustes_euclidean_distance': dict(
        long_name='Euclidean Procrustes distance after the best shift', units='activation'),
    'shift_rows': dict(long_name='rows that the column\'s layer is moved down, to match', units='positions'),
    'shift_columns': dict(long_name='columns that the column\'s layer is moved right, to match', units='positions')}


@dataclasses.dataclass(frozen=True)
class ShiftProcrustes:
  """Procrustes distances of all pairs of `sites` [site, other] under the best circular shift, and this shift.

  Sites are maps [B, H, W, D], or tokens [B, T, D] in reading order, a square number after `class_tokens`, which are
  left out; all have one H and W, and nothing is pooled. `shift_rows` and `shift_columns` are in (-H/2, H/2] and
  (-W/2, W/2]: how far `numpy.roll` moves the layer on the axis `other` onto the one on `site`. Of shifts that rounding
  cannot tell apart the shortest is taken. On the host a pair takes a decomposition O(D^3) for each shift that can still
  be the best. A layer that does not vary has no shape and no shift: NaN, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  class_tokens: int = 0

  examples = ({'class_tokens': 1},)

  invariant = {'shift_procrustes_angular_score': ('permutation', 'rotation', 'scale', 'translation'),
               'shift_procrustes_angular_distance': ('permutation', 'rotation', 'scale', 'translation'),
               'shift_procrustes_euclidean_distance': ('permutation', 'rotation', 'translation')}

  def __post_init__(self):
    if self.class_tokens < 0:
      raise ValueError(f'class_tokens {self.class_tokens} is how many tokens stand before the map, from 0')

  def needs(self, specs):
    statistic = ShiftCovariance(select(self.sites, specs), self.class_tokens)
    statistic.check(specs)
    return {'shifted': statistic}

  def compute(self, shifted: ShiftMoments) -> xr.Dataset:
    moments.enough(shifted.n, 2, 'shift Procrustes distances need positions,')
    at_rest = CrossMoments(shifted.n, shifted.mean, {k: c[0, 0] for k, c in shifted.cross.items()}, None)
    varies = moments.varying(at_rest, 'their shift Procrustes distances are NaN')
    def pair(a, b):
      own = np.trace(moments.scatter(at_rest, a, a))
      aligned, (down, right) = (own, (0, 0)) if a == b else best(shifted.cross[a, b])
      return (aligned, down, right), (aligned, *(wrapped(-v, size) for v, size in zip((down, right), grid)))
    grid = next(iter(shifted.cross.values())).shape[:2]
    values = moments.fill(shifted.mean, pair, ('aligned', 'shift_rows', 'shift_columns'), varies)
    return moments.maps(
        shifted.mean, dict(zip(SAID, (*shapes(values.pop('aligned'), varies), *values.values()))), SAID,
        title='Shift Procrustes distances', question='Which maps have the same shape, up to a rotation and a shift?',
        source='Williams et al. 2021, arXiv:2110.14739', pool='shift', rows=float(shifted.n), height=grid[0],
        width=grid[1], class_tokens=self.class_tokens, headline='shift_procrustes_angular_distance')


def best(cross: np.ndarray) -> tuple[float, tuple[int, int]]:
  """The largest nuclear norm of cross [H, W, D, E] over shifts, and how far the second map is moved down and right."""
  height, width, d, e = cross.shape
  # |C|_* is at most the root of the rank times |C|_F, which spares most decompositions.
  bound = np.sqrt(min(d, e)) * np.sqrt((cross ** 2).sum((2, 3))).reshape(-1)
  found = {}
  for s in np.argsort(-bound, kind='stable'):
    if found and bound[s] < (1 - TIE) * max(found.values()):
      break
    found[int(s)] = np.linalg.svd(cross[divmod(int(s), width)], compute_uv=False).sum()
  top = max(found.values())
  # cross[s] meets x[p] with y[p + s]: y is moved back by s.
  moves = [tuple(wrapped(-v, size) for v, size in zip(divmod(s, width), (height, width)))
           for s, value in found.items() if value >= (1 - TIE) * top]
  return top, min(moves, key=lambda move: (np.hypot(*move), move))


def wrapped(shift: int, size: int) -> int:
  """`shift` modulo `size`, in (-size / 2, size / 2]."""
  shift %= size
  return int(shift - size if 2 * shift > size else shift)
