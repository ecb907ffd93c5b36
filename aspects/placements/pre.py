"""On Layer Normalization in the Transformer Architecture: pre-norm, x + f(N(x)) (Xiong et al. 2020, arXiv:2002.04745)."""
from aspects.nn.residual import Residual
from aspects.sites import tag


class Pre(Residual):
  """Normalises what a sublayer reads; the stream itself is never normalised."""

  def join(self, x, slot, sublayer, layer):
    h = tag(self, f'{slot}_in', self.normed(x, f'{slot}_norm', layer))
    return x + self.branched(tag(self, f'{slot}_raw', sublayer(h)), slot, layer)
