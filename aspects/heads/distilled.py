"""Training data-efficient image transformers: a classifier for the class token and one for that of distillation (Touvron et al. 2020, arXiv:2012.12877).

The logits are the mean of both. Training with a teacher, where either has a loss of its own, is not built."""
from flax import linen as nn
import jax.numpy as jnp

from aspects.nn.pooling import pool
from aspects.sites import tag


class Distilled(nn.Module):
  """[B, T, D] -> [B, outputs] from the first two tokens; the site `pooled` is both, [B, 2, D]."""
  outputs: int
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, mask):
    if mask is not None:
      x = jnp.where(jnp.broadcast_to(mask[..., None] > 0, x.shape), x, 0)
    pooled = tag(self, 'pooled', pool(x, mask, 'first_two'))
    dense = lambda name: nn.Dense(self.outputs, dtype=self.dtype, name=name)
    logits = (dense('logits_map')(pooled[:, 0]) + dense('distilled_map')(pooled[:, 1])) / 2
    return tag(self, 'logits', logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
