"""What does not work in The Curse of Depth: the input of the norm divided by sqrt(layer), which the norm undoes (after Sun et al. 2025, arXiv:2502.05795).

A control: scaling belongs behind the norm (`depth_scaled`); before it, it changes nothing but the norm's epsilon."""
from typing import Any, Mapping

from flax import core
from flax import linen as nn
import jax.numpy as jnp

from aspects import plugin


class ScaledInput(nn.Module):
  examples = ({}, {'norm': {'name': 'rms'}})
  norm: Mapping[str, Any] = core.FrozenDict(name='layer')
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, layer):
    x = x if layer is None else (x / jnp.sqrt(jnp.asarray(layer + 1, jnp.float32))).astype(x.dtype)
    return plugin.build('norms', self.norm, dtype=self.dtype, name='norm')(x, layer)
