"""Sentence-BERT: one vector an example, the pooled stream itself (Reimers & Gurevych 2019, arXiv:1908.10084)."""
from typing import Any, Mapping

from flax import linen as nn
import jax.numpy as jnp

from aspects import plugin
from aspects.nn.pooling import pool
from aspects.sites import tag


class Embedding(nn.Module):
  """[B, T, D] -> [B, D], or [B, P] with a `projection` to P = `outputs` units (CLIP, arXiv:2103.00020).

  `pool` is mean (over real tokens), first, last (real token), end: the same, where a mask must say which it is; or
  tokens: all of them, [B, T, D], as they are. `norm` is applied to what was pooled, `unit` makes its length 1.

  Raises:
    ValueError: pool='end' without a mask.
  """
  examples = ({}, {'pool': 'first', 'unit': True}, {'pool': 'last', 'norm': {'name': 'layer'}, 'projection': True},
              {'projection': True, 'bias': True})
  outputs: int
  pool: str = 'mean'
  norm: Mapping[str, Any] | None = None
  projection: bool = False
  bias: bool = False
  unit: bool = False
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, mask):
    if self.pool == 'tokens':
      return x
    if self.pool == 'end' and mask is None and not self.is_initializing():
      raise ValueError('the vector of a text is that of its last token, and which one that is only a mask [B, T] says; '
                       'give the mask of the tokenizer, or one of ones for texts without padding')
    y = pool(x, mask, 'last' if self.pool == 'end' else self.pool)
    if self.norm is not None:
      y = plugin.build('norms', self.norm, dtype=self.dtype, name='pooled_norm')(y[:, None], None)[:, 0]
    y = tag(self, 'pooled', y)
    if self.projection:
      y = nn.Dense(self.outputs, use_bias=self.bias, dtype=self.dtype, name='projection')(y)
    y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    if self.unit:
      y = y / jnp.maximum(jnp.sqrt((y ** 2).sum(-1, keepdims=True)), 1e-12)
    return tag(self, 'embedding', y)
