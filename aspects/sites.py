"""Sites: names on tensors. `x = tag(self, 'resid_post', x)` plants an edit, if there is one, then records the value.

A site is spelled `slot.layer`, `resid_post.3`, whether the blocks are unrolled, scanned or share their weights. Layers
are numbered in forward order, flattened over stages. Outside a block a slot stands alone (`embed`, `logits`). A module
called several times in its block, or scanned inside it, keeps `@k`. Modules without a `tag` are addressed by their
path, `Block_1/Dense_0`, and can be recorded, not edited. The table of slots is in `docs/sites.md`.
"""
import collections
import contextvars
import fnmatch
import functools
import re
from typing import Any, Iterable, Mapping, NamedTuple

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from aspects.plugin import nearest

Array = jax.Array

# What the trace in progress passed, (path, slot, shapes of what is sown), in forward order; no shapes: an edit is read.
# Only ever set around one `apply` inside one trace.
_trace: contextvars.ContextVar[list | None] = contextvars.ContextVar('trace', default=None)
_BLOCK = re.compile(r'(?i)(.*[a-z_])?(block|layer)s?(_?\d+)?$')
_NUMBERED = re.compile(r'.*_\d+$')


def tag(module: nn.Module, slot: str, x: Array) -> Array:
  """Names `x`, of any shape: applies the edit planted at this site, if any, then records the value."""
  if module.has_variable('edits', slot):
    x = module.get_variable('edits', slot)(x)
    _passed(module, slot, None)
  _passed(module, slot, [jnp.shape(x)])
  module.sow('intermediates', slot, x)
  return x


def _passed(module, slot, shapes):
  if (trace := _trace.get()) is not None:
    trace.append((module.path, slot, shapes))


def _flatten(tree) -> dict:
  return traverse_util.flatten_dict(tree, is_leaf=lambda _, v: not isinstance(v, Mapping))


def _arrays(tree) -> list:
  return [x for x in jax.tree.leaves(tree) if hasattr(x, 'shape')]


class Site(NamedTuple):
  """Where the value of a name is found: sown at `path` under `slot`, by call `call`, at `row` of scanned axes."""
  name: str
  path: tuple[str, ...]
  slot: str
  call: int
  row: tuple[int, ...]
  calls: int
  leaf: int = 0

  def read(self, intermediates: Mapping) -> Array:
    """The value of this site in an `intermediates` collection."""
    node = functools.reduce(lambda tree, key: tree[key], self.path, intermediates)
    return _arrays(node[self.slot][self.call])[self.leaf][self.row]


# --- discovery ------------------------------------------------------------------------------------------------------

def _apply(net, variables, inputs, kwargs, modules: bool, keep=()):
  """(outputs, intermediates, trace, collections `keep` after it) of one application; with `modules` the outputs of all
  modules are sown too."""
  def note(call, args, kwargs, context):
    out = call(*args, **kwargs)
    if modules and context.method_name == '__call__':
      _passed(context.module, '__call__', [x.shape for x in _arrays(out)])
    return out
  variables = {k: v for k, v in variables.items() if k != 'intermediates'}
  token = _trace.set(trace := [])
  try:
    with nn.intercept_methods(note):
      out, state = net.apply(variables, *inputs, mutable=['intermediates', *keep],
                             capture_intermediates=lambda _, method: modules and method == '__call__', **kwargs)
  finally:
    _trace.reset(token)
  return out, state.get('intermediates', {}), trace, {name: state[name] for name in keep}


class _Found(NamedTuple):
  """Something sown, when it was passed, and the lengths of the scanned axes before its own."""
  path: tuple[str, ...]
  slot: str
  positions: tuple[int, ...]
  lead: tuple[int, ...]
  calls: int
  leaf: int


def _occurrences(trace, intermediates) -> list[_Found]:
  passed = {}
  for position, (path, slot, shapes) in enumerate(trace):
    if shapes is not None:
      passed.setdefault((path, slot), (shapes, []))[1].append(position)
  sown = _flatten(intermediates)
  _refuse_lost(passed, sown)
  found = []
  for (*path, slot), values in sown.items():
    if (tuple(path), slot) not in passed:
      continue                                       # sown without `tag`: not a site
    shapes, positions = passed[tuple(path), slot]
    for leaf, (value, shape) in enumerate(zip(_arrays(values[0]), shapes)):
      lead = value.shape[:value.ndim - len(shape)]
      if value.shape[len(lead):] != shape:
        raise ValueError(f'{"/".join(path)}: {slot!r} has shape {shape} and is stacked to {value.shape}; stack it in '
                         "front, nn.scan(..., variable_axes={'intermediates': 0, 'edits': 0})")
      found.append(_Found(tuple(path), slot, tuple(positions), lead, len(values), leaf))
  return found


def _refuse_lost(passed, sown):
  """A tag that left no value, or a value whose tag was not passed, would be dropped in silence."""
  for path, slot in passed:
    if slot != '__call__' and path + (slot,) not in sown:
      raise ValueError(f'the tag {slot!r} in {"/".join(path)!r} left no value: a lifted transformation drops it; write '
                       "nn.scan(..., variable_axes={'params': 0, 'intermediates': 0, 'edits': 0})")
  slots = {slot for _, slot in passed} - {'__call__'}
  for *path, slot in sown:
    if slot in slots and (tuple(path), slot) not in passed:
      raise ValueError(f'{"/".join(path)!r} sows {slot!r}, the name of a site, without passing a tag: it is sown by '
                       'hand (use tag) or reuses a trace of nn.jit (leave it out: forward compiles the whole network)')


def _layer_prefix(path, pattern) -> tuple[str, ...] | None:
  """The outermost part of `path` that names a block."""
  return next((path[:k + 1] for k, part in enumerate(path) if pattern.match(part)), None)


class _Group(NamedTuple):
  """Modules that take turns: one module, or all that lie in one scanned body; {path: when it was first passed}."""
  lead: tuple[int, ...]
  first: dict[tuple[str, ...], int]
  start: int
  end: int


def _groups(modules) -> list[_Group]:
  """Groups `modules`, {(path, scanned axes): [found]}, in forward order."""
  groups = []
  for (path, lead), found in sorted(modules.items(), key=lambda m: min(f.positions[0] for f in m[1])):
    start, end = min(f.positions[0] for f in found), max(f.positions[-1] for f in found)
    last = groups[-1] if groups else None
    # flax traces a scanned body more than once, so that the passes of its modules interleave.
    if lead and last and lead == last.lead and start < last.end:
      groups[-1] = _Group(lead, last.first | {path: start}, last.start, max(last.end, end))
    else:
      groups.append(_Group(lead, {path: start}, start, end))
  return groups


def _number_layers(blocks) -> dict[tuple, tuple[int, int]]:
  """{(block, row, scanned axes): (start of its group, layer)}; blocks of one scanned body take turns."""
  numbers, layer, last = {}, 0, None
  for group in _groups(blocks):
    if last and last.lead and group.lead and group.start < last.end:
      raise ValueError(f'the blocks {["/".join(b) for b in (*last.first, *group.first)]} stand at different depths of '
                       'nested scans, so their layers have no single order; scan them at one depth')
    for row in np.ndindex(*group.lead):
      for prefix in group.first:
        numbers[prefix, row, group.lead] = (group.start, layer)
        layer += 1
    last = group
  return numbers


def _prefixes(found: list[_Found]) -> list[tuple[str, ...] | None]:
  """The block that each site lies in; without one, a numbered module where the slot alone would not be a name."""
  prefixes = [_layer_prefix(f.path, _BLOCK) for f in found]
  alone = [f.slot for f, prefix in zip(found, prefixes) if prefix is None]
  for i, f in enumerate(found):
    if prefixes[i] is None and (alone.count(f.slot) > 1 or f.lead):
      prefixes[i] = _layer_prefix(f.path, _NUMBERED) or (f.path if f.lead else None)
  return prefixes


def _tagged_sites(found: list[_Found]) -> dict[str, Site]:
  prefixes = _prefixes(found)
  own, blocks, inside = {}, {}, {}                   # own: how many scanned axes hold the block; others lie inside it
  for f, prefix in zip(found, prefixes):
    own[prefix] = min(len(f.lead), own.get(prefix, len(f.lead)))
  for f, prefix in zip(found, prefixes):
    blocks.setdefault((prefix, f.lead[:own[prefix]]), []).append(f)
    inside.setdefault((prefix, f.lead), f.positions[0])
  numbers = _number_layers({key: fs for key, fs in blocks.items() if key[0] is not None})
  named = []
  for f, prefix in zip(found, prefixes):
    lead, inner = f.lead[:own[prefix]], f.lead[own[prefix]:]
    for row in np.ndindex(*f.lead):
      start, layer = (f.positions[0], -1) if prefix is None else numbers[prefix, row[:len(lead)], lead]
      step = int(np.ravel_multi_index(row[len(lead):], inner)) if inner else 0
      for call in range(f.calls):
        name = f.slot + (f'.{layer}' if layer >= 0 else '')
        name += f'@{step * f.calls + call}' if inner or f.calls > 1 else ''
        position = f.positions[min(call, len(f.positions) - 1)]
        order = (start, layer, inside[prefix, f.lead] if inner else position, step, position)
        named.append((order, Site(name, f.path, f.slot, call, row, f.calls)))
  return _unique(named)


def _module_sites(found: list[_Found]) -> dict[str, Site]:
  leaves = collections.Counter(f.path for f in found)
  start = {(path, group.lead): group.start for group in _groups({(f.path, f.lead): [f] for f in found})
           for path in group.first}
  named = []
  for f in found:
    for row in np.ndindex(*f.lead):
      for call in range(f.calls):
        name = '/'.join(f.path) or 'output'
        name += f'.{".".join(map(str, row))}' if row else ''
        name += (f'@{call}' if f.calls > 1 else '') + (f':{f.leaf}' if leaves[f.path] > 1 else '')
        order = (start[f.path, f.lead], row, f.positions[min(call, len(f.positions) - 1)], f.leaf)
        named.append((order, Site(name, f.path, f.slot, call, row, f.calls, f.leaf)))
  return _unique(named)


def _unique(found) -> dict[str, Site]:
  named = {}
  for _, site in sorted(found, key=lambda kv: kv[0]):
    if site.name in named:
      raise ValueError(f'two tensors claim the site {site.name!r}: {"/".join(named[site.name].path)} and '
                       f'{"/".join(site.path)}; give one of them another slot')
    named[site.name] = site
  return named


class Map(NamedTuple):
  """All sites of a network with their shapes: `tagged` ones, which can be edited, and `modules`, which cannot."""
  tagged: dict[str, Site]
  modules: dict[str, Site]
  specs: dict[str, jax.ShapeDtypeStruct]


def survey(net: nn.Module, variables, *inputs, modules: bool | None = None, keep=(), **kwargs) -> Map:
  """Finds the sites of `net` by tracing it abstractly; nothing runs.

  `modules=True` adds the outputs of all modules by path; None adds them only if the network has no tag.

  Raises:
    ValueError: a tag whose value is lost in a lifted transformation, or a name that two tensors claim.
  """
  kept = {}
  def trace(variables, *inputs):
    _, intermediates, passed, _ = _apply(net, variables, inputs, kwargs, modules is not False, keep)
    found = _occurrences(passed, intermediates)
    kept['tagged'] = _tagged_sites([f for f in found if f.slot != '__call__'])
    kept['modules'] = {} if modules is None and kept['tagged'] else _module_sites(
        [f for f in found if f.slot == '__call__'])
    both = kept['tagged'] | kept['modules']
    return {name: site.read(intermediates) for name, site in both.items()}
  specs = jax.eval_shape(trace, variables, *inputs)
  return Map(kept['tagged'], kept['modules'], {n: specs[n] for n in kept['tagged'] | kept['modules']})


def sites(net: nn.Module, variables, *inputs, **kwargs) -> dict[str, jax.ShapeDtypeStruct]:
  """Every site of the network with its shape and dtype, in forward order, without running it."""
  return survey(net, variables, *inputs, **kwargs).specs


# --- selection ------------------------------------------------------------------------------------------------------

# Names in TransformerLens where they mean the same tensor, under `blocks.{layer}.`. `hook_embed`, `hook_normalized`,
# `hook_attn_in` and `hook_mlp_in` mean others (without positions; without gain; before the norm) and are absent.
_HOOKS = {
    'resid_pre': 'hook_resid_pre', 'resid_mid': 'hook_resid_mid', 'resid_post': 'hook_resid_post',
    'attn_out': 'hook_attn_out', 'mlp_out': 'hook_mlp_out', 'q': 'attn.hook_q', 'k': 'attn.hook_k', 'v': 'attn.hook_v',
    'q_rot': 'attn.hook_rot_q', 'k_rot': 'attn.hook_rot_k', 'attn_scores': 'attn.hook_attn_scores',
    'attn_probs': 'attn.hook_pattern', 'z': 'attn.hook_z', 'mlp_pre': 'mlp.hook_pre',
    'mlp_gate': 'mlp.hook_pre_linear', 'mlp_act': 'mlp.hook_post'}
# Its post-norm block has `hook_resid_mid` and `hook_resid_post` before the norm, where this library has them after it.
_POST_NORM_HOOKS = _HOOKS | {'resid_mid': None, 'mixer_sum': 'hook_resid_mid', 'channel_sum': 'hook_resid_post',
                             'resid_post': 'hook_normalized_resid_post'}
# Names in interp-engine that differ from this library's and mean the same tensor.
_POINTS = {'attn_out': 'attn_out_post', 'mlp_out': 'mlp_out_post', 'mlp_gate': 'mlp_pre_linear', 'v': 'value'}
_ALIAS = re.compile(r'attn_|mlp_|value\.|blocks\.')


def _aliases(names: Iterable[str]) -> dict[str, str]:
  """{other spelling: name}, only where both mean the same tensor in this network."""
  names, out = set(names), {}
  for name in names:
    slot, dot, layer = name.partition('.')
    if not slot.endswith('_sum'):
      slot = slot.replace('mixer_', 'attn_') if f'z{dot}{layer}' in names else slot
      slot = slot.replace('channel_', 'mlp_')
    out[slot + dot + layer] = name
    if slot in _POINTS:
      out[_POINTS[slot] + dot + layer] = name
    hooks = _POST_NORM_HOOKS if {f'mixer_sum.{layer}', f'channel_sum.{layer}'} & names else _HOOKS
    if dot and hooks.get(slot):
      out[f'blocks.{layer}.{hooks[slot]}'] = name
  return {alias: name for alias, name in out.items() if alias not in names}


def _from_the_end(pattern: str, spelled: Iterable[str]) -> str:
  """Turns a negative layer of `pattern` into the layer that it counts to."""
  negative = re.search(r'(?<=\.)-\d+(?=[.@]|$)', pattern)
  if not negative:
    return pattern
  head, tail = pattern[:negative.start()], pattern[negative.end():]
  numbered = re.compile(fnmatch.translate(f'{head}\0{tail}').replace('\0', r'(\d+)'))
  layers = sorted({int(m[1]) for n in spelled if (m := numbered.match(n))})
  if layers and int(negative[0]) < -len(layers):
    raise ValueError(f'site {pattern!r}: there are {len(layers)} layers of {head + "*" + tail!r}, so the first is '
                     f'{head}-{len(layers)}{tail}')
  return f'{head}{layers[int(negative[0])]}{tail}' if layers else pattern


def _no_match(pattern: str, names: Iterable[str]) -> str:
  hook = re.fullmatch(r'blocks\.[^.]+\.(.+)', pattern)
  if hook and hook[1] not in {*_HOOKS.values(), *_POST_NORM_HOOKS.values()}:
    return f'no tensor here has the meaning of {hook[1]!r}; {nearest(hook[1], {h for h in _HOOKS.values() if h})}'
  attention = re.fullmatch(r'attn_(in|raw|out)(\..*)?', pattern)
  if attention:
    other = f'mixer_{attention[1]}{attention[2] or ""}'
    return f'no attention computes that tensor in this network; what mixes its tokens is named {other!r}'
  return nearest(pattern, names)


def select(patterns: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
  """The names that match any of `patterns` (globs, aliases, negative layers), in the order of `names`.

  Of several networks names are `network:site`. A pattern without a network asks all that have such a site.

  Raises:
    ValueError: a pattern matches nothing; the message names the nearest sites.
  """
  names, chosen = list(names), set()
  if names and all(':' in n for n in names):
    return _select_of_networks((patterns,) if isinstance(patterns, str) else patterns, names)
  for pattern in (patterns,) if isinstance(patterns, str) else patterns:
    spelled = {n: n for n in names} | (_aliases(names) if _ALIAS.match(pattern) else {})
    wanted = _from_the_end(pattern, spelled)
    hits = [wanted] if wanted in spelled else [s for s in spelled if fnmatch.fnmatchcase(s, wanted)]
    if not hits:
      raise ValueError(f'no site matches {pattern!r}; {_no_match(pattern, names)}')
    chosen.update(spelled[hit] for hit in hits)
  return tuple(n for n in names if n in chosen)


def _select_of_networks(patterns, names: list[str]) -> tuple[str, ...]:
  own = {}
  for name in names:
    own.setdefault(name.split(':')[0], []).append(name.split(':', 1)[1])
  chosen = set()
  for pattern in patterns:
    network, site = pattern.split(':', 1) if ':' in pattern else ('*', pattern)
    asked = [n for n in own if fnmatch.fnmatchcase(n, network)]
    if not asked:
      raise ValueError(f'no network is called {network!r}; there are {", ".join(own)}')
    hits = [n for n in asked if matches(site, own[n])]
    if not hits:
      select((site,), own[asked[0]])                 # raises, and names the nearest
    chosen |= {f'{n}:{s}' for n in hits for s in select((site,), own[n])}
  return tuple(n for n in names if n in chosen)


# --- forward --------------------------------------------------------------------------------------------------------

def _stack(edits: dict[tuple[int, ...], Any], lead: tuple[int, ...]):
  """One edit whose arrays have the scanned axes in front: `edits` at their rows, switched off elsewhere."""
  filler = next(iter(edits.values()))
  rows = list(np.ndindex(*lead))
  def join(*leaves):
    stacked = jnp.stack([jnp.asarray(x) for x in leaves])
    return stacked.reshape(lead + stacked.shape[1:])
  joined = jax.tree.map(join, *(edits.get(row, filler) for row in rows))
  here = jnp.asarray([row in edits for row in rows]).reshape(lead + (1,) * (joined.on.ndim - len(lead)))
  return joined.replace(on=joined.on & jnp.broadcast_to(here, joined.on.shape))


def _kind(edit) -> tuple:
  """What edits must have in common to be stacked as one."""
  leaves, structure = jax.tree.flatten(edit)
  return structure, tuple((jnp.shape(x), jnp.result_type(x)) for x in leaves)


def _links(chosen: Mapping[tuple[int, ...], list], lead: tuple[int, ...]) -> list:
  """The edits of one slot, {row: [edits in order]}, as few edits applied in order."""
  if not lead:
    return chosen[()]
  links = []
  for k in range(max(map(len, chosen.values()))):
    kinds = {}
    for row, edits in chosen.items():
      if k < len(edits):
        kinds.setdefault(_kind(edits[k]), {})[row] = edits[k]
    links += [_stack(alike, lead) for alike in kinds.values()]
  return links


def plant(edits: Mapping[str, Any], found: Map) -> dict:
  """{pattern: edit} as the `edits` collection that `tag` reads; several edits of one site apply in order.

  Raises:
    ValueError: a pattern that matches no site, a site that cannot be edited, or something that is not an edit.
  """
  from aspects.edits import Chain, Edit
  planted: dict[tuple, dict] = {}
  for pattern, edit in edits.items():
    links = edit.links if isinstance(edit, Chain) else (edit,)
    if not all(isinstance(link, Edit) for link in links):
      raise ValueError(f'what is given for {pattern!r} is not an edit; give an aspects.edits.Edit, such as Skip()')
    if not matches(pattern, found.tagged):
      select((pattern,), found.specs)
      raise ValueError(f'site {pattern!r} is the output of a module without a tag and can be recorded only; to edit '
                       f"it write x = tag(self, 'name', x) in the module")
    for name in select((pattern,), found.tagged):
      site = found.tagged[name]
      if site.calls > 1:
        raise ValueError(f'site {name!r} is one of {site.calls} calls of {"/".join(site.path)!r}, which read the same '
                         'edit; scan over the calls or give them modules of their own')
      planted.setdefault((*site.path, site.slot), {}).setdefault(site.row, []).extend(links)
  out = {}
  for key, chosen in planted.items():
    rows = [site.row for site in found.tagged.values() if (*site.path, site.slot) == key]
    links = _links(chosen, tuple(1 + max(axis) for axis in zip(*rows)))
    out[key] = links[0] if len(links) == 1 else Chain(tuple(links))
  return traverse_util.unflatten_dict(out)


def matches(pattern: str, names: Iterable[str]) -> bool:
  """Whether `pattern` selects any of `names`."""
  try:
    return bool(select((pattern,), names))
  except ValueError:
    return False


def record_sites(net, variables, inputs, record, edits, kwargs, keep=()):
  """The traceable body of `forward`; with collections to `keep`, what they hold afterwards is returned, too."""
  known = survey(net, variables, *inputs, keep=keep, **kwargs)
  if not all(matches(p, known.specs) for p in (*record, *edits)):
    known = survey(net, variables, *inputs, modules=True, keep=keep, **kwargs)
  wanted = select(record, known.specs)
  planted = plant(edits, known)
  if planted:
    variables = {**variables, 'edits': planted}
  modules = any(n in known.modules for n in wanted)
  out, intermediates, trace, kept = _apply(net, variables, inputs, kwargs, modules, keep)
  read = {(path, slot) for path, slot, shapes in trace if shapes is None}
  for *path, slot in _flatten(planted):
    if (tuple(path), slot) not in read:
      raise ValueError(f'the edit of {slot!r} in {"/".join(path)!r} was not read: a lifted transformation drops it; '
                       "write nn.scan(..., variable_axes={'params': 0, 'intermediates': 0, 'edits': 0})")
  # An OrderedDict leaves jit in the order it was made; a dict would come back sorted by name.
  acts = collections.OrderedDict((n, (known.tagged | known.modules)[n].read(intermediates)) for n in wanted)
  return (out, acts, kept) if keep else (out, acts)


class _Same:
  """A network whose fields cannot be hashed, known by being the same object."""

  def __init__(self, net: nn.Module):
    self.net = net

  def __hash__(self):
    return id(self.net)

  def __eq__(self, other):
    return isinstance(other, _Same) and self.net is other.net


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _forward_jit(net, record, static, variables, inputs, edits, kwargs):
  net = net.net if isinstance(net, _Same) else net
  return record_sites(net, variables, inputs, record, edits, {**dict(static), **kwargs})


def forward(net: nn.Module, variables, *inputs, record: Iterable[str] = (), edits: Mapping[str, Any] = {},
            **kwargs) -> tuple[Any, dict[str, Array]]:
  """Runs `net` with `edits` planted; returns (outputs, {site: value}) for the sites that match `record`.

  Compiled; other values of the variables, inputs and edits reuse the program. Further keywords go to `net.apply`.

  Raises:
    ValueError: a pattern of `record` or `edits` matches no site.
  Example:
    logits, acts = forward(net, variables, x, record=('resid_post.*',), edits={'mixer_out.2': Skip()})
  """
  record = (record,) if isinstance(record, str) else tuple(record)
  settings = {k: v for k, v in kwargs.items() if isinstance(v, (bool, str)) or callable(v)}
  traced = {k: v for k, v in kwargs.items() if k not in settings}
  try:
    hash(net)
  except TypeError:
    net = _Same(net)
  edits = collections.OrderedDict(edits)             # several edits of one site apply in the order given
  out, acts = _forward_jit(net, record, tuple(sorted(settings.items())), variables, inputs, edits, traced)
  return out, dict(acts)
