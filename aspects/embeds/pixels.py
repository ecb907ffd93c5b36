"""A 3x3 convolution that keeps the grid: the stem of a small residual network (He et al. 2015, arXiv:1512.03385, section 4.2)."""
from flax import linen as nn


class Pixels(nn.Module):
  """[B, H, W, C] -> [B, H * W, D]."""
  takes = (((4, 6, 3), 'float32'),)
  width: int
  size: int = 3
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, inputs):
    if inputs.ndim != 4:
      raise ValueError(f'images are [B, H, W, C], got {inputs.shape}')
    x = nn.Conv(self.width, (self.size, self.size), dtype=self.dtype, name='stem')(inputs)
    return x.reshape(x.shape[0], -1, self.width)
