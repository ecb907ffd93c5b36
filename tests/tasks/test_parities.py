"""Labels that are parities of their own bits, and splits in which they are independent to the last example."""
import itertools

import numpy as np
import pytest

from aspects.data import Stream
from aspects.tasks.parities import Parities


def rows(task, split):
  source = task.source(split)
  return source[np.arange(len(source))]


@pytest.mark.parametrize('labels', [(1, 2), (1, 1), (3,), (2, 1, 4)])
def test_a_label_is_the_product_of_its_bits(labels):
  """Of +-1 bits an odd number is +1 exactly if the product is (-1)^(number of bits + 1)."""
  task = Parities(labels=labels, bits=8, train_size=128, test_size=64)
  for split in task.splits:
    found = rows(task, split)
    assert set(np.unique(found['input'])) == {-1., 1.}
    start = 0
    for k, size in enumerate(labels):
      product = found['input'][:, start:start + size].prod(1) * (-1) ** (size + 1)
      np.testing.assert_array_equal(2 * found['label'][:, k] - 1, product)
      start += size


def test_xor_and_the_copied_bit_by_hand():
  found = rows(Parities(labels=(1, 2), bits=3, train_size=4, test_size=4), 'train')
  for x, y in zip(found['input'], found['label']):
    assert y[0] == (x[0] == 1) and y[1] == (x[1] != x[2])


@pytest.mark.parametrize('split', ['train', 'test'])
def test_every_combination_of_labels_is_as_frequent(split):
  task = Parities(labels=(1, 2, 3), bits=10, train_size=400, test_size=80, split_seed=4)
  label = rows(task, split)['label']
  expected = len(label) // 8
  for combination in itertools.product((0, 1), repeat=3):
    assert (label == np.array(combination)[None]).all(1).sum() == expected
  np.testing.assert_allclose(np.corrcoef(label.T), np.eye(3), atol=1e-12)


def test_all_patterns_can_be_used_and_none_twice():
  task = Parities(labels=(1, 2), bits=6, train_size=48, test_size=16)
  every = np.concatenate([rows(task, split)['input'] for split in task.splits])
  assert len(np.unique(every, axis=0)) == 64


def test_the_split_is_drawn_by_its_seed():
  drawn = [rows(Parities(bits=10, train_size=64, test_size=64, split_seed=s), 'train')['input'] for s in (0, 0, 1)]
  np.testing.assert_array_equal(drawn[0], drawn[1])
  shared = {x.tobytes() for x in drawn[0]} & {x.tobytes() for x in drawn[2]}
  assert len(shared) < 16                                  # of 64 of 1,024 patterns, about 4
  batch = Stream(Parities().source('train'), 32, seed=0).batch(0)
  assert batch['label'].shape == (32, 2) and batch['input'].shape == (32, 16)


@pytest.mark.parametrize('fields, message', [
    (dict(labels=()), r'labels \(\) lists the number of bits'), (dict(labels=(1, 0)), r'labels \(1, 0\) lists'),
    (dict(labels=(9, 8)), 'read 17 bits and there are 16'), (dict(bits=24), 'there are 24; .*at most 20'),
    (dict(train_size=101), 'train_size 101 is not a multiple of the 4 combinations of 2 labels; nearest: 100'),
    (dict(test_size=0), 'test_size 0 .* nearest: 4'), (dict(bits=4), 'are more than the 16 patterns of 4 bits')])
def test_bad_values_are_refused_with_a_way_out(fields, message):
  with pytest.raises(ValueError, match=message):
    Parities(**fields)
