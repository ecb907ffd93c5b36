"""GPT-2 against transformers."""
from tests.pretrained import laws

SMALL = dict(n_embd=24, n_head=3, n_layer=3, n_positions=16)
AT = 'transformer.h.{i}.attn.c_attn'
third = lambda n: (AT, lambda x: x[..., 24 * n:24 * (n + 1)])


class TestGpt2(laws.Laws):
  config = 'GPT2Config'
  cases = {'tied': ('GPT2LMHeadModel', SMALL),
           'untied, scaled by layer, narrow': ('GPT2LMHeadModel', dict(
               SMALL, tie_word_embeddings=False, scale_attn_by_inverse_layer_idx=True, n_inner=40,
               layer_norm_epsilon=1e-2)),
           'body, unscaled, relu': ('GPT2Model', dict(SMALL, scale_attn_weights=False, activation_function='relu'))}
  prefix = 'transformer.'
  layout = laws.layout('transformer.h.{i}', ('ln_1', 'ln_2'), 'attn', 'c_proj', pre='c_fc', down='c_proj',
                       channel_gate=None, q=third(0), k=third(1), v=third(2), final_norm='transformer.ln_f')
  refused = (('add_cross_attention', True, 'add_cross_attention'), ('activation_function', 'mish', 'mish'),
             ('architectures', ['GPT2DoubleHeadsModel'], 'GPT2DoubleHeadsModel'))

  def test_older_configs_say_the_same(self, tmp_path):
    path = laws.directory(TestGpt2, 'tied')
    old = laws.described(path, tmp_path, ('dtype', 'add_cross_attention', 'scale_attn_weights', 'tie_word_embeddings',
                                          'scale_attn_by_inverse_layer_idx', 'reorder_and_upcast_attn', 'n_inner'),
                         n_ctx=16, task_specific_params={'text-generation': {'do_sample': True}})
    assert old.spec == laws.described(path, tmp_path).spec
