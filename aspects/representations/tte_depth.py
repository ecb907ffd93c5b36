"""Statistical Depth for Ranking and Characterizing Transformer-Based Text Embeddings (Seegmiller & Preum 2023, arXiv:2310.15010).

The depth of a row x in rows Q is D(x, Q) = 2 - mean over h in Q of (1 - cos(x, h)), in [0, 2]: large at the centre of
Q, small for outliers. Two samples, F of m rows and G of n, are compared by the rank-sum test of Liu & Singh (1993,
doi:10.1080/01621459.1993.10594317) on their depths in F:
  Q = share of pairs (x, y) with D(x, F) < D(y, F), ties counting half;   z = (Q - 1/2) / sqrt((1/m + 1/n) / 12)
Under F = G, Q is 1/2 and z standard normal for large samples; Q < 1/2 says that G lies further out or is spread more.
A row of F leaves itself out of its own depth. With itself, at distance 0, each looks deeper than it is, and the test
rejects what is true, the more so the more alike all distances are; `leave_one_out=False` is that form. Left out, the
test keeps its level where rows share a direction, as text embeddings do; where they share none the depths within F
fluctuate together, and of true nulls at 5 % about 11 % are rejected (normal rows in 64 dimensions). The test is not
symmetric: what is spread less than its reference stays inside it, so ask both ways.
"""
import dataclasses
from typing import NamedTuple
import warnings

import numpy as np
from scipy import stats as scipy_stats
import xarray as xr

from aspects import measure
from aspects import stats
from aspects.nn import distances
from aspects.nn import pairs
from aspects.sites import select
from aspects.statistics.sample import Rows, Sample

LEAST = 8                # rows of a sample, below which the normal approximation of a rank sum is none


class RankSum(NamedTuple):
  """Q in [0, 1], its standard score z, and its p, two-sided."""
  q: float
  z: float
  p: float


@dataclasses.dataclass(frozen=True)
class TteDepth:
  """Depth of each class among its own and the depth of all others in it: depth_* [site, class].

  F is a class and G the other classes, of a fixed sample of at most `size` rows: `depth_q` is Q, `depth_z` and
  `depth_p` its test, `depth_own` the mean depth of the rows of F. The null of Q, `null_q`, takes two halves of F
  instead of F and G. A class with fewer than 8 rows in the sample, or 16 for its null, is NaN, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  classes: int | None = None
  size: int = 512
  seed: int = 0

  # Q changes in steps of a pair, in which rounding may end on either side.
  invariant = {'depth_own': ('permutation', 'rotation', 'scale')}

  def needs(self, specs):
    names, classes = select(self.sites, specs), measure.classes_of(specs, self.classes)
    return {'rows': Sample(names, self.size, self.pool, seed=self.seed, classes=classes)}

  def compute(self, rows: Rows) -> xr.Dataset:
    n, names = pairs.sampled(rows, 2 * LEAST, 'a test of depths'), list(rows.x)
    labels, count = np.unique(rows.label, return_counts=True)
    if len(labels) < 2:
      raise ValueError(f'depth compares classes, and all {n} rows have the label {labels[0]}; use more examples')
    few = [int(c) for c, k in zip(labels, count) if k < 2 * LEAST]
    if few:
      warnings.warn(f'classes {few} have fewer than {2 * LEAST} of the {n} rows: their null, or their depth too, is '
                    'NaN; use a larger size', stacklevel=2)
    site = lambda x: np.array([self._class(x, rows.label == c) for c in labels])
    found = np.stack(stats.side_by_side(site, rows.x.values()))          # [site, class, value]
    variables = dict(zip(('depth_q', 'depth_z', 'depth_p', 'depth_own', 'null_q'), np.moveaxis(found, -1, 0)))
    out = xr.Dataset({name: (('site', 'class'), value) for name, value in variables.items()},
                     {'site': names, 'class': labels}, attrs=dict(
        aspect='representations', title='Statistical depth', source='Seegmiller & Preum 2023, arXiv:2310.15010',
        question='Do the other classes lie inside a class or around it?', headline='depth_q',
        **pairs.sample_attrs(n, self.pool, self.size, self.seed)))
    about = {'depth_q': ('share of others that are deeper than rows of the class', '1', 'map'),
             'depth_z': ('standard score of that share', 'standard deviations', 'none'),
             'depth_p': ('p of that share', '1', 'none'),
             'depth_own': ('mean depth of the rows of a class', '1', 'none'),
             'null_q': ('share that is deeper, two halves of a class', '1', 'none')}
    for name, (long_name, units, figure) in about.items():
      out[name].attrs = dict(long_name=long_name, units=units, figure=figure)
    out['depth_q'].attrs |= dict(limits=[0, 1], null='null_q', null_label='two halves of a class')
    return out

  @staticmethod
  def _class(x, inside) -> tuple[float, ...]:
    """Q, z, p, the mean depth and Q of two halves, for one class of one site."""
    f, g = x[inside], x[~inside]
    if min(len(f), len(g)) < LEAST:
      return (np.nan,) * 5
    # the order of the sample is random, so that every second row is a half
    null = depth_rank_sum(f[::2], f[1::2]).q if len(f) >= 2 * LEAST else np.nan
    return *depth_rank_sum(f, g), cosine_depth(f, f, leave_one_out=True).mean(), null


def cosine_depth(x: np.ndarray, reference: np.ndarray, leave_one_out: bool = False) -> np.ndarray:
  """Depth of rows `x` [N, D] in `reference` [M, D] -> [N]; a row of length zero has cosine 0 with all.

  leave_one_out: `x` is `reference`, and no row counts in its own depth.

  Raises:
    ValueError: rows that are to be left out of another number of them, or none are left."""
  if leave_one_out and (len(x) != len(reference) or len(x) < 2):
    raise ValueError(f'{len(x)} rows cannot leave themselves out of {len(reference)}; give the same rows twice, two '
                     'or more')
  a, b = (distances.directions(np.asarray(rows, np.float64), 'cosine')[0] for rows in (x, reference))
  total = a @ b.sum(0)
  if leave_one_out:
    return 1 + (total - (a * b).sum(1)) / (len(b) - 1)
  return 1 + total / len(b)


def depth_rank_sum(f: np.ndarray, g: np.ndarray, leave_one_out: bool = True) -> RankSum:
  """The test of rows `g` [N, D] against the reference `f` [M, D].

  Raises:
    ValueError: fewer than two rows of f, or none of g."""
  if len(f) < 2 or not len(g):
    raise ValueError(f'a rank sum of {len(f)} and {len(g)} rows; give two or more of the reference, one of the other')
  inner, outer = cosine_depth(f, f, leave_one_out), cosine_depth(g, f)
  m, n = len(inner), len(outer)
  # Depths equal to 10^-12 are ties: sums over other rows differ in their rounding.
  rank = scipy_stats.rankdata(distances.for_ranks(np.concatenate([inner, outer])))
  q = (rank[m:].sum() - n * (n + 1) / 2) / (m * n)
  z = (q - 0.5) / np.sqrt((1 / m + 1 / n) / 12)
  return RankSum(float(q), float(z), float(2 * scipy_stats.norm.sf(abs(z))))
