"""Gemma 2: norms on both sides of a sublayer, capped scores and logits, every other layer a window (Riviere et al. 2024, arXiv:2408.00118)."""
from aspects.nn.decoders import decoder, layer_kinds, windows
from aspects.nn.huggingface import Config, Import


def gemma2(c: Config) -> Import:
  """The vectors of tokens are multiplied by sqrt(width); a gain g of a norm is stored as g - 1."""
  bias, depth = c.only('attention_bias', False, True), c('num_hidden_layers')
  size = c('sliding_window', 4096)
  c.only('sliding_window_size', size)                # the name of older files, which have both
  c.only('use_bidirectional_attention', None, False)
  c.leave('hidden_act')                              # older files have it beside hidden_activation, which is read
  return decoder(c, c.head(Gemma2ForCausalLM=True, Gemma2Model=False), bias=bias, out_bias=bias, peri=True, tied=True,
                 offset=1.0, embed_scale=c('hidden_size') ** 0.5, epsilon=c('rms_norm_eps', 1e-6),
                 act=c('hidden_activation', 'gelu_pytorch_tanh'), scale=c('query_pre_attn_scalar', 256) ** -0.5,
                 soft_cap=c('attn_logit_softcapping', 50.0), head_cap=c('final_logit_softcapping', 30.0),
                 window=windows(c, depth, size, layer_kinds(c, depth, lambda i: i % 2 == 0)),
                 usual=dict(num_attention_heads=8, num_key_value_heads=4, head_dim=256))
