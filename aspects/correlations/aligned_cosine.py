"""Aligned cosine similarity: the mean cosine of each example's two representations after the best rotation (Hamilton, Leskovec & Jurafsky 2016, arXiv:1605.09096).

Q = argmin |X Q - Y|_F over orthogonal maps, from the singular vectors of X'Y; a narrower layer gets units of zero. Then
  aligned_cosine_centred_score  mean over i of cos(x_i Q, y_i), of rows without their mean
  aligned_cosine_distance       1 - the same of the rows as they are, the published form (Klabunde et al. 2023): a
                                common offset brings all cosines near 1, and what is left can be read
Neither depends on the scale of a layer, in contrast to what ReSi's flags say: Q does not, and nor do cosines.
"""
import dataclasses

import numpy as np
import xarray as xr

from aspects import stats
from aspects.nn import distances
from aspects.nn import pairs
from aspects.sites import select
from aspects.statistics.sample import Rows, Sample

FORMS = {'aligned_cosine_centred_score': distances.centred, 'aligned_cosine_distance': lambda x: x}
NAMES = {'aligned_cosine_centred_score': 'aligned cosine of centred rows',
         'aligned_cosine_distance': '1 - aligned cosine of the rows as they are'}


@dataclasses.dataclass(frozen=True)
class AlignedCosine:
  """Aligned cosine similarity of all pairs of `sites`: aligned_cosine_centred_score [site, other],
  1 = alike, and aligned_cosine_distance, 0 = alike.

  Over a fixed sample of at most `size` rows, two at least. A row of length zero has cosine 0 with every other. A layer
  of such rows alone has no value: NaN, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'mean'
  size: int = 512
  seed: int = 0

  invariant = {'aligned_cosine_centred_score': ('permutation', 'rotation', 'scale', 'translation'),
               'aligned_cosine_distance': ('permutation', 'rotation', 'scale')}

  def needs(self, specs):
    return {'rows': Sample(select(self.sites, specs), self.size, self.pool, seed=self.seed)}

  def compute(self, rows: Rows) -> xr.Dataset:
    n, names = pairs.sampled(rows, 2, 'aligned cosine similarity'), list(rows.x)
    variables, void = {}, {}
    for form, centre in FORMS.items():
      layers = stats.side_by_side(lambda x: coordinates(centre(x)), rows.x.values())
      which = [i for i, x in enumerate(layers) if x is not None]
      void |= {names[i]: None for i, x in enumerate(layers) if x is None}
      both = [(i, j) for i in which for j in which if i <= j]
      value = np.full((len(names),) * 2, np.nan)
      for (i, j), found in zip(both, stats.side_by_side(lambda ij: aligned(*(layers[k] for k in ij)), both)):
        value[i, j] = value[j, i] = 1 - found if form.endswith('distance') else found
      variables[form] = value, dict(long_name=NAMES[form], figure='map', limits=[0, 1])
    pairs.warn(void, f'do not vary over the {n} rows, or are zero', 'their aligned cosine is NaN')
    return pairs.dataset(names, variables, title='Aligned cosine similarity',
                         question='Which layers are rotations of each other, example by example?',
                         source='Hamilton et al. 2016, arXiv:1605.09096', headline='aligned_cosine_centred_score',
                         **pairs.sample_attrs(n, self.pool, self.size, self.seed))


def coordinates(x: np.ndarray) -> np.ndarray | None:
  """Rows [N, D] turned into at most N coordinates, over the largest entry; None for rows of zero.

  Cosines and the best rotation stay, and the product of two layers is at most N x N."""
  size = np.abs(x).max()
  if size == 0:
    return None
  return np.linalg.qr(x.T / size)[1].T if x.shape[1] > len(x) else x / size


def aligned(x: np.ndarray, y: np.ndarray) -> float:
  """Mean cosine of rows [N, D] rotated onto rows [N, E]."""
  left, _, right = np.linalg.svd(x.T @ y, full_matrices=False)
  a, b = (distances.directions(rows, 'cosine')[0] for rows in (x, y))
  # Units of zero take part in no product, so that the rotation of the padded rows needs its square block alone.
  return float(((a @ left) * (b @ right.T)).sum(1).mean())
