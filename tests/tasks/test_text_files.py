"""Files written by hand, and what comes of them: windows, rows, classes, splits, and every kind of bad file."""
import json
import re

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from aspects.data import Stream
from aspects.tasks import text_files
from aspects.tasks.text_files import TextFiles


def rows(task, split='train'):
  source = task.source(split)
  return source[np.arange(len(source))]


def text(ids):
  return bytes(np.asarray(ids).tolist())


def lines(path, *items):
  path.write_text(''.join(json.dumps(item) + '\n' for item in items))
  return path


@pytest.fixture
def both(tmp_path):
  """A training and a test folder, so that nothing is left to the hash."""
  for name in ('train', 'test'):
    (tmp_path / name).mkdir()
  (tmp_path / 'test' / 'z.txt').write_text('zzzzzzzz')
  return lambda pattern='', **fields: TextFiles(f'{tmp_path}/train/{pattern}', test_path=f'{tmp_path}/test', **fields)


def test_windows_by_hand(both, tmp_path):
  for name, content in (('b.txt', b'xyz'), ('a.txt', b'01234'), ('c.txt', b' \n\t'), ('.hidden.txt', b'no')):
    (tmp_path / 'train' / name).write_bytes(content)
  batch = rows(both(length=3))                     # 01234 0 xyz 0: ten tokens, and zero is the end of a document
  assert [text(row) for row in batch['input']] == [b'012', b'34\0', b'xyz']
  assert [text(row) for row in batch['label']] == [b'123', b'4\0x', b'yz\0']
  assert batch['input'].dtype == np.int32 and both(length=3).example.keys() == batch.keys()


def test_one_text_a_row_by_hand(both, tmp_path):
  lines(tmp_path / 'train' / 'a.jsonl', *({'text': t} for t in ('abc', 'abcde', 'abcd', 'x', '  ', '')))
  batch = rows(both(length=3, packed=False))
  assert [text(row) for row in batch['input']] == [b'abc', b'abc', b'abc']
  assert [text(row) for row in batch['label']] == [b'bc\0', b'bcd', b'bcd']
  np.testing.assert_array_equal(batch['mask'], [[1, 1, 0], [1, 1, 1], [1, 1, 1]])      # what comes after c is unknown
  assert both(length=3, packed=False).example.keys() == batch.keys()


@pytest.fixture
def words(tmp_path):
  """Words to ids, with <s> before and </s> after a text."""
  file = tokenizers.Tokenizer(models.WordLevel({'<pad>': 0, '<s>': 1, '</s>': 2, 'a': 3, 'b': 4}, unk_token='<pad>'))
  file.pre_tokenizer = pre_tokenizers.Whitespace()
  (tmp_path / 'words').mkdir()
  def write(single):
    file.post_processor = processors.TemplateProcessing(single=single, special_tokens=[('<s>', 1), ('</s>', 2)])
    file.save(str(tmp_path / 'words' / 'tokenizer.json'))
    (tmp_path / 'words' / 'tokenizer_config.json').write_text(json.dumps(dict(eos_token='</s>', pad_token='<pad>')))
    return str(tmp_path / 'words')
  return write


@pytest.mark.parametrize('single', ['<s> $A </s>', '<s> $A'])
def test_tokens_that_end_a_document_are_written_once(both, tmp_path, words, single):
  lines(tmp_path / 'train' / 'a.jsonl', {'text': 'a b'}, {'text': 'b'}, {'text': 'a'})
  batch = rows(both('*.jsonl', tokenizer=words(single), length=4))
  np.testing.assert_array_equal(batch['input'], [[1, 3, 4, 2], [1, 4, 2, 1]])
  np.testing.assert_array_equal(batch['label'], [[3, 4, 2, 1], [4, 2, 1, 3]])


def test_classes_by_hand(both, tmp_path, words):
  train = lines(tmp_path / 'train' / 'a.jsonl', {'text': 'a', 'kind': 'dog'}, {'text': 'b a b a', 'kind': 'cat'})
  test = lines(tmp_path / 'train' / 'b.jsonl', {'text': 'a b', 'kind': 'eel'})
  task = TextFiles(str(train), words('<s> $A </s>'), 4, label='kind', test_path=str(test))
  batch = rows(task)
  np.testing.assert_array_equal(batch['input'], [[1, 3, 2, 0], [1, 4, 3, 2]])         # what is cut is still ended
  np.testing.assert_array_equal(batch['mask'], [[1, 1, 1, 0], 4 * [1]])
  np.testing.assert_array_equal(batch['label'], [1, 0])
  assert task.names == ('cat', 'dog', 'eel') and (task.outputs, task.vocab) == (3, 5)
  assert (task.kind, task.metric) == ('classify', 'accuracy') and rows(task, 'test')['label'] == [2]


def test_numbers_and_booleans_are_classes(tmp_path):
  file = lines(tmp_path / 'a.jsonl', *({'text': f'number {i}', 'y': (10, 2, True, 1)[i % 4]} for i in range(60)))
  task = TextFiles(str(file), label='y', test_share=0.4)
  assert task.names == (True, 1, 2, 10) and [type(name) for name in task.names] == [bool, int, int, int]
  for split in task.splits:
    batch = rows(task, split)
    assert len(batch['label']) > 5
    for ids, mask, label in zip(batch['input'], batch['mask'], batch['label']):
      assert (10, 2, True, 1)[int(text(ids[mask > 0]).split()[1]) % 4] is task.names[label]


def test_the_split_is_by_hash_and_stays_when_files_are_added(tmp_path):
  for i in range(300):
    (tmp_path / f'{i}.txt').write_text(f'{i:04}')
  task = lambda: TextFiles(str(tmp_path), length=4, test_share=0.3, packed=False)
  side = lambda: {split: {text(row) for row in rows(task(), split)['input']} for split in ('train', 'test')}
  first = side()
  assert not first['train'] & first['test'] and len(first['train'] | first['test']) == 300
  assert abs(len(first['test']) - 90) < 4 * (300 * 0.3 * 0.7) ** 0.5       # 4 deviations of a binomial
  (tmp_path / 'more').mkdir()
  (tmp_path / 'more' / 'x.md').write_text('more')
  second = side()
  assert all(first[split] <= second[split] for split in first)


def test_a_directory_a_glob_and_another_place_have_one_split(tmp_path, monkeypatch):
  for place in ('here', 'there'):
    (tmp_path / place).mkdir()
    for i in range(40):
      (tmp_path / place / f'{i}.txt').write_text(f'text {i}')
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  tests = [rows(TextFiles(path, length=8, test_share=0.5), 'test')['input'].tolist()
           for path in (f'{tmp_path}/here', f'{tmp_path}/there', '~/here', 'here/*.txt', 'here/**/*.txt')]
  assert tests == [tests[0]] * 5 and len(tests[0]) > 5


def test_equal_lines_are_on_one_side(tmp_path):
  lines(tmp_path / 'a.jsonl', *({'text': f'line {i % 50}'} for i in range(100)))
  task = TextFiles(str(tmp_path), packed=False, test_share=0.3)
  train, test = ({text(row) for row in rows(task, split)['input']} for split in task.splits)
  assert len(train) + len(test) == 50 and not train & test


def test_large_files_are_read_in_pieces_and_nothing_is_lost(both, tmp_path, monkeypatch):
  monkeypatch.setattr(text_files, 'PIECE', 40)
  content = ''.join(f'line {i} \u00fc\r\n' for i in range(200)) + 'a last line ' * 20
  (tmp_path / 'train' / 'a.txt').write_bytes(content.encode())
  task = both(length=7)
  pieces = [d.text for d in task.documents() if not d.test]
  assert ''.join(pieces) == content and max(len(p) for p in pieces[:-1]) < 40 + len('line 199 \u00fc\r\n')
  assert all(p.endswith('\n') for p in pieces[:-1])
  joined = text(rows(task)['input'].reshape(-1)).replace(b'\0', b'')
  assert content.encode().startswith(joined) and len(joined) > len(content.encode()) - 8


def test_ids_are_mapped_and_gathered_from_any_step(both, tmp_path):
  (tmp_path / 'train' / 'a.txt').write_text('0123456789' * 50)
  source = both(length=9).source('train')
  assert isinstance(source.ids, np.memmap) and source.ids.dtype == np.uint8
  stream = Stream(source, 4, seed=0, repeat=True)
  later, again = stream.batch(40), Stream(both(length=9).source('train'), 4, seed=0, repeat=True).batch(40)
  np.testing.assert_array_equal(later['input'], again['input'])
  np.testing.assert_array_equal(later['input'][:, 0] - ord('0'), later['index'] * 9 % 10)
  assert len(both(length=9, train_size=3).source('train')) == 3
  with pytest.raises(IndexError):
    source[np.array([len(source)])]


@pytest.mark.parametrize('content, message', [
    ('{"text": "a", "kind": 1}\n\n{"text": \n', r'a.jsonl:3 is not JSON \(.*every line'),
    ('[1]\n', 'a.jsonl:1 is a list; every line of the file is one object'),
    ('{"text": "a", "kind": 1}\n{"txt": "a", "kind": 1}\n', "a.jsonl:2 has no field 'text'; did you mean 'txt'"),
    ('{"text": "a"}\n', "a.jsonl:1 has no field 'kind'; "),
    ('{"text": 3, "kind": 1}\n', "a.jsonl:1: field 'text' is 3; a text is a string"),
    ('{"text": "\\ud800", "kind": 1}\n', "a.jsonl:1: field 'text' is .*lone surrogates"),
    ('{"text": "a", "kind": null}\n', "a.jsonl:1: field 'kind' is None; a class is a string"),
    ('{"text": "a", "kind": 0.5}\n', "a.jsonl:1: field 'kind' is 0.5; a class is a string"),
    ('{"text": "a", "kind": "x"}\n', r"field 'kind' has the values \['x'\]; classes are at least 2")])
def test_bad_lines_are_named(tmp_path, content, message):
  (tmp_path / 'a.jsonl').write_text(content)
  with pytest.raises(ValueError, match=message):
    TextFiles(str(tmp_path), label='kind').source('train')


@pytest.mark.parametrize('content, message', [
    (b'text\n\x89PNG\0', 'a.txt:2 has a null byte, so that this is no UTF-8 text'),
    ('text'.encode('utf-16'), 'a.txt:1 has a null byte'),
    ('one\ncaf\u00e9'.encode('latin-1'), r'a.txt:2 is not UTF-8 \(unexpected end of data at byte 3 of the line\)')])
def test_files_that_are_no_text_are_named(tmp_path, content, message):
  (tmp_path / 'a.txt').write_bytes(content)
  with pytest.raises(ValueError, match=message):
    TextFiles(str(tmp_path)).source('train')


def test_a_byte_order_mark_is_no_text(both, tmp_path):
  (tmp_path / 'train' / 'a.txt').write_bytes('\ufeffabc'.encode())
  assert text(rows(both(length=3))['input'][0]) == b'abc'


def test_places_without_texts_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"has no .txt, .*among 0 files \[\]; name others by a glob"):
    TextFiles(str(tmp_path)).source('train')
  (tmp_path / 'a.py').write_text('pass')
  with pytest.raises(FileNotFoundError, match=r"among 1 files \['.py'\]; .*{}".format(re.escape(f'{tmp_path}/*.py'))):
    TextFiles(str(tmp_path)).source('train')
  with pytest.raises(FileNotFoundError, match='no directory and no file, and as a glob it matches none'):
    TextFiles(f'{tmp_path}/*.txt').source('train')
  with pytest.raises(ValueError, match='a.py is none .*leave label out'):
    TextFiles(f'{tmp_path}/*.py', label='kind').source('train')
  with pytest.raises(ValueError, match=r"split of .* has no row of 128 tokens \(documents: .*give a test_path"):
    TextFiles(f'{tmp_path}/a.py').source('test')
  with pytest.raises(ValueError, match='a.py is in path and in test_path'):
    TextFiles(f'{tmp_path}/a.py', test_path=f'{tmp_path}/*.py').source('test')


def test_fields_that_are_refused():
  for fields, message in ((dict(length=0), 'length is 0'), (dict(test_share=1.0), 'test_share is 1.0')):
    with pytest.raises(ValueError, match=message):
      TextFiles('here', **fields)
