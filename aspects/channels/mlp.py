"""Attention Is All You Need: the position-wise MLP, W_out f(W_in x) (Vaswani et al. 2017, arXiv:1706.03762).

Sites: channel_pre before the nonlinearity `act`, channel_act after it."""
from flax import linen as nn

from aspects.nn.activations import activation
from aspects.sites import tag


class Mlp(nn.Module):
  """`size` neurons, or `ratio` times the width."""
  ratio: float = 4.0
  act: str = 'gelu'
  size: int | None = None
  bias: bool = True
  dtype: str = 'float32'
  examples = ({}, {'size': 5, 'bias': False, 'act': 'quick_gelu'})

  @nn.compact
  def __call__(self, x):
    width = x.shape[-1]
    dense = lambda size, name: nn.Dense(size, use_bias=self.bias, dtype=self.dtype, name=name)
    h = tag(self, 'channel_pre', dense(self.size or int(width * self.ratio), 'in')(x))
    h = tag(self, 'channel_act', activation(self.act)(h))
    return dense(width, 'out')(h)
