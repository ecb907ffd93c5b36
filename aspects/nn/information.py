"""Entropy and information of discrete states, in bits (Shannon 1948), and the score of compression.

T is a function of X, and every row is one equally likely X, so that I(X;T) = H(T) is the entropy of the states over
rows, and I(T;Y) = H(T) + H(Y) - H(T,Y). Both are those of the rows at hand: exact if the rows are all of the inputs,
and biased upwards for a sample, at most by what log2 N leaves.
"""
from typing import NamedTuple

import numpy as np


class Information(NamedTuple):
  """I(X;T) and I(T;Y) in bits."""
  ixt: float
  ity: float


def states(digits: np.ndarray) -> np.ndarray:
  """Rows of integers [N, U] -> one integer a row [N], equal where all of the row is."""
  code, size = np.zeros(len(digits), np.int64), 1
  for column in np.asarray(digits, np.int64).T:
    base = 1 + int(column.max(initial=0))
    if size * base > 2 ** 62:                        # numbered anew before they overflow
      code, size = np.unique(code, return_inverse=True)[1], len(digits)
    code, size = code * base + column, size * base
  return np.unique(code, return_inverse=True)[1]


def entropy(code: np.ndarray) -> float:
  """H in bits of integers [N] >= 0, each row equally likely."""
  share = np.bincount(code) / len(code)
  share = share[share > 0]
  return float(np.abs((share * np.log2(share)).sum()))       # not -0 for a single state


def information(digits: np.ndarray, labels: np.ndarray) -> Information:
  """I(X;T) and I(T;Y) of binned rows, digits [N, U] >= 0, and labels [N] >= 0."""
  t = states(digits)
  of_t, both = entropy(t), entropy(states(np.stack([t, labels], 1)))
  return Information(of_t, of_t + entropy(np.asarray(labels)) - both)


def compression_score(ixt: np.ndarray) -> np.ndarray:
  """(peak - last) / peak along the last axis, [..., K] -> [...]: the share of the most that there was that is lost.

  A layer that never held information has lost none: 0. (Chelombiev, Houghton & O'Donnell 2019, arXiv:1902.09037.)
  """
  peak = np.asarray(ixt, np.float64).max(-1)
  return (peak - np.asarray(ixt)[..., -1]) / np.where(peak == 0, 1, peak)
