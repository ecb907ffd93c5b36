"""The skeleton of every network: embed -> stages of blocks(mixer, channel) -> norm -> head, with the standard sites.

Every part is a spec, `dict(name='window', size=3)`, found in its family, so that a network is data and another part is
another name. The stream is `[B, T, D]` throughout: tokens of a text, patches or pixels of an image in reading order,
and a single token for a vector.
"""
import dataclasses
from typing import Any, Mapping

from flax import core
from flax import linen as nn
import jax
import jax.numpy as jnp

from aspects import plugin
from aspects.sites import tag

Array = jax.Array
Spec = Mapping[str, Any]

# The parts of a network: the family of each, and the fields that the skeleton gives to it.
PARTS = {'embed': ('embeds', ('width',)), 'mixer': ('mixers', ()), 'channel': ('channels', ()), 'norm': ('norms', ()),
         'placement': ('placements', ('norm', 'branch', 'depth')), 'branch': ('branches', ('depth',)),
         'stack': ('stacks', ('block', 'depth')), 'transition': ('transitions', ('width',)),
         'head': ('heads', ('outputs',))}


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
      where = {'layer': layer} if getattr(mixer, 'by_layer', False) else {}
      sublayers['mixer'] = lambda h: mixer(h, mask=mask, positions=positions, **where)
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

  `stages` splits it: each is `(depth, width)`, with `transition` between, one spec or a tuple of as many as there are
  boundaries; then `depth` and `width` are unused. Parts that are None are left out; `final_norm=False` leaves out the
  norm before the head. `outputs` is the size of the head. `positions` [T] or [B, T] are 0, 1, ... unless given;
  `types` int [B, T] are the segments of a text, for an embedding that tells them apart.
  """
  outputs: int
  embed: Spec
  head: Spec
  mixer: Spec | None = None
  channel: Spec | None = None
  norm: Spec = core.FrozenDict(name='layer')
  placement: Spec = core.FrozenDict(name='pre')
  branch: Spec | None = None
  stack: Spec = core.FrozenDict(name='plain')
  transition: Spec | None = None
  depth: int = 4
  width: int = 64
  final_norm: bool = True
  stages: tuple[tuple[int, int], ...] = ()
  dtype: str = 'float32'

  def __post_init__(self):
    for field in PARTS:                              # networks that hash by value let `forward` compile once
      object.__setattr__(self, field, plugin.freeze(getattr(self, field), core.FrozenDict))
    object.__setattr__(self, 'stages', plugin.freeze(self.stages))
    super().__post_init__()

  @nn.compact
  def __call__(self, inputs: Array, mask: Array | None = None, positions: Array | None = None,
               types: Array | None = None) -> Array:
    stages = self.stages or ((self.depth, self.width),)
    total, layer = sum(depth for depth, _ in stages), 0
    part = lambda family, spec, name, **given: plugin.build(family, spec, dtype=self.dtype, **given, name=name)
    embedder = part('embeds', self.embed, 'embedder', width=stages[0][1])
    placed = {'positions': positions, 'types': types} if getattr(embedder, 'by_position', False) else {}
    x = tag(self, 'embed', embedder(inputs, **placed))
    for i, (depth, width) in enumerate(stages):
      if i:
        between = self.transition[i - 1] if isinstance(self.transition, tuple) else self.transition
        x = part('transitions', between, f'transition_{i}', width=width)(x)
      block = BlockSpec((('mixer', self.mixer), ('channel', self.channel), ('norm', self.norm),
                         ('placement', self.placement), ('branch', self.branch), ('depth', total),
                         ('dtype', self.dtype)))
      stack = plugin.build('stacks', self.stack, block=block, depth=depth, name=f'stage_{i}')
      x = stack(x, first=layer, mask=mask, positions=jnp.arange(x.shape[1]) if positions is None else positions)
      layer += depth
    x = tag(self, 'final_norm', part('norms', self.norm, 'norm')(x, None) if self.final_norm else x)
    head = part('heads', self.head, 'head', outputs=self.outputs)
    tied = {'table': embedder.table()} if getattr(head, 'tied', False) else {}
    return head(x, mask, **tied)


def check(spec: Spec) -> None:
  """Checks a network's spec and its parts, nested ones too, by name and field before anything is made.

  Raises:
    ValueError: with the place (`net.mixer`), the value and the nearest valid name.
  """
  known = plugin.fields(Net)
  for field in spec:
    if field not in known:
      raise ValueError(f'net has no field {field!r}; {plugin.nearest(field, known)}')
  for field, required in known.items():
    if required and field != 'outputs' and spec.get(field) is None:   # the size of the head may come from the task
      raise ValueError(f'net needs the field {field!r}')
  _check_parts(spec, 'net')
  stages, transition = len(spec.get('stages', ())), spec.get('transition')
  if stages > 1 and not transition:
    raise ValueError(f"net.stages has {stages} stages and net.transition is not given; for example "
                     "dict(name='strided')")
  if isinstance(transition, (tuple, list)) and len(transition) != stages - 1:
    raise ValueError(f'net.transition lists {len(transition)} parts for {stages} stages; give one for each boundary')


def _check_parts(spec: Spec, where: str) -> None:
  for field, (family, given) in PARTS.items():
    for part in _each(spec.get(field)):
      plugin.check(family, part, (*given, 'dtype'), f'{where}.{field}')
      _check_parts(part, f'{where}.{field}')


def _each(part: Any) -> tuple:
  """The specs of a field: none, one, or those of a tuple."""
  return () if part is None else tuple(part) if isinstance(part, (tuple, list)) else (part,)


def to_scanned(params: Mapping) -> dict:
  """Parameters of unrolled stacks as those of scanned ones: `block_0, block_1, ...` become `block` with a layer axis.

  Raises:
    ValueError: no stage of `params` has numbered blocks, or those of one stage differ in shape.
  """
  out = dict(params)
  for stage in _stages(params, 'block_0'):
    blocks = [params[stage][f'block_{i}'] for i in range(len(params[stage]))]
    if len({str(jax.tree.map(jnp.shape, block)) for block in blocks}) > 1:
      raise ValueError(f'the blocks of {stage!r} differ in their parameters, so that they cannot be scanned')
    out[stage] = {'block': jax.tree.map(lambda *x: jnp.stack(x), *blocks)}
  return out


def to_unrolled(params: Mapping) -> dict:
  """The inverse of `to_scanned`.

  Raises:
    ValueError: no stage of `params` is scanned, or a block has no layer axis.
  """
  out = dict(params)
  for stage in _stages(params, 'block'):
    depth, *others = {x.shape[:1] for x in jax.tree.leaves(params[stage]['block'])}
    if others or not depth:
      raise ValueError(f"the parameters of {stage!r} have no layer axis in common: its block is not scanned but shared")
    out[stage] = {f'block_{i}': jax.tree.map(lambda x: x[i], params[stage]['block']) for i in range(depth[0])}
  return out


def _stages(params: Mapping, block: str) -> list[str]:
  found = [k for k in params if k.startswith('stage_') and block in params[k]]
  if not found:
    raise ValueError(f'no stage of these parameters has a {block!r}; they have {sorted(params)}')
  return found
