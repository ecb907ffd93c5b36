"""Gemma 3, texts alone, against transformers."""
from tests.pretrained import laws

SMALL = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=4, intermediate_size=44,
             head_dim=10, query_pre_attn_scalar=24, sliding_window=4)
AT = 'model.layers.{i}'
LAYOUT = laws.layout(resid_mid=f'{AT}.pre_feedforward_layernorm.in', channel_in=f'{AT}.pre_feedforward_layernorm',
                     mixer_out=f'{AT}.post_attention_layernorm', channel_out=f'{AT}.post_feedforward_layernorm',
                     logits=None)                    # theirs are capped outside of any module: 'output'
FULL, SLIDING = 'full_attention', 'sliding_attention'
ROPE = {FULL: dict(rope_type='linear', rope_theta=5e3, factor=4.0), SLIDING: dict(rope_type='default', rope_theta=50.0)}


class TestGemma3Text(laws.Laws):
  config = 'Gemma3TextConfig'
  cases = {'two kinds of layers': ('Gemma3ForCausalLM', dict(SMALL, layer_types=[SLIDING, FULL] * 2,
                                                             rope_parameters=ROPE)),
           'untied, biases, capped logits, all windows': ('Gemma3ForCausalLM', dict(
               SMALL, tie_word_embeddings=False, attention_bias=True, final_logit_softcapping=0.7, rms_norm_eps=1e-2)),
           'body, long window': ('Gemma3TextModel', dict(SMALL, sliding_window=64, num_hidden_layers=3,
                                                         layer_types=[FULL, SLIDING, SLIDING]))}
  layout = LAYOUT
  refused = (('hidden_activation', 'mish', 'mish'), ('use_bidirectional_attention', True, 'use_bidirectional'),
             ('attn_logit_softcapping', 50.0, 'attn_logit_softcapping'), ('layer_types', ['x'] * 4, 'layer_types'),
             ('rope_parameters', {'rope_type': 'default'}, 'rope_parameters'),
             ('rope_parameters', {FULL: {'partial_rotary_factor': 0.5}}, 'partial_rotary_factor'))

  def test_older_configs_say_the_same(self, tmp_path):
    path = laws.directory(TestGemma3Text, 'two kinds of layers')
    gone = 'rope_parameters', 'dtype', 'layer_types', '_sliding_window_pattern', 'use_bidirectional_attention'
    old = laws.described(path, tmp_path, gone, torch_dtype='float32', sliding_window_pattern=2, rope_theta=5000,
                         rope_local_base_freq=50, rope_scaling=dict(rope_type='linear', factor=4.0),
                         cache_implementation='hybrid')
    assert old.spec == laws.described(path, tmp_path).spec
