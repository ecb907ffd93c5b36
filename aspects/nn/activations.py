"""Nonlinearities by their usual names."""
import functools

import jax

from aspects.plugin import nearest

_ACTIVATIONS = {'relu': jax.nn.relu, 'gelu': functools.partial(jax.nn.gelu, approximate=False),
                'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True), 'silu': jax.nn.silu,
                'quick_gelu': lambda x: x * jax.nn.sigmoid(1.702 * x),
                'tanh': jax.numpy.tanh, 'sigmoid': jax.nn.sigmoid, 'identity': lambda x: x}


def activation(name: str):
  """The elementwise function called `name`."""
  if name not in _ACTIVATIONS:
    raise ValueError(f'there is no activation {name!r}; {nearest(name, _ACTIVATIONS)}')
  return _ACTIVATIONS[name]
