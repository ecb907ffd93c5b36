"""Deep Residual Learning for Image Recognition: between stages, half the side and another width by a strided convolution (He et al. 2015, arXiv:1512.03385).

Differs from the paper: all that passes is projected by a `stride` x `stride` convolution; the paper strides the first
convolution of the next block and projects its shortcut. With a `norm` of what the convolution reads it is the
transition of A ConvNet for the 2020s (Liu et al. 2022, arXiv:2201.03545)."""
import math
from typing import Any, Mapping

from flax import linen as nn

from aspects import plugin


class Strided(nn.Module):
  """`padding` 'SAME' keeps the rest of a side that is no multiple of the stride, 'VALID' leaves it out."""
  examples = ({}, {'norm': {'name': 'layer'}, 'padding': 'VALID'})
  width: int
  stride: int = 2
  norm: Mapping[str, Any] | None = None
  padding: str = 'SAME'
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x):
    b, t, d = x.shape
    side = math.isqrt(t)
    if side * side != t:
      raise ValueError(f'{t} tokens are not a square grid; a strided transition needs one, without a class token')
    size = (self.stride, self.stride)
    if self.norm is not None:
      x = plugin.build('norms', self.norm, dtype=self.dtype, name='normed')(x, None)
    conv = nn.Conv(self.width, size, strides=size, padding=self.padding, dtype=self.dtype, name='conv')
    x = conv(x.reshape(b, side, side, d))
    return x.reshape(b, -1, self.width)
