"""Permutation nulls of CKA of all pairs beside calibrated-similarity 0.1.1: `python -m benchmarks.permutations`.

Two networks of `layers` layers, `rows` examples, `draws` shuffles: p and calibrated score of every pair, and p of the
best pair. Ours indexes cached Gram matrices. The peer shuffles rows and computes every similarity again, with CKA as
its documentation writes it, or with all cached that its interface allows. Both start from the activations and get the
same shuffles, so that p must be equal up to a tie that its float32 breaks. The limit is the products alone of `ours`.
"""
import argparse

import numpy as np

from aspects import inference
from aspects.nn import hsic
from benchmarks import peers
from benchmarks import timing

ALPHA = .05


def networks(layers, rows, width, seed=0):
  """Two networks that read, later layers ever less, the same three units among noise: p from 1 / draws to 1."""
  rng = np.random.default_rng(seed)
  signal = rng.normal(size=(rows, 3))
  strength = np.geomspace(.3, .01, layers)
  return [[(s * signal @ rng.normal(size=(3, width)) + rng.normal(size=(rows, width)) + 1).astype(np.float32)
           for s in strength] for _ in range(2)]


def ours(left, right, draws):
  """(p [L, M], calibrated [L, M], p of the best pair)."""
  def grams(layers):
    centred = [x.astype(np.float64) - x.mean(0, dtype=np.float64) for x in layers]
    out = hsic.prepared(np.stack([x @ x.T for x in centred]), 'gretton')
    return out / np.linalg.norm(out, axis=(1, 2), keepdims=True)
  left, right = grams(left), grams(right)
  score = left.reshape(len(left), -1) @ right.reshape(len(right), -1).T
  null = inference.gram_null(left, right, draws=draws)
  return (inference.p_value(score, null), np.maximum(inference.calibrated(score, null, alpha=ALPHA), 0),
          inference.p_best(score, null).min())


def documented(torch):
  """Linear CKA of two sets of rows, as the peer's documentation has it, each Gram matrix once."""
  def cka(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    k, l = x @ x.T, y @ y.T
    return (k * l).sum() / k.norm() / l.norm()
  return lambda left, right: cka


def cached(torch):
  """The same where whoever calls has centred and normalised both and keeps the left Gram matrix."""
  def of_pair(left, right):
    centre = lambda x: x - x.mean(0)
    k, l = (centre(x) @ centre(x).T for x in (left, right))
    k = k / k.norm() / l.norm()
    return lambda _, y: (k * (y @ y.T)).sum()
  return of_pair


def shuffles(torch, rows, draws):
  """The permutations of `inference.gram_null`, as the peer asks for them."""
  rest = iter(torch.from_numpy(inference.permutation_null(lambda p: p, rows, draws=draws).astype(np.int64)))
  return lambda n, device: next(rest)


def theirs(peer, torch, similarity, left, right, draws):
  """(p [L, M], calibrated [L, M]) by the peer."""
  left, right = ([torch.from_numpy(x - x.mean(0)) for x in layers] for layers in (left, right))
  found = np.array([[[float(v) for v in peer.calibrate(
      x, y, similarity(x, y), K=draws, alpha=ALPHA, perm_fn=shuffles(torch, len(x), draws))[:2]] for y in right]
                    for x in left])
  return found[..., 1], found[..., 0]


def best_of(peer, torch, left, right, draws):
  """p of the best pair by the peer."""
  left, right = ([torch.from_numpy(x) for x in layers] for layers in (left, right))
  return float(peer.calibrate_layers(left, right, documented(torch)(None, None), K=draws,
                                     perm_fn=shuffles(torch, len(left[0]), draws))[1])


def agreement(found, expected, draws):
  """One line: how far p and calibrated scores are apart."""
  gap = np.abs(found[0] - expected[0]) * (1 + draws)
  score = np.abs(found[1] - expected[1]).max()
  return f'{(gap > .5).sum()} of {gap.size} p differ, by {gap.max():.0f} / {1 + draws}; scores by {score:.0e}'


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  for name, value in (('layers', 12), ('width', 512), ('rows', 256), ('draws', 200), ('repeats', 3)):
    parser.add_argument(f'--{name}', type=int, default=value)
  a = parser.parse_args()
  left, right = networks(a.layers, a.rows, a.width)
  flops = 2 * a.layers * a.rows * (2 * a.width * a.rows + a.draws * a.layers * (a.rows + 1) / 2)
  candidates = {'ours, cached Grams, float64': lambda: ours(left, right, a.draws)}
  peer, torch = peers.peer('calibrated_similarity', 'calibrated-similarity 0.1.1'), peers.peer('torch', 'torch')
  last = {}                                          # minutes each: what was timed is what is compared
  if peer and torch:
    for name, similarity in (('documented', documented), ('with cached left Grams', cached)):
      def run(name=name, similarity=similarity(torch)):
        last[name] = theirs(peer, torch, similarity, left, right, a.draws)
      candidates[f'calibrated-similarity, {name}'] = run
  candidates['limit: products alone, float32'] = timing.matmul(flops)
  peers.compare(f'{a.draws} permutations of {a.layers} x {a.layers} layers, {a.rows} rows, width {a.width}', candidates,
                'ours, cached Grams, float64', a.repeats)
  for name, found in last.items():
    print(f'{name}: {agreement(ours(left, right, a.draws), found, a.draws)}')
  if last:
    best = best_of(peer, torch, left[:3], right[:3], a.draws)
    print(f'p of the best of 3 x 3 pairs: ours {ours(left[:3], right[:3], a.draws)[2]:.6f}, theirs {best:.6f}')


if __name__ == '__main__':
  main()
