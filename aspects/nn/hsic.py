"""Hilbert-Schmidt independence criteria of all pairs of Gram matrices of the same n rows, in one product.

Each estimator prepares a Gram matrix K [n, n] on its own and is then an inner product of two, <K', L'> / scale:
  gretton  K' = HKH, H = 1 - 11'/n;                      scale (n - 1)^2    (Gretton et al. 2005, biased)
  song     K' = K with a zero diagonal, U-centred;       scale n (n - 3)    (Song et al. 2012, JMLR 13, unbiased)
  lange    K' = HKH with a zero diagonal;                scale n (n - 3)    (Lange et al. 2022, arXiv:2206.10999)
U-centring (Szekely & Rizzo 2014, arXiv:1310.2926) makes off-diagonal rows sum to zero; the inner product of two such
matrices is the sum of the three terms of Song et al. Preparing commutes with a permutation of rows and columns, so
that a permutation null prepares once.
"""
import numpy as np


def centred(grams: np.ndarray) -> np.ndarray:
  """H K H of symmetric `grams` [..., n, n], in float64."""
  k = np.asarray(grams, np.float64)
  mean = k.mean(-1)
  return k - mean[..., :, None] - mean[..., None, :] + mean.mean(-1)[..., None, None]


def u_centred(grams: np.ndarray) -> np.ndarray:
  """Symmetric `grams` [..., n, n] with a zero diagonal and off-diagonal rows that sum to zero, in float64.

  k_ij - s_i / (n - 2) - s_j / (n - 2) + sum(s) / ((n - 1) (n - 2)), s the sums of rows without the diagonal; n >= 3."""
  n = grams.shape[-1]
  # Sums of what is left after the biased centring, which changes nothing: large common values cost no digits.
  k = hollow(centred(grams))
  total = k.sum(-1)
  shift = total / (n - 2) - total.sum(-1, keepdims=True) / (2 * (n - 1) * (n - 2))
  return hollow(k - shift[..., :, None] - shift[..., None, :])


def hollow(grams: np.ndarray) -> np.ndarray:
  """`grams` [..., n, n] with a zero diagonal."""
  return np.where(np.eye(grams.shape[-1], dtype=bool), 0., grams)


PREPARED = {'gretton': centred, 'song': u_centred, 'lange': lambda grams: hollow(centred(grams))}
ROWS = {'gretton': 2, 'song': 4, 'lange': 4}             # fewest rows for which an estimator is defined


def check_estimator(estimator: str) -> None:
  if estimator not in PREPARED:
    raise ValueError(f'estimator {estimator!r} is not one of {", ".join(PREPARED)}')


def prepared(grams: np.ndarray, estimator: str) -> np.ndarray:
  """`grams` [..., n, n] as the estimator needs them, so that HSIC is their inner product over `scale`.

  Raises:
    ValueError: another estimator, or too few rows for it."""
  check_estimator(estimator)
  n = grams.shape[-1]
  if n < ROWS[estimator]:
    raise ValueError(f'the {estimator} estimator of HSIC needs at least {ROWS[estimator]} rows, got {n}; '
                     'use more examples')
  return PREPARED[estimator](grams)


def scale(n: int, estimator: str) -> float:
  """What the inner product of two prepared matrices of n rows is divided by."""
  return (n - 1.) ** 2 if estimator == 'gretton' else n * (n - 3.)


def hsic(grams: np.ndarray, estimator: str = 'gretton') -> np.ndarray:
  """HSIC of all pairs of `grams` [L, n, n] -> [L, L]; `song` and `lange` may be negative, and nothing is clamped.

  Raises:
    ValueError: another estimator, or too few rows for it."""
  flat = prepared(grams, estimator).reshape(len(grams), -1)
  return flat @ flat.T / scale(grams.shape[-1], estimator)
