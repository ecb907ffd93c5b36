"""A multilayer perceptron without residual connections (Rumelhart, Hinton & Williams 1986)."""
from flax import linen as nn
import jax
import jax.numpy as jnp

from aspects.nn.activations import activation
from aspects.sites import tag

Array = jax.Array


class Layer(nn.Dense):
  """act(W x + b) [B, D]; sites: channel_pre before the nonlinearity, resid_post after it."""
  act: str = 'relu'

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    h = tag(self, 'channel_pre', super().__call__(inputs))
    return tag(self, 'resid_post', activation(self.act)(h))


class Perceptron(nn.Module):
  """[B, ...] -> logits [B, outputs] through hidden layers of `widths` units, none for a linear map.

  Inputs are flattened. Parameters: `layer_0`, `layer_1`, ... and `head`, each a kernel [in, out] and a bias [out].
  Sites: channel_pre.i and resid_post.i of layer i, from 0; logits.
  """
  outputs: int
  widths: tuple[int, ...] = (128, 64, 64)
  act: str = 'relu'
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    x = inputs.reshape(inputs.shape[0], -1).astype(jnp.dtype(self.dtype))
    for i, width in enumerate(self.widths):
      x = Layer(width, act=self.act, dtype=self.dtype, name=f'layer_{i}')(x)
    logits = nn.Dense(self.outputs, dtype=self.dtype, name='head')(x)
    return tag(self, 'logits', logits.astype(jnp.float32))
