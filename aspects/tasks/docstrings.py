"""Docstrings of the Python standard library that is installed here: real sentences, offline, with a topic each.

A text is the docstring of a module, class or function, as `inspect.cleandoc` cleans it; its family is the module or
package at the top of its path ('json', 'asyncio'). The task asks for the family, among the most frequent ones.
`texts()` gives the texts alone and `sentences` cuts them, for experiments that cut and join texts of their own. Between
versions of Python, and where a distribution leaves parts out, the texts differ; `data.fingerprint` of a split says
which ones a run has seen."""
import ast
import collections
import dataclasses
import functools
import hashlib
import re
import sysconfig
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from aspects.data import ArraySource, Source, divide, held_out, permutation
from aspects.nn import tokens
from aspects.tasks import stdlib_text

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
END = re.compile(r'(?<=[.!?])\s+(?=[A-Z])')        # of a sentence


class Text(NamedTuple):
  """A docstring: `text`, `family` 'json', `name` 'json/decoder.py:42', its file and line."""
  text: str
  family: str
  name: str


@functools.cache
def texts() -> tuple[Text, ...]:
  """All docstrings, each text once, in an order that the alphabet does not decide: by hash of the text.

  No tests of Python's, no packages. A file that this Python cannot parse has none."""
  found = {}
  for name, path in sorted(stdlib_text.files(Path(sysconfig.get_paths()['stdlib'])).items()):
    for line, text in _parse(path):
      found.setdefault(text, Text(text, name.split('/')[0].removesuffix('.py'), f'{name}:{line}'))
  return tuple(sorted(found.values(), key=lambda t: hashlib.sha256(t.text.encode('utf-8', 'replace')).digest()))


def _parse(path: Path) -> list[tuple[int, str]]:
  """(line, text) of a file; a line is that of the definition."""
  try:
    tree = ast.parse(path.read_bytes())
  except (SyntaxError, ValueError):                # ValueError: null bytes
    return []
  nodes = [node for node in ast.walk(tree) if isinstance(node, DOCUMENTED)]
  return [(getattr(node, 'lineno', 1), text) for node in nodes if (text := (ast.get_docstring(node) or '').strip())]


def sentences(text: str) -> list[str]:
  """The sentences of a text, on one line each: a sentence ends at . ! ? before a capital, or at a blank line.

  Lists, code and tables come out as they fall; take what has enough words."""
  paragraphs = (' '.join(part.split()) for part in re.split(r'\n\s*\n', text))
  return [sentence for part in paragraphs if part for sentence in END.split(part)]


@dataclasses.dataclass(frozen=True)
class Docstrings:
  """Tokens int32 [T] with mask float32 [T] (1 = real) of a docstring -> its family, 0 = the most frequent.

  `tokenizer` is 'bytes', 'minilm' or a Hugging Face directory. Taken are docstrings of `min_tokens` to `max_tokens`
  tokens, special ones included, whole: none is cut; T = `length`, by default `max_tokens`. Of them the `families` most
  frequent families stay, and of each up to `per_family` texts. What a network could not tell apart is one example, and
  none if families differ. About `test_share` of every family is the test split, `train_size` keeps fewer training
  examples; all three are drawn by `split_seed`.

  Raises ValueError where too few families have two texts of these lengths."""
  tokenizer: str = 'bytes'
  min_tokens: int = 8
  max_tokens: int = 128
  length: int | None = None
  families: int = 8
  per_family: int | None = None
  test_share: float = 0.2
  train_size: int | None = None
  split_seed: int = 0

  splits = ('train', 'test')
  kind = 'classify'
  metric = 'accuracy'

  def __post_init__(self):
    if not 1 <= self.min_tokens <= self.max_tokens <= self.width:
      raise ValueError(f'min_tokens, max_tokens, length are {self.min_tokens}, {self.max_tokens}, {self.width}; they '
                       f'must be at least 1 and in this order')
    if self.families < 2:
      raise ValueError(f'families is {self.families}; a class takes at least 2')
    if self.per_family is not None and self.per_family < 2:
      raise ValueError(f'per_family is {self.per_family}; a family needs a training and a test text')

  @property
  def width(self) -> int:
    """T, the length of every row."""
    return self.max_tokens if self.length is None else self.length

  @functools.cached_property
  def _tokenizer(self) -> tokens.Tokenizer:
    return tokens.load(self.tokenizer, self.width)

  @property
  def vocab(self) -> int:
    return self._tokenizer.vocab

  @property
  def outputs(self) -> int:
    return self.families

  @property
  def example(self) -> dict[str, jax.ShapeDtypeStruct]:
    return {'input': jax.ShapeDtypeStruct((self.width,), np.int32), 'label': jax.ShapeDtypeStruct((), np.int32),
            'mask': jax.ShapeDtypeStruct((self.width,), np.float32)}

  @functools.cached_property
  def names(self) -> tuple[str, ...]:
    """The families in the order of their labels."""
    counts = collections.Counter(t.family for t, _ in self._candidates)
    order = sorted(counts, key=lambda family: (-counts[family], family))[:self.families]
    if len(order) < self.families or counts[order[-1]] < 2:
      raise ValueError(f'{sum(n > 1 for n in counts.values())} families have two docstrings of {self.min_tokens} to '
                       f'{self.max_tokens} tokens; families is {self.families}')
    return tuple(order)

  @functools.cached_property
  def _candidates(self) -> list[tuple[Text, np.ndarray]]:
    """(text, ids) of the right length, ids once."""
    every, groups = texts(), collections.defaultdict(list)
    for text, ids in zip(every, self._tokenizer.whole([t.text for t in every])):
      if self.min_tokens <= len(ids) <= self.max_tokens:
        groups[ids.tobytes()].append((text, ids))
    return [rows[0] for rows in groups.values() if len({text.family for text, _ in rows}) == 1]

  @functools.cached_property
  def _chosen(self) -> tuple[tuple[Text, ...], list[np.ndarray], np.ndarray, np.ndarray]:
    """Texts, ids, labels and whether a row is a test row, of all that this task has."""
    labels = np.array([self.names.index(t.family) if t.family in self.names else -1 for t, _ in self._candidates])
    kept, test = [], []
    for label in range(self.families):
      members = np.flatnonzero(labels == label)
      members = members[np.sort(permutation(len(members), self.split_seed, label)[:self.per_family])]
      kept.append(members)
      test.append(held_out(len(members), self.test_share, self.split_seed))
    order = np.argsort(np.concatenate(kept))       # the hash mixes the families
    rows, test = np.concatenate(kept)[order], np.concatenate(test)[order]
    chosen, ids = zip(*(self._candidates[i] for i in rows))
    return chosen, list(ids), labels[rows].astype(np.int32), test

  def texts(self, split: str) -> tuple[Text, ...]:
    """The texts of a split in the order of its source, of all of it: `train_size` is not applied."""
    if split not in self.splits:
      raise ValueError(f'there is no split {split!r}; splits: {", ".join(self.splits)}')
    chosen, _, _, test = self._chosen
    return tuple(text for text, held in zip(chosen, test) if held == (split == 'test'))

  def source(self, split: str) -> Source:
    _, ids, labels, test = self._chosen
    rows = tokens.pad(ids, self.width, self._tokenizer.pad)
    every = ArraySource(input=rows.ids, label=labels, mask=rows.mask)
    return divide(every, test, split=split, seed=self.split_seed, classes=self.outputs, train_size=self.train_size)
