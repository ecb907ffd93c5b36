"""A ConvNet for the 2020s: sublayers one after another inside one residual, x + g(N(f(x))) (Liu et al. 2022, arXiv:2201.03545).

Only what the last sublayer gives is added, so that a block has one `*_out`, no resid_mid, and resid_post = resid_pre +
channel_out. The first sublayer reads the stream as it is; each later one the norm of what the one before gave."""
from flax import linen as nn

from aspects.nn.residual import Residual
from aspects.sites import tag


class Chained(Residual):
  """Adds what all sublayers, applied in turn, make of the stream."""

  @nn.compact
  def __call__(self, x, sublayers, layer):
    x = h = tag(self, 'resid_pre', x)
    for i, (slot, sublayer) in enumerate(sublayers.items()):
      h = tag(self, f'{slot}_in', self.normed(h, f'{slot}_norm', layer) if i else h)
      h = tag(self, f'{slot}_raw', sublayer(h))
    return tag(self, 'resid_post', x + self.branched(h, slot, layer) if sublayers else x)
