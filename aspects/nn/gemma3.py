"""What the importers of Gemma 3, of its texts alone and with pictures, share."""
from aspects.nn.decoders import decoder, layer_kinds, periodic, windows
from aspects.nn.huggingface import Config, Import, rope

# What the published configuration class has where a config says nothing; the configs with pictures say little.
USUAL = dict(vocab_size=262208, hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8,
             num_key_value_heads=4, head_dim=256)


def gemma3_decoder(c: Config, unembeds: bool, tied: bool = True) -> Import:
  """Gemma 2 without caps on scores, with a norm over each head of queries and keys; windows have a base of their own.

  `tied` is the default of tie_word_embeddings."""
  depth, bias = c('num_hidden_layers', USUAL['num_hidden_layers']), c.only('attention_bias', False, True)
  every = c('sliding_window_pattern', 6)
  kinds = layer_kinds(c, depth, lambda i: (i + 1) % every > 0)
  c.only('use_bidirectional_attention', False, None)
  c.only('attn_logit_softcapping', None)             # a field that the published code does not read
  rotary = _rotary(c)
  return decoder(c, unembeds, bias=bias, out_bias=bias, peri=True, tied=tied, qk_norm=True, offset=1.0,
                 embed_scale=c('hidden_size', USUAL['hidden_size']) ** 0.5, epsilon=c('rms_norm_eps', 1e-6),
                 act=c('hidden_activation', 'gelu_pytorch_tanh'), scale=c('query_pre_attn_scalar', 256) ** -0.5,
                 head_cap=c('final_logit_softcapping', None),
                 window=windows(c, depth, c('sliding_window', 4096), kinds),
                 rotary=periodic([rotary[kind] for kind in kinds]), usual=USUAL)


def _rotary(c: Config) -> dict[str, dict]:
  """{kind of layer: its rotary positions}; before transformers 5 in rope_theta, rope_local_base_freq, rope_scaling."""
  given, bases = c('rope_parameters', None) or {}, {
      'full_attention': c('rope_theta', 1e6), 'sliding_attention': c('rope_local_base_freq', 1e4)}
  if extra := sorted(set(given) - set(bases)):
    raise ValueError(f'{c.where}: rope_parameters has {extra[0]!r}; known: {", ".join(bases)}')
  old = {'full_attention': c('rope_scaling', None) or {}, 'sliding_attention': {}}
  out = {}
  for kind, base in bases.items():
    out[kind] = rope({**(given.get(kind) or {}), **old[kind]}, f'{c.where}: {kind}', base=base)
    if out[kind]['share'] != 1:
      raise ValueError(f'{c.where}: {kind} has the partial_rotary_factor {out[kind]["share"]}; supported: 1.0')
  return out
