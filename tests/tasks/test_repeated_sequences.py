"""Repeated sequences: periods by hand, what can be predicted, and nothing that a fixed distance back would give."""
import numpy as np
import pytest

from aspects.tasks.repeated_sequences import RepeatedSequences
from aspects.tasks.repeated_sequences import repeats


def period(row):
  """The least n with row[t + n] == row[t] for all t."""
  return next(n for n in range(1, len(row) + 1) if (row[n:] == row[:len(row) - n]).all())


def test_periods_are_drawn_and_their_tokens_differ():
  task = RepeatedSequences(vocab=20, length=30, shortest=5, longest=12, train_size=400)
  rows = task.source('train')[np.arange(400)]
  whole = np.concatenate([rows['input'], rows['label'][:, -1:]], 1)
  periods = np.array([period(row) for row in whole])
  assert set(periods) == set(range(5, 13))
  # uniform over 8 periods: 50 each, with a standard deviation of 6.6
  assert np.abs(np.bincount(periods)[5:] - 50).max() < 4 * 6.7
  for row, n in zip(whole, periods):
    assert len(set(row[:n])) == n
  assert np.abs(np.bincount(whole[:, :5].ravel(), minlength=20) - 100).max() < 4 * 10


def test_what_has_stood_before():
  tokens = np.array([[3, 1, 2, 3, 1, 2], [5, 5, 0, 1, 0, 9]])
  np.testing.assert_array_equal(repeats(tokens), [[0, 0, 0, 1, 1, 1], [0, 1, 0, 0, 1, 0]])


def test_a_repeated_token_is_followed_by_what_followed_it():
  rows = RepeatedSequences(train_size=64).source('train')[np.arange(64)]
  known = repeats(rows['input'])
  for b, t in zip(*np.nonzero(known)):
    first = int(np.flatnonzero(rows['input'][b] == rows['input'][b, t])[0])
    assert rows['label'][b, t] == rows['label'][b, first]
  # from the ninth place at the latest token of the shortest period on
  assert not known[:, :8].any() and known[:, 24:].all()


def test_no_distance_back_tells_the_next_token():
  """The best fixed distance is right for one of 17 periods, where it counts, and by chance."""
  rows = RepeatedSequences(train_size=1024).source('train')[np.arange(1024)]
  late = np.arange(24, 48)
  share = [(rows['input'][:, late - d + 1] == rows['label'][:, late]).mean() for d in range(1, 25)]
  assert max(share) < 0.2


def test_periods_out_of_range():
  for fields in (dict(shortest=1), dict(shortest=9, longest=8), dict(vocab=10, longest=12),
                 dict(length=20, longest=24)):
    with pytest.raises(ValueError, match='periods .* must be from 2'):
      RepeatedSequences(**fields)
