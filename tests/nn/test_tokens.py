"""Tokenizers of directories against vocabularies written by hand, and what their files may say or contradict."""
import json

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from aspects.nn import tokens

WORDS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', 'the', 'cat', 'sat', '##s', 'un', '##happy')


def write(folder, file, config=None, **others):
  folder.mkdir(exist_ok=True)
  file.save(str(folder / 'tokenizer.json'))
  for name, fields in {'tokenizer_config': config, **others}.items():
    if fields is not None:
      (folder / f'{name}.json').write_text(json.dumps(fields))
  return folder


def pieces():
  """A WordPiece vocabulary whose ids are places in WORDS, framed as BERT does."""
  file = tokenizers.Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token='[UNK]'))
  file.normalizer, file.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
  file.post_processor = processors.TemplateProcessing(
      single='[CLS] $A [SEP]', pair='[CLS] $A [SEP] $B [SEP]', special_tokens=[('[CLS]', 2), ('[SEP]', 3)])
  return file


BERT = dict(pad_token='[PAD]', model_max_length=6, do_lower_case=True)


@pytest.fixture
def bert(tmp_path):
  return write(tmp_path / 'bert', pieces(), BERT)


@pytest.fixture(scope='module')
def gpt(tmp_path_factory):
  """A byte-level vocabulary trained on a sentence, without special tokens around a text, as GPT-2's."""
  file = tokenizers.Tokenizer(models.BPE())
  file.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  file.post_processor = processors.ByteLevel(trim_offsets=False)
  file.decoder = tokenizers.decoders.ByteLevel()
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=['<|endoftext|>'], initial_alphabet=alphabet,
                                show_progress=False)
  file.train_from_iterator(['the cat sat on the mat, the cat sat'] * 3, trainer)
  config = dict(model_max_length=1e30, add_bos_token=False, bos_token='<|endoftext|>')
  return write(tmp_path_factory.mktemp('gpt') / 'gpt', file, config)


def test_word_pieces_by_hand(bert):
  tokenizer = tokens.load(bert)
  assert (tokenizer.length, tokenizer.pad, tokenizer.vocab) == (6, 0, 10)
  ids, mask = tokenizer.encode(['The cats', 'unhappy dog', '', 'the cat sat the cat sat'])
  np.testing.assert_array_equal(ids, [[2, 4, 5, 7, 3, 0], [2, 8, 9, 1, 3, 0], [2, 3, 0, 0, 0, 0], [2, 4, 5, 6, 4, 3]])
  np.testing.assert_array_equal(mask, [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0], 6 * [1]])
  assert ids.dtype == np.int32 and mask.dtype == np.float32


def test_whole_texts_are_neither_cut_nor_padded(bert):
  tokenizer = tokens.load(bert)
  tokenizer.encode(['the'])                        # the truncation of `encode` is not a state that `whole` would see
  framed, bare = (tokenizer.whole(['the cat sat the cat sat', ''], special=s) for s in (True, False))
  assert [list(row) for row in framed] == [[2, 4, 5, 6, 4, 5, 6, 3], [2, 3]]
  assert [list(row) for row in bare] == [[4, 5, 6, 4, 5, 6], []]


def test_bytes_in_pairs_come_back_as_the_text(gpt):
  tokenizer, texts = tokens.load(gpt, 40), ['the cat sat', 'na\u00efve \u96ea \U0001f40c\n\t', 'xyz']
  rows = tokenizer.whole(texts)
  assert [tokenizer.decode(row) for row in rows] == texts and len(rows[0]) < 11 == len(texts[0])
  ids, mask = tokenizer.encode(texts)
  assert [list(row[m > 0]) for row, m in zip(ids, mask)] == [list(row) for row in rows]


def test_a_row_does_not_depend_on_its_batch(gpt):
  tokenizer, texts = tokens.load(gpt, 5), ['the cat sat on the mat', 'a', '', 'mat']
  ids, mask = tokenizer.encode(texts)
  for i, text in enumerate(texts):
    np.testing.assert_array_equal(np.stack(tokenizer.encode([text])), np.stack([ids[i:i + 1], mask[i:i + 1]]))
  assert tokenizer.encode([]).ids.shape == (0, 5)


@pytest.mark.parametrize('sentence, config, cut, limit', [
    (5, 6, 7, 5), (None, 6, 7, 6), (None, 1e30, 7, 7), (None, None, 7, 7), (9, None, 7, 9), (None, None, None, None)])
def test_how_long_a_text_may_be(tmp_path, sentence, config, cut, limit):
  file = pieces()
  if cut:
    file.enable_truncation(cut)
    file.enable_padding(length=cut)
  folder = write(tmp_path / 'bert', file, {'model_max_length': config} if config else None,
                 sentence_bert_config={'max_seq_length': sentence})
  if limit is None:
    assert tokens.load(folder, 1000).length == 1000
    with pytest.raises(ValueError, match='does not say how long.*give length='):
      tokens.load(folder)
    return
  assert tokens.load(folder).encode(['the cat']).ids.shape == (1, limit)
  assert len(tokens.load(folder, 3).whole(20 * ['the cat ' * 20])[0]) == 42
  with pytest.raises(ValueError, match=f'length is {limit + 1}; it must be in 1..{limit}'):
    tokens.load(folder, limit + 1)


def test_the_padding_of_the_files(tmp_path, gpt):
  assert tokens.load(gpt, 4).pad == 0              # it names none
  for config, special, expected in ((dict(pad_token='[SEP]'), None, 3), (dict(pad_token={'content': 'cat'}), None, 5),
                                    ({}, dict(pad_token='sat'), 6)):
    folder = write(tmp_path / 'bert', pieces(), config, special_tokens_map=special)
    assert tokens.load(folder, 4).encode(['']).ids.tolist() == [[2, 3, expected, expected]]
  with pytest.raises(ValueError, match="padding token 'dog' is not in tokenizer.json; name one"):
    tokens.load(write(tmp_path / 'bert', pieces(), dict(pad_token='dog')), 4)


def test_sides(tmp_path):
  config = {**BERT, 'truncation_side': 'left', 'padding_side': 'left'}
  ids, mask = tokens.load(write(tmp_path / 'bert', pieces(), config), 4).encode(['the cat sat', 'cat'])
  np.testing.assert_array_equal(ids, [[2, 5, 6, 3], [2, 5, 3, 0]])      # the end is kept, the padding is on the right
  np.testing.assert_array_equal(mask, [[1, 1, 1, 1], [1, 1, 1, 0]])


def test_sentence_transformers_may_lower_the_case(tmp_path):
  file = pieces()
  file.normalizer = normalizers.BertNormalizer(lowercase=False)
  config = {**BERT, 'do_lower_case': False}
  encode = lambda lower: tokens.load(write(tmp_path / 'bert', file, config, sentence_bert_config=lower)).encode(['THE'])
  assert encode(None).ids[0, 1] == 1 and encode({'do_lower_case': True}).ids[0, 1] == 4


def test_files_that_contradict_each_other_are_refused(tmp_path):
  for config, message in ((dict(do_lower_case=False), 'do_lower_case=False.*lowercase=True'),
                          (dict(add_bos_token=False, bos_token='[CLS]'), 'add_bos_token=False.*adds it'),
                          (dict(add_eos_token=True, eos_token='cat'), 'add_eos_token=True.*does not add it')):
    with pytest.raises(ValueError, match=f'{message}.*make the two agree'):
      tokens.load(write(tmp_path / 'bert', pieces(), {**BERT, **config}))
  agreed = dict(add_bos_token=True, bos_token='[CLS]', add_eos_token=True, eos_token={'content': '[SEP]'})
  padded = pieces()
  padded.enable_padding(length=6)                  # so that what is written ends with padding, and not with [SEP]
  for file in (pieces(), padded):
    assert tokens.load(write(tmp_path / 'bert', file, {**BERT, **agreed})).length == 6


def test_what_is_no_tokenizer_is_refused_with_a_way_out(tmp_path, bert):
  with pytest.raises(FileNotFoundError, match="no directory '.*nowhere'"):
    tokens.load(tmp_path / 'nowhere')
  slow = tmp_path / 'slow'
  slow.mkdir()
  with pytest.raises(ValueError, match='has no tokenizer.json, and only that file is read. Write it once'):
    tokens.load(slow)
  (slow / 'vocab.txt').write_text('[PAD]\n')
  with pytest.raises(ValueError, match='has vocab.txt of a slow tokenizer, but no tokenizer.json'):
    tokens.load(slow)
  (bert / 'tokenizer_config.json').write_text('{')
  with pytest.raises(ValueError, match='tokenizer_config.json is not JSON'):
    tokens.load(bert)
  (bert / 'tokenizer.json').write_text('{}')
  with pytest.raises(ValueError, match='tokenizer.json cannot be read'):
    tokens.load(bert)


def test_lengths_and_texts_that_are_refused(bert):
  with pytest.raises(ValueError, match='length 1 has no room for the 2 special tokens'):
    tokens.load(bert, 1)
  with pytest.raises(ValueError, match='length is 0'):
    tokens.load(bert, 0)
  for tokenizer in (tokens.load(bert), tokens.load('bytes', 4)):
    with pytest.raises(ValueError, match='texts is one str; give a list'):
      tokenizer.encode('the cat')


def test_bytes():
  tokenizer = tokens.load('bytes', 4)
  ids, mask = tokenizer.encode(['na\u00efve', 'a', ''])
  np.testing.assert_array_equal(ids, [[110, 97, 195, 175], [97, 0, 0, 0], 4 * [0]])
  np.testing.assert_array_equal(mask.sum(1), [4, 1, 0])
  assert tokenizer.vocab == 256 and [len(row) for row in tokenizer.whole(['na\u00efve', ''])] == [6, 0]
  assert tokenizer == tokens.load('bytes', 4) != tokens.load('bytes', 5)
  with pytest.raises(ValueError, match='bytes does not say how long'):
    tokens.load('bytes')
