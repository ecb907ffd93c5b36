"""Sublayers one after another without a residual connection: what is left of a block when its skips are removed."""
from aspects import plugin
from aspects.nn.residual import Residual
from aspects.sites import tag


class Chain(Residual):
  """x -> f(N(x)) for each sublayer: the stream is replaced, nothing is added to it.

  A placement, `dict(name='aspects.nn.chain:Chain')`, and none of the family, whose members promise a stream that is the
  sum of what was added to it: so there is no mixer_out and no channel_out. What a sublayer gives, after the branch, is
  resid_mid or resid_post.
  """

  def join(self, x, slot, sublayer, layer):
    h = tag(self, f'{slot}_in', self.normed(x, f'{slot}_norm', layer))
    y = tag(self, f'{slot}_raw', sublayer(h))
    if self.branch is None:
      return y
    return plugin.build('branches', self.branch, depth=self.depth, name=f'{slot}_branch')(y, layer)
