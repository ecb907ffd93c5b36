"""Deep Residual Learning for Image Recognition: a unit that changes width and side, its shortcut projected (He et al. 2015, arXiv:1512.03385).

post = last(norm(conv(pre)) + branch(pre)). It is a layer of its own, between the layers of two stages."""
import math
from typing import Any, Mapping

from flax import core
from flax import linen as nn

from aspects.nn.activations import activation
from aspects.nn.conv_branch import ConvBranch, convolution
from aspects.nn.grid import to_grid
from aspects.sites import tag


class ResidualUnit(nn.Module):
  """[B, T, D] -> [B, T', width] with T' = ceil(S / stride)^2 for T = S^2, where `stride` is the product of `strides`.

  Fields are those of `mixers/normed_convolutions`; `strides` move its convolutions, the shortcut's filter is 1 x 1.
  Sites, as in a block: resid_pre, mixer_in, mixer_raw, mixer_out, shortcut, mixer_sum = shortcut + mixer_out, and
  resid_post = last(mixer_sum), a nonlinearity as `act` is inside the branch; all but the first two have the new width
  and number of tokens.
  """
  examples = ({}, {'sizes': (1, 3, 1), 'strides': (1, 2, 1), 'reduction': 4, 'norm': {'name': 'layer'}},
              {'strides': (1, 1), 'norm': {'name': 'layer'}, 'act': 'silu', 'last': 'gelu'})
  width: int
  sizes: tuple[int, ...] = (3, 3)
  strides: tuple[int, ...] = (2, 1)
  reduction: int = 1
  norm: Mapping[str, Any] = core.FrozenDict(name='layer')
  act: str = 'relu'
  last: str = 'relu'
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x):
    unit = Unit(self.width, self.sizes, self.strides, self.reduction, self.norm, self.act, self.last, self.dtype,
                name='block')
    return unit(x)


class Unit(nn.Module):
  """Called `block` by what makes it, so that its sites have the number of a layer."""
  width: int
  sizes: tuple[int, ...]
  strides: tuple[int, ...]
  reduction: int
  norm: Mapping[str, Any]
  act: str
  last: str
  dtype: str

  @nn.compact
  def __call__(self, x):
    x = tag(self, 'resid_pre', x)
    flat = lambda grid: grid.reshape(len(x), -1, self.width)
    branch = ConvBranch(self.width, self.sizes, self.strides, self.reduction, self.norm, self.act, self.dtype,
                        name='mixer')
    y = tag(self, 'mixer_raw', flat(branch(to_grid(tag(self, 'mixer_in', x)))))
    y = tag(self, 'mixer_out', y)
    stride = math.prod(self.strides)
    shortcut = tag(self, 'shortcut', flat(convolution(self, to_grid(x), self.width, 1, stride, 'shortcut')))
    return tag(self, 'resid_post', activation(self.last)(tag(self, 'mixer_sum', shortcut + y)))
