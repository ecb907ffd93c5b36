"""GPT-NeoX and Pythia: rotary positions on a quarter of a head, sublayers side by side (Black et al. 2022, arXiv:2204.06745; Biderman et al. 2023, arXiv:2304.01373)."""
import jax
import numpy as np

from aspects.nn import keys
from aspects.nn.decoders import activation
from aspects.nn.huggingface import Config, Import, rope


def gpt_neox(c: Config) -> Import:
  """Query, key and value of a head are stored side by side, head by head."""
  unembeds = c.head(GPTNeoXForCausalLM=True, GPTNeoXModel=False)
  width, depth, heads, vocab = (c(n) for n in ('hidden_size', 'num_hidden_layers', 'num_attention_heads', 'vocab_size'))
  size, bias = width // heads, c.only('attention_bias', True, False)
  tied = c.only('tie_word_embeddings', False, True)
  c.leave('max_position_embeddings', 'is_decoder')
  rotary = rope({**(c('rope_parameters', None) or {}), **(c('rope_scaling', None) or {})}, c.where,
                base=c('rotary_emb_base', 10000.0), share=c('rotary_pct', 0.25))
  if int(size * rotary['share']) % 2:
    raise ValueError(f'{c.where}: rotary_pct {rotary["share"]} of a head of {size} units is an odd number of them')
  head = dict(name='unembed', tied=tied) if unembeds else dict(name='embedding', pool='tokens')
  spec = dict(
      outputs=vocab if unembeds else width, depth=depth, width=width, head=head,
      embed=dict(name='tokens', vocab=vocab, length=0),
      mixer=dict(name='attention', heads=heads, causal=True, bias=bias, out_bias=bias, rotary=rotary),
      channel=dict(name='mlp', size=c('intermediate_size'), act=activation(c, c('hidden_act', 'gelu'))),
      norm=dict(name='layer', epsilon=c('layer_norm_eps', 1e-5)),
      placement=dict(name='parallel' if c.only('use_parallel_residual', True, False) else 'pre'))
  def block(i, at):
    b, maps = f'gpt_neox.layers.{i}', [f'{at}/mixer/heads/{n}' for n in ('query', 'key', 'value')]
    yield from keys.norm(f'{b}.input_layernorm', f'{at}/residual/mixer_norm')
    yield from keys.norm(f'{b}.post_attention_layernorm', f'{at}/residual/channel_norm')
    for theirs, ours in (('weight', 'kernel'), ('bias', 'bias')) if bias else (('weight', 'kernel'),):
      yield keys.key(f'{b}.attention.query_key_value.{theirs}', [f'{m}/{ours}' for m in maps],
                     keys.interleaved(heads, size, 3))
    yield keys.key(f'{b}.attention.dense.weight', f'{at}/mixer/heads/out/kernel', keys.from_heads(heads, size))
    if bias:
      yield keys.key(f'{b}.attention.dense.bias', f'{at}/mixer/heads/out/bias')
    yield from keys.linear(f'{b}.mlp.dense_h_to_4h', f'{at}/channel/in')
    yield from keys.linear(f'{b}.mlp.dense_4h_to_h', f'{at}/channel/out')
  found = [keys.key('gpt_neox.embed_in.weight', 'embedder/token/embedding'), *keys.blocks(depth, block),
           *keys.norm('gpt_neox.final_layer_norm', 'norm')]
  if unembeds and not tied:
    found += keys.linear('lm_head', 'head/logits_map', bias=False)
  return Import(spec, found, jax.ShapeDtypeStruct((2,), np.int32), 'gpt_neox.',
                (r'.*\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)',),
                {'lm_head.weight': 'gpt_neox.embed_in.weight'} if tied else {}, older={r'^lm_head\.': 'embed_out.'})
