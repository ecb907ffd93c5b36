"""Language Models are Unsupervised Multitask Learners: GPT-2 (Radford et al. 2019), as in transformers' `gpt2`."""
import jax
import numpy as np

from aspects.nn import keys
from aspects.nn.huggingface import Config, Import

ACTIVATIONS = {'gelu_new': 'gelu_tanh', 'gelu_pytorch_tanh': 'gelu_tanh', 'gelu': 'gelu', 'relu': 'relu',
               'silu': 'silu', 'tanh': 'tanh'}


def gpt2(c: Config) -> Import:
  """Its linear maps are stored [in, out], query, key and value side by side."""
  unembeds = c.head(GPT2LMHeadModel=True, GPT2Model=False)
  width, heads, depth, vocab = c('n_embd'), c('n_head'), c('n_layer'), c('vocab_size')
  c.only('add_cross_attention', False)
  c.leave('n_ctx', 'reorder_and_upcast_attn')        # the latter: in which precision scores are computed
  tied = c.only('tie_word_embeddings', True, False)
  size, inner = width // heads, c('n_inner', None) or 4 * width
  scale = size ** -0.5 if c.only('scale_attn_weights', True, False) else 1.0
  if c.only('scale_attn_by_inverse_layer_idx', False, True):
    scale = tuple(scale / (i + 1) for i in range(depth))
  act = keys.checked(c('activation_function', 'gelu_new'), f'{c.where}: activation_function', tuple(ACTIVATIONS))
  head = dict(name='unembed', tied=tied) if unembeds else dict(name='embedding', pool='tokens')
  spec = dict(
      outputs=vocab if unembeds else width, depth=depth, width=width,
      embed=dict(name='tokens', vocab=vocab, length=c('n_positions')), head=head,
      mixer=dict(name='attention', heads=heads, causal=True, scale=scale),
      channel=dict(name='mlp', size=inner, act=ACTIVATIONS[act]),
      norm=dict(name='layer', epsilon=c('layer_norm_epsilon', 1e-5)), placement=dict(name='pre'))
  def block(i, at):
    b = f'transformer.h.{i}'
    names = [f'{at}/mixer/heads/{n}' for n in ('query', 'key', 'value')]
    yield from keys.norm(f'{b}.ln_1', f'{at}/residual/mixer_norm')
    yield keys.key(f'{b}.attn.c_attn.weight', [f'{n}/kernel' for n in names],
                   keys.after(keys.turned, keys.fused([width] * 3, [keys.to_heads(heads, size)] * 3)))
    yield keys.key(f'{b}.attn.c_attn.bias', [f'{n}/bias' for n in names],
                   keys.fused([width] * 3, [keys.to_heads(heads, size)] * 3))
    yield keys.key(f'{b}.attn.c_proj.weight', f'{at}/mixer/heads/out/kernel',
                   keys.shaped((heads, size, width), (width, width)))
    yield keys.key(f'{b}.attn.c_proj.bias', f'{at}/mixer/heads/out/bias')
    yield from keys.norm(f'{b}.ln_2', f'{at}/residual/channel_norm')
    yield from keys.linear(f'{b}.mlp.c_fc', f'{at}/channel/in', keys.same)
    yield from keys.linear(f'{b}.mlp.c_proj', f'{at}/channel/out', keys.same)
  found = [keys.key('transformer.wte.weight', 'embedder/token/embedding'),
           keys.key('transformer.wpe.weight', 'embedder/position'), *keys.blocks(depth, block),
           *keys.norm('transformer.ln_f', 'norm')]
  if unembeds and not tied:
    found += keys.linear('lm_head', 'head/logits_map', bias=False)
  return Import(spec, found, jax.ShapeDtypeStruct((2,), np.int32), 'transformer.',
                (r'(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)',),
                {'lm_head.weight': 'transformer.wte.weight'} if tied else {})
