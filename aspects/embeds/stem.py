"""Deep Residual Learning for Image Recognition: a convolution, its norm and a pooling before the first unit (He et al. 2015, arXiv:1512.03385).

With `stride` = `size` the patches of A ConvNet for the 2020s (Liu et al. 2022, arXiv:2201.03545)."""
from typing import Any, Mapping

from flax import core
from flax import linen as nn

from aspects import plugin
from aspects.nn.activations import activation


class Stem(nn.Module):
  """[B, S, S, C] -> [B, T, D]: filters of `size` moved by `stride` over `padding` zeros a side, `norm`, `act`, and,
  with `pool`, the largest of pool x pool neighbours at every other pixel. Pixels are tokens in reading order.

  Raises:
    ValueError: images that are not square; their tokens could not be put back on a grid."""
  takes = (((8, 8, 3), 'float32'),)
  examples = ({}, {'size': 2, 'stride': 2, 'padding': 0, 'bias': True, 'act': 'identity', 'norm': {'name': 'layer'}},
              {'pool': 3, 'act': 'gelu'})
  width: int
  size: int = 3
  stride: int = 1
  padding: int = 1
  pool: int = 0
  bias: bool = False
  norm: Mapping[str, Any] = core.FrozenDict(name='layer')
  act: str = 'relu'
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, inputs):
    if inputs.ndim != 4 or inputs.shape[1] != inputs.shape[2]:
      raise ValueError(f'images are [B, S, S, C], as high as wide, got {inputs.shape}')
    conv = nn.Conv(self.width, (self.size,) * 2, strides=(self.stride,) * 2, padding=[(self.padding,) * 2] * 2,
                   use_bias=self.bias, dtype=self.dtype, name='conv')
    x = plugin.build('norms', self.norm, dtype=self.dtype, name='normed')(conv(inputs), None)
    x = activation(self.act)(x)
    if self.pool:
      x = nn.max_pool(x, (self.pool,) * 2, strides=(2, 2), padding=[(self.pool // 2,) * 2] * 2)
    return x.reshape(len(x), -1, self.width)
