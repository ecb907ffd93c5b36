"""Kendall's tau-a of long vectors: discordant pairs counted level by level of a radix sort, m log m operations.

With ranks taken once per vector, a pair of vectors costs one pass over log2 m bits (Knight 1966 and Christensen 2005
count the exchanges of a merge sort). numpy lets go of the interpreter meanwhile, so that pairs run in threads.
"""
import functools
from typing import NamedTuple

import numpy as np


class Ranked(NamedTuple):
  """A vector of m values: dense ranks [m] (equal values have one), the order that sorts it [m], pairs that are tied."""
  rank: np.ndarray
  order: np.ndarray
  ties: int


def ranked(values: np.ndarray) -> Ranked:
  """Ranks of `values` [m]."""
  order = np.argsort(values, kind='stable')
  ascending = values[order]
  rises = ascending[1:] != ascending[:-1]
  rank = np.zeros(len(values), np.int32)
  rank[order[1:]] = np.cumsum(rises, dtype=np.int32)
  ends = np.flatnonzero(np.concatenate([[True], rises, [True]]))
  return Ranked(rank, order, tied(np.diff(ends)))


def tied(count: np.ndarray) -> int:
  """Pairs inside groups of these sizes."""
  count = count.astype(np.int64)
  return int((count * (count - 1) // 2).sum())


def tau_a(a: Ranked, b: Ranked) -> float:
  """(concordant - discordant) / (m (m - 1) / 2): a pair that either vector ties is neither (Kendall 1938)."""
  m = len(a.rank)
  pairs = m * (m - 1) // 2
  if not a.ties and not b.ties:
    return 1 - 2 * inversions(b.rank[a.order]) / pairs
  # Inside a tie of `a` the order is that of `b`, and equal values of `b` keep their places: neither is discordant.
  both = a.rank.astype(np.int64) * m + b.rank
  order = np.argsort(both, kind='stable')
  place = np.zeros(m, np.int32)
  place[np.argsort(b.rank[order], kind='stable')] = np.arange(m, dtype=np.int32)
  joint = tied(np.unique(both, return_counts=True)[1])
  return (pairs - a.ties - b.ties + joint - 2 * inversions(place)) / pairs


def inversions(permutation: np.ndarray) -> int:
  """Pairs i < j of a permutation [m] of 0 .. m - 1 whose values are in descending order.

  From the highest bit down, zeros are moved before ones, all others keeping their order: values with the same higher
  bits then stand together, and each exchange of a zero with a one before it is counted. Those between groups are no
  inversions; how many there are depends on m alone."""
  y = np.asarray(permutation, np.int32)
  m, total = len(y), 0
  for bit in reversed(range(bits(m))):
    one = (y & (1 << bit)).astype(bool)
    zeros = np.flatnonzero(~one)
    total += int(zeros.sum()) - len(zeros) * (len(zeros) - 1) // 2
    y = np.concatenate([y[zeros], y[one]])
  return total - across(m)


def bits(m: int) -> int:
  return max(m - 1, 0).bit_length()


@functools.lru_cache(maxsize=8)
def across(m: int) -> int:
  """Exchanges of `inversions` between groups: zeros of a group times the ones of the groups before it, all levels."""
  total, group = 0, np.zeros(1, np.int64)                # higher bits of the groups, in the order in which they stand
  for bit in reversed(range(bits(m))):
    half = 1 << bit
    zeros = np.clip(m - group * 2 * half, 0, half)
    ones = np.clip(m - group * 2 * half - half, 0, half)
    total += int(zeros @ (np.cumsum(ones) - ones))
    group = np.concatenate([group * 2, group * 2 + 1])
  return total
