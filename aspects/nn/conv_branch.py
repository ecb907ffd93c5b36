"""The branch of a residual unit: convolutions, each with a norm (He et al. 2015, arXiv:1512.03385)."""
from typing import Any, Mapping

from flax import linen as nn

from aspects import plugin
from aspects.nn.activations import activation


class ConvBranch(nn.Module):
  """[B, S, S, D] -> [B, S', S', width]: conv -> norm -> act -> ... -> conv -> norm; no convolution has a bias.

  Filters of `sizes`, moved by `strides`, with zeros beyond the border; all but the last give width / reduction units.
  """
  width: int
  sizes: tuple[int, ...]
  strides: tuple[int, ...]
  reduction: int
  norm: Mapping[str, Any]
  act: str
  dtype: str

  @nn.compact
  def __call__(self, x):
    even = [s for s in self.sizes if s < 1 or s % 2 == 0]
    if even or not self.sizes:
      raise ValueError(f'sizes {self.sizes} of filters are to be one or more odd numbers; without a middle a filter '
                       'would move the image')
    if len(self.strides) != len(self.sizes):
      raise ValueError(f'strides {self.strides} are not as many as sizes {self.sizes}')
    if self.width % self.reduction:
      raise ValueError(f'width {self.width} is not a multiple of reduction {self.reduction}')
    for i, (size, stride) in enumerate(zip(self.sizes, self.strides)):
      last = i == len(self.sizes) - 1
      x = convolution(self, x, self.width if last else self.width // self.reduction, size, stride, str(i))
      x = x if last else activation(self.act)(x)
    return x


def convolution(of: nn.Module, x, width: int, size: int, stride: int, name: str):
  """Convolution and norm, `conv_{name}` and `norm_{name}`, inside the compact module `of` with fields norm and dtype.

  Half a filter of zeros stands on either side, so that side S becomes ceil(S / stride)."""
  conv = nn.Conv(width, (size, size), strides=(stride, stride), padding=[(size // 2, size // 2)] * 2, use_bias=False,
                 dtype=of.dtype, name=f'conv_{name}')
  return plugin.build('norms', of.norm, dtype=of.dtype, name=f'norm_{name}')(conv(x), None)

