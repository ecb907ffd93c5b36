"""Xception: a depthwise convolution, for each unit a filter of its own over the grid of tokens (Chollet 2016, arXiv:1610.02357).

Filters of `size` x `size`, with a `bias` if wanted, zeros beyond the border; units do not mix. Masked tokens enter as
zeros. Computed as a sum over the places of the filter: on a CPU XLA's grouped convolutions, and their gradients most of
all, take ten times as long."""
from flax import linen as nn
import jax.numpy as jnp

from aspects.nn.grid import check_window, to_grid


class Depthwise(nn.Module):
  size: int = 3
  bias: bool = False
  dtype: str = 'float32'
  symmetries = ('local', 'shift')
  examples = ({}, {'bias': True})

  def __post_init__(self):
    check_window(self.size)
    super().__post_init__()

  @nn.compact
  def __call__(self, x, *, mask=None, positions=None):
    start, width = nn.initializers.lecun_normal(in_axis=(0, 1), out_axis=2), x.shape[-1]
    kernel = self.param('kernel', start, (self.size, self.size, width)).astype(jnp.dtype(self.dtype))
    grid = to_grid(x, mask).astype(kernel.dtype)
    side, reach = grid.shape[1], self.size // 2
    padded = jnp.pad(grid, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    place = lambda i, j: padded[:, i:i + side, j:j + side] * jnp.broadcast_to(kernel[i, j], grid.shape)
    y = sum(place(i, j) for i in range(self.size) for j in range(self.size))
    if self.bias:
      y = y + jnp.broadcast_to(self.param('bias', nn.initializers.zeros, (width,)), y.shape).astype(y.dtype)
    return y.reshape(x.shape)
