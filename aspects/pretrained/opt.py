"""OPT: Open Pre-trained Transformer Language Models (Zhang et al. 2022, arXiv:2205.01068), as in transformers' `opt`."""
import jax
import numpy as np

from aspects.nn import keys
from aspects.nn.decoders import activation
from aspects.nn.huggingface import Config, Import


def opt(c: Config) -> Import:
  """The first two rows of the position table are not used. The 350m normalises the stream, has no norm at its end, and
  keeps its vectors of tokens in half the width."""
  unembeds = c.head(OPTForCausalLM=True, OPTModel=False)
  width, depth, heads, vocab = (c(n) for n in ('hidden_size', 'num_hidden_layers', 'num_attention_heads', 'vocab_size'))
  narrow, bias = c('word_embed_proj_dim', None) or width, c.only('enable_bias', True, False)
  before, tied = c.only('do_layer_norm_before', True, False), c.only('tie_word_embeddings', True, False)
  final = before and not c.only('_remove_final_layer_norm', False, True)
  c.only('layer_norm_elementwise_affine', True)
  thin = dict(size=narrow) if narrow != width else {}
  if thin and not unembeds:
    raise ValueError(f'{c.where}: architectures is OPTModel and word_embed_proj_dim {narrow} is not hidden_size '
                     f'{width}; what its last map gives is no stream of the network; save it as OPTForCausalLM')
  head = dict(name='unembed', tied=tied, **thin) if unembeds else dict(name='embedding', pool='tokens')
  size = width // heads
  spec = dict(
      outputs=vocab if unembeds else width, depth=depth, width=width, head=head, final_norm=final,
      embed=dict(name='tokens', vocab=vocab, length=c('max_position_embeddings'), offset=2, **thin),
      mixer=dict(name='attention', heads=heads, causal=True, bias=bias, out_bias=bias),
      channel=dict(name='mlp', size=c('ffn_dim'), act=activation(c, c('activation_function', 'relu')), bias=bias),
      norm=dict(name='layer'), placement=dict(name='pre' if before else 'post'))
  body = 'model.decoder'
  def block(i, at):
    b = f'{body}.layers.{i}'
    yield from keys.norm(f'{b}.self_attn_layer_norm', f'{at}/residual/mixer_norm')
    yield from keys.norm(f'{b}.final_layer_norm', f'{at}/residual/channel_norm')
    yield from keys.attention(at, [f'{b}.self_attn.{n}_proj' for n in ('q', 'k', 'v', 'out')], heads, size, bias=bias,
                              out_bias=bias)
    yield from keys.linear(f'{b}.fc1', f'{at}/channel/in', bias=bias)
    yield from keys.linear(f'{b}.fc2', f'{at}/channel/out', bias=bias)
  found = [keys.key(f'{body}.embed_tokens.weight', 'embedder/token/embedding'),
           keys.key(f'{body}.embed_positions.weight', 'embedder/position'), *keys.blocks(depth, block)]
  if final:
    found += keys.norm(f'{body}.final_layer_norm', 'norm')
  if thin:
    found += keys.linear(f'{body}.project_in', 'embedder/wider', bias=False)
    found += keys.linear(f'{body}.project_out', 'head/narrower', bias=False)
  if unembeds and not tied:
    found += keys.linear('lm_head', 'head/logits_map', bias=False)
  return Import(spec, found, jax.ShapeDtypeStruct((2,), np.int32), 'model.', (),
                {'lm_head.weight': f'{body}.embed_tokens.weight'} if tied else {})
