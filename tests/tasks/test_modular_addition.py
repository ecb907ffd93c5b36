"""Addition modulo p by hand, and the share of pairs that is trained on."""
import numpy as np
import pytest

from aspects.tasks.modular_addition import ModularAddition


def rows(task, split):
  source = task.source(split)
  return source[np.arange(len(source))]


def test_the_table_of_five_by_hand():
  both = [rows(ModularAddition(p=5, test_share=0.4), split) for split in ('train', 'test')]
  assert [len(r['label']) for r in both] == [15, 10]
  table = {(int(a), int(b), int(e)): int(c) for r in both for (a, b, e), c in zip(r['input'], r['label'])}
  sums = ('01234', '12340', '23401', '34012', '40123')
  assert table == {(a, b, 5): int(sums[a][b]) for a in range(5) for b in range(5)}


def test_the_default_is_nanda_et_al():
  task = ModularAddition()
  assert (task.outputs, task.vocab) == (113, 114)
  assert len(task.source('train')) == 12769 - round(0.7 * 12769) and len(task.source('test')) == round(0.7 * 12769)


def test_fields():
  assert len(ModularAddition(train_size=50).source('train')) == 50
  clean, noisy = rows(ModularAddition(p=7), 'train'), rows(ModularAddition(p=7, label_noise=1.0), 'train')
  assert (clean['label'] != noisy['label']).all() and noisy['label'].max() < 7
  assert not np.array_equal(rows(ModularAddition(p=7, split_seed=1), 'train')['input'], clean['input'])
  with pytest.raises(ValueError, match='p is 1'):
    ModularAddition(p=1)
