"""What the importers of Llama's kind share: RMS norms, rotary positions, grouped queries, gated units, their names."""
from typing import Any, Callable, Mapping

import jax
import numpy as np

from aspects.nn import keys
from aspects.nn.huggingface import Config, Import

ACTIVATIONS = {'silu': 'silu', 'swish': 'silu', 'gelu': 'gelu', 'gelu_new': 'gelu_tanh', 'gelu_fast': 'gelu_tanh',
               'gelu_pytorch_tanh': 'gelu_tanh', 'relu': 'relu', 'quick_gelu': 'quick_gelu'}


def activation(c: Config, name: str) -> str:
  """The library's name of an activation of transformers."""
  return ACTIVATIONS[keys.checked(name, f'{c.where}: activation', tuple(ACTIVATIONS))]


def periodic(values: list) -> Any:
  """Values of layers as the shortest tuple that repeats to them; the value itself if all are equal."""
  for n in range(1, len(values) + 1):
    if all(v == values[i % n] for i, v in enumerate(values)):
      return values[0] if n == 1 else tuple(values[:n])
  raise ValueError('a network has at least one layer')


def windows(c: Config, depth: int, size: int | None, kinds: list[str] | None) -> Any:
  """`window` of a mixer: `size` where `layer_types` says sliding_attention, 0 where it says full_attention."""
  if kinds is None:
    return size or 0
  if size == 0:
    raise ValueError(f'{c.where}: sliding_window is 0; without windows it is null')
  if len(kinds) != depth:
    raise ValueError(f'{c.where}: layer_types has {len(kinds)} entries for {depth} layers')
  known = {'full_attention': 0, 'sliding_attention': size}
  for kind in kinds:
    keys.checked(kind, f'{c.where}: layer_types', tuple(known))
    if known[kind] is None:
      raise ValueError(f'{c.where}: a layer is {kind} and sliding_window is not set')
  return periodic([known[kind] for kind in kinds])


def layer_kinds(c: Config, depth: int, sliding: Callable[[int], bool]) -> list[str]:
  """`layer_types`, or, before it existed, sliding_attention in the layers i with sliding(i)."""
  kinds = c('layer_types', None)
  return kinds if kinds is not None else [
      'sliding_attention' if sliding(i) else 'full_attention' for i in range(depth)]


def later_windows(c: Config) -> Any:
  """`window` in Qwen's way: off by default, else in the layers from max_window_layers on."""
  depth, used = c('num_hidden_layers'), c.only('use_sliding_window', False, True)
  size, first = c('sliding_window', 4096) if used else None, c('max_window_layers', 28)
  c.leave('sliding_window')
  return windows(c, depth, size, layer_kinds(c, depth, lambda i: size is not None and i >= first))


def decoder(c: Config, unembeds: bool, *, bias: bool, epsilon: float, act: str, out_bias: bool = False,
            channel_bias: bool = False, qk_norm: bool = False, window: Any = 0, rotary: Any = None,
            scale: float | None = None, soft_cap: float | None = None, head_cap: float | None = None,
            offset: float = 0.0, embed_scale: float = 1.0, peri: bool = False, tied: bool | None = None,
            head_size: int | None = None, usual: Mapping[str, Any] = {}) -> Import:
  """A decoder of Llama's kind; `tied` is the default of tie_word_embeddings, `usual` has those of other fields."""
  get = lambda name, *default: c(name, *((usual[name],) if name in usual else default))
  width, depth, heads = (get(n) for n in ('hidden_size', 'num_hidden_layers', 'num_attention_heads'))
  vocab, kv_heads = get('vocab_size'), get('num_key_value_heads', None) or heads
  size = head_size or get('head_dim', None) or width // heads
  hidden, tied = get('intermediate_size'), c.only('tie_word_embeddings', *((True, False) if tied else (False, True)))
  if rotary is None:
    rotary = c.rope()
    keys.checked(rotary['share'], f'{c.where}: partial_rotary_factor', (1.0,))
  c.leave('max_position_embeddings', 'head_dim')     # rotary positions have no table
  rms = dict(name='rms', epsilon=epsilon, **({'offset': offset} if offset else {}))
  mixer = dict(name='attention', heads=heads, kv_heads=kv_heads, head_size=size, causal=True, bias=bias,
               out_bias=out_bias, rotary=rotary, window=window)
  for name, value in (('qk_norm', rms if qk_norm else None), ('scale', scale), ('soft_cap', soft_cap)):
    if value is not None:
      mixer[name] = value
  head = dict(name='unembed', tied=tied) if unembeds else dict(name='embedding', pool='tokens')
  if unembeds and head_cap is not None:
    head['soft_cap'] = head_cap
  spec = dict(
      outputs=vocab if unembeds else width, depth=depth, width=width, head=head, mixer=mixer, norm=rms,
      embed=dict(name='tokens', vocab=vocab, length=0, scale=embed_scale),
      channel=dict(name='gated_mlp', size=hidden, bias=channel_bias, act=activation(c, act)),
      placement=dict(name='peri' if peri else 'pre'))
  norms = (('input_layernorm', 'mixer_norm'), ('post_attention_layernorm', 'channel_norm'))
  if peri:
    norms = (('input_layernorm', 'mixer_norm'), ('post_attention_layernorm', 'mixer_norm_out'),
             ('pre_feedforward_layernorm', 'channel_norm'), ('post_feedforward_layernorm', 'channel_norm_out'))
  def block(i, at):
    b = f'model.layers.{i}'
    for theirs, ours in norms:
      yield from keys.norm(f'{b}.{theirs}', f'{at}/residual/{ours}', bias=False)
    yield from keys.attention(at, [f'{b}.self_attn.{n}_proj' for n in 'qkvo'], heads, size, kv_heads, bias=bias,
                              out_bias=out_bias)
    for name, ours in (('q_norm', 'query_norm'), ('k_norm', 'key_norm')) if qk_norm else ():
      yield from keys.norm(f'{b}.self_attn.{name}', f'{at}/mixer/heads/{ours}', bias=False)
    # The nonlinearity is applied to what they call the gate; the linear branch is `up`.
    for theirs, ours in (('gate', 'pre'), ('up', 'gate'), ('down', 'out')):
      yield from keys.linear(f'{b}.mlp.{theirs}_proj', f'{at}/channel/{ours}', bias=channel_bias)
  found = [keys.key('model.embed_tokens.weight', 'embedder/token/embedding'), *keys.blocks(depth, block),
           *keys.norm('model.norm', 'norm', bias=False)]
  if unembeds and not tied:
    found += keys.linear('lm_head', 'head/logits_map', bias=False)
  return Import(spec, found, jax.ShapeDtypeStruct((2,), np.int32), 'model.', (r'.*rotary_emb\.inv_freq',),
                {'lm_head.weight': 'model.embed_tokens.weight'} if tied else {})
