"""Attention Is All You Need, as in GPT-2: token and learned position embeddings (Vaswani et al. 2017, arXiv:1706.03762; Radford et al. 2019)."""
from flax import linen as nn
import jax.numpy as jnp


class Tokens(nn.Module):
  """int [B, T] -> [B, T, D]; at most `length` positions."""
  takes = (((7,), 'int32'),)
  width: int
  vocab: int = 256
  length: int = 1024
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, inputs):
    if not jnp.issubdtype(inputs.dtype, jnp.integer) or inputs.ndim != 2:
      raise ValueError(f'tokens are integers [B, T], got {inputs.dtype} {inputs.shape}')
    if inputs.shape[1] > self.length:
      raise ValueError(f'{inputs.shape[1]} positions exceed the length {self.length} of the position table')
    start = nn.initializers.normal(0.02)
    x = nn.Embed(self.vocab, self.width, dtype=self.dtype, embedding_init=start, name='token')(inputs)
    place = self.param('position', start, (self.length, self.width))[:inputs.shape[1]]
    return x + jnp.broadcast_to(place[None], x.shape).astype(x.dtype)
