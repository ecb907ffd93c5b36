"""What the importers of vision transformers share: patches, pre-norm blocks, layer scale, and the names of `vit`."""
from typing import Any, Iterable

import jax
import numpy as np

from aspects.nn import keys
from aspects.nn.decoders import activation
from aspects.nn.huggingface import Config, Import

MASK_TOKEN = r'(.*\.)?embeddings\.mask_token'         # of pretraining; written back, never read
POOLER = r'(.*\.)?pooler\.dense\.(weight|bias)'       # behind the tokens that are read here


def pair(c: Config, name: str, default: int) -> tuple[int, int]:
  """A length, or one for rows and one for columns."""
  value = c(name, default)
  both = (value, value) if isinstance(value, int) else tuple(value)
  if len(both) != 2 or not all(isinstance(v, int) and v > 0 for v in both):
    raise ValueError(f'{c.where}: {name} is {value!r}; give a length, or those of rows and columns')
  return both


def square(c: Config, name: str, default: int) -> int:
  """A length that is the same for rows and columns."""
  rows, columns = pair(c, name, default)
  if rows != columns:
    raise ValueError(f'{c.where}: {name} is {[rows, columns]}; supported: as many rows as columns')
  return rows


def backbone(c: Config) -> None:
  """Fields that say which feature maps a detector would read."""
  c.leave('out_features', 'out_indices', 'stage_names', 'apply_layernorm', 'reshape_hidden_states')


def vision(c: Config, base: str, head: dict[str, Any], classifiers: Iterable[tuple[str, str]] = (), *, epsilon: float,
           patch: int = 16, hidden: int | None = None, gated: bool = False, layer_scale: bool = False,
           names: tuple[str, str] = ('layernorm_before', 'layernorm_after'),
           mlp: tuple[str, str] = ('intermediate.dense', 'output.dense'), embed: dict[str, Any] = {},
           tokens: dict[str, str] = {}) -> Import:
  """A vision transformer whose tensors are named `base`.*; `head` is the spec of its head, `classifiers` the linear
  maps of that, (theirs, ours).

  `hidden` units in its MLP, intermediate_size unless given; `gated` ones have a fused input map. `names` are the norms
  of a block, `mlp` its maps, `tokens` {theirs: ours} further tokens of the embedding, whose fields are `embed`.
  """
  width, depth, heads = c('hidden_size', 768), c('num_hidden_layers', 12), c('num_attention_heads', 12)
  channels, bias, size = c('num_channels', 3), c.only('qkv_bias', True, False), square(c, 'patch_size', patch)
  sides, head_size = pair(c, 'image_size', 224), c('head_dim', None) or width // heads
  hidden = hidden or c('intermediate_size', 3072)
  act = activation(c, c('hidden_act', 'gelu'))
  channel = dict(name='gated_mlp', size=hidden, bias=True) if gated else dict(name='mlp', size=hidden, act=act)
  spec = dict(
      outputs=c.labels() if classifiers else width, depth=depth, width=width, head=head, channel=channel,
      embed=dict(name='patches', size=size, grid=tuple(s // size for s in sides), **embed),
      mixer=dict(name='attention', heads=heads, head_size=head_size, bias=bias),
      norm=dict(name='layer', epsilon=c('layer_norm_eps', epsilon)), placement=dict(name='pre'))
  if layer_scale:
    spec['branch'] = dict(name='layer_scale')
  def block(i, at):
    b = f'{base}.encoder.layer.{i}'
    for theirs, ours in zip(names, ('mixer', 'channel')):
      yield from keys.norm(f'{b}.{theirs}', f'{at}/residual/{ours}_norm')
    inner = [f'{b}.attention.attention.{n}' for n in ('query', 'key', 'value')]
    yield from keys.attention(at, [*inner, f'{b}.attention.output.dense'], heads, head_size, bias=bias)
    if gated:                                          # the first half goes through the nonlinearity
      both = [f'{at}/channel/pre', f'{at}/channel/gate']
      for kind, ours, form in (('weight', 'kernel', keys.turned), ('bias', 'bias', keys.same)):
        yield keys.key(f'{b}.{mlp[0]}.{kind}', [f'{n}/{ours}' for n in both], keys.fused([hidden] * 2, [form] * 2))
    else:
      yield from keys.linear(f'{b}.{mlp[0]}', f'{at}/channel/in')
    yield from keys.linear(f'{b}.{mlp[1]}', f'{at}/channel/out')
    for theirs, ours in (('layer_scale1', 'mixer'), ('layer_scale2', 'channel')) if layer_scale else ():
      yield keys.key(f'{b}.{theirs}.lambda1', f'{at}/residual/{ours}_branch/gain')
  at = f'{base}.embeddings'
  found = [keys.key(f'{at}.patch_embeddings.projection.weight', 'embedder/patch/kernel', keys.image),
           keys.key(f'{at}.patch_embeddings.projection.bias', 'embedder/patch/bias'),
           keys.key(f'{at}.position_embeddings', 'embedder/position'), *keys.blocks(depth, block),
           *keys.norm(f'{base}.layernorm', 'norm')]
  found += [keys.key(f'{at}.{theirs}', f'embedder/{ours}') for theirs, ours in
            {'cls_token': 'class_token', **tokens}.items()]
  for theirs, ours in classifiers:
    found += keys.linear(theirs, f'head/{ours}')
  return Import(spec, found, jax.ShapeDtypeStruct((*sides, channels), np.float32), f'{base}.',
                spare=(MASK_TOKEN, POOLER))
