"""What the layers of a network do, from five sides: features, correlations, representations, depth, locality.

In a notebook:

    from aspects import Net, Skip, Stream, forward, measure_network, tag

Names are imported when they are first used, so that a command that judges records does not wait for a trainer. The plan
of the house is `docs/architecture.md`.
"""
import importlib
from typing import Any

_MODULES = dict(
    data='ArraySource Stream', edits='Add Noise Project Replace Scale Skip site_gradients skip_each sweep',
    measure='between measure_arrays measure_network', **{'nn.generation': 'generate'},
    net='Net', plugin='build', sites='forward select tag')
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}
__version__ = '0.1.0'
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
  if name not in _HOME:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(f'aspects.{_HOME[name]}'), name)


def __dir__() -> list[str]:
  return [*globals(), *__all__]
