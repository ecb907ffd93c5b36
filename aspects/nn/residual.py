"""What the placements share: the walk over the sublayers with the sites of the stream."""
from typing import Any, Callable, Mapping

from flax import linen as nn
import jax

from aspects import plugin
from aspects.sites import tag

Array = jax.Array


class Residual(nn.Module):
  """`x` through the sublayers one after another; a placement says in `join` how one is normalised and added.

  `norm` and `branch` are specs; `branch` scales what is added. Sites: resid_pre, resid_mid, resid_post, and per
  sublayer `_in`, `_raw` and `_out`.
  """
  norm: Mapping[str, Any]
  branch: Mapping[str, Any] | None = None
  depth: int = 1
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, sublayers: Mapping[str, Callable[[Array], Array]], layer: Array) -> Array:
    x = tag(self, 'resid_pre', x)
    for i, (slot, sublayer) in enumerate(sublayers.items()):
      x = tag(self, 'resid_mid', x) if i else x
      x = self.join(x, slot, sublayer, layer)
    return tag(self, 'resid_post', x)

  def join(self, x: Array, slot: str, sublayer: Callable, layer: Array) -> Array:
    raise TypeError(f'{type(self).__name__} does not say how a sublayer joins the stream; define join')

  def normed(self, x: Array, name: str, layer: Array) -> Array:
    return plugin.build('norms', self.norm, dtype=self.dtype, name=name)(x, layer)

  def branched(self, y: Array, slot: str, layer: Array) -> Array:
    """What is added to the stream, under its site."""
    if self.branch is not None:
      y = plugin.build('branches', self.branch, depth=self.depth, name=f'{slot}_branch')(y, layer)
    return tag(self, f'{slot}_out', y)
