"""How all benchmarks measure: candidates take turns in one process; medians, ratios and a limit are printed.

Machines are shared and noisy, so ratios are taken round by round and their median is shown.
"""
import time
from typing import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np


def rounds(candidates: Mapping[str, Callable[[], object]], repeats: int = 9) -> dict[str, np.ndarray]:
  """Seconds [repeats] of each candidate after one call that is not counted; results are waited for."""
  for run in candidates.values():
    jax.block_until_ready(run())
  times = {name: [] for name in candidates}
  for _ in range(repeats):
    for name, run in candidates.items():
      start = time.perf_counter()
      jax.block_until_ready(run())
      times[name].append(time.perf_counter() - start)
  return {name: np.asarray(t) for name, t in times.items()}


def matmul(flops: float, size: int = 2048) -> Callable[[], object]:
  """A candidate that does `flops` operations in square float32 products of full precision: the machine's limit."""
  x = jax.random.normal(jax.random.key(0), (size, size))
  count = max(round(flops / (2 * size ** 3)), 1)
  product = jax.jit(lambda x: jax.lax.fori_loop(
      0, count, lambda _, y: jnp.matmul(x, y, precision='highest') / size, x))
  scale = flops / (2 * size ** 3 * count)
  product.scale = scale
  def run():
    return product(x)
  run.scale = scale
  return run


def table(title: str, times: Mapping[str, np.ndarray], base: str, notes: Mapping[str, str] = {}) -> str:
  """A table of medians, spreads and median ratios to `base`; printed and returned."""
  device = jax.devices()[0]
  lines = [f'\n{title}   [{device.platform} {device.device_kind}, jax {jax.__version__}]',
           f'{"":42s} {"median s":>10s} {"min":>9s} {"max":>9s} {"ratio":>8s}']
  for name, t in times.items():
    ratio = np.median(t / times[base])
    lines.append(f'{name:42s} {np.median(t):10.4f} {t.min():9.4f} {t.max():9.4f} {ratio:8.3f}  '
                 f'{notes[name] if name in notes else ""}')
  print('\n'.join(lines), flush=True)
  return '\n'.join(lines)
