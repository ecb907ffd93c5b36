"""Texts of the user's own: files of text or JSON lines, to predict the next token of or to classify.

Every document is tokenised once, in one pass over the files, and its ids go to a temporary file that is mapped into
memory; what stays in memory is where documents start, so that a corpus may be larger than memory. The split is by hash:
of a file's path within `path`, of a JSON line's text. It stays as it is when files are added, and equal lines are on
one side; equal passages in different files need not be."""
import dataclasses
import functools
import glob
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, NamedTuple

import jax
import numpy as np

from aspects.data import Source, check_positions, take
from aspects.nn import tokens
from aspects.plugin import nearest

TEXT, LINES = ('.txt', '.md', '.rst'), ('.jsonl', '.ndjson')
PIECE = 2 ** 16                                    # characters; a longer file is several documents
BATCH, CHARACTERS = 256, 2 ** 19                   # documents and characters that are tokenised at once


class Document(NamedTuple):
  """A text, its class or None, whether it is a test text, and `where` it is: 'file' or 'file:line'."""
  text: str
  label: Any
  test: bool
  where: str


class Stored(NamedTuple):
  """Documents of one split: `ids` [M] on disk, document i from `starts[i]` to `starts[i + 1]`, `labels` [D]."""
  ids: np.ndarray
  starts: np.ndarray
  labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
  """A source: `ids` [M] in consecutive windows of `length` tokens and the token after each; windows share one token."""
  ids: np.ndarray
  length: int

  def __len__(self) -> int:
    return max(len(self.ids) - 1, 0) // self.length

  def __getitem__(self, positions) -> dict[str, np.ndarray]:
    starts = check_positions(positions, len(self))[:, None] * self.length
    rows = self.ids[starts + np.arange(self.length + 1)].astype(np.int32)
    return {'input': rows[:, :-1], 'label': rows[:, 1:]}


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
  """A source: one document a row, with its class, or, without `labels`, with the token after each.

  The mask is 1 at every token; without labels, at every token whose next one is known."""
  stored: Stored
  length: int
  pad: int
  classify: bool

  def __len__(self) -> int:
    return len(self.stored.starts) - 1

  def __getitem__(self, positions) -> dict[str, np.ndarray]:
    positions, more = check_positions(positions, len(self)), 0 if self.classify else 1
    rows = [self.stored.ids[a:min(b, a + self.length + more)] for a, b in
            zip(self.stored.starts[positions], self.stored.starts[positions + 1])]
    ids, mask = tokens.pad(rows, self.length + more, self.pad)
    if self.classify:
      return {'input': ids, 'label': self.stored.labels[positions], 'mask': mask}
    return {'input': ids[:, :-1], 'label': ids[:, 1:], 'mask': mask[:, 1:]}


@dataclasses.dataclass(frozen=True)
class TextFiles:
  """Tokens int32 [T] -> the next token of each, int32 [T], or a class; T = `length`.

  `path` is a directory (its .txt, .md, .rst, .jsonl and .ndjson files at any depth, none hidden), a file, or a glob, in
  which every match counts. A line of a JSON lines file is a document, its text is in `field`; blank lines are passed
  over. Another file is one document; one of more than 2**16 characters is several, cut at line ends. Files are UTF-8.
  Documents of white space alone are left out. `tokenizer` is 'bytes', 'minilm' or a Hugging Face directory, whose
  special tokens frame every document.

  Without `label` the task is to predict: `packed` joins the documents of a split, each ended by a token that says so
  where the tokenizer has one, and cuts windows of T tokens; else a row is the beginning of a document, with a mask
  float32 [T], and documents of one token are left out. With `label`, a field of JSON lines with strings, integers or
  booleans, the task is to classify documents, cut to T tokens: `names` are the classes in the order of their numbers.

  About `test_share` of the files, or lines, are the test split, or all of `test_path` is. `train_size` keeps fewer
  training rows, drawn by `split_seed`.

  Raises FileNotFoundError where no file is found; ValueError, with file and line, for what is no UTF-8 text, no JSON
  object or lacks a field; ValueError for a split without rows and for labels of one class."""
  path: str
  tokenizer: str = 'bytes'
  length: int = 128
  field: str = 'text'
  label: str | None = None
  packed: bool = True
  test_share: float = 0.1
  test_path: str | None = None
  train_size: int | None = None
  split_seed: int = 0

  splits = ('train', 'test')

  def __post_init__(self):
    if self.length < 1:
      raise ValueError(f'length is {self.length}; a row has at least 1 token')
    if self.test_path is None and not 0 < self.test_share < 1:
      raise ValueError(f'test_share is {self.test_share}; it must be between 0 and 1, or give a test_path')

  @classmethod
  def smoke(cls, folder: str | os.PathLike) -> 'TextFiles':
    """For tests: thirty files of numbers, written into `folder`."""
    for i in range(30):
      path = Path(folder, 'text_files', f'{i}.txt')
      path.parent.mkdir(exist_ok=True)
      path.write_text(' '.join(str(n) for n in range(1000 * i, 1000 * i + 40)))
    return cls(os.fspath(Path(folder, 'text_files')), length=16)

  @property
  def kind(self) -> str:
    return 'next_token' if self.label is None else 'classify'

  @property
  def metric(self) -> str:
    return 'nll' if self.label is None else 'accuracy'

  @functools.cached_property
  def _tokenizer(self) -> tokens.Tokenizer:
    return tokens.load(self.tokenizer, self.length)

  @property
  def vocab(self) -> int:
    return self._tokenizer.vocab

  @property
  def outputs(self) -> int:
    return self.vocab if self.label is None else len(self.names)

  @property
  def example(self) -> dict[str, jax.ShapeDtypeStruct]:
    row, mask = (jax.ShapeDtypeStruct((self.length,), dtype) for dtype in (np.int32, np.float32))
    if self.label is not None:
      return {'input': row, 'label': jax.ShapeDtypeStruct((), np.int32), 'mask': mask}
    return {'input': row, 'label': row} if self.packed else {'input': row, 'label': row, 'mask': mask}

  @property
  def names(self) -> tuple:
    """The classes in the order of their numbers."""
    return self._read[1]

  def documents(self) -> Iterator[Document]:
    """All documents, file by file in the order of their paths, lines in their order."""
    train, test = found(self.path), [] if self.test_path is None else found(self.test_path)
    if both := {path.resolve() for path, _ in train} & {path.resolve() for path, _ in test}:
      raise ValueError(f'{min(both)} is in path and in test_path; a test file must not be trained on')
    for path, root in train:
      yield from self._of(path, root, None if self.test_path is None else False)
    for path, root in test:
      yield from self._of(path, root, True)

  def _of(self, path: Path, root: Path, test: bool | None) -> Iterator[Document]:
    side = lambda key: drawn(key, self.test_share) if test is None else test
    if path.suffix in LINES:
      for number, line in read(path):
        if line.strip():
          text, label = self._fields(line, f'{path}:{number}')
          yield Document(text, label, side(text), f'{path}:{number}')
      return
    if self.label is not None:
      raise ValueError(f'label is {self.label!r}, a field of JSON lines, but {path} is none ({", ".join(LINES)}); '
                       f'leave label out, or let path match JSON lines alone')
    test = side(path.relative_to(root).as_posix())
    for lines in batches((line for _, line in read(path)), len, PIECE):
      yield Document(''.join(lines), None, test, str(path))

  def _fields(self, line: str, where: str) -> tuple[str, Any]:
    """Text and class of a JSON line."""
    try:
      row = json.loads(line)
    except (ValueError, RecursionError) as error:
      raise ValueError(f'{where} is not JSON ({error}); every line of the file is one object') from error
    if not isinstance(row, dict):
      raise ValueError(f'{where} is a {type(row).__name__}; every line of the file is one object')
    for name in (self.field, self.label):
      if name is not None and name not in row:
        raise ValueError(f'{where} has no field {name!r}; {nearest(name, row)}')
    text, label = row[self.field], None if self.label is None else row[self.label]
    if not isinstance(text, str) or re.search('[\ud800-\udfff]', text):
      raise ValueError(f'{where}: field {self.field!r} is {text!r:.40}; a text is a string, without lone surrogates')
    if self.label is not None and not isinstance(label, (str, int)):
      raise ValueError(f'{where}: field {self.label!r} is {label!r}; a class is a string, an integer or a boolean')
    return text, label

  @functools.cached_property
  def _read(self) -> tuple[dict[str, Stored], tuple]:
    """The two splits, and the classes."""
    dtype = next(d for d in (np.uint8, np.uint16, np.uint32) if self.vocab <= np.iinfo(d).max + 1)
    with tempfile.TemporaryFile() as train, tempfile.TemporaryFile() as test:
      files, sizes, labels = (train, test), ([0], [0]), ([], [])
      documents = (d for d in self.documents() if d.text.strip())
      for batch in batches(documents, lambda d: len(d.text), CHARACTERS, BATCH):
        for document, ids in zip(batch, self._ids([d.text for d in batch])):
          if self.label is not None or self.packed or len(ids) > 1:
            files[document.test].write(ids.astype(dtype).tobytes())
            sizes[document.test].append(len(ids))
            if self.label is not None:             # with its type, since True == 1
              labels[document.test].append((type(document.label).__name__, document.label))
      names = sorted({*labels[0], *labels[1]})
      number = {name: i for i, name in enumerate(names)}
      stored = {}
      for i, split in enumerate(self.splits):
        files[i].flush()
        ids = np.memmap(files[i], dtype, 'r') if sum(sizes[i]) else np.zeros(0, dtype)
        stored[split] = Stored(ids, np.cumsum(sizes[i]), np.array([number[name] for name in labels[i]], np.int32))
    return stored, tuple(name for _, name in names)

  def _ids(self, texts: list[str]) -> list[np.ndarray]:
    if self.label is not None:
      return [ids[mask > 0] for ids, mask in zip(*self._tokenizer.encode(texts))]
    rows, end = self._tokenizer.whole(texts), self._tokenizer.end
    return [np.append(row, end) for row in rows] if self.packed and end is not None else rows

  def source(self, split: str) -> Source:
    if split not in self.splits:
      raise ValueError(f'there is no split {split!r}; splits: {", ".join(self.splits)}')
    stored, names = self._read
    if self.label is not None and len(names) < 2:
      raise ValueError(f'field {self.label!r} has the values {list(names)}; classes are at least 2')
    packed = self.label is None and self.packed
    every = Windows(stored[split].ids, self.length) if packed else Rows(
        stored[split], self.length, self._tokenizer.pad, self.label is not None)
    if not len(every):
      counts = {name: len(s.starts) - 1 for name, s in stored.items()}
      raise ValueError(f'the {split} split of {self.path!r} has no row of {self.length} tokens (documents: {counts}); '
                       f'give a test_path, another test_share than {self.test_share}, or a smaller length')
    return every if split == 'test' or self.train_size is None else take(every, self.train_size, self.split_seed)


def found(path: str) -> list[tuple[Path, Path]]:
  """(file, the folder that its name within `path` starts from), sorted by name."""
  whole = os.path.expanduser(path)
  if os.path.isdir(whole):
    root = Path(whole)
    every = [p for p in root.rglob('[!.]*') if p.is_file() and not any(
        part.startswith('.') for part in p.relative_to(root).parts)]
    files = [p for p in every if p.suffix in TEXT + LINES]
    if not files:
      others = sorted({p.suffix for p in every})
      raise FileNotFoundError(f'{path!r} has no {", ".join(TEXT + LINES)} file among {len(every)} files {others[:9]}; '
                              f'name others by a glob: {os.path.join(path, "*.py")!r}')
  else:
    files = [Path(p) for p in glob.glob(whole, recursive=True) if os.path.isfile(p)] or (
        [Path(whole)] if os.path.isfile(whole) else [])
    parts = Path(whole).parts
    root = Path(*parts[:next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)])
    if not files:
      raise FileNotFoundError(f'{path!r} is no directory and no file, and as a glob it matches none')
  return [(p, root) for p in sorted(files)]


def read(path: Path) -> Iterator[tuple[int, str]]:
  """(number from 1, line with its end) of a UTF-8 file. Raises ValueError, with the line, for anything else."""
  with open(path, 'rb') as file:
    for number, line in enumerate(file, 1):
      if b'\0' in line:
        raise ValueError(f'{path}:{number} has a null byte, so that this is no UTF-8 text; leave the file out, or '
                         f'convert it: iconv -t UTF-8')
      try:
        yield number, line.decode('utf-8-sig' if number == 1 else 'utf-8')
      except UnicodeDecodeError as error:
        raise ValueError(f'{path}:{number} is not UTF-8 ({error.reason} at byte {error.start} of the line); leave the '
                         f'file out, or convert it: iconv -t UTF-8') from error


def drawn(key: str, share: float) -> bool:
  """Whether the hash of `key` is among the `share` lowest ones."""
  digest = hashlib.sha256(f'split {key}'.encode('utf-8', 'surrogateescape')).digest()
  return int.from_bytes(digest[:8], 'big') < share * 2 ** 64


def batches(items: Iterable, size: Callable[[Any], int], limit: int, count: int | None = None) -> Iterator[list]:
  """Lists of consecutive items: a list ends as soon as their sizes reach `limit`, or at `count` items."""
  held, total = [], 0
  for item in items:
    held.append(item)
    total += size(item)
    if len(held) == count or total >= limit:
      yield held
      held, total = [], 0
  if held:
    yield held
