"""Where cells run: workers on this machine, on SLURM, on Kubernetes; an executor is a file of this folder.

Each has `launch(folder, *, workers, command, ...)`, which starts `workers` times `command`, a worker of the queue in
`folder`, and returns `Workers`. What else it takes, by name, are its options: `slurm:8,partition=gpu,time=120`.
"""
import importlib
import inspect
import pkgutil
from typing import Any, Callable, Mapping, Protocol

GIVEN = ('folder', 'workers', 'command')


class Workers(Protocol):
  """Workers that were launched; leaving `with` ends them."""

  def describe(self) -> str: ...                     # a line for who launched them

  def watch(self) -> int:
    """To be called about every second: replaces what died, or left and has something to do again.

    Returns:
      for how many workers that goes on; 0 if all were asked to stop by somebody else.
    Raises:
      RuntimeError: they keep dying; with the end of the last log.
    """

  def stop(self) -> None: ...                        # asks them to stop; they give their cells back

  def __enter__(self) -> 'Workers': ...

  def __exit__(self, *error) -> None: ...


def names() -> tuple[str, ...]:
  """The executors, which are the files of this folder."""
  return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__)))


def find(name: str) -> Callable[..., Workers]:
  """The `launch` of an executor; ValueError names the nearest."""
  if name not in names():
    raise ValueError(f'there is no executor {name!r}; {_nearest(name, names())}')
  return importlib.import_module(f'experiments.launch.{name}').launch


def parse(text: str) -> tuple[str, int, dict[str, Any]]:
  """('slurm', 8, {'partition': 'gpu', 'time': 120}) of 'slurm:8,partition=gpu,time=120'.

  Raises:
    ValueError: an unknown executor or option, a missing option, or a value of the wrong kind.
  """
  name, _, rest = text.partition(':')
  count, *given = rest.split(',')
  options = _options(find(name))
  if not count.isdecimal() or int(count) < 1:
    raise ValueError(f'{text!r}: {name} needs a number of workers from 1, such as {name}:2')
  chosen = {}
  for one in given:
    option, equals, value = one.partition('=')
    if option not in options:
      raise ValueError(f'{text!r}: {name} has no option {option!r}; {_nearest(option, options)}')
    if not equals or not value:
      raise ValueError(f'{text!r}: write {option}=VALUE')
    kind = options[option].annotation
    try:
      chosen[option] = kind(value)
    except ValueError as error:
      raise ValueError(f'{text!r}: {option} is {value!r} and must be of type {kind.__name__}') from error
  missing = [k for k, p in options.items() if p.default is p.empty and k not in chosen]
  if missing:
    raise ValueError(f'{text!r}: {name} needs the option {missing[0]}, as {text},{missing[0]}=VALUE')
  return name, int(count), chosen


def _options(launch: Callable) -> Mapping[str, inspect.Parameter]:
  return {k: p for k, p in inspect.signature(launch).parameters.items() if k not in GIVEN}


def _nearest(name: str, valid) -> str:
  from aspects import plugin                         # brings jax, which a worker's parent does not need
  return plugin.nearest(name, valid)
