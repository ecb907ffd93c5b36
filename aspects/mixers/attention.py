"""Attention Is All You Need: every token reads every token, or, `causal`, those up to itself (Vaswani et al. 2017, arXiv:1706.03762)."""
from flax import linen as nn
import jax.numpy as jnp

from aspects.nn.attention import MultiHead


class Attention(nn.Module):
  heads: int = 4
  causal: bool = False
  dtype: str = 'float32'
  examples = ({}, {'causal': True})

  @property
  def symmetries(self):
    return ('causal',) if self.causal else ('permutation',)

  @nn.compact
  def __call__(self, x, *, mask=None, positions=None):
    t = x.shape[1]
    allowed = jnp.tril(jnp.ones((t, t), bool)) if self.causal else None
    return MultiHead(self.heads, self.dtype, name='heads')(x, allowed, mask)
