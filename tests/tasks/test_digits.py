"""The images against scikit-learn's, the split, and preparing it twice at once."""
import numpy as np
import pytest
from sklearn.datasets import load_digits

from aspects.data import fingerprint
from aspects.tasks import digits
from aspects.tasks.digits import Digits


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return str(tmp_path_factory.mktemp('digits'))


def rows(task, split):
  source = task.source(split)
  return source[np.arange(len(source))]


def test_images_are_those_of_scikit_learn_split_without_loss(folder):
  known = load_digits()
  parts = [rows(Digits(data_dir=folder), split) for split in ('train', 'test')]
  assert [len(p['label']) for p in parts] == [1437, 360]
  images = np.concatenate([p['input'] for p in parts]).reshape(-1, 64)
  labels = np.concatenate([p['label'] for p in parts])
  ours = np.column_stack([16 * images, labels])
  theirs = np.column_stack([known.data, known.target])
  np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


@pytest.mark.parametrize('seed', [0, 1])
def test_every_class_gives_a_fifth_to_the_test_split(folder, seed):
  task = Digits(data_dir=folder, split_seed=seed)
  train, test = (np.bincount(rows(task, split)['label']) for split in task.splits)
  assert np.abs(test - (train + test) / 5).max() < 1


def test_fields(folder):
  base = rows(Digits(data_dir=folder), 'train')
  assert not np.array_equal(rows(Digits(data_dir=folder, split_seed=1), 'test')['input'],
                            rows(Digits(data_dir=folder), 'test')['input'])
  noisy = rows(Digits(data_dir=folder, label_noise=0.2), 'train')
  np.testing.assert_array_equal(noisy['input'], base['input'])
  assert (noisy['label'] != base['label']).sum() == round(0.2 * 1437)
  assert len(Digits(data_dir=folder, train_size=64).source('train')) == 64


def test_preparing_is_silent_and_done_once(tmp_path, capfd):
  first = fingerprint(Digits(data_dir=str(tmp_path)).source('test'))
  (record,) = tmp_path.rglob('*.array_record-*')
  written = record.stat().st_mtime_ns
  assert fingerprint(Digits(data_dir=str(tmp_path)).source('test')) == first
  assert record.stat().st_mtime_ns == written and tuple(capfd.readouterr()) == ('', '')


def test_a_rival_that_finishes_first_is_believed(tmp_path, monkeypatch):
  generate = digits.DigitsBuilder._generate_examples
  rivals = []

  def slow(self):
    if not rivals:                                 # while the first one writes, a second one begins and ends
      rivals.append(True)
      digits.prepared(str(tmp_path))
    yield from generate(self)

  monkeypatch.setattr(digits.DigitsBuilder, '_generate_examples', slow)
  assert len(Digits(data_dir=str(tmp_path)).source('test')) == 360
  assert rivals and [path.name for path in (tmp_path / 'sklearn_digits').iterdir()] == ['1.0.0']


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError):
    Digits(data_dir=str(tmp_path / 'file')).source('train')
