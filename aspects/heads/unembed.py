"""Logits for the next token at every position (Radford et al. 2019, Language Models are Unsupervised Multitask Learners)."""
from typing import Any, Mapping

from flax import linen as nn
import jax
import jax.numpy as jnp

from aspects import plugin
from aspects.nn.activations import activation
from aspects.sites import tag


class Unembed(nn.Module):
  """[B, T, D] -> [B, T, outputs]; `tied` reads the table of the embedding (Press & Wolf 2016, arXiv:1608.05859).

  `soft_cap` c bounds logits to c tanh(logits / c). `hidden` is the activation of a layer with a norm, `norm`, before
  the map (BERT, arXiv:1810.04805). `size`: the stream is mapped to as many units first (OPT-350m).
  """
  outputs: int
  tied: bool = False
  bias: bool = False
  soft_cap: float | None = None
  hidden: str | None = None
  norm: Mapping[str, Any] | None = None
  size: int | None = None
  dtype: str = 'float32'
  examples = ({}, {'bias': True, 'soft_cap': 2.0}, {'hidden': 'gelu', 'norm': {'name': 'layer'}}, {'size': 3})

  @nn.compact
  def __call__(self, x, mask, table=None):
    if self.hidden is not None:
      x = activation(self.hidden)(nn.Dense(x.shape[-1], dtype=self.dtype, name='hidden_map')(x))
    if self.norm is not None:
      x = plugin.build('norms', self.norm, dtype=self.dtype, name='hidden_norm')(x, None)
    if self.size is not None:
      x = nn.Dense(self.size, use_bias=False, dtype=self.dtype, name='narrower')(x)
    if self.tied:
      if table is None or table.shape != (self.outputs, x.shape[-1]):
        raise ValueError(f'a tied head of {self.outputs} outputs reads a table [{self.outputs}, {x.shape[-1]}] of the '
                         f'embedding, which is {None if table is None else table.shape}')
      x, table = x.astype(self.dtype), table.astype(self.dtype)
      logits = jax.lax.dot_general(x, table, (((x.ndim - 1,), (1,)), ((), ())))
      if self.bias:
        bias = self.param('bias', nn.initializers.zeros, (self.outputs,))
        logits = logits + jnp.broadcast_to(bias, logits.shape).astype(logits.dtype)
    else:
      logits = nn.Dense(self.outputs, use_bias=self.bias, dtype=self.dtype, name='logits_map')(x)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if self.soft_cap is not None:
      logits = self.soft_cap * jnp.tanh(logits / self.soft_cap)
    return tag(self, 'logits', logits)
