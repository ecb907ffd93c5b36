"""SigLIP: every site and vector of both towers is that of transformers; what goes back is what came."""
import json

import numpy as np
import pytest

from aspects import pretrained
from tests.pretrained import encoding as e
from tests.pretrained import paired as p
from tests.pretrained import reference

BOTH = dict(text_projection_size=16)                   # as wide as the images' vectors
CASES = (('SiglipModel', 'text', BOTH), ('SiglipModel', 'vision', BOTH),
         ('SiglipTextModel', 'text', dict(projection_size=10)),
         ('SiglipVisionModel', 'vision', dict(hidden_act='relu')),
         ('SiglipVisionModel', 'vision', dict(vision_use_head=False)))
cases = pytest.mark.parametrize('kind, tower, fields', CASES, ids=[f'{i}-{k}-{t}' for i, (k, t, _) in enumerate(CASES)])


@cases
@pytest.mark.parametrize('scan', (False, True), ids=('unrolled', 'scanned'))
def test_vectors_and_all_sites_are_those_of_torch(kind, tower, fields, scan):
  """Texts without a mask: their padding is read, as in training."""
  out, found = p.expected(kind, tower, False, **fields)
  loaded, y, sites = p.ours(kind, tower, scan, False, **fields)
  p.close(sites, found)
  stream = out.last_hidden_state.numpy()
  reference.close(sites['final_norm'], stream)
  reference.close(y, stream if out.pooler_output is None else out.pooler_output.numpy())
  p.invariants(sites, loaded.variables, 3 if tower == 'text' else 2, scan)


def test_a_text_with_a_mask_is_the_text_alone():
  net, _ = p.made('SiglipTextModel', projection_size=10)
  loaded, y, sites = p.ours('SiglipTextModel', 'text', False, True, projection_size=10)
  for i, n in enumerate(p.LENGTHS):
    out, _ = reference.run(net, input_ids=p.IDS[i:i + 1, :n])
    reference.close(y[i:i + 1], out.pooler_output.numpy())
    reference.close(sites['final_norm'][i:i + 1, :n], out.last_hidden_state.numpy())
  p.close(sites, p.expected('SiglipTextModel', 'text', True, projection_size=10)[1], True)


@pytest.mark.parametrize('tower', ('text', 'vision'))
def test_float64(tower):
  kind = f'Siglip{tower.title()}Model'
  out, found = p.expected(kind, tower, False, 'float64')
  _, y, sites = p.ours(kind, tower, False, False, 'float64')
  p.close(sites, found, False, 1e-10)
  reference.close(y, out.pooler_output.numpy(), 1e-10)


def test_both_towers_and_the_logits_of_their_cosines():
  """The scale and the bias are beside the towers, in the directory."""
  net, source = p.made('SiglipModel', **BOTH)
  both = pretrained.towers(source)
  (texts, ids), (images, pixels) = p.inputs('text', False), p.inputs('vision', False)
  out, _ = reference.run(net, **texts, **images)
  unit = {}
  for name, given in (('text', ids), ('vision', pixels)):
    y = np.asarray(both[name].net.apply(both[name].variables, *given))
    unit[name] = y / np.linalg.norm(y, axis=-1, keepdims=True)
  held = e.safetensors.numpy.load_file(source / 'model.safetensors')
  logits = unit['text'] @ unit['vision'].T * np.exp(held['logit_scale']) + held['logit_bias']
  reference.close(logits, out.logits_per_text.numpy())


@pytest.mark.parametrize('wrong', ('query-key', 'heads', 'pooling'))
def test_another_layout_would_be_seen(wrong):
  loaded, _, _ = p.ours('SiglipModel', 'vision', False, False, **BOTH)
  head = loaded.variables['params']['head']
  params = {**loaded.variables['params'], 'head': {**head, 'query': head['key'], 'key': head['query']}}
  changed = {'query-key': lambda: e.swapped(loaded.variables, 'query', 'key'),
             'heads': lambda: e.turned(loaded.variables), 'pooling': lambda: {'params': params}}[wrong]()
  y, sites = p.record(loaded, changed, p.PIXELS)
  out, found = p.expected('SiglipModel', 'vision', False, **BOTH)
  with pytest.raises(AssertionError):
    reference.close(y, out.pooler_output.numpy(), 1e-3)
  if wrong != 'pooling':
    with pytest.raises(AssertionError, match=r'^[qkv]\.1'):
      p.close(sites, found)


@cases
def test_what_is_written_back_is_bitwise_what_was_read(kind, tower, fields):
  _, source = p.made(kind, **fields)
  for scan in (False, True):
    to = p.exported(p.read(kind, tower, scan, **fields), source)
  part, _ = p.body(p.read_by_transformers(kind, to), tower)
  out, _ = reference.run(part, **p.inputs(tower, False)[0])
  wanted = p.expected(kind, tower, False, **fields)[0]
  reference.close(out.last_hidden_state.numpy(), wanted.last_hidden_state.numpy(), 1e-6)


def test_both_towers_go_back_together():
  _, source = p.made('SiglipModel', **BOTH)
  p.exported(pretrained.towers(source), source)


@pytest.mark.parametrize('fields, message', (
    (dict(logit_power=2), "'logit_power' = 2"),
    (dict(vision=dict(registers=3)), "vision_config has the field 'registers'"),
    (dict(vision=dict(vision_use_head=2)), 'vision_use_head is 2'), (dict(text=dict(hidden_act='mish')), "'mish'"),
    (dict(text=dict(model_type='siglip2_text_model')), 'siglip2'), (dict(vision=dict(image_size=16)), 'config says'),
    (dict(architectures=['SiglipForImageClassification']), 'SiglipForImageClassification')))
def test_what_is_not_known_is_refused(fields, message):
  _, source = p.made('SiglipModel', **BOTH)
  config = json.loads((source / 'config.json').read_text())
  change = {f'{k}_config': {**config[f'{k}_config'], **v} for k, v in fields.items() if k in ('text', 'vision')}
  change |= {k: v for k, v in fields.items() if k not in ('text', 'vision')}
  with pytest.raises(ValueError, match=message):
    pretrained.load(f'{e.rewritten(source, dict, **change)}#vision')
