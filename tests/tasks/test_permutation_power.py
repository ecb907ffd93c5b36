"""Every table of three symbols by hand, and powers against matrix powers."""
import numpy as np
import pytest

from aspects.tasks.permutation_power import PermutationPower


def everything(task):
  parts = [task.source(split)[np.arange(len(task.source(split)))] for split in ('train', 'test')]
  return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


@pytest.mark.parametrize('n, hops', [(3, 1), (3, 2), (4, 3), (5, 2)])
def test_labels_are_matrix_powers(n, hops):
  rows = everything(PermutationPower(symbols=n, hops=hops))
  assert len(rows['label']) == np.prod(np.arange(1, n + 1)) * n
  table, start = rows['input'][:, :-n].reshape(-1, n, n), rows['input'][:, -n:]
  assert (table.sum(1) == 1).all() and (table.sum(2) == 1).all() and (start.sum(1) == 1).all()
  expected = np.einsum('bi,bij->bj', start, np.linalg.matrix_power(table, hops)).argmax(1)
  np.testing.assert_array_equal(rows['label'], expected)
  assert len({tuple(x) for x in rows['input']}) == len(rows['label'])


def test_fields():
  assert PermutationPower(symbols=4).outputs == 4 and len(PermutationPower(train_size=40).source('train')) == 40
  with pytest.raises(ValueError, match='symbols 9'):
    PermutationPower(symbols=9)
