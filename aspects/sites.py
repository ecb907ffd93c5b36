"""Sites: names on tensors. `x = tag(self, 'resid_post', x)` plants an edit, if there is one, then records the value.

A site is spelled `slot.layer`, `resid_post.3`, whether the blocks are unrolled, scanned or share their weights. Layers are
numbered in forward order, flattened over stages. Outside a block a slot stands alone (`embed`, `logits`). A module called
twice keeps `@k`. Modules without a `tag` are addressed by their path, `Block_1/Dense_0`, and can be recorded, not edited.
The table of slots is in `docs/sites.md`.
"""
import collections
import contextlib
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

# What the trace in progress has passed, in forward order; only ever set around one `apply` inside one trace.
_trace: contextvars.ContextVar[list | None] = contextvars.ContextVar('trace', default=None)
_BLOCK = re.compile(r'(?i)(.*[a-z_])?(block|layer)s?(_?\d+)?$')
_NUMBERED = re.compile(r'.*_\d+$')


def tag(module: nn.Module, slot: str, x: Array) -> Array:
  """Names `x`, of any shape: applies the edit planted at this site, if any, then records the value."""
  if module.has_variable('edits', slot):
    x = module.get_variable('edits', slot)(x)
  trace = _trace.get()
  if trace is not None:
    trace.append((module.path, slot, jnp.ndim(x)))
  module.sow('intermediates', slot, x)
  return x


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
    value = node[self.slot][self.call]
    return jax.tree.leaves(value)[self.leaf][self.row]


# --- discovery ------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def _tracing():
  token = _trace.set([])
  try:
    yield _trace.get()
  finally:
    _trace.reset(token)


def _apply(net, variables, inputs, kwargs, modules: bool):
  """(outputs, intermediates, trace) of one application; with `modules` the outputs of all modules are sown too."""
  with _tracing() as trace:
    def passed(module, method):
      if method != '__call__':
        return False
      params = module.variables.get('params', {})
      trace.append((module.path, method, jax.tree.map(jnp.ndim, dict(params))))
      return True
    out, state = net.apply(variables, *inputs, mutable=['intermediates'],
                           capture_intermediates=passed if modules else False, **kwargs)
  return out, state.get('intermediates', {}), trace


def _scan_axes(path, inner_ndims, params) -> int:
  """How many axes scans have put in front of the parameters of the module at `path`."""
  outer = params
  for key in path:
    outer = outer.get(key, {}) if isinstance(outer, Mapping) else {}
  inner, outer = jax.tree.leaves(inner_ndims), jax.tree.leaves(jax.tree.map(jnp.ndim, outer))
  return outer[0] - inner[0] if inner and len(inner) == len(outer) else -1


def _occurrences(trace, intermediates, params):
  """(path, slot, position, scanned axes, calls, leaf) of everything sown, in forward order."""
  first, axes = {}, {}
  for position, (path, slot, seen) in enumerate(trace):
    first.setdefault((path, slot), (position, seen))
    if slot == '__call__':
      axes[path] = _scan_axes(path, seen, params)
  for path in sorted(axes, key=len):                 # a module without parameters stands in the scan of its parent
    if axes[path] < 0:
      axes[path] = next((axes[path[:k]] for k in range(len(path) - 1, 0, -1) if axes.get(path[:k], -1) >= 0), 0)
  flat = traverse_util.flatten_dict(intermediates, is_leaf=lambda _, v: not isinstance(v, Mapping))
  for key, values in flat.items():
    path, slot = key[:-1], key[-1]
    if (path, slot) not in first:
      continue                                       # sown without `tag`: not a site
    position, seen = first[path, slot]
    for leaf, value in enumerate(jax.tree.leaves(values[0])):
      lead = axes[path] if slot == '__call__' else value.ndim - seen
      yield path, slot, position, value.shape[:lead], len(values), leaf


def _layer_prefix(path, pattern) -> tuple[str, ...] | None:
  """The outermost part of `path` that names a block."""
  return next((path[:k + 1] for k, part in enumerate(path) if pattern.match(part)), None)


def _number_layers(occurrences) -> dict[tuple, tuple[int, int]]:
  """{(prefix, row): (position of its group, layer)} in forward order; blocks inside one scanned body interleave."""
  groups = {}
  for prefix, position, lead in occurrences:
    group = (prefix[:-1], lead) if lead else (prefix, lead)
    groups.setdefault(group, {}).setdefault(prefix, position)
  numbers, layer = {}, 0
  for (_, lead), prefixes in sorted(groups.items(), key=lambda g: min(g[1].values())):
    start = min(prefixes.values())
    for row in np.ndindex(*lead):
      for prefix in sorted(prefixes, key=prefixes.get):
        numbers[prefix, row] = (start, layer)
        layer += 1
  return numbers


def _tagged_sites(occurrences) -> dict[str, Site]:
  prefixes = {o: _layer_prefix(o[0], _BLOCK) for o in occurrences}
  alone = [o[1] for o, prefix in prefixes.items() if prefix is None]
  for o, prefix in prefixes.items():
    if prefix is None and (alone.count(o[1]) > 1 or o[3]):
      prefixes[o] = _layer_prefix(o[0], _NUMBERED) or (o[0] if o[3] else None)
  numbers = _number_layers([(p, o[2], o[3]) for o, p in prefixes.items() if p is not None])
  found = []
  for o, prefix in prefixes.items():
    path, slot, position, lead, calls, _ = o
    for row in np.ndindex(*lead):
      start, layer = numbers[prefix, row] if prefix is not None else (position, None)
      for call in range(calls):
        name = slot + (f'.{layer}' if layer is not None else '') + (f'@{call}' if calls > 1 else '')
        key = (start, -1 if layer is None else layer, position, call)
        found.append((key, Site(name, path, slot, call, row, calls)))
  return _unique(found)


def _module_sites(occurrences) -> dict[str, Site]:
  found = []
  leaves = {}
  for path, slot, _, _, _, leaf in occurrences:
    leaves[path, slot] = max(leaf, leaves.get((path, slot), 0))
  for path, slot, position, lead, calls, leaf in occurrences:
    for row in np.ndindex(*lead):
      for call in range(calls):
        name = '/'.join(path) or 'output'
        name += f'.{".".join(map(str, row))}' if row else ''
        name += (f'@{call}' if calls > 1 else '') + (f':{leaf}' if leaves[path, slot] else '')
        found.append(((position, row, call, leaf), Site(name, path, slot, call, row, calls, leaf)))
  return _unique(found)


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


def survey(net: nn.Module, variables, *inputs, modules: bool | None = None, **kwargs) -> Map:
  """Finds the sites of `net` by tracing it abstractly; nothing runs.

  `modules=True` adds the outputs of all modules by path; None adds them only if the network has no tag.
  """
  kept = {}
  def trace(variables, *inputs):
    _, intermediates, passed = _apply(net, variables, inputs, kwargs, modules is not False)
    found = list(_occurrences(passed, intermediates, variables.get('params', {})))
    kept['tagged'] = _tagged_sites([o for o in found if o[1] != '__call__'])
    kept['modules'] = _module_sites([o for o in found if o[1] == '__call__'])
    if modules is None and kept['tagged']:
      kept['modules'] = {}
    both = kept['tagged'] | kept['modules']
    return {name: site.read(intermediates) for name, site in both.items()}
  specs = jax.eval_shape(trace, variables, *inputs)
  return Map(kept['tagged'], kept['modules'], {n: specs[n] for n in kept['tagged'] | kept['modules']})


def sites(net: nn.Module, variables, *inputs, **kwargs) -> dict[str, jax.ShapeDtypeStruct]:
  """Every site of the network with its shape and dtype, in forward order, without running it."""
  return survey(net, variables, *inputs, **kwargs).specs


# --- selection ------------------------------------------------------------------------------------------------------

# Other libraries' names where they mean the same tensor. `hook_embed` and `hook_normalized` do not, and are absent.
_TRANSFORMERLENS = {
    'hook_resid_pre': 'resid_pre', 'hook_resid_mid': 'resid_mid', 'hook_resid_post': 'resid_post',
    'hook_attn_out': 'attn_out', 'hook_mlp_out': 'mlp_out', 'attn.hook_q': 'q', 'attn.hook_k': 'k',
    'attn.hook_v': 'v', 'attn.hook_rot_q': 'q_rot', 'attn.hook_rot_k': 'k_rot', 'attn.hook_z': 'z',
    'attn.hook_attn_scores': 'attn_scores', 'attn.hook_pattern': 'attn_probs', 'mlp.hook_pre': 'channel_pre',
    'mlp.hook_post': 'channel_act'}


def _canonical(pattern: str, names: Iterable[str]) -> str:
  """Resolves aliases and negative layers of `pattern`; refuses an alias that would mean another tensor."""
  hooked = re.fullmatch(r'blocks\.([^.]+)\.(.+)', pattern)
  if hooked:
    if hooked[2] not in _TRANSFORMERLENS:
      raise ValueError(f'site {pattern!r}: no tensor here has the meaning of {hooked[2]!r}; '
                       f'{nearest(hooked[2], _TRANSFORMERLENS)}')
    pattern = f'{_TRANSFORMERLENS[hooked[2]]}.{hooked[1]}'
  slot, dot, layer = pattern.partition('.')
  names = set(names)
  if slot in ('attn_in', 'attn_raw', 'attn_out') and pattern not in names:
    if not any(re.match(r'z(\.|$)', n) for n in names):
      raise ValueError(f'site {pattern!r}: this network mixes tokens without attention; '
                       f'its name is {slot.replace("attn", "mixer") + dot + layer!r}')
    slot = slot.replace('attn_', 'mixer_')
  if slot in ('mlp_in', 'mlp_raw', 'mlp_out') and pattern not in names:
    slot = slot.replace('mlp_', 'channel_')
  if re.fullmatch(r'-\d+', layer):
    layers = sorted({int(m[1]) for n in names if (m := re.fullmatch(re.escape(slot) + r'\.(\d+)', n))})
    if not -len(layers) <= int(layer) < 0:
      raise ValueError(f'site {pattern!r}: {slot!r} has {len(layers)} layers; {nearest(slot, names)}')
    layer = str(layers[int(layer)])
  return slot + dot + layer


def select(patterns: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
  """The names that match any of `patterns` (globs, aliases, negative layers), in the order of `names`.

  Raises:
    ValueError: a pattern matches nothing; the message names the nearest sites.
  """
  if isinstance(patterns, str):
    patterns = (patterns,)
  names, chosen = list(names), set()
  for pattern in patterns:
    wanted = _canonical(pattern, names)
    hits = [n for n in names if n == wanted] or [n for n in names if fnmatch.fnmatchcase(n, wanted)]
    if not hits:
      raise ValueError(f'no site matches {pattern!r}; {nearest(wanted, names)}')
    chosen.update(hits)
  return tuple(n for n in names if n in chosen)


# --- forward --------------------------------------------------------------------------------------------------------

def _stack(edits: list[tuple[tuple[int, ...], Any]], lead: tuple[int, ...]):
  """One edit whose leaves have the scanned axes in front: `edits` at their rows, switched off elsewhere."""
  filler = edits[0][1]
  at = dict(edits)
  rows = [at.get(row, filler) for row in np.ndindex(*lead)]
  on = jnp.asarray([row in at for row in np.ndindex(*lead)])
  def join(*leaves):
    shape = jnp.broadcast_shapes(*(jnp.shape(x) for x in leaves))
    joined = jnp.stack([jnp.broadcast_to(x, shape) for x in leaves])
    return joined.reshape(lead + shape)
  joined = jax.tree.map(join, *rows)
  inner = joined.on.shape[len(lead):]
  return joined.replace(on=joined.on & jnp.broadcast_to(on.reshape(lead + (1,) * len(inner)), joined.on.shape))


def plant(edits: Mapping[str, Any], found: Map) -> dict:
  """{pattern: edit} as the `edits` collection that `tag` reads; several edits of one site apply in order."""
  from aspects.edits import Chain
  planted: dict[tuple, list] = {}
  for pattern, edit in edits.items():
    if not found.tagged or not _matches(pattern, found.tagged):
      select((pattern,), found.specs)
      raise ValueError(f'site {pattern!r} is the output of a module without a tag and can be recorded only; to edit '
                       f"it write x = tag(self, 'name', x) in the module")
    for name in select((pattern,), found.tagged):
      site = found.tagged[name]
      if site.calls > 1:
        raise ValueError(f'site {name!r} is one of {site.calls} calls of {"/".join(site.path)!r}, which read the same '
                         'edit; scan over the calls or give them modules of their own')
      planted.setdefault((site.path, site.slot), []).append((site.row, edit))
  leads = {}
  for site in found.tagged.values():
    lead = tuple(r + 1 for r in site.row)
    leads[site.path, site.slot] = tuple(map(max, zip(lead, leads.get((site.path, site.slot), lead))))
  out = {}
  for (path, slot), chosen in planted.items():
    lead = leads[path, slot]
    links = [e for _, e in chosen] if not lead else [_stack(g, lead) for g in _alike(chosen)]
    out[path + (slot,)] = links[0] if len(links) == 1 else Chain(tuple(links))
  return traverse_util.unflatten_dict(out)


def _matches(pattern, names) -> bool:
  try:
    return bool(select((pattern,), names))
  except ValueError:
    return False


def _alike(chosen) -> list[list]:
  """Groups (row, edit) pairs of one kind with distinct rows, in order, so that each group stacks into one edit."""
  groups: list[tuple[Any, dict]] = []
  for row, edit in chosen:
    if groups and groups[-1][0] == jax.tree.structure(edit) and row not in groups[-1][1]:
      groups[-1][1][row] = edit
    else:
      groups.append((jax.tree.structure(edit), {row: edit}))
  return [list(rows.items()) for _, rows in groups]


def record_sites(net, variables, inputs, record, edits, kwargs):
  """The traceable body of `forward`."""
  known = survey(net, variables, *inputs, **kwargs)
  if not all(_matches(p, known.specs) for p in (*record, *edits)):
    known = survey(net, variables, *inputs, modules=True, **kwargs)
  wanted = select(record, known.specs)
  if edits:
    variables = {**variables, 'edits': plant(edits, known)}
  out, intermediates, _ = _apply(net, variables, inputs, kwargs, any(n in known.modules for n in wanted))
  # An OrderedDict leaves jit in the order it was made; a dict would come back sorted by name.
  acts = collections.OrderedDict((n, (known.tagged | known.modules)[n].read(intermediates)) for n in wanted)
  missing = [n for n in wanted if n not in acts or acts[n].shape != known.specs[n].shape]
  if missing:
    raise ValueError(f'sites {missing} were asked for and not recorded in the shape that the survey found')
  return out, acts


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _forward_jit(net, record, static, variables, inputs, edits, kwargs):
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
  static = tuple(sorted((k, v) for k, v in kwargs.items() if isinstance(v, (bool, str))))
  traced = {k: v for k, v in kwargs.items() if not isinstance(v, (bool, str))}
  try:
    hash(net)
  except TypeError:                                  # a module with unhashable fields runs without the cache
    return record_sites(net, variables, inputs, record, dict(edits), kwargs)
  out, acts = _forward_jit(net, record, static, variables, inputs, dict(edits), traced)
  return out, dict(acts)
