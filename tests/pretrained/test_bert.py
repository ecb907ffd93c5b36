"""BERT: every site and output is that of transformers; sentence encoders, MiniLM; what goes back is what came."""
import json

import jax
import numpy as np
import pytest

from aspects import pretrained
from aspects.nn import minilm, tokens
from tests.pretrained import encoding as e
from tests.pretrained import reference

UNTIED = dict(tie_word_embeddings=False, hidden_act='gelu_new')
CLASSES = dict(num_labels=4, hidden_act='relu')
CASES = (('BertModel', {}), ('BertForMaskedLM', {}), ('BertForMaskedLM', UNTIED),
         ('BertForSequenceClassification', CLASSES))
cases = pytest.mark.parametrize('kind, fields', CASES, ids=[f'{k}-{len(f)}' for k, f in CASES])


@cases
@pytest.mark.parametrize('scan', (False, True), ids=('unrolled', 'scanned'))
def test_outputs_and_all_sites_are_those_of_torch(kind, fields, scan):
  out, found = e.expected(kind, **fields)
  loaded, y, sites = e.ours(kind, scan, **fields)
  assert loaded.net.stack['scan'] == scan
  e.close(sites, found)
  reference.close(e.real(y), e.real(e.output(out)))
  e.invariants(sites, loaded.variables, 3, scan)


def test_float64():
  out, found = e.expected('BertForMaskedLM', 'float64')
  _, y, sites = e.ours('BertForMaskedLM', False, 'float64')
  e.close(sites, found, 1e-10)
  reference.close(e.real(y), e.real(e.output(out)), 1e-10)


def test_without_types_all_tokens_are_of_the_first():
  out, found = e.expected('BertModel', types=False)
  _, y, sites = e.ours('BertModel', False, types=False)
  e.close(sites, found)
  assert np.abs(found['embed'] - e.expected('BertModel')[1]['embed']).max() > 0.1


@pytest.mark.parametrize('wrong', (lambda v: e.swapped(v, 'query', 'key'), lambda v: e.swapped(v, 'key', 'value'),
                                   e.turned), ids=('query-key', 'key-value', 'heads'))
def test_another_layout_would_be_seen(wrong):
  loaded, _, _ = e.ours('BertForMaskedLM', False)
  y, sites = e.record(loaded, wrong(loaded.variables), e.IDS, e.MASK, None, e.TYPES)
  out, found = e.expected('BertForMaskedLM')
  with pytest.raises(AssertionError, match=r'^[qkv]\.1'):
    e.close(sites, found)
  with pytest.raises(AssertionError):
    reference.close(e.real(y), e.real(e.output(out)), 1e-2)


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


def test_a_changed_network_is_written_with_its_copies_and_with_the_tensors_that_it_does_not_have():
  _, source = e.made('BertForPreTraining')
  def tied(held):
    return {**held, 'cls.predictions.decoder.weight': held['bert.embeddings.word_embeddings.weight'].copy(),
            'bert.embeddings.position_ids': np.arange(16)[None]}
  source = e.rewritten(source, tied)
  loaded = pretrained.load(source)
  e.exported(loaded, source)
  half = loaded._replace(variables=jax.tree.map(lambda x: x / 2, loaded.variables))
  to = source / 'half'
  pretrained.save(half, to)
  a, b = (e.safetensors.numpy.load_file(d / 'model.safetensors') for d in (source, to))
  kept = {'bert.embeddings.position_ids', *(n for n in a if 'pooler' in n or 'seq_relationship' in n)}
  assert len(kept) == 5 and a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(b[name], a[name] if name in kept else a[name] / 2)


def test_a_copy_that_differs_is_refused():
  source = e.rewritten(e.made('BertForMaskedLM')[1], lambda held: {
      **held, 'cls.predictions.decoder.weight': held['bert.embeddings.word_embeddings.weight'] + 1})
  with pytest.raises(ValueError, match='tied by the config and differ'):
    pretrained.load(source)


def test_names_of_older_files():
  def older(held):
    change = lambda n: n.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')
    return {change(n): x for n, x in held.items()}
  source = e.rewritten(e.made('BertForMaskedLM')[1], older)
  assert any('gamma' in n for n in e.safetensors.numpy.load_file(source / 'model.safetensors'))
  loaded = pretrained.load(source)
  jax.tree.map(np.testing.assert_array_equal, loaded.variables, e.ours('BertForMaskedLM', False)[0].variables)
  e.exported(loaded, source)


# --- sentence encoders ----------------------------------------------------------------------------------------------

def sentences(source, pooling, normalised, kinds=('Transformer', 'Pooling', 'Normalize')):
  """A directory as sentence-transformers writes it."""
  to = e.rewritten(source, dict)
  kinds = kinds if normalised else kinds[:2]
  (to / 'modules.json').write_text(json.dumps([
      dict(idx=i, name=str(i), path=f'{i}_{kind}' if i else '', type=f'sentence_transformers.models.{kind}')
      for i, kind in enumerate(kinds)]))
  (to / '1_Pooling').mkdir()
  (to / '1_Pooling' / 'config.json').write_text(json.dumps(dict(word_embedding_dimension=24, **pooling)))
  return to


def pooling(which):
  names = ('cls_token', 'mean_tokens', 'max_tokens', 'mean_sqrt_len_tokens', 'lasttoken')
  return {f'pooling_mode_{n}': n == which for n in names}


def by_hand(how, stream):
  """[B, D], one text at a time."""
  pools = {'mean_tokens': lambda x: x.mean(0), 'cls_token': lambda x: x[0], 'lasttoken': lambda x: x[-1]}
  return np.stack([pools[how](np.float64(x[:n])) for x, n in zip(stream, e.LENGTHS)])


@pytest.mark.parametrize('how, normalised', (('mean_tokens', True), ('mean_tokens', False), ('cls_token', True),
                                             ('lasttoken', True)))
def test_a_sentence_is_pooled_as_its_directory_says(how, normalised):
  out, _ = e.expected('BertModel', types=False)
  source = sentences(e.made('BertModel')[1], pooling(how), normalised)
  loaded = pretrained.load(source)
  wanted = by_hand(how, out.last_hidden_state.numpy())
  wanted = wanted / np.linalg.norm(wanted, axis=-1, keepdims=True) if normalised else wanted
  reference.close(loaded.net.apply(loaded.variables, e.IDS, e.MASK), wanted)
  to = e.exported(loaded, source)
  assert pretrained.describe(to).spec == pretrained.describe(source).spec      # its pooling went along


def test_a_masked_model_in_a_directory_of_sentences_is_its_body():
  source = sentences(e.made('BertForMaskedLM')[1], {'pooling_mode': 'mean'}, True)
  loaded = pretrained.load(source)
  wanted = by_hand('mean_tokens', e.expected('BertForMaskedLM')[1]['resid_post.2'])
  y = loaded.net.apply(loaded.variables, e.IDS, e.MASK, None, e.TYPES)
  reference.close(y, wanted / np.linalg.norm(wanted, axis=-1, keepdims=True))
  e.exported(loaded, source)


def test_other_ways_to_pool_are_refused():
  body = e.made('BertModel')[1]
  for how, message in (({**pooling('cls_token'), 'pooling_mode_mean_tokens': True}, '2 kinds of pooling'),
                       (pooling('max_tokens'), "'max_tokens'; supported"), (pooling(''), '0 kinds of pooling'),
                       ({**pooling('cls_token'), 'word_embedding_dimension': 12}, 'word_embedding_dimension is 12')):
    how = dict(how)
    source = sentences(body, {k: v for k, v in how.items() if k != 'word_embedding_dimension'}, True)
    if 'word_embedding_dimension' in how:
      path = source / '1_Pooling' / 'config.json'
      path.write_text(path.read_text().replace('24', '12'))
    with pytest.raises(ValueError, match=message):
      pretrained.load(source)
  with pytest.raises(ValueError, match='Dense'):
    pretrained.load(sentences(body, pooling('cls_token'), True, ('Transformer', 'Pooling', 'Dense')))


def test_the_sentences_of_minilm():
  """Against BertModel, pooled and normalised by hand in float64, over twenty texts of different lengths."""
  words = 'The same encoder maps a short question and a long answer to vectors that are near each other'.split()
  texts = ['', 'Yes.', 'Na\u00efve caf\u00e9s \u96ea!', 'x  # once\n\n>>> f(2)',
           *(' '.join((words * 3)[:n]) for n in range(1, 49, 3))]
  ids, mask = tokens.load('minilm', 64).encode(texts)
  assert len(texts) == 20 and len(set(mask.sum(1))) > 15
  net = reference.transformers.AutoModel.from_pretrained(minilm.directory(), attn_implementation='eager').eval()
  out, seen = reference.run(net, 'embeddings', *(f'encoder.layer.{i}' for i in range(6)), input_ids=ids,
                            attention_mask=mask.astype(np.int64))
  stream = np.float64(out.last_hidden_state.numpy())
  wanted = (stream * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
  wanted /= np.linalg.norm(wanted, axis=-1, keepdims=True)
  found = {}
  for scan in (False, True):
    loaded = pretrained.load(minilm.directory(), scan=scan)
    y, found[scan] = e.record(loaded, loaded.variables, ids, mask)
    np.testing.assert_allclose(y, wanted, atol=1e-5)
    for i in range(6):
      at = np.abs(found[scan][f'resid_post.{i}'] - seen[f'encoder.layer.{i}'])[mask > 0].max()
      assert at < 1e-5 * np.abs(seen[f'encoder.layer.{i}']).max()
  assert len(found[True]) == 3 + 6 * 19 and found[True].keys() == found[False].keys()
  for site, x in found[False].items():
    if not site.startswith('attn_scores'):           # the floor of what may not be read
      reference.close(found[True][site], x)


# --- what is refused ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('fields, message', (
    (dict(rotary_share=0.5), "'rotary_share' = 0.5"), (dict(position_embedding_type='relative_key'), 'relative_key'),
    (dict(hidden_act='mish'), "'mish'"), (dict(is_decoder=True), 'is_decoder is True'),
    (dict(architectures=['BertForQuestionAnswering']), 'BertForQuestionAnswering'),
    (dict(num_hidden_layers=2), 'tensors that nothing uses'), (dict(num_hidden_layers=4), 'is missing'),
    (dict(num_attention_heads=4), None), (dict(vocab_size=51), r'\[51, 24\]')))
def test_what_is_not_known_is_refused(fields, message):
  source = e.rewritten(e.made('BertModel')[1], dict, **fields)
  if message is None:                                # another number of heads fits: only the config tells
    assert pretrained.load(source).net.mixer['heads'] == 4
  else:
    with pytest.raises(ValueError, match=message):
      pretrained.load(source)
