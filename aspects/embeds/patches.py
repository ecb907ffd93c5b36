"""An Image is Worth 16x16 Words: linear patches, a class token, learned positions (Dosovitskiy et al. 2020, arXiv:2010.11929)."""
from typing import Any, Mapping

from flax import linen as nn
import jax.numpy as jnp

from aspects import plugin
from aspects.nn.positions import resized
from aspects.sites import tag


class Patches(nn.Module):
  """[B, H, W, C] -> [B, T, D] with T = (H / size) * (W / size), and in front the class token, the token of distillation
  (`distilled`; DeiT, arXiv:2012.12877) and `registers` without positions (arXiv:2309.16588).

  `grid` (rows, columns) are the patches that the table of positions is for; images of another size get it resized,
  `antialias`ed or not. By default the table is as large as the first image. `norm` is applied to the sum (CLIP,
  arXiv:2103.00020).
  """
  takes = (((4, 6, 3), 'float32'),)
  examples = ({}, {'class_token': False}, {'distilled': True, 'registers': 2, 'grid': (3, 3), 'bias': False,
                                           'norm': {'name': 'layer'}})
  width: int
  size: int = 2
  class_token: bool = True
  distilled: bool = False
  registers: int = 0
  bias: bool = True
  grid: tuple[int, int] | None = None
  antialias: bool = False
  norm: Mapping[str, Any] | None = None
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, inputs):
    if inputs.ndim != 4 or inputs.shape[1] % self.size or inputs.shape[2] % self.size:
      raise ValueError(f'images are [B, H, W, C] with sides that are multiples of the patch size {self.size}, '
                       f'got {inputs.shape}')
    size, start = (self.size, self.size), nn.initializers.normal(0.02)
    conv = nn.Conv(self.width, size, strides=size, padding='VALID', use_bias=self.bias, dtype=self.dtype, name='patch')
    x = conv(inputs)
    here, x = x.shape[1:3], x.reshape(x.shape[0], -1, self.width)
    grid = self.grid or here
    def token(name, count=1):
      value = self.param(name, start, (1, count, self.width)).astype(x.dtype)
      return jnp.broadcast_to(value, (x.shape[0], count, self.width))
    front = [token(name) for name, there in (('class_token', self.class_token), ('distilled_token', self.distilled))
             if there]
    place = self.param('position', start, (1, len(front) + grid[0] * grid[1], self.width))[0]
    place = jnp.concatenate([place[:len(front)], resized(place[len(front):], grid, here, self.antialias)])
    x = jnp.concatenate([*front, x], 1)
    x = x + jnp.broadcast_to(place[None], x.shape).astype(x.dtype)
    if self.registers:
      x = jnp.concatenate([x[:, :len(front)], token('registers', self.registers), x[:, len(front):]], 1)
    if self.norm is not None:
      x = plugin.build('norms', self.norm, dtype=self.dtype, name='normed')(tag(self, 'embed_raw', x), None)
    return x
