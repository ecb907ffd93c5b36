"""Components by family and file name: the file name is the registry.

A *spec* is a mapping with a `name` and the fields of the component: `dict(name='window', size=3)`. In the family
`mixers` it is found as the class `Window` of `aspects/mixers/window.py`; a component of the user's own is named by its
import path, `dict(name='my_package.mixers:Mine', size=3)`. Fields are checked against the component before it is made.
"""
import dataclasses
import difflib
import importlib
import inspect
import pkgutil
from typing import Any, Iterable, Mapping

from flax import core
from ml_collections import ConfigDict

MAPPINGS = (Mapping, ConfigDict)                     # what a spec may be
SHARED = ('claims', 'nn', 'report', 'statistics')    # folders that are no families


def nearest(name: str, valid: Iterable[str]) -> str:
  """The end of an error message: what `name` may have meant and what there is."""
  valid = sorted(str(v) for v in valid)
  close = difflib.get_close_matches(str(name), valid, n=3, cutoff=0.5)
  shown = ', '.join(valid[:60]) + (f', ... ({len(valid)} in all)' if len(valid) > 60 else '')
  return (f'did you mean {" or ".join(repr(c) for c in close)}? ' if close else '') + f'Valid: {shown}'


def families() -> tuple[str, ...]:
  """The families: folders of this package with one component a file."""
  package = importlib.import_module('aspects')
  return tuple(sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.ispkg and m.name not in SHARED))


def names(family: str) -> tuple[str, ...]:
  """The components of a family, which are the names of its files."""
  if family not in families():
    raise ValueError(f'there is no family {family!r}; {nearest(family, families())}')
  package = importlib.import_module(f'aspects.{family}')
  return tuple(sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.ispkg))


def examples(family: str) -> list[dict[str, Any]]:
  """Specs of every component of a family, with the fields that its attribute `examples` lists: for contract tests."""
  return [{'name': name, **fields} for name in names(family)
          for fields in getattr(component(family, name), 'examples', ({},))]


def component(family: str, name: str) -> Any:
  """The class or function called `name` in `family`.

  `name` is a file of the family, `other_family/file`, or `package.module:Attribute` for code outside this package.

  Raises:
    ValueError: there is no such family, file or attribute; the message names the nearest.
  """
  if ':' in name:
    return _outside(name)
  if '/' in name:
    family, name = name.split('/', 1)
  if name not in names(family):
    raise ValueError(f'family {family!r} has no component {name!r}; {nearest(name, names(family))}')
  module = importlib.import_module(f'aspects.{family}.{name}')
  wanted = name.replace('_', '').casefold()
  found = [v for k, v in vars(module).items()
           if k.replace('_', '').casefold() == wanted and callable(v) and not k.startswith('_')]
  if not found:
    raise ValueError(f'aspects/{family}/{name}.py defines nothing called like its file; '
                     f'expected a class such as {name.title().replace("_", "")!r}')
  return found[0]


def _outside(name: str) -> Any:
  path, attribute = name.split(':', 1)
  try:
    module = importlib.import_module(path)
  except ModuleNotFoundError as error:
    raise ValueError(f'{name!r}: no module {path!r} can be imported ({error}); '
                     f'a component of your own is named package.module:Attribute') from error
  if not hasattr(module, attribute):
    raise ValueError(f'module {path!r} has no {attribute!r}; {nearest(attribute, vars(module))}')
  return getattr(module, attribute)


def fields(part: Any) -> dict[str, bool]:
  """The fields a component takes, and whether each must be given."""
  if dataclasses.is_dataclass(part):
    missing = dataclasses.MISSING
    return {f.name: f.default is missing and f.default_factory is missing
            for f in dataclasses.fields(part) if f.init and f.name not in ('parent', 'name')}
  parameters = inspect.signature(part).parameters.values()
  return {p.name: p.default is p.empty for p in parameters
          if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != 'self'}


def freeze(value: Any, mapping: type = dict) -> Any:
  """Lists become tuples and mappings `mapping`s, all the way down; with `FrozenDict` the result hashes by value."""
  if isinstance(value, MAPPINGS):
    return mapping({k: freeze(v, mapping) for k, v in value.items()})
  return tuple(freeze(v, mapping) for v in value) if isinstance(value, (list, tuple)) else value


def check(family: str, spec: Mapping[str, Any], given: Iterable[str] = (), where: str = '') -> Any:
  """Finds the component of `spec` and checks its fields; `given` are fields that the caller will add.

  Raises:
    ValueError: no name, an unknown component, an unknown or a missing field; with the place and the nearest.
  """
  where = where or family
  if not isinstance(spec, MAPPINGS) or not isinstance(dict(spec).get('name'), str):
    raise ValueError(f'{where}: a component is given as dict(name=..., field=...), got {spec!r}; '
                     f'{nearest("", names(family))}')
  try:
    part = component(family, spec['name'])
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from error
  known, given = fields(part), set(given)
  for key in spec:
    if key != 'name' and key not in known:
      raise ValueError(f'{where}: {spec["name"]!r} has no field {key!r}; {nearest(key, known)}')
  absent = [k for k, required in known.items() if required and k not in spec and k not in given]
  if absent:
    raise ValueError(f'{where}: {spec["name"]!r} needs the field {absent[0]!r}')
  return part


def build(family: str, spec: Mapping[str, Any], where: str = '', **given) -> Any:
  """Makes the component of `spec`; `given` fields are passed where the component has them and the spec does not say.

  A linen module made inside another gets its own name by `name=`.
  Example: `build('mixers', dict(name='window', size=3), name='mixer')`.
  """
  part = check(family, spec, given, where)
  known = fields(part)
  chosen = {k: freeze(v, core.FrozenDict) for k, v in spec.items() if k != 'name'}
  added = {k: v for k, v in given.items() if k == 'name' or (k in known and k not in chosen)}
  try:
    return part(**chosen, **added)
  except (TypeError, ValueError) as error:
    raise ValueError(f'{where or family}: {spec["name"]!r} refused {chosen}: {error}') from error


def overlay(base: Any, change: Any, where: str = '') -> Any:
  """`base` with `change` laid over it: mappings merge, unless `change` names another component; None removes.

  Raises:
    ValueError: `change` has a field at the top that `base` has not; names the nearest."""
  if not isinstance(change, Mapping) or not isinstance(base, Mapping):
    return change
  if 'name' in change and change['name'] != (base['name'] if 'name' in base else None):
    return dict(change)
  out = dict(base)
  for key, value in change.items():
    if not where.count('/') and key not in base:
      raise ValueError(f'{where}: a config has no field {key!r}; {nearest(key, base)}')
    out[key] = overlay(base[key], value, f'{where}/{key}') if key in base else value
  return out
