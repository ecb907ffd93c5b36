"""On residual network depth: branches scaled by a power of the number of layers, depth**-power (Dherin & Munn 2025, arXiv:2510.03470).

power 1/2 keeps the stream of random branches bounded, power 1 that of aligned ones."""
from flax import linen as nn


class DepthPower(nn.Module):
  examples = ({'depth': 4}, {'depth': 9, 'power': 1.0})
  depth: int
  power: float = 0.5

  def __call__(self, y, layer):
    return y * self.depth ** -self.power
