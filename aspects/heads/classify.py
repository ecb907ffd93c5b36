"""One vector of logits an example from pooled tokens (Dosovitskiy et al. 2020, arXiv:2010.11929, appendix D.3)."""
from flax import linen as nn
import jax.numpy as jnp

from aspects.sites import tag


class Classify(nn.Module):
  """[B, T, D] -> [B, outputs]; `pool` is mean (over real tokens), first (a class token) or last (real token)."""
  examples = ({}, {'pool': 'first'}, {'pool': 'last'})
  outputs: int
  pool: str = 'mean'
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, mask):
    real = jnp.ones(x.shape[:2], bool) if mask is None else mask > 0
    if self.pool == 'mean':
      total = jnp.where(jnp.broadcast_to(real[..., None], x.shape), x, 0).sum(1, dtype=jnp.float32)
      pooled = (total / jnp.maximum(real.sum(1, keepdims=True), 1)).astype(x.dtype)
    elif self.pool == 'first':
      pooled = x[:, 0]
    elif self.pool == 'last':
      pooled = x[jnp.arange(x.shape[0]), jnp.where(real, jnp.arange(x.shape[1])[None], 0).max(1)]
    else:
      raise ValueError(f'pool {self.pool!r} is not one of mean, first, last')
    pooled = tag(self, 'pooled', pooled)
    logits = nn.Dense(self.outputs, dtype=self.dtype, name='logits_map')(pooled)
    return tag(self, 'logits', logits.astype(jnp.float32))
