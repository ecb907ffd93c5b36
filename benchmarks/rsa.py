"""RSA of all pairs of layers beside rsatoolbox 0.3.2: `python -m benchmarks.rsa [--compare spearman tau_a]`.

Each compares all pairs of `layers` layers over `rows` conditions, from the activations to the [L, L] map, one table for
each way to compare. Distances are squared Euclidean or 1 - correlation. The limit is the products alone of the
distances. A difference of more than 1e-6 from the peer is an error.
"""
import argparse

import numpy as np

from aspects.correlations.rsa import Rsa
from aspects.measure import measure_arrays
from benchmarks import peers
from benchmarks import procrustes
from benchmarks import timing

THEIRS = {'pearson': 'corr', 'spearman': 'spearman', 'tau_a': 'tau-a', 'cosine': 'cosine', 'cosine_cov': 'cosine_cov',
          'corr_cov': 'corr_cov'}
RDM = {'squared_euclidean': 'euclidean', 'correlation': 'correlation'}


def ours(acts, rdm, compare):
  measure = Rsa(('layer.*',), rdm=(rdm,), compare=(compare,))
  return measure_arrays(measure, acts)[f'rsa_{rdm}_{compare}'].values


def theirs(toolbox, acts, rdm, compare):
  data = [toolbox.data.Dataset(x.astype(np.float64)) for x in acts.values()]
  rdms = toolbox.rdm.calc_rdm(data, method=RDM[rdm])
  return toolbox.rdm.compare(rdms, rdms, method=THEIRS[compare])


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  for name, value in (('layers', 12), ('width', 256), ('rows', 400), ('repeats', 5)):
    parser.add_argument(f'--{name}', type=int, default=value)
  parser.add_argument('--rdm', choices=RDM, default='correlation')
  parser.add_argument('--compare', nargs='+', choices=THEIRS, default=list(THEIRS))
  a = parser.parse_args()
  acts = procrustes.layers(a.layers, a.rows, a.width)
  toolbox = peers.peer('rsatoolbox', 'rsatoolbox 0.3.2')
  limit = timing.matmul(2 * a.layers * a.rows ** 2 * a.width, 512)
  for compare in a.compare:
    candidates = {'ours': lambda: ours(acts, a.rdm, compare)}
    notes = {}
    if toolbox:
      candidates['rsatoolbox'] = lambda: theirs(toolbox, acts, a.rdm, compare)
      notes['rsatoolbox'] = peers.apart(candidates['ours'](), candidates['rsatoolbox']())
    candidates['limit: distances, products alone, float32'] = limit
    peers.compare(f'RSA, {a.rdm} distances, {compare}, of {a.layers} x {a.layers} layers, {a.rows} conditions, '
                  f'width {a.width}', candidates, 'ours', a.repeats, notes)


if __name__ == '__main__':
  main()
