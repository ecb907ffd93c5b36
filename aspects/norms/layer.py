"""Layer Normalization: (x - mean) / sd over the units of a token, with gain and bias (Ba et al. 2016, arXiv:1607.06450)."""
from flax import linen as nn


class Layer(nn.Module):
  epsilon: float = 1e-5
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, layer):
    return nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name='affine')(x)
