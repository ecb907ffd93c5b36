"""Deep Residual Learning for Image Recognition: the branch of a unit, each convolution with a norm (He et al. 2015, arXiv:1512.03385).

`sizes=(3, 3)` is the basic branch, `sizes=(1, 3, 1), reduction=4` the bottleneck; with the placement `post_activation`
they are the units of the paper. Published networks have batch norms, whose statistics are fixed here
(`aspects.nn.batch_norm:BatchNorm`). Masked tokens enter as zeros."""
from typing import Any, Mapping

from flax import core
from flax import linen as nn

from aspects.nn.conv_branch import ConvBranch
from aspects.nn.grid import to_grid


class NormedConvolutions(nn.Module):
  sizes: tuple[int, ...] = (3, 3)
  reduction: int = 1
  norm: Mapping[str, Any] = core.FrozenDict(name='group')
  act: str = 'relu'
  dtype: str = 'float32'
  symmetries = ()
  examples = ({}, {'sizes': (1, 3, 1), 'reduction': 4, 'norm': {'name': 'group', 'groups': 2}})

  @nn.compact
  def __call__(self, x, *, mask=None, positions=None):
    branch = ConvBranch(x.shape[-1], self.sizes, (1,) * len(self.sizes), self.reduction, self.norm, self.act,
                        self.dtype, name='convolutions')
    return branch(to_grid(x, mask)).reshape(x.shape)
