"""Logits for the next token at every position (Radford et al. 2019, Language Models are Unsupervised Multitask Learners).

Differs from the paper: the map is not tied to the embedding."""
from flax import linen as nn
import jax.numpy as jnp

from aspects.sites import tag


class Unembed(nn.Module):
  """[B, T, D] -> [B, T, outputs]."""
  outputs: int
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, mask):
    logits = nn.Dense(self.outputs, use_bias=False, dtype=self.dtype, name='logits_map')(x)
    return tag(self, 'logits', logits.astype(jnp.float32))
