"""Multi-head attention with its sites; the mixers say who may read whom."""
from typing import Any, Mapping

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aspects import plugin
from aspects.nn.rope import angles, rotate, Rotary
from aspects.sites import tag

Array = jax.Array


def of_layer(values: Any, layer: Array | None) -> Any:
  """The entry of a layer: of a tuple, taken again and again in turn, or the value that all layers have."""
  if not isinstance(values, tuple):
    return values
  return jnp.asarray(np.asarray(values))[(0 if layer is None else layer) % len(values)]


class MultiHead(nn.Module):
  """softmax(scale q k') v over `heads`; `allowed` [T, T] (query, key) and `mask` [B, T] bound what is read.

  Masked tokens enter as zeros, so that not even a NaN in them is read. `kv_heads` < heads: keys and values are shared
  by groups of heads / kv_heads successive heads (Ainslie et al. 2023, arXiv:2305.13245). `head_size` is width / heads
  unless given. `qk_norm` is a spec of a norm over the units of a head, before the rotation `rotary`. `scale` is
  head_size ** -1/2 unless given; `soft_cap` c bounds scores to c tanh(scores / c) (Bello et al. 2016,
  arXiv:1611.09940). `rotary`, `scale` and `window` may be tuples, one entry a layer, which repeat. A `window` w reads
  the w tokens up to its own; 0 is no window.

  With the collection `cache` mutable, keys and values are kept: `mask` [B, S] then covers all S places of the cache,
  and the tokens of this call are the next ones; see `nn.generation`.

  Sites: q, z [B, T, H, d]; k, v [B, T, kv_heads, d]; q_rot, k_rot, as they meet, if there is `rotary` or `qk_norm`;
  attn_scores, attn_probs [B, H, T, T].
  """
  heads: int
  dtype: str = 'float32'
  kv_heads: int | None = None
  head_size: int | None = None
  bias: bool = True
  out_bias: bool = True
  rotary: Any = None
  qk_norm: Mapping[str, Any] | None = None
  scale: Any = None
  soft_cap: float | None = None
  window: Any = 0
  causal: bool = False

  @nn.compact
  def __call__(self, x, allowed=None, mask=None, positions=None, layer=None):
    width, kv_heads = x.shape[-1], self.kv_heads or self.heads
    size = self.head_size or self._size(width)
    if self.heads % kv_heads:
      raise ValueError(f'heads {self.heads} is not a multiple of kv_heads {kv_heads}; each key is read by equally many')
    keep = self._keeps()
    start = self.variable('cache', 'filled', lambda: jnp.zeros((), jnp.int32)) if keep else None
    at = (start.value if keep else 0) + jnp.arange(x.shape[1])                  # places of these tokens
    if mask is not None:
      own = jnp.take(mask, at, axis=1) if keep else mask
      x = jnp.where(jnp.broadcast_to(own[..., None] > 0, x.shape), x, 0)
    dense = lambda heads, name: nn.DenseGeneral((heads, size), use_bias=self.bias, dtype=self.dtype, name=name)(x)
    q, k, v = (tag(self, slot, dense(heads, name)) for slot, heads, name in (
        ('q', self.heads, 'query'), ('k', kv_heads, 'key'), ('v', kv_heads, 'value')))
    if self.qk_norm is not None:
      norm = lambda y, name: plugin.build('norms', self.qk_norm, dtype=self.dtype, name=name)(y, None)
      q, k = norm(q, 'query_norm'), norm(k, 'key_norm')
    if self.rotary is not None:
      cos, sin = self._angles(size, positions if positions is not None else at, layer)
      q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    if self.rotary is not None or self.qk_norm is not None:
      q, k = tag(self, 'q_rot', q), tag(self, 'k_rot', k)
    if keep:
      k, v = self._kept(k, v, mask, at)
      start.value = at[-1] + 1
    scores = _grouped('bqhd,bkhd->bhqk', q, k) * self._scale(size, layer, q.dtype)
    if self.soft_cap is not None:
      scores = self.soft_cap * jnp.tanh(scores / self.soft_cap)
    may = self._may(allowed, at, k.shape[1], layer)
    may = jnp.broadcast_to(may[None, None], scores.shape)
    if mask is not None:
      may &= jnp.broadcast_to(mask[:, None, None] > 0, may.shape)
    # A finite floor: a row that may read nothing gives finite numbers, which its weight of zero then removes.
    scores = tag(self, 'attn_scores', jnp.where(may, scores, jnp.finfo(scores.dtype).min))
    exact = jnp.promote_types(scores.dtype, jnp.float32)
    probs = tag(self, 'attn_probs', jax.nn.softmax(scores.astype(exact), -1).astype(scores.dtype))
    z = tag(self, 'z', _grouped('bhqk,bkhd->bqhd', probs, v))
    return nn.DenseGeneral(width, axis=(-2, -1), use_bias=self.out_bias, dtype=self.dtype, name='out')(z)

  def _keeps(self) -> bool:
    return self.is_mutable_collection('cache') and not self.is_initializing()

  def _size(self, width: int) -> int:
    if width % self.heads:
      near = [h for h in range(1, width + 1) if width % h == 0]
      raise ValueError(f'width {width} is not a multiple of heads {self.heads}; '
                       f'nearest: {min(near, key=lambda h: abs(h - self.heads))}')
    return width // self.heads

  def _scale(self, size: int, layer, dtype) -> Any:
    scale = of_layer(self.scale, layer)
    return size ** -0.5 if scale is None else jnp.asarray(scale, dtype)

  def _angles(self, size: int, positions: Array, layer) -> tuple[Array, Array]:
    """(cos, sin) [B or 1, T, turned / 2] for this layer."""
    each = self.rotary if isinstance(self.rotary, tuple) else (self.rotary,)
    kinds = [Rotary(**r) for r in each]
    if len({r.turned(size) for r in kinds}) > 1:
      raise ValueError(f'rotary of different layers turns different shares of a head: {[r.share for r in kinds]}')
    table = jnp.asarray(np.stack([r.frequencies(size) for r in kinds]), jnp.promote_types(self.dtype, jnp.float32))
    row = table[0] if len(kinds) == 1 else of_layer(tuple(range(len(kinds))), layer)
    cos, sin = angles(row if len(kinds) == 1 else table[row], positions)
    return (cos[None], sin[None]) if positions.ndim == 1 else (cos, sin)

  def _may(self, allowed, at: Array, count: int, layer) -> Array:
    """bool [T, S]: which of S places a token of these may read."""
    back = at[:, None] - jnp.arange(count)[None]
    may = jnp.ones(back.shape, bool) if allowed is None else allowed
    if self.causal or self._keeps():
      may &= back >= 0
    if self.window != 0:
      window = of_layer(self.window, layer)
      may &= (window == 0) | (back < window)
    return may

  def _kept(self, k: Array, v: Array, mask, at: Array) -> tuple[Array, Array]:
    """Keys and values of all places, these written at theirs."""
    if mask is None:
      raise ValueError('a cache of keys and values needs a mask [B, S] of all its places; use aspects.generate')
    shape = (k.shape[0], mask.shape[1], *k.shape[2:])
    both = []
    for name, new in (('keys', k), ('values', v)):
      kept = self.variable('cache', name, jnp.zeros, shape, new.dtype)
      kept.value = jax.lax.dynamic_update_slice_in_dim(kept.value, new, at[0], 1)
      both.append(kept.value)
    return both[0], both[1]


def _grouped(rule: str, a: Array, b: Array) -> Array:
  """einsum of a, with H heads, and b [B, S, kv_heads, d], whose heads are each met by H / kv_heads of a's."""
  heads = a.shape[rule.split(',')[0].index('h')]
  if b.shape[2] == heads:
    return jnp.einsum(rule, a, b)
  axis = rule.split(',')[0].index('h')
  apart = a.reshape(*a.shape[:axis], b.shape[2], heads // b.shape[2], *a.shape[axis + 1:])
  first, rest = rule.split(',')
  second, last = rest.split('->')
  out = jnp.einsum(f'{first.replace("h", "hg")},{second}->{last.replace("h", "hg")}', apart, b)
  axis = last.index('h')
  return out.reshape(*out.shape[:axis], heads, *out.shape[axis + 2:])
