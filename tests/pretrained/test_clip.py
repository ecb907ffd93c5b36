"""CLIP: every site and vector of both towers is that of transformers; what goes back is what came."""
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from aspects import pretrained
from tests.pretrained import encoding as e
from tests.pretrained import paired as p
from tests.pretrained import reference

FIELDS = dict(projection_dim=10)                       # of the whole; the towers' own are not read
PLAIN = dict(hidden_act='gelu')
CASES = (('CLIPModel', 'text', FIELDS), ('CLIPModel', 'vision', FIELDS), ('CLIPTextModel', 'text', PLAIN),
         ('CLIPVisionModel', 'vision', PLAIN), ('CLIPTextModelWithProjection', 'text', FIELDS),
         ('CLIPVisionModelWithProjection', 'vision', FIELDS))
cases = pytest.mark.parametrize('kind, tower, fields', CASES, ids=[f'{k}-{t}' for k, t, _ in CASES])


def vector(kind, tower, **fields):
  """What the class of transformers gives: projected where it has a projection."""
  net, _ = p.made(kind, **fields)
  out, _ = p.expected(kind, tower, **fields)
  name = {'text': 'text_projection', 'vision': 'visual_projection'}[tower]
  with reference.torch.no_grad():
    y = getattr(net, name)(out.pooler_output) if hasattr(net, name) else out.pooler_output
  return y.numpy(), out


@cases
@pytest.mark.parametrize('scan', (False, True), ids=('unrolled', 'scanned'))
def test_vectors_and_all_sites_are_those_of_torch(kind, tower, fields, scan):
  wanted, out = vector(kind, tower, **fields)
  loaded, y, sites = p.ours(kind, tower, scan, **fields)
  masked = tower == 'text'
  p.close(sites, p.expected(kind, tower, **fields)[1], masked)
  reference.close(y, wanted)
  reference.close(sites['pooled'], out.pooler_output.numpy())
  reference.close(p.real(sites['final_norm'], masked), p.real(out.last_hidden_state.numpy(), masked))
  p.invariants(sites, loaded.variables, 3 if masked else 2, scan)
  assert loaded.net.outputs == (10 if fields is FIELDS else 24 if masked else 16)


def test_the_networks_of_projections_are_those_that_transformers_calls_features():
  net, source = p.made('CLIPModel', **FIELDS)
  both = pretrained.towers(source)
  assert list(both) == ['text', 'vision'] and [b.tower for b in both.values()] == ['text', 'vision']
  (theirs, mine), (images, pixels) = p.inputs('text', True), p.inputs('vision', False)
  out, _ = reference.run(net, **theirs, **images)
  for name, given in (('text', mine), ('vision', pixels)):
    y = np.asarray(both[name].net.apply(both[name].variables, *given))
    unit = y / np.linalg.norm(y, axis=-1, keepdims=True)
    reference.close(unit, out['text_embeds' if name == 'text' else 'image_embeds'].numpy())
    normed = pretrained.load(f'{source}#{name}', head={**both[name].net.head, 'unit': True})
    reference.close(normed.net.apply(normed.variables, *given), unit)


@pytest.mark.parametrize('tower', ('text', 'vision'))
def test_float64(tower):
  kind = f'CLIP{tower.title()}ModelWithProjection'
  net, _ = p.made(kind, dtype='float64')
  out, found = p.expected(kind, tower, dtype='float64')
  _, y, sites = p.ours(kind, tower, dtype='float64')
  p.close(sites, found, tower == 'text', 1e-10)
  with reference.torch.no_grad():
    reference.close(y, getattr(net, {'text': 'text_projection', 'vision': 'visual_projection'}[tower])(
        out.pooler_output).numpy(), 1e-10)


def test_the_end_of_a_text_is_never_guessed():
  loaded, y, _ = p.ours('CLIPModel', 'text', **FIELDS)
  with pytest.raises(ValueError, match='which one that is only a mask'):
    loaded.net.apply(loaded.variables, p.IDS)
  whole = loaded.net.apply(loaded.variables, p.IDS, np.ones_like(p.MASK))
  reference.close(whole[0], y[0])                      # the first text has no padding
  assert np.abs(whole[1] - y[1]).max() > 0.01


def test_images_of_another_size_have_resized_positions():
  net, source = p.made('CLIPVisionModel', **PLAIN)
  pixels = np.random.default_rng(2).normal(size=(1, 12, 16, 3)).astype(np.float32)
  out, _ = reference.run(net, pixel_values=pixels.transpose(0, 3, 1, 2), interpolate_pos_encoding=True)
  loaded = p.read('CLIPVisionModel', 'vision', **PLAIN)
  reference.close(loaded.net.apply(loaded.variables, pixels), out.pooler_output.numpy())


@pytest.mark.parametrize('wrong', (lambda v: e.swapped(v, 'query', 'key'), e.turned), ids=('query-key', 'heads'))
def test_another_layout_would_be_seen(wrong):
  loaded = p.read('CLIPModel', 'text', **FIELDS)
  y, sites = p.record(loaded, wrong(loaded.variables), p.IDS, p.MASK)
  with pytest.raises(AssertionError, match=r'^[qkv]\.1'):
    p.close(sites, p.expected('CLIPModel', 'text', **FIELDS)[1], True)
  with pytest.raises(AssertionError):
    reference.close(y, vector('CLIPModel', 'text', **FIELDS)[0], 1e-3)


@cases
def test_what_is_written_back_is_bitwise_what_was_read(kind, tower, fields):
  _, source = p.made(kind, **fields)
  for scan in (False, True):
    to = p.exported(p.read(kind, tower, scan, **fields), source)
  part, _ = p.body(p.read_by_transformers(kind, to), tower)
  out, _ = reference.run(part, **p.inputs(tower, True)[0])
  reference.close(out.pooler_output.numpy(), vector(kind, tower, **fields)[1].pooler_output.numpy(), 1e-6)


def test_towers_go_back_together_or_one_of_them():
  _, source = p.made('CLIPModel', **FIELDS)
  both = pretrained.towers(source)
  to = p.exported(both, source)
  half = both['text']._replace(variables=jax.tree.map(lambda x: x / 2, both['text'].variables))
  old = safetensors.numpy.load_file(source / 'model.safetensors')
  pretrained.save({**both, 'text': half}, to / 'both')
  pretrained.save(half, to / 'one')
  for name in ('both', 'one'):
    new = safetensors.numpy.load_file(to / name / 'model.safetensors')
    assert new.keys() == old.keys() and 'logit_scale' in new
    for key, x in old.items():
      np.testing.assert_array_equal(new[key], x / 2 if key.startswith('text_') else x)
  other = both['vision']._replace(directory=to)
  with pytest.raises(ValueError, match='2 directories do not go into one'):
    pretrained.save({'text': both['text'], 'vision': other}, to / 'mixed')


def test_configs_of_older_files():
  """text_config_dict holds where it is; dumps of all fields of the base class; missing fields are usual ones."""
  _, source = p.made('CLIPModel', **FIELDS)
  config = json.loads((source / 'config.json').read_text())
  dump = dict(is_decoder=False, tie_encoder_decoder=False, cross_attention_hidden_size=None, bad_words_ids=None,
              tie_word_embeddings=True, add_cross_attention=False, top_k=50, torchscript=False)
  text = {k: v for k, v in config['text_config'].items() if k != 'attention_dropout'}
  to = e.rewritten(source, dict, text_config={**text, 'hidden_act': 'gelu', 'num_hidden_layers': 7},
                   text_config_dict={**text, **dump}, vision_config={**config['vision_config'], **dump})
  was, now = (pretrained.describe(f'{d}#text').spec for d in (source, to))
  assert was == now and pretrained.load(f'{to}#vision').net == pretrained.load(f'{source}#vision').net
  published = e.rewritten(source, dict, text_config=None, vision_config=dict(patch_size=16))
  assert [pretrained.describe(f'{published}#{t}').spec['width'] for t in ('text', 'vision')] == [512, 768]
  assert pretrained.describe(f'{published}#vision').spec['embed']['grid'] == (14, 14)


def test_a_tower_must_be_named_where_there_are_two_and_only_there():
  _, source = p.made('CLIPModel', **FIELDS)
  for where in (source, f'{source}#images'):
    with pytest.raises(ValueError, match='holds 2 networks; name one of them: .*#text, .*#vision'):
      pretrained.load(where)
  _, single = p.made('CLIPTextModel', **PLAIN)
  with pytest.raises(ValueError, match='holds one network; leave #text out'):
    pretrained.load(f'{single}#text')
  with pytest.raises(ValueError, match='holds one network; use load'):
    pretrained.towers(single)


@pytest.mark.parametrize('fields, message', (
    (dict(logit_scale_power=2), "'logit_scale_power' = 2"),
    (dict(text=dict(sharing=3)), "text_config has the field 'sharing'"),
    (dict(vision=dict(image_size=[8, 8])), r'image_size is \[8, 8\]'), (dict(text=dict(hidden_act='mish')), "'mish'"),
    (dict(vision=dict(model_type='chinese_clip_vision_model')), 'chinese_clip'),
    (dict(text=dict(is_decoder=True)), 'is_decoder'),
    (dict(architectures=['CLIPForImageClassification']), 'CLIPForImageClassification'),
    (dict(vision=dict(num_hidden_layers=3)), 'is missing')))
def test_what_is_not_known_is_refused(fields, message):
  _, source = p.made('CLIPModel', **FIELDS)
  config = json.loads((source / 'config.json').read_text())
  change = {f'{k}_config': {**config[f'{k}_config'], **v} for k, v in fields.items() if k in ('text', 'vision')}
  change |= {k: v for k, v in fields.items() if k not in ('text', 'vision')}
  with pytest.raises(ValueError, match=message):
    pretrained.load(f'{e.rewritten(source, dict, **change)}#vision')
