"""Qwen2 against transformers."""
import pytest

from tests.pretrained import laws

SMALL = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3, intermediate_size=44)
MIXED = ['full_attention', 'sliding_attention', 'full_attention']


class TestQwen2(laws.Laws):
  config = 'Qwen2Config'
  cases = {'no window': ('Qwen2ForCausalLM', SMALL),
           'later windows, tied': ('Qwen2ForCausalLM', dict(
               SMALL, tie_word_embeddings=True, use_sliding_window=True, sliding_window=4, max_window_layers=1)),
           'body, windows by layer': ('Qwen2Model', dict(SMALL, use_sliding_window=True, sliding_window=6,
                                                         layer_types=MIXED, num_key_value_heads=4))}
  refused = (('hidden_act', 'mish', 'mish'), ('layer_types', ['chunked_attention'] * 3, 'layer_types'),
             ('layer_types', ['full_attention'], '1 entries for 3 layers'), ('use_mrope', True, 'use_mrope'),
             ('layer_types', MIXED, 'sliding_window is not set'))

  @pytest.mark.parametrize('name, size, first', [('no window', 4096, 28), ('later windows, tied', 4, 1)])
  def test_older_configs_say_the_same(self, tmp_path, name, size, first):
    path = laws.directory(TestQwen2, name)
    old = laws.described(path, tmp_path, ('rope_parameters', 'dtype', 'layer_types'), torch_dtype='bfloat16',
                         rope_theta=10000.0, sliding_window=size, max_window_layers=first, use_mrope=False)
    assert old.spec == laws.described(path, tmp_path).spec
