"""GPT-NeoX against transformers."""
import numpy as np
from safetensors.numpy import save_file

from aspects import pretrained
from tests.pretrained import laws

SMALL = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=3, intermediate_size=44)
AT = 'gpt_neox.layers.{i}'


def part(n):
  """Query, key or value of the fused map: [B, T, H, 3, d]."""
  return f'{AT}.attention.query_key_value', lambda x: x.reshape(*x.shape[:2], 4, 3, 8)[:, :, :, n]


LAYOUT = laws.layout(AT, attention='attention', out='dense', pre='dense_h_to_4h', down='dense_4h_to_h',
                     channel_gate=None, q=part(0), k=part(1), v=part(2), final_norm='gpt_neox.final_layer_norm')


class TestGptNeox(laws.Laws):
  config = 'GPTNeoXConfig'
  cases = {'parallel': ('GPTNeoXForCausalLM', SMALL),
           'sequential, tied, half turned': ('GPTNeoXForCausalLM', dict(
               SMALL, use_parallel_residual=False, tie_word_embeddings=True, hidden_act='gelu_fast',
               rope_parameters=dict(rope_type='linear', rope_theta=100.0, factor=2.0, partial_rotary_factor=0.5))),
           'body, few biases': ('GPTNeoXModel', dict(
               SMALL, attention_bias=False, layer_norm_eps=1e-2,
               rope_parameters=dict(rope_type='default', rope_theta=10000.0, partial_rotary_factor=1.0)))}
  prefix = 'gpt_neox.'
  refused = (('hidden_act', 'mish', 'mish'), ('use_parallel_residual', 2, 'use_parallel_residual'),
             ('rope_parameters', {'rope_type': 'default', 'partial_rotary_factor': 0.4}, 'odd number'))

  @classmethod
  def layout_of(cls, case):
    return LAYOUT if case.startswith('sequential') else {k: v for k, v in LAYOUT.items() if k != 'resid_mid'}

  def test_older_configs_say_the_same(self, tmp_path):
    path = laws.directory(TestGptNeox, 'parallel')
    old = laws.described(path, tmp_path, ('rope_parameters', 'dtype', 'attention_bias'), torch_dtype='float16',
                         rotary_emb_base=10000, rotary_pct=0.25)
    assert old.spec == laws.described(path, tmp_path).spec

  def test_older_names_and_constants_of_published_files(self, tmp_path):
    """The head is called embed_out, and masks and frequencies are stored beside the parameters, in Pythia's files."""
    path = laws.directory(TestGptNeox, 'parallel')
    stored = {k.replace('lm_head.', 'embed_out.'): v for k, v in laws.tensors_of(path).items()}
    assert 'embed_out.weight' in stored
    for i in range(3):
      stored[f'gpt_neox.layers.{i}.attention.bias'] = np.tril(np.ones((1, 1, 16, 16), bool))
      stored[f'gpt_neox.layers.{i}.attention.masked_bias'] = np.array(-1e9, np.float32)
      stored[f'gpt_neox.layers.{i}.attention.rotary_emb.inv_freq'] = np.ones(1, np.float32)
    laws.described(path, tmp_path)
    save_file(stored, tmp_path / 'model.safetensors')
    old, new = pretrained.load(tmp_path, scan=False), laws.loaded(TestGptNeox, 'parallel', False)
    np.testing.assert_array_equal(old.variables['params']['head']['logits_map']['kernel'],
                                  new.variables['params']['head']['logits_map']['kernel'])
    pretrained.save(old, tmp_path / 'out')
    assert laws.tensors_of(tmp_path / 'out').keys() == stored.keys()
