"""Results: a tree of xarray data sets, /<variant>/<measure>, in one file with its provenance.

Files are made and read in memory, so that they appear whole or not at all and HDF5 locks nothing.
They hold numbers and text: no object arrays, nothing that runs when it is read. Attributes other
than text are kept as JSON behind `json:`; lists come back as lists, and tuples do, too."""
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
from typing import Any, Mapping

import jax
import numpy as np
import xarray as xr

from aspects import files
from aspects import inference

FORMAT = 'aspects/results/1'
PACKAGES = ('aspects', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'xarray')


def provenance(config) -> dict[str, Any]:
  """What a run was made with, as plain values that name no person, no host and no place on a disk.

  Absolute paths in the config and in XLA_FLAGS are cut to their last part. `config` is JSON text
  and `config_sha256` the SHA-256 of that text. `commit` and `dirty`, which looks at aspects,
  configs and experiments, are None outside a git checkout.

  Raises:
    ValueError: a value in `config` (ConfigDict or mapping) has no JSON form."""
  text = json.dumps(_plain(config, 'config', _without_paths), indent=1, sort_keys=True)
  device = jax.devices()[0]
  return {
    'versions': {name: _version(name) for name in PACKAGES}, 'python': platform.python_version(),
    **_checkout(), 'platform': device.platform, 'device': device.device_kind,
    'devices': jax.device_count(), 'processes': jax.process_count(),
    'xla_flags': _without_paths(os.environ['XLA_FLAGS'] if 'XLA_FLAGS' in os.environ else ''),
    'x64': bool(jax.config.jax_enable_x64), 'precision': jax.config.jax_default_matmul_precision,
    'config': text, 'config_sha256': hashlib.sha256(text.encode()).hexdigest()}


def _version(name):
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return 'not installed'


def _checkout():
  root, unknown = pathlib.Path(__file__).resolve().parents[1], {'commit': None, 'dirty': None}
  if not (root / '.git').exists():      # git would answer for any repository further up
    return unknown
  def git(*words):
    return subprocess.run(['git', '--no-optional-locks', '-C', root, *words], check=True, text=True,
                          capture_output=True, timeout=60).stdout.strip()
  try:
    changed = git('status', '--porcelain', '--', 'aspects', 'configs', 'experiments')
    return {'commit': git('rev-parse', 'HEAD'), 'dirty': bool(changed)}
  except (OSError, subprocess.SubprocessError):
    return unknown


def _without_paths(text):
  if text.startswith('/'):
    return pathlib.PurePosixPath(text).name
  return re.sub(r'''([\s=,:;'"]|file://)(/(?!/)[^\s,:;'"]+)''',
                lambda found: found[1] + pathlib.PurePosixPath(found[2]).name, text)


def _plain(value, where, text=str):
  """`value` in JSON's types, `text` applied to every string; arrays and tuples become lists."""
  if hasattr(value, 'to_dict'):
    value = value.to_dict()
  if isinstance(value, Mapping):
    if odd := [k for k in value if not isinstance(k, str)]:
      raise ValueError(f'{where}: key {odd[0]!r} is not text, as the keys of JSON are')
    return {k: _plain(v, f'{where}.{k}', text) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(v, f'{where}[{i}]', text) for i, v in enumerate(value)]
  if isinstance(value, (np.generic, np.ndarray, jax.Array)):
    return _plain(value.tolist(), where, text)
  if value is None or isinstance(value, (bool, int, float)):
    return value
  if not isinstance(value, str):
    raise ValueError(f'{where}: {value!r} has no JSON form; use numbers, text, lists and mappings')
  return text(value)


def _array(values, where):
  values = np.asarray(values)
  if values.dtype.kind in 'OT' and all(isinstance(v, str) for v in values.flat):
    values = values.astype(str)
  if values.dtype.kind not in 'biufU' or values.dtype in (np.float16, np.longdouble):
    raise ValueError(f'{where} is of dtype {values.dtype}; results hold bool, integers, float32, '
                     'float64 and text')
  return values


def _mapped(tree, attributes):
  """`tree` anew: checked arrays, no encodings, `attributes(attrs, where)` of all it holds."""
  def entries(variables, path):
    return {n: (v.dims, _array(v.values, f'{path}/{n}'), attributes(v.attrs, f'{path}/{n}'))
            for n, v in variables.items()}
  nodes = {}
  for key, node in tree.subtree_with_keys:
    path, ds = '' if key == '.' else f'/{key}', node.to_dataset(inherit=node is tree)
    nodes[path or '/'] = xr.Dataset(entries(ds.data_vars, path), entries(ds.coords, path),
                                    attributes(ds.attrs, path or '/'))
  return xr.DataTree.from_dict(nodes)


def _written(attrs, where):
  def text(key, value):
    if isinstance(value, str) and not value.startswith('json:') and '\0' not in value:
      return value
    return 'json:' + json.dumps(_plain(value, f'{where}: attribute {key}'))
  return {k: text(k, v) for k, v in attrs.items()}


def _read(attrs, where):
  if odd := [k for k, v in attrs.items() if not isinstance(v, str)]:
    raise ValueError(f'{where}: attribute {odd[0]} is not text')
  return {k: json.loads(v[5:]) if v.startswith('json:') else v for k, v in attrs.items()}


def _encoding(variable):
  if variable.dtype.kind == 'U':
    return {}
  if not variable.size or not variable.ndim:      # HDF5 filters chunks, and here are none
    return {'_FillValue': None}
  return {'_FillValue': None, 'zlib': True, 'complevel': 4, 'shuffle': True, 'fletcher32': True}


def save(tree: xr.DataTree, path: str | os.PathLike) -> None:
  """Writes `tree` as one netCDF file, compressed, with checksums; an old file stays until then.

  Raises:
    ValueError: an array or an attribute that is neither numbers nor text, by its place."""
  out = _mapped(tree, _written)
  out.attrs['format'] = FORMAT
  encodings = {node.path: {n: _encoding(v) for n, v in ds.variables.items()}
               for node in out.subtree for ds in [node.to_dataset(inherit=False)]}
  with files.replacing(path) as temporary:
    out.to_netcdf(temporary, engine='h5netcdf', encoding=encodings, write_inherited_coords=False)


def load(path: str | os.PathLike) -> xr.DataTree:
  """The tree that `save` wrote, all in memory.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is cut short, damaged or not ours."""
  size = pathlib.Path(path).stat().st_size
  try:
    # By path: HDF5 tells file objects apart by their address, which a new one may inherit from an old one.
    tree = xr.load_datatree(path, engine='h5netcdf', phony_dims='sort', decode_times=False,
                            decode_timedelta=False, mask_and_scale=False)
    if tree.attrs['format'] != FORMAT:
      raise ValueError(f'its format is {tree.attrs["format"]!r}, not {FORMAT!r}')
    tree = _mapped(tree, _read)
  except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
    raise ValueError(f'{path} ({size} bytes) is damaged or no results file; remove it and run '
                     f'again to have it made anew ({type(error).__name__}: {error})') from error
  del tree.attrs['format']
  return tree


def concat_steps(parts: Mapping[int, xr.Dataset]) -> xr.Dataset:
  """{training step: Dataset} -> one with the axis `step`, ascending, after `seed` if there is one.

  Attributes describe the measure, not the step: those of the first step are kept.

  Raises:
    ValueError: none given, or they differ in variables, sites or other coordinates."""
  return _stack(parts, 'step')


def stack_seeds(parts: Mapping[int, xr.Dataset]) -> xr.Dataset:
  """{seed: Dataset} -> one with the leading axis `seed`, ascending; else as `concat_steps`."""
  return _stack(parts, 'seed')


def _stack(parts, dim):
  if not parts:
    raise ValueError(f'no {dim} to put together')
  order = sorted(parts)
  each = [parts[k].drop_vars(dim, errors='ignore') for k in order]
  for k, part in zip(order, each):
    if dim in part.dims:
      raise ValueError(f'{dim} {k} already has an axis {dim!r}')
    if odd := set(part.variables) ^ set(each[0].variables):
      raise ValueError(f'{dim} {k} and {dim} {order[0]} do not both have {sorted(odd)}')
  out = xr.concat(each, xr.Variable(dim, order), data_vars='all', coords='minimal', compat='equals',
                  join='exact', combine_attrs='override')
  return out.transpose('seed', 'step', ..., missing_dims='ignore')


def summary(curve: xr.DataArray, dim: str = 'seed') -> xr.Dataset:
  """`mean`, `low` and `high` over `dim`: Student's 95 % interval, NaN bounds for one seed.

  Where a seed is not finite all three are NaN: an interval of the others would hide it."""
  axis, values = curve.get_axis_num(dim), curve.values.astype(np.float64)
  whole = np.isfinite(values).all(axis)
  bounds = inference.interval(np.where(np.expand_dims(whole, axis), values, 0), axis=axis)
  like = curve.isel({dim: 0}, drop=True).astype(np.float64)
  return xr.Dataset({name: like.copy(data=np.where(whole, bound, np.nan))
                     for name, bound in zip(('mean', 'low', 'high'), bounds)}, attrs=curve.attrs)


def describe(tree: xr.DataTree) -> str:
  """A table of what `tree` holds: a line per variable with its axes, range and unit."""
  rows = [('node', 'variable', 'axes', 'range', 'units')]
  for node in tree.subtree:
    for name, v in node.to_dataset(inherit=False).data_vars.items():
      axes = ' x '.join(f'{d} {n}' for d, n in v.sizes.items()) or 'scalar'
      numbers = v.values[np.isfinite(v.values)] if v.dtype.kind in 'biuf' else []
      reach = f'{numbers.min():.4g} .. {numbers.max():.4g}' if len(numbers) else '-'
      units = str(v.attrs['units']) if 'units' in v.attrs else '-'
      rows.append((node.path, str(name), axes, reach, units))
  widths = [max(map(len, column)) for column in zip(*rows)]
  return '\n'.join('  '.join(map(str.ljust, row, widths)).rstrip() for row in rows)
