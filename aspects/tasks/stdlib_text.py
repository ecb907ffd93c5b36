"""Bytes of the Python standard library that is installed here, to predict the next byte of.

Real text with structure at every range, on every machine that can run this library, offline. It is
split by file: a file goes to the test split if the hash of its path says so, so that the split is
the same wherever the file exists. Between versions of Python the text differs; `data.fingerprint`
of a split says which text a run has seen."""
import dataclasses
import hashlib
import os
import sysconfig
from pathlib import Path

import jax
import numpy as np

from aspects.data import ArraySource, Source, take

LEFT_OUT = {'site-packages', 'dist-packages', 'test', 'tests', 'idle_test', '__pycache__'}


def files(root: Path) -> dict[str, Path]:
  """Path within the library -> file, in an order that the alphabet does not decide: by hash."""
  found = {}
  for folder, inner, names in os.walk(root):
    inner[:] = [name for name in inner if name not in LEFT_OUT]      # not walked into
    paths = [Path(folder, name) for name in names if name.endswith('.py')]
    found.update({path.relative_to(root).as_posix(): path for path in paths})
  return dict(sorted(found.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest()))


def windows(paths: list[Path], length: int, limit: int) -> np.ndarray:
  """Bytes [N, length + 1] uint8 of consecutive windows that share one byte, none over two files.

  The rest of a file that does not fill a window is left out, and so is what exceeds `limit` bytes.
  """
  out, left = [], limit // length
  for path in paths:
    text = np.frombuffer(path.read_bytes(), np.uint8)
    count = min((len(text) - 1) // length, left)
    if count > 0:
      starts = np.arange(count) * length
      out.append(text[starts[:, None] + np.arange(length + 1)])
      left -= count
  return np.concatenate(out) if out else np.zeros((0, length + 1), np.uint8)


@dataclasses.dataclass(frozen=True)
class StdlibText:
  """Bytes int32 [T] -> the byte after each of them, int32 [T]; T = `length`, 256 outputs.

  About `test_share` of the files, whole, are the test split. Each split stops at `max_bytes`;
  `train_size` keeps fewer windows, drawn by `split_seed`. A test window that also stands word for
  word in the train split (licence texts, tables) is left out. No tests of Python's, no packages."""
  length: int = 128
  max_bytes: int = 4_000_000
  test_share: float = 0.1
  train_size: int | None = None
  split_seed: int = 0

  splits = ('train', 'test')
  kind = 'next_token'
  metric = 'nll'
  outputs = 256
  vocab = 256

  def __post_init__(self):
    if not 1 <= self.length <= self.max_bytes:
      raise ValueError(f'length is {self.length}; it must be in 1..{self.max_bytes} (max_bytes)')

  @property
  def example(self) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct((self.length,), np.int32) for name in ('input', 'label')}

  def paths(self, split: str) -> dict[str, Path]:
    """Path within the library -> file, of one split."""
    if split not in self.splits:
      raise ValueError(f'there is no split {split!r}; splits: {", ".join(self.splits)}')
    def tests(name):
      return hashlib.sha256(f'split {name}'.encode()).digest()[0] / 256 < self.test_share

    found = files(Path(sysconfig.get_paths()['stdlib']))
    return {name: path for name, path in found.items() if tests(name) == (split == 'test')}

  def source(self, split: str) -> Source:
    text = windows(list(self.paths(split).values()), self.length, self.max_bytes)
    if split == 'test':
      train = windows(list(self.paths('train').values()), self.length, self.max_bytes)
      seen = {row.tobytes() for row in train}
      text = text[[row.tobytes() not in seen for row in text]]
    if not len(text):
      raise ValueError(f'no file of the {split} split has {self.length + 1} bytes; take a smaller '
                       f'length or another test_share than {self.test_share}')
    every = ArraySource(input=text[:, :-1].astype(np.int32), label=text[:, 1:].astype(np.int32))
    if split == 'test' or self.train_size is None:
      return every
    return take(every, self.train_size, self.split_seed)
