"""Going deeper with Image Transformers: LayerScale, a learned gain per unit on what is added (Touvron et al. 2021, arXiv:2103.17239)."""
from flax import linen as nn
import jax.numpy as jnp


class LayerScale(nn.Module):
  start: float = 0.1

  @nn.compact
  def __call__(self, y, layer):
    gain = self.param('gain', nn.initializers.constant(self.start), (y.shape[-1],))
    return y * jnp.broadcast_to(gain, y.shape).astype(y.dtype)
