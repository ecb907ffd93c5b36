"""Attention Is All You Need, as in GPT-2: token and learned position embeddings (Vaswani et al. 2017, arXiv:1706.03762; Radford et al. 2019)."""
from typing import Any, Mapping

from flax import linen as nn
import jax.numpy as jnp

from aspects import plugin


class Tokens(nn.Module):
  """int [B, T] -> [B, T, D]; at most `length` positions, or any number without a table of them, `length=0`.

  Rows of the table below `offset` are not used (OPT, arXiv:2205.01068; RoBERTa, arXiv:1907.11692). `types` segments are
  told apart (BERT, arXiv:1810.04805); their sum goes through `norm`. `scale` multiplies the tokens' vectors (Gemma,
  arXiv:2403.08295). `size`: the table is narrower than the stream, and mapped into it (OPT-350m).
  """
  takes = (((7,), 'int32'),)
  examples = ({}, {'length': 0, 'scale': 4.0}, {'offset': 2, 'types': 2, 'norm': {'name': 'layer'}}, {'size': 3})
  by_position = True                                 # its call takes positions and types
  width: int
  vocab: int = 256
  length: int = 1024
  offset: int = 0
  types: int = 0
  scale: float = 1.0
  size: int | None = None
  norm: Mapping[str, Any] | None = None
  dtype: str = 'float32'

  def setup(self):
    start, size = nn.initializers.normal(0.02), self.size or self.width
    self.token = nn.Embed(self.vocab, size, dtype=self.dtype, embedding_init=start)
    if self.length:
      self.position = self.param('position', start, (self.offset + self.length, self.width))
    if self.types:
      self.type = nn.Embed(self.types, self.width, dtype=self.dtype, embedding_init=start)
    if self.size:
      self.wider = nn.Dense(self.width, use_bias=False, dtype=self.dtype)
    if self.norm is not None:
      self.normed = plugin.build('norms', self.norm, dtype=self.dtype, name='normed')

  def table(self):
    """[vocab, size]: what a tied head reads."""
    return self.token.embedding

  def __call__(self, inputs, *, positions=None, types=None):
    if not jnp.issubdtype(inputs.dtype, jnp.integer) or inputs.ndim != 2:
      raise ValueError(f'tokens are integers [B, T], got {inputs.dtype} {inputs.shape}')
    if self.length and positions is None and inputs.shape[1] > self.length:
      raise ValueError(f'{inputs.shape[1]} positions exceed the length {self.length} of the position table')
    if types is not None and not self.types:
      raise ValueError('this embedding has no types of tokens; leave types out or set embed.types')
    x = self.token(inputs)
    x = self.wider(x) if self.size else x
    x = x * jnp.asarray(self.scale, x.dtype) if self.scale != 1 else x
    if self.types:
      x = x + self.type(jnp.zeros_like(inputs) if types is None else types)
    if self.length:
      at = jnp.arange(inputs.shape[1]) if positions is None else positions
      place = jnp.take(self.position, self.offset + at, axis=0)
      x = x + jnp.broadcast_to(place if place.ndim == 3 else place[None], x.shape).astype(x.dtype)
    return x if self.norm is None else self.normed(x, None)
