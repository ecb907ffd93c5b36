"""MLP-Mixer: An all-MLP Architecture for Vision: one MLP over the tokens, shared by the units (Tolstikhin et al. 2021, arXiv:2105.01601).

Masked tokens enter as zeros. The number of tokens is fixed by the first call."""
from flax import linen as nn
import jax.numpy as jnp


class TokenMlp(nn.Module):
  hidden: int = 64
  dtype: str = 'float32'
  symmetries = ()

  @nn.compact
  def __call__(self, x, *, mask=None, positions=None):
    if mask is not None:
      x = jnp.where(jnp.broadcast_to(mask[..., None] > 0, x.shape), x, 0)
    h = nn.Dense(self.hidden, dtype=self.dtype, name='in')(jnp.swapaxes(x, 1, 2))
    y = nn.Dense(x.shape[1], dtype=self.dtype, name='out')(nn.gelu(h))
    return jnp.swapaxes(y, 1, 2)
