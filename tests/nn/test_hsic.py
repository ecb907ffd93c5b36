"""HSIC of Gram matrices: the published estimators written as matrices and as sums over tuples, and their nulls."""
import itertools

import numpy as np
import pytest

from aspects.nn import hsic


def grams(n=7, widths=(3, 5, 2), offset=0., seed=0):
  rng = np.random.default_rng(seed)
  rows = [rng.normal(size=(n, d)) + offset for d in widths]
  return np.stack([x @ x.T for x in rows])


def song(k, l):
  """The unbiased estimator as an average over tuples of distinct rows (Song et al. 2012, theorem 2)."""
  n = len(k)
  mean = lambda value, size: np.mean([value(*i) for i in itertools.permutations(range(n), size)])
  return (mean(lambda i, j: k[i, j] * l[i, j], 2) + mean(lambda i, j, q, r: k[i, j] * l[q, r], 4)
          - 2 * mean(lambda i, j, q: k[i, j] * l[i, q], 3))


def gretton(k, l):
  h = np.eye(len(k)) - 1 / len(k)
  return np.trace(k @ h @ l @ h) / (len(k) - 1) ** 2


def lange(k, l):
  n, h = len(k), np.eye(len(k)) - 1 / len(k)
  below = np.tril_indices(n, -1)
  return 2 / (n * (n - 3)) * ((h @ k @ h)[below] @ (h @ l @ h)[below])


@pytest.mark.parametrize('form', (gretton, song, lange))
def test_all_pairs_at_once(form):
  k = grams()
  expected = [[form(a, b) for b in k] for a in k]
  np.testing.assert_allclose(hsic.hsic(k, form.__name__), expected, rtol=1e-10)


def test_centred_matrices():
  k = grams()
  h = np.eye(7) - 1 / 7
  np.testing.assert_allclose(hsic.centred(k), h @ k @ h, atol=1e-12)
  u = hsic.u_centred(k)
  np.testing.assert_allclose(u.sum(-1), 0, atol=1e-12)
  np.testing.assert_array_equal(np.diagonal(u, axis1=1, axis2=2), 0)
  np.testing.assert_allclose(hsic.u_centred(u), u, atol=1e-12)


@pytest.mark.parametrize('estimator', hsic.PREPARED)
def test_common_shift_and_permutation(estimator):
  """k_ij + a_i + a_j has the same HSIC, far away too; preparing commutes with a permutation."""
  k, order = grams(), np.random.default_rng(1).permutation(7)
  shift = np.arange(7.)
  np.testing.assert_allclose(hsic.hsic(k + shift[:, None] + shift + 1e6, estimator), hsic.hsic(k, estimator), rtol=1e-8)
  permuted = hsic.prepared(k[:, order][:, :, order], estimator)
  np.testing.assert_allclose(permuted, hsic.prepared(k, estimator)[:, order][:, :, order], atol=1e-12)


def test_independent_rows():
  """E[song] = 0, and E[gretton] = d e / (n - 1) for the linear kernel of standard normal rows: to four errors."""
  values = {'gretton': [], 'song': []}
  for seed in range(300):
    k = grams(12, (3, 2), seed=seed)
    for estimator, found in values.items():
      found.append(hsic.hsic(k, estimator)[0, 1])
  for estimator, mean in (('gretton', 3 * 2 / 11), ('song', 0)):
    found = np.array(values[estimator])
    assert abs(found.mean() - mean) < 4 * found.std() / np.sqrt(len(found)), estimator


def test_fewest_rows_and_unknown_estimators():
  for estimator, least in hsic.ROWS.items():
    assert np.isfinite(hsic.hsic(grams(least), estimator)).all()
    with pytest.raises(ValueError, match=f'needs at least {least} rows, got {least - 1}'):
      hsic.hsic(grams(least - 1), estimator)
  with pytest.raises(ValueError, match="'songs' is not one of gretton, song, lange"):
    hsic.hsic(grams(), 'songs')
