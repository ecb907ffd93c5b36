"""OPT against transformers."""
import pytest

from tests.pretrained import laws

SMALL = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=3, ffn_dim=44, max_position_embeddings=20)
AT = 'model.decoder.layers.{i}'



def tokens(path):
  """Their channel computes with all tokens of all texts in a row."""
  return f'{AT}.{path}', lambda x: x.reshape(2, laws.LENGTH, -1)


LAYOUT = laws.layout(
    AT, ('self_attn_layer_norm', 'final_layer_norm'), out='out_proj', channel_gate=None, channel_pre=tokens('fc1'),
    channel_act=tokens('fc2.in'), channel_raw=tokens('fc2'), resid_mid=tokens('final_layer_norm.in'),
    channel_in=tokens('fc1.in'), final_norm='model.decoder.final_layer_norm')
POST = {**LAYOUT, 'mixer_sum': f'{AT}.self_attn_layer_norm.in', 'resid_mid': f'{AT}.self_attn_layer_norm',
        'channel_sum': f'{AT}.final_layer_norm.in', 'mixer_in': f'{AT}.self_attn.in'}


class TestOpt(laws.Laws):
  config = 'OPTConfig'
  cases = {'pre-norm': ('OPTForCausalLM', SMALL),
           'post-norm, narrow': ('OPTForCausalLM', dict(SMALL, do_layer_norm_before=False, word_embed_proj_dim=12)),
           'untied, no biases, no last norm': ('OPTForCausalLM', dict(
               SMALL, enable_bias=False, tie_word_embeddings=False, _remove_final_layer_norm=True)),
           'body, gelu': ('OPTModel', dict(SMALL, activation_function='gelu'))}
  layout = LAYOUT
  refused = (('activation_function', 'mish', 'mish'), ('layer_norm_elementwise_affine', False, 'elementwise_affine'))

  @classmethod
  def layout_of(cls, case):
    out = POST if case.startswith('post') else LAYOUT
    return {k: v for k, v in out.items() if k != 'final_norm' or case in ('pre-norm', 'body, gelu')}

  def test_older_configs_say_the_same(self, tmp_path):
    path = laws.directory(TestOpt, 'pre-norm')
    gone = 'dtype', 'enable_bias', 'layer_norm_elementwise_affine', 'tie_word_embeddings'
    old = laws.described(path, tmp_path, gone, torch_dtype='float16', activation_dropout=0.0, prefix='</s>')
    assert old.spec == laws.described(path, tmp_path).spec

  def test_a_body_with_a_narrow_end_is_refused(self, tmp_path):
    with pytest.raises(ValueError, match='word_embed_proj_dim 12'):
      laws.described(laws.directory(TestOpt, 'body, gelu'), tmp_path, word_embed_proj_dim=12)
