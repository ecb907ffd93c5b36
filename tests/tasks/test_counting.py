"""Counting: successors by hand, sequences followed element by element, the shuffled control, counting by ten."""
import numpy as np
import pytest

from aspects.tasks import counting
from aspects.tasks.counting import Counting
from aspects.tasks.counting import ELEMENTS
from aspects.tasks.counting import FAMILIES
from aspects.tasks.counting import STARTS


def rows_of(task, split='train', count=400):
  rows = task.source(split)[np.arange(count)]
  return np.concatenate([rows['input'], rows['label'][:, -1:]], 1)


def test_families_lie_side_by_side():
  ends = [STARTS[f] + n for f, n in FAMILIES.items()]
  assert [*STARTS.values()] == [0, *ends[:-1]] and ends[-1] == ELEMENTS


def test_successors_by_hand():
  found = Counting().successors()
  for element, following in ((0, 1), (41, 42), (99, 0), (100, 101), (125, 100), (132, 126), (133, 134), (144, 133)):
    assert found[element] == following
  assert Counting().successors(10)[[5, 95, 132]].tolist() == [15, 5, 126 + (6 + 10) % 7]


def test_shuffled_families_are_one_cycle_each_and_another_for_another_seed():
  task = Counting(shuffled=True, split_seed=3)
  found = task.successors()
  for family, size in FAMILIES.items():
    at = walked = STARTS[family]
    seen = set()
    for _ in range(size):
      seen.add(walked)
      walked = found[walked]
    assert walked == at and seen == set(range(at, at + size))
  assert (found == Counting().successors()).mean() < 0.15
  assert (found != Counting(shuffled=True, split_seed=4).successors()).mean() > 0.7


@pytest.mark.parametrize('fields', ({}, {'shuffled': True, 'split_seed': 7}))
def test_each_element_is_followed_by_its_successor_behind_the_gap(fields):
  task = Counting(train_size=400, gap=2, **fields)
  following = task.successors()
  gaps = []
  for row in rows_of(task):
    places = np.flatnonzero(row < ELEMENTS)
    assert len(places) >= 2
    np.testing.assert_array_equal(following[row[places[:-1]]], row[places[1:]])
    gaps += list(np.diff(places) - 1)
  # gaps of 0, 1 and 2 alike
  share = np.bincount(gaps) / len(gaps)
  assert len(share) == 3 and np.abs(share - 1 / 3).max() < 0.03


def test_all_elements_and_all_noise_occur():
  rows = rows_of(Counting(train_size=4000), count=4000)
  count = np.bincount(rows.ravel(), minlength=200)
  assert (count[:ELEMENTS] > 0).all() and (count[ELEMENTS:] > 0).all()
  family = np.searchsorted([*STARTS.values()], rows[rows < ELEMENTS], 'right') - 1
  assert np.abs(np.bincount(family) / len(family) - 1 / 4).max() < 0.03


def test_share_that_counts_by_ten():
  rows = rows_of(Counting(tens=0.3, train_size=2000), count=2000)
  steps = []
  for row in rows:
    elements = row[row < ELEMENTS]
    if elements[0] < 100:
      steps.append((elements[1] - elements[0]) % 100)
  assert set(steps) == {1, 10}
  # about 500 sequences of numbers: a standard deviation of 0.02
  assert abs(np.mean(np.array(steps) == 10) - 0.3) < 0.08


def test_out_of_range():
  with pytest.raises(ValueError, match='gap -1 at least 0'):
    Counting(gap=-1)
  with pytest.raises(ValueError, match='tens 2 is a share'):
    Counting(tens=2)
  assert counting.Counting().outputs == 200
