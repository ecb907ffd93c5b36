"""The Curse of Depth in Large Language Models: a norm whose output is divided by sqrt(layer), layers from 1 (Sun et al. 2025, arXiv:2502.05795).

The final norm, which belongs to no layer, is not scaled."""
from typing import Any, Mapping

from flax import core
from flax import linen as nn
import jax.numpy as jnp

from aspects import plugin


class DepthScaled(nn.Module):
  examples = ({}, {'norm': {'name': 'rms'}})
  norm: Mapping[str, Any] = core.FrozenDict(name='layer')
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, layer):
    x = plugin.build('norms', self.norm, dtype=self.dtype, name='norm')(x, layer)
    return x if layer is None else (x / jnp.sqrt(jnp.asarray(layer + 1, jnp.float32))).astype(x.dtype)
