"""Root Mean Square Layer Normalization: x / rms(x) over the units of a token, with gain (Zhang & Sennrich 2019, arXiv:1910.07467)."""
from flax import linen as nn


class Rms(nn.Module):
  epsilon: float = 1e-6
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, layer):
    return nn.RMSNorm(epsilon=self.epsilon, dtype=self.dtype, name='affine')(x)
