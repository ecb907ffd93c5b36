"""Batch Normalization with the statistics that training left (Ioffe & Szegedy 2015, arXiv:1502.03167)."""
from flax import linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
  """(x - mean) / sqrt(var + epsilon) with gain and bias; mean and var are the variables `batch_stats`, never changed.

  A norm, `dict(name='aspects.nn.batch_norm:BatchNorm')`, and none of the family, whose members normalise what they see:
  this one would not, trained from its start, as training moves parameters only.
  """
  epsilon: float = 1e-5
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, layer):
    return Fixed(self.epsilon, self.dtype, name='affine')(x)


class Fixed(nn.Module):
  """Variables as those of flax's BatchNorm, which would take the root in float32 in a network of float64."""
  epsilon: float
  dtype: str

  @nn.compact
  def __call__(self, x):
    size, exact = (x.shape[-1],), jnp.promote_types(self.dtype, jnp.float32)
    scale = self.param('scale', nn.initializers.ones, size).astype(exact)
    bias = self.param('bias', nn.initializers.zeros, size).astype(exact)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, size).value.astype(exact)
    var = self.variable('batch_stats', 'var', jnp.ones, size).value.astype(exact)
    gain = scale * jax.lax.rsqrt(var + self.epsilon)
    each = lambda v: jnp.broadcast_to(v, x.shape)
    return ((x.astype(exact) - each(mean)) * each(gain) + each(bias)).astype(self.dtype)
