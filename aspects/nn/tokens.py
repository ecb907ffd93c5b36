"""Texts to token ids: the tokenizer of a Hugging Face directory, or bytes.

A directory is read through its tokenizer.json, by the package `tokenizers` and nothing else. Which special tokens frame
a text is what the post-processor of that file says. How many tokens a text may have is, in this order, `max_seq_length`
of sentence_bert_config.json, `model_max_length` of tokenizer_config.json, the truncation of tokenizer.json. What
tokenizer_config.json says of the same thing must agree with tokenizer.json; where it does not, loading is an error.

Differs from transformers: padding is on the right, always. `padding_side` is a matter of generating in batches, and a
network here counts positions from the first token; with a mask the side changes no result at a real token."""
import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import NamedTuple, Protocol, Sequence

import numpy as np

from aspects.nn import minilm

UNLIMITED = 10 ** 9                                # transformers writes 1e30 for `no limit`
SLOW = ('vocab.txt', 'vocab.json', 'merges.txt', 'spiece.model', 'sentencepiece.bpe.model', 'tokenizer.model',
        'source.spm', 'tekken.json')


class Tokens(NamedTuple):
  """A batch of texts: `ids` int32 [N, T] and `mask` float32 [N, T], 1 at the tokens and 0 at the padding after them."""
  ids: np.ndarray
  mask: np.ndarray


class Tokenizer(Protocol):
  """Texts to ids at one length T: `length`; ids are in 0..vocab - 1, the padding is `pad`.

  `end` is the token to write after a text that is followed by another; None if its special tokens end it, or if there
  is no such token."""
  length: int
  vocab: int
  pad: int
  end: int | None

  def encode(self, texts: Sequence[str]) -> Tokens:
    """Ids and mask [N, T]: framed by special tokens, cut to T, padded to T."""
    ...

  def whole(self, texts: Sequence[str], special: bool = True) -> list[np.ndarray]:
    """Ids int32 of every text, neither cut nor padded; `special` frames them. Their lengths tell what `encode` cuts."""
    ...


def load(directory: str | os.PathLike, length: int | None = None) -> Tokenizer:
  """The tokenizer of `directory`, 'bytes' for the bytes of UTF-8, or 'minilm' for that of the package in `nn/minilm`.

  `length` is T; None takes what the directory says.

  Raises FileNotFoundError for no directory, ValueError for one without a tokenizer.json, for files that contradict each
  other, and for a length that is not given, not positive, or more than the directory allows."""
  if directory == 'bytes':
    return Bytes(length)
  return FromDirectory(str(minilm.directory() if directory == 'minilm' else Path(directory).expanduser()), length)


@dataclasses.dataclass(frozen=True)
class Bytes:
  """The bytes of UTF-8, 0..255, no special tokens. A cut may fall within a character. See `Tokenizer`."""
  length: int

  vocab = 256
  pad = 0
  end = 0                                          # a byte that text does not have

  def __post_init__(self):
    _check_length(self.length, None, 'bytes')

  def encode(self, texts: Sequence[str]) -> Tokens:
    return pad(self.whole(texts), self.length, self.pad)

  def whole(self, texts: Sequence[str], special: bool = True) -> list[np.ndarray]:
    del special                                    # there are none
    return [np.frombuffer(text.encode('utf-8', 'replace'), np.uint8).astype(np.int32) for text in _listed(texts)]


class FromDirectory:
  """What tokenizer.json and the files beside it say. See `Tokenizer` and `load`."""

  def __init__(self, directory: str, length: int | None = None):
    self.directory = Path(directory)
    self._file = _read(self.directory)
    special = _json(self.directory, 'special_tokens_map.json')
    self._stated = {**special, **_json(self.directory, 'tokenizer_config.json')}
    self.limit = _limit(self.directory, self._stated, self._file.truncation)
    self.length = self.limit if length is None else length
    _check_length(self.length, self.limit, str(directory))
    self.pad = _pad(self._file, self._stated)
    self.vocab = 1 + max(self._file.get_vocab(with_added_tokens=True).values())
    self._file.no_truncation()
    self._file.no_padding()
    _check_agreement(self._file, self._stated, self.directory)
    framed = self._file.num_special_tokens_to_add(False)
    if framed > self.length:
      raise ValueError(f'length {self.length} has no room for the {framed} special tokens that {directory} puts around '
                       f'a text; give at least {framed + 1}')

  @functools.cached_property
  def end(self) -> int | None:
    name, added = _content(self._stated.get('eos_token')), self._file.encode('a').special_tokens_mask
    return None if name is None or any(added[-1:]) else self._file.token_to_id(name)

  @functools.cached_property
  def _lower(self) -> bool:
    """Whether texts are lower-cased before the tokenizer, as sentence-transformers does on demand."""
    return bool(_json(self.directory, 'sentence_bert_config.json').get('do_lower_case', False))

  @functools.cached_property
  def _cutting(self):
    """The same tokenizer with truncation: it is a state of the object, and `whole` must not have it."""
    cutting = type(self._file).from_str(self._file.to_str())
    cutting.enable_truncation(self.length, direction=self._stated.get('truncation_side', 'right'))
    return cutting

  def _texts(self, texts: Sequence[str]) -> list[str]:
    return [text.lower() for text in _listed(texts)] if self._lower else _listed(texts)

  def encode(self, texts: Sequence[str]) -> Tokens:
    rows = [np.asarray(row.ids, np.int32) for row in self._cutting.encode_batch(self._texts(texts))]
    return pad(rows, self.length, self.pad)

  def whole(self, texts: Sequence[str], special: bool = True) -> list[np.ndarray]:
    rows = self._file.encode_batch(self._texts(texts), add_special_tokens=special)
    return [np.asarray(row.ids, np.int32) for row in rows]

  def decode(self, ids: Sequence[int]) -> str:
    """The text of ids, special tokens included."""
    return self._file.decode([int(i) for i in ids], skip_special_tokens=False)


def pad(rows: Sequence[np.ndarray], length: int, value: int) -> Tokens:
  """Rows of ids, cut and padded on the right to [N, length]."""
  ids, mask = np.full((len(rows), length), value, np.int32), np.zeros((len(rows), length), np.float32)
  for i, row in enumerate(rows):
    ids[i, :len(row)], mask[i, :len(row)] = row[:length], 1
  return Tokens(ids, mask)


def _listed(texts: Sequence[str]) -> list[str]:
  if isinstance(texts, (str, bytes)):
    raise ValueError(f'texts is one {type(texts).__name__}; give a list of strings')
  return list(texts)


def _check_length(length: int | None, limit: int | None, where: str) -> None:
  if length is None:
    raise ValueError(f'{where} does not say how long a text may be; give length=')
  if length < 1 or limit is not None and length > limit:
    raise ValueError(f'length is {length}; it must be in 1..{"" if limit is None else limit} ({where})')


def _json(directory: Path, name: str) -> dict:
  """The file's fields; none if there is no such file, which is usual."""
  path = directory / name
  if not path.is_file():
    return {}
  try:
    return json.loads(path.read_text('utf-8'))
  except ValueError as error:
    raise ValueError(f'{path} is not JSON ({error}); fetch the file again') from error


def _read(directory: Path):
  """The tokenizer in tokenizer.json."""
  import tokenizers                                # a compiled package that tasks without texts do not need
  if not directory.is_dir():
    raise FileNotFoundError(f'there is no directory {str(directory)!r}; a tokenizer is the folder of a tokenizer.json, '
                            f"'bytes' or 'minilm'")
  path = directory / 'tokenizer.json'
  if not path.is_file():
    slow = [name for name in SLOW if (directory / name).is_file()]
    what = f'has {", ".join(slow)} of a slow tokenizer, but no tokenizer.json' if slow else 'has no tokenizer.json'
    raise ValueError(f'{str(directory)!r} {what}, and only that file is read. Write it once, where transformers is '
                     f'installed:\n  python -c "import transformers; transformers.AutoTokenizer.from_pretrained('
                     f'{str(directory)!r}).save_pretrained({str(directory)!r})"')
  try:
    return tokenizers.Tokenizer.from_file(str(path))
  except Exception as error:                       # the package raises this class and no other
    raise ValueError(f'{path} cannot be read ({error}); fetch it again, or upgrade the package tokenizers') from error


def _limit(directory: Path, stated: dict, truncation: dict | None) -> int | None:
  """The most tokens of a text, special ones included; None where nothing says so."""
  said = (_json(directory, 'sentence_bert_config.json').get('max_seq_length'), stated.get('model_max_length'),
          truncation and truncation['max_length'])
  return next((int(n) for n in said if n is not None and n < UNLIMITED), None)


def _content(token: str | dict | None) -> str | None:
  """A special token is a string, or an object that has the string in `content`."""
  return token['content'] if isinstance(token, dict) else token


def _pad(file, stated: dict) -> int:
  """The id of the padding; 0 for a tokenizer that names none, since the mask hides what stands there."""
  name = _content(stated.get('pad_token')) or (file.padding or {}).get('pad_token')
  if name is None:
    return 0
  if (found := file.token_to_id(name)) is None:
    raise ValueError(f'the padding token {name!r} is not in tokenizer.json; name one of its tokens in '
                     f'tokenizer_config.json')
  return found


def _check_agreement(file, stated: dict, directory: Path) -> None:
  """What tokenizer_config.json says of special tokens and case is what tokenizer.json does."""
  framed = file.encode('', add_special_tokens=True).ids
  for which, place in (('bos', 0), ('eos', -1)):
    said, token = stated.get(f'add_{which}_token'), _content(stated.get(f'{which}_token'))
    does = bool(framed) and token is not None and framed[place] == file.token_to_id(token)
    if said is not None and said != does:
      raise ValueError(f'{directory}: tokenizer_config.json says add_{which}_token={said}, but the post-processor of '
                       f'tokenizer.json {"adds it" if does else "does not add it"}; make the two agree')
  rule = json.loads(file.to_str()).get('normalizer') or {}
  said = stated.get('do_lower_case')
  if rule.get('type') == 'BertNormalizer' and said is not None and said != rule['lowercase']:
    raise ValueError(f'{directory}: tokenizer_config.json says do_lower_case={said}, but the normalizer of '
                     f'tokenizer.json has lowercase={rule["lowercase"]}; make the two agree')
