"""Attention Is All You Need: the position-wise MLP, W_out f(W_in x) (Vaswani et al. 2017, arXiv:1706.03762).

Sites: channel_pre before the nonlinearity `act`, channel_act after it."""
from flax import linen as nn

from aspects.nn.activations import activation
from aspects.sites import tag


class Mlp(nn.Module):
  ratio: float = 4.0
  act: str = 'gelu'
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x):
    width = x.shape[-1]
    h = tag(self, 'channel_pre', nn.Dense(int(width * self.ratio), dtype=self.dtype, name='in')(x))
    h = tag(self, 'channel_act', activation(self.act)(h))
    return nn.Dense(width, dtype=self.dtype, name='out')(h)
