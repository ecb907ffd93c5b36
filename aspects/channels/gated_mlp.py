"""GLU Variants Improve Transformer: W_out (f(W_pre x) * W_gate x) (Shazeer 2020, arXiv:2002.05202).

Sites: channel_pre before the nonlinearity `act`, channel_gate the linear branch, channel_act their product."""
from flax import linen as nn

from aspects.nn.activations import activation
from aspects.sites import tag


class GatedMlp(nn.Module):
  """`size` neurons, or `ratio` times the width."""
  ratio: float = 8 / 3
  act: str = 'silu'
  size: int | None = None
  bias: bool = False
  dtype: str = 'float32'
  examples = ({}, {'size': 5, 'bias': True})

  @nn.compact
  def __call__(self, x):
    width = x.shape[-1]
    hidden = self.size or int(width * self.ratio)
    dense = lambda size, name: nn.Dense(size, use_bias=self.bias, dtype=self.dtype, name=name)
    pre = tag(self, 'channel_pre', dense(hidden, 'pre')(x))
    gate = tag(self, 'channel_gate', dense(hidden, 'gate')(x))
    return dense(width, 'out')(tag(self, 'channel_act', activation(self.act)(pre) * gate))
