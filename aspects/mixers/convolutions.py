"""Identity Mappings in Deep Residual Networks: the branch of a pre-activation block, two convolutions (He et al. 2016, arXiv:1603.05027).

relu -> conv -> norm -> relu -> conv on the square grid of tokens; the norm before is the placement's. Group instead of
batch normalisation (`norms/group`), so that examples do not interact. Masked tokens enter as zeros."""
from typing import Any, Mapping

from flax import core
from flax import linen as nn

from aspects import plugin
from aspects.nn.grid import to_grid


class Convolutions(nn.Module):
  size: int = 3
  norm: Mapping[str, Any] = core.FrozenDict(name='group')
  dtype: str = 'float32'
  symmetries = ()

  @nn.compact
  def __call__(self, x, *, mask=None, positions=None):
    conv = lambda name: nn.Conv(x.shape[-1], (self.size, self.size), dtype=self.dtype, use_bias=False, name=name)
    h = conv('conv_1')(nn.relu(to_grid(x, mask))).reshape(x.shape)
    h = plugin.build('norms', self.norm, dtype=self.dtype, name='norm')(h, None)
    return conv('conv_2')(nn.relu(to_grid(h))).reshape(x.shape)
