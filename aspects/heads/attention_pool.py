"""Scaling Vision Transformers: one learned query reads all tokens, and a residual MLP follows (Zhai et al. 2021, arXiv:2106.04560; Lee et al. 2018, arXiv:1810.00825).

Differs from the set transformer: the query itself is not added to what it reads, as in SigLIP (arXiv:2303.15343)."""
from typing import Any, Mapping

from flax import core
from flax import linen as nn
import jax
import jax.numpy as jnp

from aspects import plugin
from aspects.nn.activations import activation
from aspects.sites import tag


class AttentionPool(nn.Module):
  """[B, T, D] -> [B, D]: y = attention of the query over real tokens, y + W f(W' N(y)) with `size` hidden units.

  Sites: `pooled` is y, `embedding` the output; it is as wide as the stream, whatever `outputs` is.
  """
  outputs: int
  heads: int = 4
  size: int | None = None
  act: str = 'gelu_tanh'
  norm: Mapping[str, Any] = core.FrozenDict(name='layer')
  dtype: str = 'float32'
  examples = ({}, {'heads': 2, 'size': 5})

  @nn.compact
  def __call__(self, x, mask):
    width = x.shape[-1]
    if width % self.heads:
      raise ValueError(f'width {width} is not a multiple of heads {self.heads}')
    real = jnp.ones(x.shape[:2], bool) if mask is None else mask > 0
    x = jnp.where(jnp.broadcast_to(real[..., None], x.shape), x, 0)
    to_heads = lambda y, name: nn.DenseGeneral((self.heads, width // self.heads), dtype=self.dtype, name=name)(y)
    probe = self.param('probe', nn.initializers.xavier_uniform(), (1, 1, width))
    q, k, v = to_heads(probe[0, 0], 'query'), to_heads(x, 'key'), to_heads(x, 'value')
    scores = jnp.einsum('hd,bkhd->bhk', q, k) * (width // self.heads) ** -0.5
    scores = jnp.where(jnp.broadcast_to(real[:, None], scores.shape), scores, jnp.finfo(scores.dtype).min)
    exact = jnp.promote_types(scores.dtype, jnp.float32)
    probs = jax.nn.softmax(scores.astype(exact), -1).astype(scores.dtype)
    y = nn.DenseGeneral(width, axis=(-2, -1), dtype=self.dtype, name='out')(jnp.einsum('bhk,bkhd->bhd', probs, v))
    y = tag(self, 'pooled', y)
    h = plugin.build('norms', self.norm, dtype=self.dtype, name='pooled_norm')(y[:, None], None)[:, 0]
    h = activation(self.act)(nn.Dense(self.size or 4 * width, dtype=self.dtype, name='hidden_in')(h))
    y = y + nn.Dense(width, dtype=self.dtype, name='hidden_out')(h)
    return tag(self, 'embedding', y.astype(jnp.promote_types(y.dtype, jnp.float32)))
