"""Kendall's tau-a by counting all pairs, and inversions of permutations with known numbers of them."""
import numpy as np
import pytest
from scipy import stats

from aspects.nn import kendall


def brute(x, y):
  return (np.sign(x[:, None] - x) * np.sign(y[:, None] - y)).sum() / len(x) / (len(x) - 1)


@pytest.mark.parametrize('values', (3, 20, 10 ** 6))
def test_against_all_pairs_with_many_few_and_no_ties(values):
  rng = np.random.default_rng(0)
  for m in (2, 3, 7, 8, 9, 64, 100):
    x, y = rng.integers(0, values, (2, m))
    np.testing.assert_allclose(kendall.tau_a(kendall.ranked(x), kendall.ranked(y)), brute(x, y), atol=1e-14)


def test_known_numbers_of_inversions():
  assert [kendall.inversions(np.arange(m)[::-1]) for m in (0, 1, 2, 5, 8, 1000)] == [0, 0, 1, 10, 28, 499500]
  assert kendall.inversions(np.arange(1000)) == 0
  assert kendall.inversions(np.roll(np.arange(1000), 1)) == 999


def test_long_vectors():
  """Beyond 2^16 entries, where 32-bit counts of pairs would overflow; without ties tau-a is tau-b."""
  x = np.random.default_rng(1).normal(size=100000)
  y = -x + .1 * np.random.default_rng(2).normal(size=100000)
  np.testing.assert_allclose(kendall.tau_a(kendall.ranked(x), kendall.ranked(y)), stats.kendalltau(x, y)[0], rtol=1e-12)
