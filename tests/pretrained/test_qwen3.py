"""Qwen3 against transformers."""
import numpy as np

from tests.pretrained import laws

SMALL = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3, intermediate_size=44,
             head_dim=10)


class TestQwen3(laws.Laws):
  config = 'Qwen3Config'
  cases = {'no window': ('Qwen3ForCausalLM', dict(SMALL, rms_norm_eps=1e-2)),
           'biases, later windows, tied': ('Qwen3ForCausalLM', dict(
               SMALL, tie_word_embeddings=True, attention_bias=True, use_sliding_window=True, sliding_window=4,
               max_window_layers=1)),
           'body': ('Qwen3Model', dict(SMALL, num_key_value_heads=4, rope_parameters=dict(
               rope_type='default', rope_theta=1e6)))}
  refused = (('hidden_act', 'mish', 'mish'), ('rope_parameters', {'rope_type': 'dynamic', 'factor': 2.0}, 'dynamic'))

  def test_older_configs_say_the_same(self, tmp_path):
    path = laws.directory(TestQwen3, 'body')
    old = laws.described(path, tmp_path, ('rope_parameters', 'dtype', 'layer_types'), torch_dtype='bfloat16',
                         rope_theta=1000000, rope_scaling=None, sliding_window=None, use_sliding_window=False)
    assert old.spec == laws.described(path, tmp_path).spec

  def test_the_norms_of_the_heads_stand_behind_q_and_k(self):
    """q and k are the maps' own outputs, as in the layout; their norms are those of the heads, before the rotation."""
    acts, found = laws.ours(TestQwen3, 'no window', False), laws.loaded(TestQwen3, 'no window', False)
    heads = found.variables['params']['stage_0']['block_0']['mixer']['heads']
    for slot, name in (('q', 'query_norm'), ('k', 'key_norm')):
      first = acts[f'{slot}.0'][:, 0]                            # position 0 does not turn
      normed = first / np.sqrt((first ** 2).mean(-1, keepdims=True) + 1e-2) * np.asarray(heads[name]['affine']['scale'])
      laws.near(acts[f'{slot}_rot.0'][:, 0], normed)
