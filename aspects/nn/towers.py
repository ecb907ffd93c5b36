"""What the importers of CLIP's kind share: pre-norm networks of texts and of images, whose vectors are compared."""
from typing import Any, Iterable, Mapping, NamedTuple

import jax
import numpy as np

from aspects.nn import keys
from aspects.nn.decoders import activation
from aspects.nn.huggingface import Config, Import
from aspects.nn.keys import Key

# What the other tower has, and how their products become logits.
SPARE = {'text_model.': (r'(vision_model|visual_projection)\..*', r'logit_(scale|bias)'),
         'vision_model.': (r'(text_model|text_projection)\..*', r'logit_(scale|bias)')}
BUFFERS = (r'(.*\.)?embeddings\.position_ids',)


class Head(NamedTuple):
  """The end of a tower: its spec, how many units it gives, its keys."""
  spec: Mapping[str, Any]
  outputs: int
  keys: list[Key]


def inside(c: Config, name: str) -> Config:
  """The config of a tower; where there is a `_dict` of it beside, as older files have, that holds."""
  given = c(f'{name}_dict', None)
  if given is not None:
    c.leave(name)
    return c.inside(f'{name}_dict')
  return c.inside(name) if c(name, None) is not None else Config({}, f'{c.where}, {name}', c.directory)


def text(c: Config, head: Head, usual: Mapping[str, Any], *, causal: bool) -> Import:
  """The tower of texts; `usual` has the defaults of its fields. There is one norm more, before the head."""
  base, width = 'text_model.', c('hidden_size', usual['hidden_size'])
  spec, found = _body(c, base, usual, causal)
  vocab, length = c('vocab_size', usual['vocab_size']), c('max_position_embeddings', usual['max_position_embeddings'])
  spec |= dict(outputs=head.outputs, head=head.spec, embed=dict(name='tokens', vocab=vocab, length=length))
  found += [keys.key(f'{base}embeddings.token_embedding.weight', 'embedder/token/embedding'),
            keys.key(f'{base}embeddings.position_embedding.weight', 'embedder/position',
                     keys.shaped((length, width), (length, width))),
            *keys.norm(f'{base}final_layer_norm', 'norm'), *head.keys]
  return Import(spec, found, jax.ShapeDtypeStruct((2,), np.int32), base, BUFFERS, spare=SPARE[base])


def vision(c: Config, head: Head, usual: Mapping[str, Any], *, class_token: bool, final_norm: bool) -> Import:
  """The tower of images. With a `class_token` the patches have no bias, and their sum with the positions has a norm."""
  base, width = 'vision_model.', c('hidden_size', usual['hidden_size'])
  spec, found = _body(c, base, usual, causal=False)
  side, size = (_length(c, name, usual) for name in ('image_size', 'patch_size'))
  channels, grid = c('num_channels', 3), side // size
  normed = dict(norm=spec['norm']) if class_token else {}
  spec |= dict(outputs=head.outputs, head=head.spec, final_norm=final_norm, embed=dict(
      name='patches', size=size, grid=(grid, grid), class_token=class_token, bias=not class_token, **normed))
  at, count = f'{base}embeddings', grid * grid + class_token
  found += [keys.key(f'{at}.patch_embedding.weight', 'embedder/patch/kernel', keys.image),
            keys.key(f'{at}.position_embedding.weight', 'embedder/position',
                     keys.shaped((1, count, width), (count, width))), *head.keys]
  if class_token:
    found.append(keys.key(f'{at}.class_embedding', 'embedder/class_token', keys.shaped((1, 1, width), (width,))))
    found += keys.norm(f'{base}pre_layrnorm', 'embedder/normed')       # sic
  else:
    found.append(keys.key(f'{at}.patch_embedding.bias', 'embedder/patch/bias'))
  if final_norm:
    found += keys.norm(f'{base}post_layernorm', 'norm')
  return Import(spec, found, jax.ShapeDtypeStruct((side, side, channels), np.float32), base, BUFFERS,
                spare=SPARE[base])


def _body(c: Config, base: str, usual: Mapping[str, Any], causal: bool) -> tuple[dict[str, Any], list[Key]]:
  get = lambda name: c(name, usual[name])
  width, depth, heads = (get(n) for n in ('hidden_size', 'num_hidden_layers', 'num_attention_heads'))
  for name in ('is_decoder', 'is_encoder_decoder', 'add_cross_attention'):
    c.only(name, False)
  c.leave('cross_attention_hidden_size', 'tie_encoder_decoder', 'tie_word_embeddings')       # of the base class
  spec = dict(
      depth=depth, width=width, mixer=dict(name='attention', heads=heads, causal=causal),
      channel=dict(name='mlp', size=get('intermediate_size'), act=activation(c, get('hidden_act'))),
      norm=dict(name='layer', epsilon=get('layer_norm_eps')), placement=dict(name='pre'))
  def block(i: int, at: str) -> Iterable[Key]:
    b = f'{base}encoder.layers.{i}'
    yield from keys.norm(f'{b}.layer_norm1', f'{at}/residual/mixer_norm')
    names = [f'{b}.self_attn.{n}_proj' for n in ('q', 'k', 'v', 'out')]
    yield from keys.attention(at, names, heads, width // heads)
    yield from keys.norm(f'{b}.layer_norm2', f'{at}/residual/channel_norm')
    yield from keys.linear(f'{b}.mlp.fc1', f'{at}/channel/in')
    yield from keys.linear(f'{b}.mlp.fc2', f'{at}/channel/out')
  return spec, keys.blocks(depth, block)


def _length(c: Config, name: str, usual: Mapping[str, Any]) -> int:
  value = c(name, usual[name])
  if not isinstance(value, int) or value < 1:
    raise ValueError(f'{c.where}: {name} is {value!r}; supported: one length for rows and columns')
  return value
