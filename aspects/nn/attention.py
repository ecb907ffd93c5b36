"""Multi-head attention with its sites; the mixers say who may read whom."""
from flax import linen as nn
import jax
import jax.numpy as jnp

from aspects.sites import tag


class MultiHead(nn.Module):
  """softmax(q k' / sqrt(d)) v over `heads`; `allowed` [T, T] (query, key) and `mask` [B, T] bound what is read.

  Masked tokens enter as zeros, so that not even a NaN in them is read.

  Sites: q, k, v, z [B, T, H, d]; attn_scores, attn_probs [B, H, T, T].
  """
  heads: int
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, allowed=None, mask=None):
    width = x.shape[-1]
    if width % self.heads:
      near = [h for h in range(1, width + 1) if width % h == 0]
      raise ValueError(f'width {width} is not a multiple of heads {self.heads}; '
                       f'nearest: {min(near, key=lambda h: abs(h - self.heads))}')
    size = width // self.heads
    if mask is not None:
      x = jnp.where(jnp.broadcast_to(mask[..., None] > 0, x.shape), x, 0)
    split = lambda name: nn.DenseGeneral((self.heads, size), dtype=self.dtype, name=name)(x)
    q, k, v = (tag(self, slot, split(name)) for slot, name in (('q', 'query'), ('k', 'key'), ('v', 'value')))
    scores = jnp.einsum('bqhd,bkhd->bhqk', q, k) / size ** 0.5
    may = jnp.ones(scores.shape, bool)
    if allowed is not None:
      may &= jnp.broadcast_to(allowed[None, None], may.shape)
    if mask is not None:
      may &= jnp.broadcast_to(mask[:, None, None] > 0, may.shape)
    # A finite floor: a row that may read nothing gives finite numbers, which its weight of zero then removes.
    scores = tag(self, 'attn_scores', jnp.where(may, scores, jnp.finfo(scores.dtype).min))
    probs = tag(self, 'attn_probs', jax.nn.softmax(scores.astype(jnp.float32), -1).astype(scores.dtype))
    z = tag(self, 'z', jnp.einsum('bhqk,bkhd->bqhd', probs, v))
    return nn.DenseGeneral(width, axis=(-2, -1), dtype=self.dtype, name='out')(z)
