"""Universal Transformers: one block applied `depth` times with the same parameters (Dehghani et al. 2018, arXiv:1807.03819).

Each application is a layer of its own, with its own sites. No halting and no time embedding."""
from typing import Any

from flax import linen as nn
import jax.numpy as jnp


class Shared(nn.Module):
  block: Any
  depth: int
  distinct = 1                                       # blocks that have parameters of their own

  @nn.compact
  def __call__(self, x, *, first=0, mask=None, positions=None):
    body = lambda module, x, layer: (self.block.make('block')(x, layer, mask, positions), None)
    loop = nn.scan(body, variable_axes={'intermediates': 0, 'edits': 0}, variable_broadcast='params',
                   split_rngs={'params': False, 'dropout': True}, length=self.depth)
    return loop(self, x, first + jnp.arange(self.depth))[0]
