"""Peri-LN: Revisiting Normalization Layer in the Transformer Architecture: x + N(f(N(x))) (Kim et al. 2025, arXiv:2502.02732).

Differs from the paper: the embedding is not normalised."""
from aspects.nn.residual import Residual
from aspects.sites import tag


class Peri(Residual):
  """Normalises what a sublayer reads and what it writes."""

  def join(self, x, slot, sublayer, layer):
    h = tag(self, f'{slot}_in', self.normed(x, f'{slot}_norm', layer))
    y = self.normed(tag(self, f'{slot}_raw', sublayer(h)), f'{slot}_norm_out', layer)
    return x + self.branched(y, slot, layer)
