"""MetaFormer Is Actually What You Need for Vision: the mean of a token's neighbourhood minus the token (Yu et al. 2021, arXiv:2111.11418).

The neighbourhood is a window of `size` x `size` on the square grid of tokens; what lies beyond the border is not
counted. The token is taken off because the residual connection adds it again. No parameters. Masked tokens are not
counted either."""
from flax import linen as nn
import jax
import jax.numpy as jnp

from aspects.nn.grid import check_window, to_grid

Array = jax.Array


class Pool(nn.Module):
  size: int = 3
  dtype: str = 'float32'
  symmetries = ('local', 'shift')

  def __post_init__(self):
    check_window(self.size)
    super().__post_init__()

  @nn.compact
  def __call__(self, x, *, mask=None, positions=None):
    grid = to_grid(x, mask)
    real = to_grid(jnp.ones((*x.shape[:2], 1), jnp.float32), mask)
    count = window_sum(real, self.size)
    mean = window_sum(grid.astype(jnp.float32), self.size) / jnp.broadcast_to(jnp.maximum(count, 1), grid.shape)
    return (mean - grid).astype(jnp.dtype(self.dtype)).reshape(x.shape)


def window_sum(x: Array, size: int) -> Array:
  """Sums of [B, H, W, D] over windows of `size` x `size` around every place, zeros beyond the border."""
  for axis in (1, 2):
    length, reach = x.shape[axis], size // 2
    padded = jnp.pad(x, [(reach, reach) if a == axis else (0, 0) for a in range(4)])
    x = sum(jax.lax.slice_in_dim(padded, k, k + length, axis=axis) for k in range(size))
  return x
