"""Llama against transformers."""
from tests.pretrained import laws

SMALL = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3, intermediate_size=44)
LLAMA3 = dict(rope_type='llama3', rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)


class TestLlama(laws.Laws):
  config = 'LlamaConfig'
  cases = {
      'grouped': ('LlamaForCausalLM', SMALL),
      'biases, wide heads': ('LlamaForCausalLM', dict(SMALL, head_dim=10, attention_bias=True, mlp_bias=True,
                                                      num_key_value_heads=4, rms_norm_eps=1e-3)),
      'llama3, tied': ('LlamaForCausalLM', dict(SMALL, num_key_value_heads=1, tie_word_embeddings=True,
                                                rope_parameters=LLAMA3)),
      'linear, gelu, body': ('LlamaModel', dict(SMALL, hidden_act='gelu', rope_parameters=dict(
          rope_type='linear', rope_theta=100.0, factor=3.0)))}
  refused = (('hidden_act', 'tanhshrink', 'tanhshrink'), ('attention_bias', 2, 'attention_bias'),
             ('rope_parameters', {'rope_type': 'yarn', 'factor': 2.0}, "rope_type is 'yarn'"),
             ('rope_parameters', {'rope_type': 'linear'}, "'linear' need factor"),
             ('rope_parameters', {'rope_theta': 1e4, 'partial_rotary_factor': 0.5}, 'partial_rotary_factor'))

  def test_older_configs_say_the_same(self, tmp_path):
    path = laws.directory(TestLlama, 'llama3, tied')
    old = laws.described(path, tmp_path, ('rope_parameters', 'dtype'), torch_dtype='float32', rope_theta=500.0,
                         rope_scaling={k: v for k, v in LLAMA3.items() if k != 'rope_theta'})
    assert old.spec == laws.described(path, tmp_path).spec
