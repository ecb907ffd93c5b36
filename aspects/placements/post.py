"""Attention Is All You Need: post-norm, N(x + f(x)) (Vaswani et al. 2017, arXiv:1706.03762).

The stream is normalised after each addition: mixer_sum = resid_pre + mixer_out and resid_mid = N(mixer_sum);
channel_sum and resid_post alike."""
from aspects.nn.residual import Residual
from aspects.sites import tag


class Post(Residual):
  """Normalises the stream after a sublayer was added to it."""

  def join(self, x, slot, sublayer, layer):
    h = tag(self, f'{slot}_in', x)
    y = self.branched(tag(self, f'{slot}_raw', sublayer(h)), slot, layer)
    return self.normed(tag(self, f'{slot}_sum', x + y), f'{slot}_norm', layer)
