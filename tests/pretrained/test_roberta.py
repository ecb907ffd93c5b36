"""RoBERTa: every site and output is that of transformers; positions count from the padding; export."""
import numpy as np
import pytest

from aspects import pretrained
from tests.pretrained import encoding as e
from tests.pretrained import reference

# Segments are two, which no published RoBERTa has, and paddings differ, so that both are seen.
CASES = (('RobertaModel', {}), ('RobertaForMaskedLM', dict(pad_token_id=3)),
         ('RobertaForMaskedLM', dict(tie_word_embeddings=False, hidden_act='relu', pad_token_id=0)),
         ('RobertaForSequenceClassification', dict(num_labels=3, max_position_embeddings=11)))
cases = pytest.mark.parametrize('kind, fields', CASES, ids=[f'{i}-{k}' for i, (k, _) in enumerate(CASES)])


@cases
@pytest.mark.parametrize('scan', (False, True), ids=('unrolled', 'scanned'))
def test_outputs_and_all_sites_are_those_of_torch(kind, fields, scan):
  out, found = e.expected(kind, **fields)
  loaded, y, sites = e.ours(kind, scan, **fields)
  e.close(sites, found)
  reference.close(e.real(y), e.real(e.output(out)))
  e.invariants(sites, loaded.variables, 3, scan)


def test_float64():
  out, found = e.expected('RobertaForSequenceClassification', 'float64')
  _, y, sites = e.ours('RobertaForSequenceClassification', False, 'float64')
  e.close(sites, found, 1e-10)
  reference.close(e.real(y), e.real(e.output(out)), 1e-10)


def test_texts_that_are_padded_in_the_row_have_the_same_positions():
  """transformers reads positions off the ids; here they are 0, 1, ... and the table starts later."""
  net, source = e.made('RobertaModel', pad_token_id=3)
  ids = np.where(e.MASK > 0, e.IDS, 3)
  out, _ = reference.run(net, input_ids=ids, attention_mask=e.MASK.astype(np.int64))
  loaded = pretrained.load(source)
  assert loaded.net.embed['length'] == 12 and loaded.variables['params']['embedder']['position'].shape == (16, 24)
  y = loaded.net.apply(loaded.variables, ids, e.MASK)
  reference.close(e.real(y), e.real(e.output(out)))


def test_a_text_of_all_positions_is_read_and_a_longer_one_refused():
  kind, fields = CASES[-1]                             # 11 rows, the padding is 1: nine positions
  loaded, _, _ = e.ours(kind, False, **fields)
  assert e.T == loaded.net.embed['length'] == 9
  with pytest.raises(ValueError, match='10 positions exceed the length 9'):
    loaded.net.apply(loaded.variables, np.ones((1, 10), np.int32))


@cases
def test_what_is_written_back_is_bitwise_what_was_read(kind, fields):
  for scan in (False, True):
    to = e.exported(e.read(kind, scan, **fields), e.made(kind, **fields)[1])
  again, info = getattr(reference.transformers, kind).from_pretrained(to, output_loading_info=True,
                                                                     attn_implementation='eager')
  assert not info['missing_keys'] and not info['unexpected_keys']
  theirs, _ = reference.run(again.eval(), input_ids=e.IDS, attention_mask=e.MASK.astype(np.int64),
                            token_type_ids=e.TYPES)
  reference.close(e.output(theirs), e.output(e.expected(kind, **fields)[0]), 1e-6)


@pytest.mark.parametrize('wrong', (lambda v: e.swapped(v, 'query', 'key'), e.turned), ids=('query-key', 'heads'))
def test_another_layout_would_be_seen(wrong):
  kind, fields = CASES[1]
  loaded, _, _ = e.ours(kind, False, **fields)
  y, sites = e.record(loaded, wrong(loaded.variables), e.IDS, e.MASK, None, e.TYPES)
  out, found = e.expected(kind, **fields)
  with pytest.raises(AssertionError, match=r'^[qkv]\.1'):
    e.close(sites, found)
  with pytest.raises(AssertionError):
    reference.close(e.real(y), e.real(e.output(out)), 1e-2)


@pytest.mark.parametrize('fields, message', (
    (dict(rotary_share=0.5), "'rotary_share' = 0.5"), (dict(pad_token_id=None), 'pad_token_id is None'),
    (dict(position_embedding_type='relative_key_query'), 'relative_key_query'), (dict(is_decoder=True), 'is_decoder'),
    (dict(architectures=['RobertaForMultipleChoice']), 'RobertaForMultipleChoice'),
    (dict(pad_token_id=5, architectures=['RobertaForMaskedLM']), 'is missing')))
def test_what_is_not_known_is_refused(fields, message):
  source = e.rewritten(e.made(*CASES[0][:1], **CASES[0][1])[1], dict, **fields)
  with pytest.raises(ValueError, match=message):
    pretrained.load(source)
