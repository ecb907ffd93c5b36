"""Windows of text against the files themselves, and which files are on which side."""
from pathlib import Path
import sysconfig

import numpy as np
import pytest

from aspects.tasks import stdlib_text
from aspects.tasks.stdlib_text import StdlibText

ROOT = Path(sysconfig.get_paths()['stdlib'])


def test_windows_by_hand(tmp_path):
  for name, text in (('a', b'0123456789'), ('b', b'xyz'), ('c', b'abcdefg'), ('d', b'')):
    (tmp_path / name).write_bytes(text)
  paths = sorted(tmp_path.iterdir())
  cut = lambda limit: [row.tobytes().decode() for row in stdlib_text.windows(paths, 3, limit)]
  assert cut(99) == ['0123', '3456', '6789', 'abcd', 'defg']      # 'xyz' has no fourth byte to predict
  assert cut(12) == ['0123', '3456', '6789', 'abcd'] and cut(2) == []


def test_files_are_the_library_without_its_tests_and_packages():
  found = stdlib_text.files(ROOT)
  assert {'json/decoder.py', 'dataclasses.py', 'unittest/case.py'} <= set(found)
  assert not [n for n in found if 'site-packages' in n or n.startswith('test/') or '/tests/' in n]
  assert all(path == ROOT / name and path.is_file() for name, path in found.items())
  assert list(found) != sorted(found) and list(found) == list(stdlib_text.files(ROOT))


def test_files_are_on_one_side_each_and_the_share_is_kept():
  task = StdlibText(test_share=0.25)
  train, test = task.paths('train'), task.paths('test')
  assert not set(train) & set(test) and set(train) | set(test) == set(stdlib_text.files(ROOT))
  n = len(train) + len(test)                       # 4 deviations of a binomial
  assert abs(len(test) / n - 0.25) < 4 * (0.25 * 0.75 / n) ** 0.5
  assert set(StdlibText(test_share=0.1).paths('test')) < set(test)


def test_every_window_is_text_of_a_file_of_its_side():
  task = StdlibText(length=64, max_bytes=20_000)
  for split in task.splits:
    source = task.source(split)
    text = b'\0'.join(path.read_bytes() for path in task.paths(split).values())
    rows = source[np.arange(len(source))]
    assert len(source) * 64 <= 20_000 and (split == 'test' or len(source) == 312)
    for x, y in zip(rows['input'], rows['label']):
      assert x.astype(np.uint8).tobytes() + y[-1:].astype(np.uint8).tobytes() in text


def test_fields():
  task = StdlibText(length=32, max_bytes=10_000, train_size=20)
  assert len(task.source('train')) == 20 and task.example['input'].shape == (32,)
  for length in (0, 10_001):
    with pytest.raises(ValueError, match=f'length is {length}'):
      StdlibText(length=length, max_bytes=10_000)
  with pytest.raises(ValueError, match='no file of the test split has'):
    StdlibText(length=3_000_000).source('test')
