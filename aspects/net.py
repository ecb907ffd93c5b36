"""The skeleton of every network: embed -> stages of blocks(mixer, channel) -> norm -> head. The standard sites live here.

Every part is a spec, `dict(name='window', size=3)`, found in its family, so that a network is data and another part is
another name. The stream is `[B, T, D]` throughout: tokens of a text, patches or pixels of an image in reading order, and
a single token for a vector.
"""
import dataclasses
from typing import Any, Mapping

from flax import linen as nn
import jax
import jax.numpy as jnp

from aspects import plugin
from aspects.sites import tag

Array = jax.Array
Spec = Mapping[str, Any]


class Block(nn.Module):
  """One layer: the sublayers `mixer` (between tokens) and `channel` (within a token), joined by a placement."""
  mixer: Spec | None
  channel: Spec | None
  norm: Spec
  placement: Spec
  branch: Spec | None
  depth: int
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, layer: Array, mask: Array | None, positions: Array) -> Array:
    sublayers = {}
    if self.mixer is not None:
      mixer = plugin.build('mixers', self.mixer, dtype=self.dtype, name='mixer')
      sublayers['mixer'] = lambda h: mixer(h, mask=mask, positions=positions)
    if self.channel is not None:
      sublayers['channel'] = plugin.build('channels', self.channel, dtype=self.dtype, name='channel')
    join = plugin.build('placements', self.placement, norm=self.norm, branch=self.branch, depth=self.depth,
                        dtype=self.dtype, name='residual')
    return join(x, sublayers, layer)


@dataclasses.dataclass(frozen=True)
class BlockSpec:
  """What a stack needs to make blocks: `make('block_0')(x, layer, mask, positions)`."""
  fields: tuple[tuple[str, Any], ...]

  def make(self, name: str) -> nn.Module:
    return Block(**dict(self.fields), name=name)


class Net(nn.Module):
  """A residual network of `depth` blocks and `width` units; called with inputs [B, ...] and an optional mask [B, T].

  `stages` splits it: each is `(depth, width)`, with `transition` between; then `depth` and `width` are unused.
  Parts that are None are left out. `outputs` is the size of the head.
  """
  outputs: int
  embed: Spec
  head: Spec
  mixer: Spec | None = None
  channel: Spec | None = None
  norm: Spec = dataclasses.field(default_factory=lambda: {'name': 'layer'})
  placement: Spec = dataclasses.field(default_factory=lambda: {'name': 'pre'})
  branch: Spec | None = None
  stack: Spec = dataclasses.field(default_factory=lambda: {'name': 'plain'})
  transition: Spec | None = None
  depth: int = 4
  width: int = 64
  stages: tuple[tuple[int, int], ...] = ()
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, inputs: Array, mask: Array | None = None) -> Array:
    stages = self.stages or ((self.depth, self.width),)
    total, layer = sum(depth for depth, _ in stages), 0
    part = lambda family, spec, name, **given: plugin.build(family, spec, dtype=self.dtype, **given, name=name)
    x = tag(self, 'embed', part('embeds', self.embed, 'embedder', width=stages[0][1])(inputs))
    for i, (depth, width) in enumerate(stages):
      if i:
        x = part('transitions', self.transition, f'transition_{i}', width=width)(x)
      block = BlockSpec((('mixer', self.mixer), ('channel', self.channel), ('norm', self.norm),
                         ('placement', self.placement), ('branch', self.branch), ('depth', total),
                         ('dtype', self.dtype)))
      stack = plugin.build('stacks', self.stack, block=block, depth=depth, name=f'stage_{i}')
      x = stack(x, first=layer, mask=mask, positions=jnp.arange(x.shape[1]))
      layer += depth
    x = tag(self, 'final_norm', part('norms', self.norm, 'norm')(x, None))
    return part('heads', self.head, 'head', outputs=self.outputs)(x, mask)


def check(spec: Spec) -> None:
  """Checks the parts of a network's spec by name and field before anything is made.

  Raises:
    ValueError: with the place (`net.mixer`), the value and the nearest valid name.
  """
  given = {'mixers': (), 'channels': (), 'norms': (), 'placements': ('norm', 'branch', 'depth'), 'branches': ('depth',),
           'stacks': ('block', 'depth'), 'embeds': ('width',), 'heads': ('outputs',), 'transitions': ('width',)}
  for field, family in (('embed', 'embeds'), ('mixer', 'mixers'), ('channel', 'channels'), ('norm', 'norms'),
                        ('placement', 'placements'), ('branch', 'branches'), ('stack', 'stacks'),
                        ('transition', 'transitions'), ('head', 'heads')):
    if field in spec and spec[field] is not None:
      plugin.check(family, spec[field], (*given[family], 'dtype'), f'net.{field}')
  if len(spec.get('stages', ())) > 1 and not spec.get('transition'):
    raise ValueError(f"net.stages has {len(spec['stages'])} stages and net.transition is not given; "
                     "for example dict(name='strided')")


def to_scanned(params: Mapping, stage: str = 'stage_0') -> dict:
  """Parameters of an unrolled stack as those of the scanned one: `block_0, block_1, ...` become `block` with a layer axis."""
  blocks = sorted((k for k in params[stage] if k.startswith('block_')), key=lambda k: int(k[6:]))
  joined = jax.tree.map(lambda *x: jnp.stack(x), *(params[stage][b] for b in blocks))
  return {**params, stage: {'block': joined}}


def to_unrolled(params: Mapping, stage: str = 'stage_0') -> dict:
  """The inverse of `to_scanned`."""
  stacked = params[stage]['block']
  depth = jax.tree.leaves(stacked)[0].shape[0]
  return {**params, stage: {f'block_{i}': jax.tree.map(lambda x: x[i], stacked) for i in range(depth)}}
