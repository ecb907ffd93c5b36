"""What the layers of a network do, from five sides: features, correlations, representations, depth, locality.

In a notebook:

    from aspects import Net, Skip, Stream, forward, measure_network, tag

Names are imported when they are first used, so that a command that judges records does not wait for a trainer. The plan
of the house is `docs/architecture.md`.
"""
import importlib
from typing import Any

_HOME = {
    'ArraySource': 'data', 'Stream': 'data', 'Net': 'net', 'build': 'plugin', 'forward': 'sites', 'select': 'sites',
    'tag': 'sites', 'measure_arrays': 'measure', 'measure_network': 'measure', 'Add': 'edits', 'Noise': 'edits',
    'Project': 'edits', 'Replace': 'edits', 'Scale': 'edits', 'Skip': 'edits', 'site_gradients': 'edits',
    'skip_each': 'edits', 'sweep': 'edits'}
__version__ = '0.1.0'
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
  if name not in _HOME:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(f'aspects.{_HOME[name]}'), name)


def __dir__() -> list[str]:
  return [*globals(), *__all__]
