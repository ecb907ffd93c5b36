"""Gemma 2 against transformers."""
from tests.pretrained import laws

SMALL = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3, intermediate_size=44,
             head_dim=10, query_pre_attn_scalar=24, sliding_window=4)
AT = 'model.layers.{i}'
LAYOUT = laws.layout(resid_mid=f'{AT}.pre_feedforward_layernorm.in', channel_in=f'{AT}.pre_feedforward_layernorm',
                     mixer_out=f'{AT}.post_attention_layernorm', channel_out=f'{AT}.post_feedforward_layernorm',
                     logits=None)                    # theirs are capped outside of any module: 'output'


class TestGemma2(laws.Laws):
  config = 'Gemma2Config'
  cases = {'capped': ('Gemma2ForCausalLM', dict(SMALL, attn_logit_softcapping=0.5, final_logit_softcapping=0.7)),
           'uncapped, untied, biases, long window': ('Gemma2ForCausalLM', dict(
               SMALL, tie_word_embeddings=False, attention_bias=True, attn_logit_softcapping=None, sliding_window=64,
               final_logit_softcapping=None, hidden_activation='silu', rms_norm_eps=1e-2)),
           'body, other windows': ('Gemma2Model', dict(SMALL, layer_types=['full_attention'] + 2 * [
               'sliding_attention']))}
  layout = LAYOUT
  refused = (('hidden_activation', 'mish', 'mish'), ('use_bidirectional_attention', True, 'use_bidirectional'),
             ('sliding_window_size', 5, 'sliding_window_size'))

  def test_older_configs_say_the_same(self, tmp_path):
    path = laws.directory(TestGemma2, 'capped')
    gone = 'rope_parameters', 'dtype', 'layer_types', 'tie_word_embeddings', 'use_bidirectional_attention'
    old = laws.described(path, tmp_path, gone, torch_dtype='float32', rope_theta=10000.0, sliding_window_size=4,
                         hidden_act='gelu_pytorch_tanh', cache_implementation='hybrid')
    assert old.spec == laws.described(path, tmp_path).spec
