"""Angular Procrustes distances of all pairs of layers beside the steps of netrep: `python -m benchmarks.procrustes`.

netrep is on no index, so its definition is written out (Williams et al. 2021, arXiv:2110.14739): each layer is centred
once, each pair aligned by the singular vectors of its cross-scatter, and the angle taken between the aligned rows. Ours
streams float32 batches into cross-moments and needs the singular values only; `numpy, values only` does so from rows in
memory. A difference of more than 1e-6 is an error. The limit is the products of the pairs alone.
"""
import argparse
import itertools

import numpy as np

from aspects.correlations.procrustes import Procrustes
from aspects.measure import measure_arrays
from benchmarks import peers
from benchmarks import timing


def layers(count, rows, width, seed=0):
  """Activations of a random rectified network, float32: neighbours are alike."""
  rng = np.random.default_rng(seed)
  x, acts = rng.normal(size=(rows, width)), {}
  for layer in range(count):
    x = np.maximum(x @ rng.normal(size=(width, width)) / width ** .5 + .5, 0) + .3 * x
    acts[f'layer.{layer}'] = x.astype(np.float32)
  return acts


def of_pairs(acts, distance):
  """[L, L] of `distance(x, y)` of centred rows in float64."""
  rows = [x.astype(np.float64) - x.mean(0, dtype=np.float64) for x in acts.values()]
  out = np.zeros((len(rows),) * 2)
  for i, j in itertools.combinations(range(len(rows)), 2):
    out[i, j] = out[j, i] = distance(rows[i], rows[j])
  return out


def angle(x, y):
  return np.arccos(np.clip((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y), -1, 1))


def aligned(x, y):
  left, _, right = np.linalg.svd(x.T @ y)
  return angle(x @ left, y @ right.T)


def values_only(x, y):
  nuclear = np.linalg.svd(x.T @ y, compute_uv=False).sum()
  return np.arccos(min(nuclear / np.linalg.norm(x) / np.linalg.norm(y), 1))


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  for name, value in (('layers', 12), ('width', 128), ('rows', 500), ('repeats', 9)):
    parser.add_argument(f'--{name}', type=int, default=value)
  a = parser.parse_args()
  acts = layers(a.layers, a.rows, a.width)
  count = a.layers * (a.layers - 1) // 2
  candidates = {
      'ours, streamed in float32': lambda: measure_arrays(Procrustes(('layer.*',)), acts).procrustes_angular_distance,
      'netrep, steps of its definition': lambda: of_pairs(acts, aligned),
      'numpy, values only': lambda: of_pairs(acts, values_only)}
  truth, above = candidates['netrep, steps of its definition'](), np.triu_indices(a.layers, 1)
  notes = {name: peers.apart(np.asarray(run())[above], truth[above])
           for name, run in candidates.items() if not name.startswith('netrep')}
  candidates['limit: products alone, float32'] = timing.matmul(2 * count * a.rows * a.width ** 2, 512)
  peers.compare(f'{count} Procrustes distances, {a.rows} rows, width {a.width}', candidates,
                'ours, streamed in float32', a.repeats, notes)


if __name__ == '__main__':
  main()
