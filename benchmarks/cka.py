"""All-pairs debiased CKA from a stream beside numpy in memory: `python -m benchmarks.cka [--layers 12 --width 384]`.

Ours streams batches through `CrossCovariance`; numpy holds all rows and multiplies centred matrices in float32 and
float64. The limit is one product for each pair. The largest error against float64 is printed.
"""
import argparse

import numpy as np

from aspects.correlations.cka import Cka
from aspects.measure import measure_arrays
from benchmarks import timing


def in_memory(acts, dtype):
  """Debiased linear CKA of all pairs from centred rows, after Song et al. (2012)."""
  rows = [x.astype(dtype) - x.astype(dtype).mean(0) for x in acts.values()]
  n = len(rows[0])
  norms = np.stack([(x ** 2).sum(1) for x in rows]).astype(np.float64)
  quartic, trace = norms @ norms.T, norms.sum(1)
  square = np.zeros_like(quartic)
  for i, x in enumerate(rows):
    for j, y in enumerate(rows[i:], i):
      square[i, j] = square[j, i] = ((x.T @ y).astype(np.float64) ** 2).sum()
  hsic = square - quartic + np.outer(trace, trace) / ((n - 1) * (n - 2)) - 2 * quartic / (n - 2)
  return hsic / np.sqrt(np.outer(np.diag(hsic), np.diag(hsic)))


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  for name, value in (('layers', 12), ('width', 384), ('rows', 10240), ('batch', 2048), ('repeats', 5)):
    parser.add_argument(f'--{name}', type=int, default=value)
  a = parser.parse_args()
  rng = np.random.default_rng(0)
  stream, acts = rng.normal(size=(a.rows, a.width)), {}
  for layer in range(a.layers):
    stream = np.maximum(stream @ rng.normal(size=(a.width, a.width)) / a.width ** 0.5 + 0.5, 0) + 0.3 * stream
    acts[f'layer.{layer}'] = stream.astype(np.float32)
  ours = lambda: measure_arrays(Cka(('layer.*',)), acts, batch_size=a.batch)['cka_linear_debiased'].values
  pairs = a.layers * (a.layers + 1) // 2
  limit = timing.matmul(pairs * 2 * a.rows * a.width ** 2)
  times = timing.rounds({'ours, streamed in float32': ours, 'numpy in memory, float32': lambda: in_memory(acts, 'f4'),
                         'numpy in memory, float64': lambda: in_memory(acts, 'f8'),
                         'limit: each pair multiplied once': limit}, a.repeats)
  times['limit: each pair multiplied once'] *= limit.scale
  truth = in_memory(acts, 'f8')
  errors = {name: f'largest error {np.abs(run() - truth).max():.1e}' for name, run in (
      ('ours, streamed in float32', ours), ('numpy in memory, float32', lambda: in_memory(acts, 'f4')))}
  timing.table(f'All pairs of {a.layers} layers, width {a.width}, {a.rows} rows in batches of {a.batch}', times,
               'limit: each pair multiplied once', errors)


if __name__ == '__main__':
  main()
