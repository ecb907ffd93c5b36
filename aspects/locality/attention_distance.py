"""An Image is Worth 16x16 Words: mean attention distance of every head, and the entropy of its attention (Dosovitskiy et al. 2020, arXiv:2010.11929, figure 7; Clark et al. 2019, arXiv:1906.04341).

With attention p [B, H, Q, K] and the distance d(q, k) of tokens,
  distance  sum p d / sum p over queries and keys that are not prefix tokens
  entropy   mean over queries of -sum_k p log p in nats, over all keys;  entropy_share = entropy / mean log |keys|
  prefix    mean attention on the prefix tokens;  first   that on the first position, where attention sinks live
The null is uniform attention over the keys that a query may read, for which all of these have closed forms.

Distances are |q - k| in tokens, or on a `grid` (rows, columns) in reading order Euclidean in patches; `prefix` tokens
(class token, registers) stand before either and have no place in it. Which keys a query may read is found from the
probabilities: a key that all heads give exactly 0 is closed to it, masked keys included. `causal` says it instead, for
attention so sharp that open keys underflow to 0 in every head.

Differs from the papers: attention on the prefix is reported apart instead of entering the distance.
"""
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from aspects import stats
from aspects.sites import select

Array = jax.Array


class Attention(NamedTuple):
  """Sums over examples and queries: their weight [], and for the heads and then the uniform null [H + 1] the attention
  off the prefix, that times distance, the entropy, the attention on the prefix and on the first position."""
  n: Any
  mass: Any
  distance: Any
  entropy: Any
  prefix: Any
  first: Any


@dataclasses.dataclass(frozen=True)
class AttentionSums:
  """What distances and entropies of attention [B, H, T, T] are made of: {site: Attention}, O(H) memory a site."""
  sites: tuple[str, ...]
  grid: tuple[int, int] | None = None
  prefix: int = 0
  causal: bool | None = None

  def init(self, specs):
    def empty(spec):
      return Attention(stats.Sum.zeros(), *(stats.Sum.zeros((spec.shape[1] + 1,)) for _ in Attention._fields[1:]))
    return {s: empty(specs[s]) for s in self.sites}

  def update(self, state, acts, batch):
    new = {s: jax.tree.map(lambda x: stats.Sum(x, jnp.zeros_like(x)), self._sums(acts[s], batch)) for s in self.sites}
    return self.merge(state, new)

  def merge(self, a, b):
    return {s: Attention(*(x.plus(y) for x, y in zip(a[s], b[s]))) for s in self.sites}

  def finish(self, state):
    return {s: stats.float64(state[s]) for s in self.sites}

  def _sums(self, probs: Array, batch) -> Attention:
    size, _, count, _ = probs.shape
    mask = jnp.ones((size, count)) if 'mask' not in batch else batch['mask'].astype(jnp.float32)
    queries = jnp.broadcast_to(jnp.arange(count) >= self.prefix, mask.shape)
    weight = batch['weight'].astype(jnp.float32)[:, None] * jnp.where(queries, mask, 0)                 # [B, Q]
    # Rows of weight 0 may hold anything, NaN included.
    probs = jnp.where(weight[:, None, :, None] > 0, probs.astype(jnp.float32), 0)
    allowed = self._allowed(probs, mask)                                                                # [B, Q, K]
    uniform = allowed / jnp.maximum(allowed.sum(-1, keepdims=True), 1).astype(jnp.float32)
    probs = jnp.concatenate([probs, uniform[:, None]], 1)
    total = lambda x: jnp.einsum('bhq,bq->h', x, weight, precision=jax.lax.Precision.HIGHEST)
    far = jnp.asarray(distances(count, self.grid, self.prefix), jnp.float32)
    return Attention(
        weight.sum(), total(probs[..., self.prefix:].sum(-1)),
        total(jnp.einsum('bhqk,qk->bhq', probs, far, precision=jax.lax.Precision.HIGHEST)),
        total(jax.scipy.special.entr(probs).sum(-1)), total(probs[..., :self.prefix].sum(-1)), total(probs[..., 0]))

  def _allowed(self, probs: Array, mask: Array) -> Array:
    if self.causal is None:
      return (probs > 0).any(1)
    order = jnp.ones(probs.shape[2:], bool)
    order = jnp.tril(order) if self.causal else order
    return jnp.broadcast_to(order[None], (len(mask), *order.shape)) & jnp.broadcast_to(
        mask[:, None] > 0, (len(mask), *order.shape))


def distances(count: int, grid: tuple[int, int] | None, prefix: int) -> np.ndarray:
  """d(q, k) [count, count] of tokens behind the prefix, in a line or on a grid; 0 where either is a prefix token."""
  tokens = np.arange(count - prefix)
  place = tokens[:, None] if grid is None else np.stack(np.divmod(tokens, grid[1]), 1)
  out = np.zeros((count, count))
  out[prefix:, prefix:] = np.sqrt(((place[:, None] - place[None]) ** 2).sum(-1))
  return out


@dataclasses.dataclass(frozen=True)
class AttentionDistance:
  """Mean attention distance and entropy [site, head] beside those of uniform attention [site].

  Layers with fewer heads than most are filled with NaN. Masked and prefix tokens are no queries.
  """
  sites: tuple[str, ...] = ('attn_probs.*',)
  grid: tuple[int, int] | None = None
  prefix: int = 0
  causal: bool | None = None

  invariant = {}

  def needs(self, specs):
    names = select(self.sites, specs)
    for name in names:
      shape = specs[name].shape
      if len(shape) != 4 or shape[2] != shape[3]:
        raise ValueError(f'site {name!r} of shape {shape} is not attention [B, H, T, T] of tokens to themselves')
      expected = self.prefix + (int(np.prod(self.grid)) if self.grid else 1)
      if shape[3] < expected or (self.grid and shape[3] != expected):
        rest = f'grid {self.grid}' if self.grid else 'at least one more'
        raise ValueError(f'site {name!r} has {shape[3]} tokens, which are not prefix {self.prefix} and {rest}; '
                         'give the fields grid and prefix')
    return {'attention': AttentionSums(names, self.grid, self.prefix, self.causal)}

  def compute(self, attention: dict[str, Attention]) -> xr.Dataset:
    names = list(attention)
    heads = max(len(a.mass) for a in attention.values()) - 1
    values = {}
    for row, sums in enumerate(attention.values()):
      for key, value in quantities(sums).items():
        if key == 'prefix' and not self.prefix:
          continue
        values.setdefault(key, np.full((len(names), heads), np.nan))[row, :len(value) - 1] = value[:-1]
        if key != 'entropy_share':                     # which is a share of the null
          values.setdefault(f'null_{key}', np.full(len(names), np.nan))[row] = value[-1]
    dims = {1: ('site',), 2: ('site', 'head')}
    values = {k: (dims[v.ndim], v) for k, v in values.items()}
    out = xr.Dataset(values, {'site': names, 'head': np.arange(heads)}, attrs=dict(
        aspect='locality', title='Attention distance', question='How far does each head look, and how sharply?',
        source='Dosovitskiy et al. 2020, arXiv:2010.11929', grid='none' if self.grid is None else list(self.grid),
        prefix=self.prefix, queries=float(attention[names[0]].n), headline='distance'))
    texts = {'distance': ('mean attention distance', 'tokens' if self.grid is None else 'patches'),
             'entropy': ('entropy of attention', 'nats'),
             'entropy_share': ('entropy of attention over its maximum', '1'),
             'prefix': ('attention on the prefix tokens', '1'), 'first': ('attention on the first position', '1')}
    for name in out:
      text, units = texts[name.removeprefix('null_')]
      null = name.startswith('null_')
      out[name].attrs = dict(long_name=text + (', uniform' if null else ''), units=units,
                             figure='none' if null else 'heads')
      if f'null_{name}' in out:
        out[name].attrs |= dict(null=f'null_{name}', null_label='uniform attention')
      if name in ('entropy_share', 'prefix', 'first'):
        out[name].attrs |= dict(limits=[0, 1])
    return out


def quantities(sums: Attention) -> dict[str, np.ndarray]:
  """The quantities [H + 1] of the heads and of the null; NaN without queries, or without attention off the prefix."""
  over = lambda a, b: np.divide(a, b, out=np.full(np.shape(a), np.nan), where=np.broadcast_to(b, np.shape(a)) > 0)
  return {'distance': over(sums.distance, sums.mass), 'entropy': over(sums.entropy, sums.n),
          'entropy_share': over(sums.entropy, np.broadcast_to(sums.entropy[-1], sums.entropy.shape)),
          'prefix': over(sums.prefix, sums.n), 'first': over(sums.first, sums.n)}
