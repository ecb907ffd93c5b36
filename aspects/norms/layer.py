"""Layer Normalization: (x - mean) / sd over the units of a token, with gain and bias (Ba et al. 2016, arXiv:1607.06450)."""
from flax import linen as nn


class Layer(nn.Module):
  epsilon: float = 1e-5
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, layer):
    # The variance about the mean: mean(x^2) - mean(x)^2 loses the digits of a stream with large units.
    return nn.LayerNorm(epsilon=self.epsilon, use_fast_variance=False, dtype=self.dtype, name='affine')(x)
