"""Root Mean Square Layer Normalization: x / rms(x) over the units of a token, with gain (Zhang & Sennrich 2019, arXiv:1910.07467)."""
from flax import linen as nn
import jax
import jax.numpy as jnp


class Rms(nn.Module):
  """The gain is `offset` + scale: 0 is the paper's; 1, with scale from 0, is that of Gemma (arXiv:2403.08295)."""
  epsilon: float = 1e-6
  offset: float = 0.0
  dtype: str = 'float32'
  examples = ({}, {'offset': 1.0})

  @nn.compact
  def __call__(self, x, layer):
    if not self.offset:
      return nn.RMSNorm(epsilon=self.epsilon, dtype=self.dtype, name='affine')(x)
    return Shifted(self.epsilon, self.offset, self.dtype, name='affine')(x)


class Shifted(nn.Module):
  """x / rms(x) * (offset + scale), computed in float32 or better."""
  epsilon: float
  offset: float
  dtype: str

  @nn.compact
  def __call__(self, x):
    scale = self.param('scale', nn.initializers.zeros, (x.shape[-1],))
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    y = y * jax.lax.rsqrt((y ** 2).mean(-1, keepdims=True) + self.epsilon)
    return (y * jnp.broadcast_to(self.offset + scale.astype(y.dtype), y.shape)).astype(self.dtype)
