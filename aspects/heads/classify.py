"""One vector of logits an example from pooled tokens (Dosovitskiy et al. 2020, arXiv:2010.11929, appendix D.3)."""
from typing import Any, Mapping

from flax import linen as nn
import jax.numpy as jnp

from aspects import plugin
from aspects.nn.activations import activation
from aspects.nn.pooling import pool
from aspects.sites import tag


class Classify(nn.Module):
  """[B, T, D] -> [B, outputs]; `pool` is mean (over real tokens behind the first `prefix`), first (a class token), last
  (real token), or first_and_mean, side by side (DINOv2, arXiv:2304.07193).

  `norm` is applied to what was pooled; `hidden` is the activation of a layer between (the pooler of BERT).
  """
  examples = ({}, {'pool': 'first', 'hidden': 'tanh'}, {'pool': 'last', 'norm': {'name': 'layer'}},
              {'pool': 'first_and_mean', 'prefix': 1})
  outputs: int
  pool: str = 'mean'
  prefix: int = 0
  norm: Mapping[str, Any] | None = None
  hidden: str | None = None
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, mask):
    pooled = pool(x, mask, self.pool, self.prefix)
    if self.norm is not None:
      pooled = plugin.build('norms', self.norm, dtype=self.dtype, name='pooled_norm')(pooled[:, None], None)[:, 0]
    if self.hidden is not None:
      pooled = activation(self.hidden)(nn.Dense(x.shape[-1], dtype=self.dtype, name='hidden_map')(pooled))
    pooled = tag(self, 'pooled', pooled)
    logits = nn.Dense(self.outputs, dtype=self.dtype, name='logits_map')(pooled)
    return tag(self, 'logits', logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
