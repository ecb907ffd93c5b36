"""Cross-layer SVD (xKV): keys and values of neighbouring layers in one subspace of tokens (Chang et al. 2025, arXiv:2503.18893).

The cache of a layer is X_l [n tokens, D units] (all heads side by side; keys before their rotation). Of a group of G
layers side by side, M = [X_1, ..., X_G] = U S V', rank r keeps U_r S_r^1/2 [n, r], shared by the group, and the bases
S_r^1/2 V_r' [r, G D]: r (n + G D) numbers. Each layer by itself at rank r_1 costs G r_1 (n + D); `shared_rank` is the
rank that a group can afford for the same number. What is lost is known from the singular values:
  shared_error, separate_error   |M - M_r| / |M| of both at equal numbers, Frobenius norms
The shared subspace pays if the layers' leading left singular vectors span alike directions of the n tokens:
  subspace_alignment   |U_a' U_b|^2 / k for the k leading ones of two layers: 1 for the same span, k / n for chance
Token by token the layers may still differ: their cosines can be low. `centred` takes the mean over tokens off first; a
dominant mean lowers all errors and aligns everything.

All of it follows from second moments X_a' X_b; `cross_layer_svd` and `kv_compress` are for caches at hand.

Differs from the paper: nothing is decoded, errors are of the cache itself.
"""
import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from aspects.nn import cross_moments as moments
from aspects.sites import select
from aspects.statistics.cross_covariance import CrossCovariance, CrossMoments

ROUNDING = 1e-10                                     # of the largest eigenvalue of a second moment


@dataclasses.dataclass(frozen=True)
class CacheMoments:
  """Cross-moments of `sites` with their heads side by side, [B, T, H, d] as rows of H d units: CrossMoments."""
  sites: tuple[str, ...]
  pool: str = 'tokens'

  @property
  def inner(self):
    return CrossCovariance(self.sites, self.pool)

  def init(self, specs):
    flat = {s: jax.ShapeDtypeStruct(joined(specs[s].shape), specs[s].dtype) for s in self.sites}
    return self.inner.init(flat)

  def update(self, state, acts, batch):
    return self.inner.update(state, {s: acts[s].reshape(joined(acts[s].shape)) for s in self.sites}, batch)

  def merge(self, a, b):
    return self.inner.merge(a, b)

  def finish(self, state):
    return self.inner.finish(state)


def joined(shape) -> tuple[int, ...]:
  """[B, T, H, d] -> [B, T, H d]; other shapes stay."""
  return (*shape[:2], shape[2] * shape[3]) if len(shape) == 4 else tuple(shape)


@dataclasses.dataclass(frozen=True)
class Xkv:
  """Alignment of the leading subspaces of all pairs of layers [site, other], and what a shared one of `group`
  neighbours loses at the cost of `rank` a layer [group]: shared_error, separate_error, shared_rank.

  `sites` are ('k.*',) for keys and ('v.*',) for values; any others are measured in the same way. Sites left over at
  the end are no group. A layer that does not vary has no subspace: NaN, and a warning names it.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  pool: str = 'tokens'
  group: int = 2
  rank: int = 32
  centred: bool = True

  examples = ({'rank': 3},)

  @property
  def invariant(self):
    moves = ('permutation', 'rotation', 'scale')
    return {'subspace_alignment': (*moves, 'translation') if self.centred else moves}

  def __post_init__(self):
    if self.group < 2 or self.rank < 1:
      raise ValueError(f'group {self.group} must be at least 2 layers and rank {self.rank} at least 1')

  def needs(self, specs):
    names = select(self.sites, specs)
    if len(names) < self.group:
      raise ValueError(f'{len(names)} sites make no group of {self.group}')
    return {'cross': CacheMoments(names, self.pool)}

  def compute(self, cross: CrossMoments) -> xr.Dataset:
    n, names = cross.n, list(cross.mean)
    moments.enough(n, 2, 'subspaces of tokens need')
    varies = moments.varying(cross, 'they have no subspace, their alignment is NaN')
    bases = {s: leading(self._block(cross, s, s), min(self.rank, int(n) - 1)) for s in names if varies[s]}
    def pair(a, b):
      value = aligned(bases[a], bases[b], self._block(cross, a, b))
      return (value,), (value,)
    values = moments.fill(names, pair, ('subspace_alignment',), varies)
    said = {'subspace_alignment': dict(long_name='alignment of the leading subspaces of tokens', limits=[0, 1])}
    out = moments.maps(names, values, said, title='Shared subspaces of caches', pool=self.pool, rows=float(n),
                       question='Do layers keep what they hold in the same directions of tokens?',
                       source='Chang et al. 2025, arXiv:2503.18893', rank=self.rank, centred=int(self.centred),
                       headline='subspace_alignment')
    groups = [tuple(names[i:i + self.group]) for i in range(0, len(names) - self.group + 1, self.group)]
    found = [self._group(cross, g, int(n)) for g in groups]
    texts = {'shared_error': ('relative error of a shared subspace', '1'),
             'separate_error': ('relative error of as many numbers, layer by layer', '1'),
             'shared_rank': ('rank of the shared subspace', 'directions')}
    out = out.assign_coords(group=['+'.join(g) for g in groups])
    for name, column in zip(texts, zip(*found)):
      out[name] = 'group', np.array(column, np.float64)
      out[name].attrs = dict(long_name=texts[name][0], units=texts[name][1], figure='none')
    return out

  def _block(self, cross, a, b) -> np.ndarray:
    block = moments.scatter(cross, a, b)
    return block if self.centred else block + cross.n * np.outer(cross.mean[a], cross.mean[b])

  def _group(self, cross, names, n) -> tuple[float, float, int]:
    whole = np.block([[self._block(cross, a, b) for b in names] for a in names])
    widths = [len(cross.mean[s]) for s in names]
    return group_errors(whole, widths, n, (self.rank,))[0]


def shared_rank(rank: int, tokens: int, widths) -> int:
  """The rank of a shared subspace that stores no more than layers of these `widths` at `rank` each."""
  return int(rank * sum(tokens + d for d in widths) // (tokens + sum(widths)))


def group_errors(gram: np.ndarray, widths, tokens: int, ranks) -> list[tuple[float, float, int]]:
  """(shared error, separate error, shared rank) for each rank of a single layer, of layers of these `widths` with the
  second moment `gram` [sum D, sum D] of their units side by side."""
  edges, total = np.cumsum([0, *widths]), np.trace(gram)
  spectrum = lambda g: np.clip(np.linalg.eigvalsh(g), 0, None)                   # ascending
  whole, alone = spectrum(gram), [spectrum(gram[a:b, a:b]) for a, b in zip(edges[:-1], edges[1:])]
  lost = lambda value, k: value[:max(len(value) - k, 0)].sum()
  share = lambda x: float(np.sqrt(x / total)) if total > 0 else float('nan')
  found = []
  for rank in ranks:
    r = shared_rank(rank, tokens, widths)
    found.append((share(lost(whole, r)), share(sum(lost(value, rank) for value in alone)), r))
  return found


def leading(gram: np.ndarray, k: int) -> np.ndarray:
  """W [D, k] with X W = the k leading left singular vectors of X, from its second moment; fewer if its rank is."""
  value, vector = np.linalg.eigh(gram)
  kept = np.flatnonzero(value > ROUNDING * value[-1])[-k:]
  return vector[:, kept] / np.sqrt(value[kept])


def aligned(a: np.ndarray, b: np.ndarray, cross: np.ndarray) -> float:
  """|U_a' U_b|^2 over the smaller number of directions, for W's of `leading` and the cross-moment X_a' X_b."""
  return float(((a.T @ cross @ b) ** 2).sum() / min(a.shape[1], b.shape[1]))


def subspace_alignment(a: np.ndarray, b: np.ndarray, k: int) -> float:
  """Of the k leading left singular vectors of two caches [N, D] and [N, E]."""
  return aligned(leading(a.T @ a, k), leading(b.T @ b, k), a.T @ b)


# --- caches at hand -------------------------------------------------------------------------------------------------

class Compressed(NamedTuple):
  """Keys and values of L layers in groups: per group `shared` [n, r] and `bases` [G, r, D]."""
  keys: tuple[tuple[np.ndarray, np.ndarray], ...]
  values: tuple[tuple[np.ndarray, np.ndarray], ...]

  @property
  def stored(self) -> int:
    """How many numbers this is."""
    return sum(x.size for part in self for pair in part for x in pair)

  def restored(self) -> tuple[np.ndarray, np.ndarray]:
    """(keys, values), both [L, n, D]."""
    return tuple(np.concatenate([np.einsum('nr,grd->gnd', u, b) for u, b in part]) for part in self)


def cross_layer_svd(x: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
  """(shared [n, r], bases [G, r, D]) of caches x [G, n, D]: the best approximation of all together at rank r.

  Both have the root of the singular values; r is at most the rank of what is there."""
  x = np.asarray(x, np.float64)
  count, tokens, width = x.shape
  side = x.transpose(1, 0, 2).reshape(tokens, -1)
  value, vector = np.linalg.eigh(side.T @ side)                                  # [G D]: far smaller than n
  kept = np.flatnonzero(value > ROUNDING * value[-1])[::-1][:rank]
  root = value[kept] ** 0.25
  return side @ vector[:, kept] / root, (vector[:, kept] * root).T.reshape(-1, count, width).transpose(1, 0, 2)


def kv_compress(keys: Any, values: Any, group: int, rank_keys: int, rank_values: int) -> Compressed:
  """Caches [L, n, D] of keys, before their rotation, and of values, in groups of `group` successive layers.

  Raises:
    ValueError: the number of layers is no multiple of `group`."""
  if len(keys) % group or len(keys) != len(values):
    raise ValueError(f'{len(keys)} layers of keys and {len(values)} of values are not groups of {group}')
  parts = lambda x, rank: tuple(cross_layer_svd(x[i:i + group], rank) for i in range(0, len(x), group))
  return Compressed(parts(np.asarray(keys), rank_keys), parts(np.asarray(values), rank_values))
