"""Make Deep Networks Shallow Again: blocks side by side, y = x + sum_l F_l(x) (Bermeitinger et al. 2023, arXiv:2309.08414).

F_l(x) = block_l(x) - x. With `groups` > 1 that many such layers follow one another, each of depth / groups blocks;
depth or more groups are the plain stack."""
from typing import Any

from flax import linen as nn
import jax.numpy as jnp


class Parallel(nn.Module):
  examples = ({}, {'groups': 2})
  block: Any
  depth: int
  groups: int = 1

  @property
  def distinct(self):
    """How many blocks have parameters of their own."""
    return self.depth

  @nn.compact
  def __call__(self, x, *, first=0, mask=None, positions=None):
    groups = min(self.groups, self.depth)
    if self.depth % groups:
      raise ValueError(f'depth {self.depth} is not a multiple of groups {groups}')
    size = self.depth // groups
    for group in range(groups):
      layers = range(group * size, (group + 1) * size)
      ends = [self.block.make(f'block_{i}')(x, jnp.asarray(first + i), mask, positions) for i in layers]
      x = ends[0] if size == 1 else x + sum(end - x for end in ends)
    return x
