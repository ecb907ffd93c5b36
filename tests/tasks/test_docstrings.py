"""Docstrings against what the library says of itself at run time, and the draws against counts."""
import collections
import dataclasses
import inspect
import json.decoder
import pathlib

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from aspects.tasks import docstrings
from aspects.tasks.docstrings import Docstrings


def test_texts_are_what_the_library_shows():
  every = docstrings.texts()
  by_text = {t.text: t for t in every}
  assert len(by_text) == len(every) > 4000
  for thing in (json.decoder, json.decoder.JSONDecoder, json.decoder.JSONDecoder.raw_decode, dataclasses.field,
                pathlib.PurePath, collections.Counter.most_common):
    found = by_text[inspect.getdoc(thing).strip()]
    assert found.family == (thing if inspect.ismodule(thing) else inspect.getmodule(thing)).__name__.split('.')[0]
  name, line = by_text[inspect.getdoc(json.decoder.JSONDecoder.raw_decode)].name.split(':')
  assert name == 'json/decoder.py'
  assert int(line) == inspect.getsourcelines(json.decoder.JSONDecoder.raw_decode)[1]


def test_a_file_that_is_not_python_has_no_docstrings(tmp_path):
  for text in (b'"""A title."""\nprint 3', b'\0', b'\xff'):
    (tmp_path / 'a.py').write_bytes(text)
    assert docstrings._parse(tmp_path / 'a.py') == []
  source = '"""A."""\nclass B:\n  """\n  B,\n    b.\n  """\n  async def c(self):\n    "C"\n  x = "no"\n'
  (tmp_path / 'a.py').write_text(source)
  assert docstrings._parse(tmp_path / 'a.py') == [(1, 'A.'), (2, 'B,\n  b.'), (7, 'C')]


def test_sentences_by_hand():
  text = 'Return x.  See e.g. the\nmanual! Is it 3.5?\n\nnote: no stop\n\n\nEnd.'
  assert docstrings.sentences(text) == ['Return x.', 'See e.g. the manual!', 'Is it 3.5?', 'note: no stop', 'End.']
  assert docstrings.sentences('') == []


@pytest.mark.parametrize('split', ['train', 'test'])
def test_rows_are_the_texts_of_the_split(split):
  task = Docstrings(min_tokens=20, max_tokens=60, length=64, families=4)
  texts, source = task.texts(split), task.source(split)
  rows = source[np.arange(len(source))]
  assert len(texts) == len(source)
  for text, ids, mask, label in zip(texts, rows['input'], rows['mask'], rows['label']):
    assert bytes(ids[mask > 0].tolist()).decode() == text.text and 20 <= mask.sum() <= 60
    assert text.family == task.names[label] and not ids[mask == 0].any()


def test_families_are_the_most_frequent_and_the_draws_are_balanced():
  fit = collections.Counter(t.family for t in docstrings.texts() if 8 <= len(t.text.encode()) <= 128)
  task = Docstrings(per_family=50, families=5)
  assert list(task.names) == [family for family, _ in sorted(fit.items(), key=lambda f: (-f[1], f[0]))[:5]]
  for split, count in (('train', 40), ('test', 10)):
    assert collections.Counter(t.family for t in task.texts(split)) == dict.fromkeys(task.names, count)
  other = dataclasses.replace(task, split_seed=1)
  assert other.names == task.names and set(other.texts('test')) != set(task.texts('test'))
  full = {t for split in task.splits for t in dataclasses.replace(task, per_family=None).texts(split)}
  assert full > {t for split in task.splits for t in task.texts(split)}
  assert len(dataclasses.replace(task, train_size=30).source('train')) == 30


def test_what_a_network_cannot_tell_apart_is_one_example(tmp_path, monkeypatch):
  """`a b` and `A  b` are the same ids; `c d` and `C d` too, in two families, so that no label is right."""
  file = tokenizers.Tokenizer(models.WordLevel({'[UNK]': 0, 'a': 1, 'b': 2, '<s>': 3}, unk_token='[UNK]'))
  file.normalizer, file.pre_tokenizer = tokenizers.normalizers.Lowercase(), pre_tokenizers.Whitespace()
  file.post_processor = processors.TemplateProcessing(single='<s> $A', special_tokens=[('<s>', 3)])
  file.save(str(tmp_path / 'tokenizer.json'))
  rows = [('a b', 'x'), ('A  b', 'x'), ('c d', 'x'), ('C d', 'y'), ('a', 'y'), ('b b', 'y'), ('b', 'x'), ('a b a', 'x')]
  every = tuple(docstrings.Text(text, family, '') for text, family in rows)
  monkeypatch.setattr(docstrings, 'texts', lambda: every)
  task = Docstrings(str(tmp_path), min_tokens=2, max_tokens=3, families=2, test_share=0.5)
  left = {t.text for split in task.splits for t in task.texts(split)}
  assert left == {'a b', 'a', 'b b', 'b'} and task.vocab == 4     # `a b a` has four tokens with the special one
  with pytest.raises(ValueError, match='2 families have two docstrings of 2 to 3 tokens; families is 3'):
    dataclasses.replace(task, families=3).source('train')


def test_fields_that_are_refused():
  for fields, message in ((dict(min_tokens=9, max_tokens=8), 'are 9, 8, 8'), (dict(length=99), 'are 8, 128, 99'),
                          (dict(min_tokens=0), 'are 0, '), (dict(families=1), 'families is 1'),
                          (dict(per_family=1), 'per_family is 1')):
    with pytest.raises(ValueError, match=message):
      Docstrings(**fields)
  with pytest.raises(ValueError, match='no split'):
    Docstrings().texts('validation')
