"""Identity Mappings in Deep Residual Networks: the branch of a pre-activation block, two convolutions (He et al. 2016, arXiv:1603.05027).

relu -> conv -> norm -> relu -> conv on the square grid of tokens; the norm before is the placement's. Group instead of
batch normalisation (`norms/group`), so that examples do not interact. Masked tokens enter as zeros."""
import math
from typing import Any, Mapping

from flax import core
from flax import linen as nn
import jax.numpy as jnp

from aspects import plugin


class Convolutions(nn.Module):
  size: int = 3
  norm: Mapping[str, Any] = core.FrozenDict(name='group')
  dtype: str = 'float32'
  symmetries = ()

  @nn.compact
  def __call__(self, x, *, mask=None, positions=None):
    b, t, d = x.shape
    side = math.isqrt(t)
    if side * side != t:
      raise ValueError(f'{t} tokens are not a square grid; convolutions need one, without a class token')
    if mask is not None:
      x = jnp.where(jnp.broadcast_to(mask[..., None] > 0, x.shape), x, 0)
    conv = lambda name: nn.Conv(d, (self.size, self.size), dtype=self.dtype, use_bias=False, name=name)
    h = conv('conv_1')(nn.relu(x).reshape(b, side, side, d)).reshape(b, t, d)
    h = plugin.build('norms', self.norm, dtype=self.dtype, name='norm')(h, None)
    return conv('conv_2')(nn.relu(h).reshape(b, side, side, d)).reshape(b, t, d)
