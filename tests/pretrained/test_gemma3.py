"""Gemma 3 with pictures, as a language model, against transformers."""
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from aspects import pretrained
from tests.pretrained import laws
from tests.pretrained import test_gemma3_text as text

VISION = dict(hidden_size=16, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2, image_size=8,
              patch_size=4)
FIELDS = dict(text_config=dict(text.TestGemma3Text.cases['two kinds of layers'][1], vocab_size=50),
              vision_config=VISION, mm_tokens_per_image=4, image_token_index=49, boi_token_index=47, eoi_token_index=48)
AT = 'model.language_model'


class TestGemma3(laws.Laws):
  config = 'Gemma3Config'
  usual = {}
  cases = {'whole': ('Gemma3ForConditionalGeneration', FIELDS), 'body': ('Gemma3Model', FIELDS)}
  layout = {site: place.replace('model.', f'{AT}.') for site, place in text.LAYOUT.items()}
  refused = (('architectures', ['Gemma3ForSequenceClassification'], 'Gemma3ForSequenceClassification'),
             ('tie_word_embeddings', False, 'tie_word_embeddings'))

  def test_a_field_of_the_part_that_is_not_known_is_refused(self, tmp_path):
    path = laws.directory(TestGemma3, 'whole')
    part = json.loads((path / 'config.json').read_text())['text_config']
    with pytest.raises(ValueError, match='text_config has the field .twisted'):
      laws.described(path, tmp_path, text_config={**part, 'twisted': 1})

  def test_a_short_config_has_the_usual_values(self, tmp_path):
    """That of the 4B names few fields."""
    few = dict(hidden_size=2560, intermediate_size=10240, model_type='gemma3_text', num_hidden_layers=34,
               rope_scaling=dict(factor=8.0, rope_type='linear'), sliding_window=1024)
    spec = laws.described(laws.directory(TestGemma3, 'whole'), tmp_path, text_config=few).spec
    assert (spec['depth'], spec['width'], spec['outputs']) == (34, 2560, 262208)
    assert [spec['mixer'][n] for n in ('heads', 'kv_heads', 'head_size', 'scale')] == [8, 4, 256, 1 / 16]
    assert spec['mixer']['window'] == (1024, 1024, 1024, 1024, 1024, 0)
    assert [r['base'] for r in spec['mixer']['rotary']] == [1e4] * 5 + [1e6]
    assert spec['mixer']['rotary'][5]['scaling'] == {'name': 'linear', 'factor': 8.0}

  def test_names_of_published_files(self, tmp_path):
    path = laws.directory(TestGemma3, 'whole')
    def older(name):
      if name.startswith(AT):
        return name.replace(AT, 'language_model.model')
      return name.removeprefix('model.')
    stored = {older(k): v for k, v in laws.tensors_of(path).items()}
    assert {k.split('.')[0] for k in stored} == {'language_model', 'vision_tower', 'multi_modal_projector'}
    laws.described(path, tmp_path)
    save_file(stored, tmp_path / 'model.safetensors')
    old, new = pretrained.load(tmp_path, scan=False), laws.loaded(TestGemma3, 'whole', False)
    np.testing.assert_array_equal(old.variables['params']['embedder']['token']['embedding'],
                                  new.variables['params']['embedder']['token']['embedding'])
    pretrained.save(old, tmp_path / 'out')
    after = laws.tensors_of(tmp_path / 'out')
    assert after.keys() == stored.keys()
    for name, value in stored.items():
      np.testing.assert_array_equal(value, after[name])
