"""A linear map of the flattened input to one token: the entrance of a residual MLP (He et al. 2015, arXiv:1512.03385)."""
from flax import linen as nn
import jax.numpy as jnp


class Vector(nn.Module):
  """[B, ...] -> [B, 1, D]."""
  takes = (((12,), 'float32'), ((4, 3), 'float32'))
  width: int
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, inputs):
    if inputs.ndim < 2:
      raise ValueError(f'inputs are [B, ...] with an axis of features or more, got {inputs.shape}')
    x = inputs.reshape(inputs.shape[0], 1, -1).astype(jnp.dtype(self.dtype))
    return nn.Dense(self.width, dtype=self.dtype, name='in')(x)
