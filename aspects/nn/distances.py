"""Dissimilarities between the rows of a sample, in float64, all from squared Euclidean distances of centred rows.

1 - cosine of two rows is half the squared distance of the rows at length 1, and 1 - correlation that of rows which had
their mean over units taken away; as differences of near vectors they keep the digits that 1 - s loses. A row of length
zero, or without variance over units for the correlation, has similarity 0 to every other row.
"""
import functools

import numpy as np

ROUNDING = 1e-13         # of the squares of two rows: a squared distance below it is that of equal rows
KINDS = ('euclidean', 'squared_euclidean', 'correlation', 'cosine')


def centred(x: np.ndarray) -> np.ndarray:
  """Rows [N, D] without their mean; equal rows become zeros to the last digit."""
  x = x - x[0]
  return x - x.mean(0)


def squared_euclidean(x: np.ndarray) -> np.ndarray:
  """|x_i - x_j|^2 of rows [N, D] -> [N, N], symmetric, zero on the diagonal and for equal rows."""
  x = centred(x)
  gram = x @ x.T
  length = np.diag(gram).copy()
  both = length[:, None] + length
  gram *= -2
  gram += both
  both *= ROUNDING
  gram[gram <= both] = 0
  return gram


def dissimilarity(x: np.ndarray, kind: str) -> np.ndarray:
  """[N, N] of rows [N, D]; `kind` is one of `KINDS`."""
  if kind == 'squared_euclidean':
    return squared_euclidean(x)
  if kind == 'euclidean':
    return np.sqrt(squared_euclidean(x))
  unit, lengthless = directions(x, kind)
  out = squared_euclidean(unit) / 2
  out[lengthless] = out[:, lengthless] = 1
  np.fill_diagonal(out, 0)
  return out


def directions(x: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
  """(rows [N, D] at length 1, which rows have none [N]); for `correlation` without their mean over units."""
  size = np.abs(x).max(1, initial=0)
  if kind == 'correlation':
    x = x - x.mean(1, keepdims=True)
  length = np.linalg.norm(x, axis=1)
  lengthless = length <= 1e-14 * np.sqrt(x.shape[1]) * size
  return x / np.where(lengthless, 1, length)[:, None], lengthless


def for_ranks(values: np.ndarray) -> np.ndarray:
  """`values` rounded to a 10^-12 of the largest, so that those that differ by rounding alone are ties."""
  largest = np.abs(values).max(initial=0)
  return np.round(values / (largest or 1), 12)


def upper(matrix: np.ndarray) -> np.ndarray:
  """The entries above the diagonal, row by row: [n, n] -> [n (n - 1) / 2]."""
  return matrix[above(len(matrix))]


@functools.lru_cache(maxsize=8)
def above(n: int) -> np.ndarray:
  """bool [n, n]: what is above the diagonal."""
  mask = np.arange(n)[:, None] < np.arange(n)
  mask.flags.writeable = False
  return mask


def deviations(vectors: np.ndarray) -> np.ndarray:
  """Each of `vectors` [L, m] without its mean; zeros for one that does not vary beyond rounding."""
  constant = np.ptp(vectors, axis=1) <= 1e-12 * np.abs(vectors).max(1)
  return np.where(constant[:, None], 0, vectors - vectors.mean(1, keepdims=True))


def cosines(vectors: np.ndarray) -> np.ndarray:
  """Cosines of all pairs of `vectors` [L, m]; NaN for a vector of zeros."""
  length = np.linalg.norm(vectors, axis=1, keepdims=True)
  unit = vectors / np.where(length > 0, length, np.nan)
  return unit @ unit.T
