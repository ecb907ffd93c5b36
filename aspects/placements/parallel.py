"""GPT-NeoX-20B: sublayers side by side, x + f(N(x)) + g(N(x)) with a norm for each (Black et al. 2022, arXiv:2204.06745).

All sublayers read the same stream, so that a block has no resid_mid."""
from flax import linen as nn

from aspects.nn.residual import Residual
from aspects.sites import tag


class Parallel(Residual):
  """Adds what all sublayers make of one and the same stream."""

  @nn.compact
  def __call__(self, x, sublayers, layer):
    x = end = tag(self, 'resid_pre', x)
    for slot, sublayer in sublayers.items():
      h = tag(self, f'{slot}_in', self.normed(x, f'{slot}_norm', layer))
      end = end + self.branched(tag(self, f'{slot}_raw', sublayer(h)), slot, layer)
    return tag(self, 'resid_post', end)
