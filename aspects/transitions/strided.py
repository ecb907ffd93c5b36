"""Deep Residual Learning for Image Recognition: between stages, half the side and another width by a strided convolution (He et al. 2015, arXiv:1512.03385).

Differs from the paper: all that passes is projected by a `stride` x `stride` convolution; the paper strides the first
convolution of the next block and projects its shortcut."""
import math

from flax import linen as nn


class Strided(nn.Module):
  width: int
  stride: int = 2
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x):
    b, t, d = x.shape
    side = math.isqrt(t)
    if side * side != t:
      raise ValueError(f'{t} tokens are not a square grid; a strided transition needs one, without a class token')
    size = (self.stride, self.stride)
    x = nn.Conv(self.width, size, strides=size, dtype=self.dtype, name='conv')(x.reshape(b, side, side, d))
    return x.reshape(b, -1, self.width)
