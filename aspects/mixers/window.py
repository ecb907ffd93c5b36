"""Longformer: sliding-window attention, each token reads `size` neighbours a side (Beltagy et al. 2020, arXiv:2004.05150).

Differs from the paper: no dilation, no global tokens. `causal` reads the neighbours before it only."""
from flax import linen as nn
import jax.numpy as jnp

from aspects.nn.attention import MultiHead


class Window(nn.Module):
  size: int
  heads: int = 4
  causal: bool = False
  dtype: str = 'float32'
  examples = ({'size': 2}, {'size': 2, 'causal': True})

  @property
  def symmetries(self):
    return ('local', 'shift', 'causal') if self.causal else ('local', 'shift')

  @nn.compact
  def __call__(self, x, *, mask=None, positions=None):
    at = jnp.arange(x.shape[1])
    ahead = at[None, :] - at[:, None]
    allowed = (jnp.abs(ahead) <= self.size) & ((ahead <= 0) | (not self.causal))
    return MultiHead(self.heads, self.dtype, name='heads')(x, allowed, mask)
