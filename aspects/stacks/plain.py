"""Deep Residual Learning for Image Recognition: blocks one after another (He et al. 2015, arXiv:1512.03385).

`scan` compiles one block and loops over it: another layout of the same parameters, the same sites, shorter compilation.
`remat` recomputes activations in the backward pass, for memory (Chen et al. 2016, arXiv:1604.06174)."""
from typing import Any

from flax import linen as nn
import jax.numpy as jnp


class Plain(nn.Module):
  examples = ({}, {'scan': True}, {'remat': True}, {'scan': True, 'remat': True})
  block: Any
  depth: int
  scan: bool = False
  remat: bool = False

  @property
  def distinct(self):
    """How many blocks have parameters of their own."""
    return self.depth

  @nn.compact
  def __call__(self, x, *, first=0, mask=None, positions=None):
    def run(module, x, layer, name):
      return self.block.make(name)(x, layer, mask, positions)
    if self.scan and self.depth:
      body = lambda module, x, layer: (run(module, x, layer, 'block'), None)
      body = nn.remat(body) if self.remat else body
      loop = nn.scan(body, variable_axes={'params': 0, 'batch_stats': 0, 'cache': 0, 'intermediates': 0,
                                                 'edits': 0},
                     split_rngs={'params': True, 'dropout': True}, length=self.depth)
      return loop(self, x, first + jnp.arange(self.depth))[0]
    for i in range(self.depth):
      step = lambda module, x, layer, i=i: run(module, x, layer, f'block_{i}')
      x = (nn.remat(step) if self.remat else step)(self, x, jnp.asarray(first + i))
    return x
