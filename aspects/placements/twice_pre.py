"""What does not bound a sublayer: both norms of Peri-LN in front of it, x + f(N(N(x))) (after Kim et al. 2025, arXiv:2502.02732).

A control: as many norms and parameters as `peri`, none of them on what is added to the stream."""
from aspects.nn.residual import Residual
from aspects.sites import tag


class TwicePre(Residual):
  """Normalises what a sublayer reads, twice; what it writes is left as it is."""

  def join(self, x, slot, sublayer, layer):
    h = self.normed(self.normed(x, f'{slot}_norm', layer), f'{slot}_norm_out', layer)
    h = tag(self, f'{slot}_in', h)
    return x + self.branched(tag(self, f'{slot}_raw', sublayer(h)), slot, layer)
