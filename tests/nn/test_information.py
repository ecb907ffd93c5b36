"""Entropy and information of states against counting, and what must hold of any states."""
import collections
import itertools

import numpy as np
import pytest

from aspects.nn.information import compression_score, entropy, information, states


def counted(items):
  """H in bits by counting hashable items."""
  items = list(items)
  return -sum(c / len(items) * np.log2(c / len(items)) for c in collections.Counter(items).values())


@pytest.mark.parametrize('seed', range(3))
def test_equals_counting_tuples(seed):
  rng = np.random.default_rng(seed)
  digits, labels = rng.integers(0, 3, (200, 4)), rng.integers(0, 5, 200)
  rows = [tuple(row) for row in digits.tolist()]
  found = information(digits, labels)
  np.testing.assert_allclose(found.ixt, counted(rows), rtol=1e-12)
  conditional = sum((labels == y).mean() * counted(r for r, own in zip(rows, labels) if own == y) for y in range(5))
  np.testing.assert_allclose(found.ity, counted(rows) - conditional, rtol=1e-12)


def test_states_are_equal_where_rows_are():
  digits = np.random.default_rng(0).integers(0, 2, (64, 5))
  same = (digits[:, None] == digits[None]).all(-1)
  np.testing.assert_array_equal(states(digits)[:, None] == states(digits)[None], same)


def test_hundreds_of_units_do_not_overflow():
  digits = np.random.default_rng(0).integers(0, 1000, (50, 300))
  digits[25:] = digits[:25]
  assert entropy(states(digits)) == np.log2(25)


def test_all_patterns_hold_all_their_bits_and_a_constant_none():
  bits = np.array(list(itertools.product((0, 1), repeat=6)))
  np.testing.assert_allclose(information(bits, bits[:, 0]), (6, 1), atol=1e-12)       # y is one of the bits
  np.testing.assert_allclose(information(bits[:, 1:], bits[:, 0]), (5, 0), atol=1e-12)
  np.testing.assert_allclose(information(bits[:, :1], bits.sum(1) % 2), (1, 0), atol=1e-12)
  assert information(0 * bits, bits[:, 0]) == (0, 0)


@pytest.mark.parametrize('seed', range(3))
def test_a_function_of_the_states_holds_no_more(seed):
  """Data processing: dropping units and merging digits can only lose, on the input and on the label."""
  rng = np.random.default_rng(seed)
  digits, labels = rng.integers(0, 4, (300, 3)), rng.integers(0, 3, 300)
  whole = information(digits, labels)
  for part in (digits[:, :2], digits // 2, digits.sum(1, keepdims=True)):
    less = information(part, labels)
    assert less.ixt <= whole.ixt + 1e-12 and less.ity <= whole.ity + 1e-12
  assert whole.ixt <= np.log2(300) + 1e-12 and whole.ity <= entropy(labels) + 1e-12


def test_score_of_compression():
  curves = np.array([[1., 4., 3.], [1., 2., 4.], [0., 0., 0.], [5., 1., 0.]])
  np.testing.assert_array_equal(compression_score(curves), [.25, 0, 0, 1])
  np.testing.assert_array_equal(compression_score(7 * curves), compression_score(curves))
