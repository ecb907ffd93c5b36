"""What benchmarks share: a peer or how to install it, and peak memory beside time."""
import ctypes
import importlib
import pathlib
import re
import types
from typing import Callable, Mapping

import jax
import numpy as np

from benchmarks import timing

STATUS, RESET = pathlib.Path('/proc/self/status'), pathlib.Path('/proc/self/clear_refs')


def peer(module: str, package: str) -> types.ModuleType | None:
  """The module of a peer, or None and a line that says how to install it."""
  try:
    return importlib.import_module(module)
  except ImportError as error:
    print(f"{package} is left out ({error}); to compare with it: pip install -e '.[bench]'")
    return None


def peak(run: Callable[[], object]) -> float:
  """MiB by which `run`, called before, raises this process's memory at most; NaN where it is not Linux that tells.

  An accelerator's own peak is `device_peak`."""
  try:
    ctypes.CDLL(None).malloc_trim(0)                     # what earlier calls freed would hide what this one needs
    RESET.write_text('5')
  except (OSError, AttributeError):
    return float('nan')
  before = _kib('VmRSS')
  jax.block_until_ready(run())
  return (_kib('VmHWM') - before) / 1024


def _kib(field: str) -> int:
  return int(re.search(rf'{field}:\s+(\d+)', STATUS.read_text())[1])


def apart(found, expected, most: float = 1e-6) -> str:
  """The largest difference, for the notes of a table.

  Raises:
    ValueError: it is above `most`: two candidates do not compute the same thing."""
  gap = np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max()
  if not gap <= most:
    raise ValueError(f'values differ by {gap:.1e}, at most {most:g} was to be expected; their times do not compare')
  return f'largest difference {gap:.0e}'


def device_peak() -> str:
  """What the accelerator has held at most so far, for the notes of a table; empty on a CPU."""
  stats = jax.devices()[0].memory_stats() or {}
  return f'device peak {stats["peak_bytes_in_use"] / 2 ** 20:.0f} MiB' if 'peak_bytes_in_use' in stats else ''


def compare(title: str, candidates: Mapping[str, Callable[[], object]], base: str, repeats: int,
            notes: Mapping[str, str] = {}) -> dict[str, np.ndarray]:
  """Times `candidates` in turns, then their peak memory, and prints the table: {name: seconds [repeats]}."""
  times = timing.rounds(candidates, repeats)
  for name, run in candidates.items():
    times[name] = times[name] * getattr(run, 'scale', 1)
  said = {name: ', '.join(filter(None, (f'+{peak(run):.0f} MiB', notes[name] if name in notes else '')))
          for name, run in candidates.items()}
  timing.table(title, times, base, said)
  if held := device_peak():
    print(held)
  return times
