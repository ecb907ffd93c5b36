"""Xception: a depthwise convolution, for each unit a filter of its own over the grid of tokens (Chollet 2016, arXiv:1610.02357).

Filters of `size` x `size` without bias, zeros beyond the border; units do not mix. Masked tokens enter as zeros."""
from flax import linen as nn

from aspects.nn.grid import check_window, to_grid


class Depthwise(nn.Module):
  size: int = 3
  dtype: str = 'float32'
  symmetries = ('local', 'shift')

  def __post_init__(self):
    check_window(self.size)
    super().__post_init__()

  @nn.compact
  def __call__(self, x, *, mask=None, positions=None):
    width = x.shape[-1]
    conv = nn.Conv(width, (self.size, self.size), feature_group_count=width, use_bias=False, dtype=self.dtype,
                   name='filter')
    return conv(to_grid(x, mask)).reshape(x.shape)
