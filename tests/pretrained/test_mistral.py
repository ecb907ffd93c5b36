"""Mistral against transformers."""
from tests.pretrained import laws

SMALL = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, intermediate_size=44)


class TestMistral(laws.Laws):
  config = 'MistralConfig'
  cases = {'short window': ('MistralForCausalLM', dict(SMALL, sliding_window=5)),
           'no window, wide heads, tied': ('MistralForCausalLM', dict(
               SMALL, sliding_window=None, head_dim=12, tie_word_embeddings=True, hidden_act='gelu_new')),
           'body, long window': ('MistralModel', dict(SMALL, sliding_window=64))}
  refused = (('hidden_act', 'mish', 'mish'), ('layer_types', ['full_attention'] * 2, 'layer_types'),
             ('architectures', ['MistralForSequenceClassification'], 'MistralForSequenceClassification'),
             ('rope_parameters', {'rope_type': 'default', 'partial_rotary_factor': 0.5}, 'partial_rotary_factor'))

  def test_older_configs_say_the_same(self, tmp_path):
    path = laws.directory(TestMistral, 'short window')
    old = laws.described(path, tmp_path, ('rope_parameters', 'dtype', 'head_dim'), torch_dtype='bfloat16',
                         rope_theta=10000.0)
    assert old.spec == laws.described(path, tmp_path).spec

  def test_a_config_that_says_nothing_has_the_usual_window(self, tmp_path):
    path = laws.directory(TestMistral, 'short window')
    assert laws.described(path, tmp_path, ('sliding_window',)).spec['mixer']['window'] == 4096
