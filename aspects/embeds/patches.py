"""An Image is Worth 16x16 Words: linear patches, a class token, learned positions (Dosovitskiy et al. 2020, arXiv:2010.11929)."""
from flax import linen as nn
import jax.numpy as jnp


class Patches(nn.Module):
  """[B, H, W, C] -> [B, T, D] with T = (H / size) * (W / size), one more with `class_token` in front."""
  takes = (((4, 6, 3), 'float32'),)
  examples = ({}, {'class_token': False})
  width: int
  size: int = 2
  class_token: bool = True
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, inputs):
    if inputs.ndim != 4 or inputs.shape[1] % self.size or inputs.shape[2] % self.size:
      raise ValueError(f'images are [B, H, W, C] with sides that are multiples of the patch size {self.size}, '
                       f'got {inputs.shape}')
    size = (self.size, self.size)
    x = nn.Conv(self.width, size, strides=size, padding='VALID', dtype=self.dtype, name='patch')(inputs)
    x = x.reshape(x.shape[0], -1, self.width)
    start = nn.initializers.normal(0.02)
    if self.class_token:
      token = self.param('class_token', start, (1, 1, self.width)).astype(x.dtype)
      x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.width)), x], 1)
    place = self.param('position', start, (1, *x.shape[1:]))
    return x + jnp.broadcast_to(place, x.shape).astype(x.dtype)
