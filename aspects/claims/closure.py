"""What code a row was computed by: the definitions that a procedure and its components reach, read off the source.

From each root the names are followed, within its module and over imports of this repository, definition by definition;
what is reached is hashed as its syntax tree without docstrings. So a comment, a docstring or a function that the row
never touches makes no row stale, and a changed mixer those rows whose network has it. A name that cannot be followed (a
module handed around as a value) counts with all of its module. Of other packages the versions count.
"""
import ast
import dataclasses
import functools
import importlib.metadata
import importlib.util
import pathlib
from typing import Any, Iterable, Mapping, NamedTuple

from aspects import net as net_lib
from aspects import plugin
from aspects import study
from aspects.claims.spec import digest

ALWAYS = ('jax', 'jaxlib', 'numpy', 'ml_dtypes')     # numbers change with these whatever the code names
FAMILY = {'task': 'tasks', 'learning': 'learning', 'objective': 'objectives', 'net': 'nn',
          **{part: family for part, (family, _) in net_lib.PARTS.items()}}


class Code(NamedTuple):
  """Hashes of what was reached: the definitions of this repository, and the versions of other packages."""
  definitions: dict[str, str]
  packages: dict[str, str]

  @property
  def code_hash(self) -> str:
    return digest(self.definitions)

  @property
  def lock_hash(self) -> str:
    return digest(self.packages)


class Module(NamedTuple):
  """A module: definitions by name, imported names as (module, attribute or None), and statements that just run."""
  definitions: Mapping[str, ast.AST]
  imports: Mapping[str, tuple[str, str | None]]
  loose: tuple[ast.AST, ...]


# --- what a config reaches ------------------------------------------------------------------------------------------

def of_arm(config: Mapping[str, Any], procedure: type) -> Code:
  """The code of one arm: its procedure, and with a network all components that its config names or leaves usual."""
  found = {procedure}
  if 'net' in config:
    found |= {study.run_arm, study.build}
    usual = {}
    if 'name' not in config['net']:
      found.add(net_lib.Net)
      usual = {f.name: f.default for f in dataclasses.fields(net_lib.Net) if _is_spec(f.default)}
    found |= _parts('net', {**usual, **config['net']})
  found |= _parts('', {k: v for k, v in config.items() if k not in ('net', 'measures')})
  for name, spec in (config['measures'] if 'measures' in config else {}).items():
    if spec is not None:
      found.add(plugin.component(study.aspect_of(spec, name), spec['name']))
  return follow((part.__module__, part.__qualname__.split('.')[0]) for part in found)


def _is_spec(value: Any) -> bool:
  return isinstance(value, Mapping) and isinstance(dict(value).get('name'), str)


def _parts(key: str, value: Any) -> set:
  """The components in a section: by the family that its key stands for, else by every family with such a file."""
  if not isinstance(value, Mapping):
    return set()
  found, fields = set(), dict(value)
  if _is_spec(value) and key not in ('procedure', 'optimizer'):
    part = _component(key, value['name'])
    found |= part
    for each in part:
      if dataclasses.is_dataclass(each):
        usual = {f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
                 for f in dataclasses.fields(each) if f.name not in ('parent', 'name')}
        fields = {**{k: v for k, v in usual.items() if _is_spec(v)}, **fields}
  for name, inner in fields.items():
    found |= _parts(name, inner)
  return found


def _component(key: str, name: str) -> set:
  if ':' in name or '/' in name:
    return {plugin.component('nn', name)}
  if key in FAMILY:
    return {plugin.component(FAMILY[key], name)}
  return {plugin.component(f, name) for f in plugin.families() if name in plugin.names(f)}


# --- what code reaches ----------------------------------------------------------------------------------------------

def follow(roots: Iterable[tuple[str, str]]) -> Code:
  """All that the roots (module, name) reach: syntax trees by `module.name`, other packages with their versions."""
  waiting, seen, foreign = list(roots), set(), set(ALWAYS)
  own = {module.split('.')[0] for module, _ in waiting} | {'aspects', 'experiments'}
  while waiting:
    module, name = waiting.pop()
    if module.split('.')[0] not in own:
      foreign.add(module.split('.')[0])
    elif (module, name) not in seen:
      seen.add((module, name))
      waiting += _references(module, name)
  trees = {f'{module}.{name}': _text(module, name) for module, name in seen}
  return Code({k: digest(v) for k, v in sorted(trees.items()) if v}, {n: _version(n) for n in sorted(foreign)})


@functools.cache
def parse(module: str) -> Module:
  """A module of this repository (or of a user's own), parsed once."""
  spec = importlib.util.find_spec(module)
  tree = ast.parse(pathlib.Path(spec.origin).read_text())
  definitions, loose, imports = {}, [], {}
  for node in tree.body:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
      definitions[node.name] = node
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
      targets = node.targets if isinstance(node, ast.Assign) else [node.target]
      definitions |= {n.id: node for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    elif not isinstance(node, (ast.Import, ast.ImportFrom)) and not _is_docstring(node):
      loose.append(node)
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      imports |= {a.asname or a.name.split('.')[0]: (a.name if a.asname else a.name.split('.')[0], None)
                  for a in node.names}
    elif isinstance(node, ast.ImportFrom):
      imports |= {a.asname or a.name: (f'{node.module}.{a.name}', None) if _is_module(f'{node.module}.{a.name}')
                  else (node.module, a.name) for a in node.names}
  return Module(definitions, imports, tuple(loose))


@functools.cache
def _is_module(name: str) -> bool:
  if name.split('.')[0] not in ('aspects', 'experiments', 'configs'):
    return False                                     # other packages count by version, whatever is taken from them
  try:
    return importlib.util.find_spec(name) is not None
  except ModuleNotFoundError:
    return False


def _nodes(module: str, name: str) -> list[ast.AST]:
  """The statements behind a name; all of the module for '*', and for a package or a name that is not found."""
  parsed = parse(module)
  if name in parsed.definitions:
    return [parsed.definitions[name], *parsed.loose]
  if name in parsed.imports:
    return []                                        # passed on from elsewhere; `_references` goes there
  return [*dict.fromkeys(parsed.definitions.values()), *parsed.loose]


def _references(module: str, name: str) -> Iterable[tuple[str, str]]:
  parsed = parse(module)
  if name not in parsed.definitions and name in parsed.imports:
    target, attribute = parsed.imports[name]
    yield target, attribute or '*'
    return
  for top in _nodes(module, name):
    inside = {id(n.value) for n in ast.walk(top) if isinstance(n, ast.Attribute)}
    for node in ast.walk(top):
      if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        alias = parsed.imports[node.value.id] if node.value.id in parsed.imports else None
        if alias:
          yield (alias[0], node.attr) if alias[1] is None else alias
        elif node.value.id in parsed.definitions:
          yield module, node.value.id
      elif isinstance(node, ast.Name) and id(node) not in inside:
        if node.id in parsed.definitions:
          yield module, node.id
        elif node.id in parsed.imports:
          target, attribute = parsed.imports[node.id]
          yield target, attribute or '*'


def _text(module: str, name: str) -> str:
  return '\n'.join(ast.dump(_without_docstrings(node)) for node in _nodes(module, name))


@functools.cache
def _without_docstrings(node: ast.AST) -> ast.AST:
  for inner in ast.walk(node):
    if isinstance(inner, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)) and _is_docstring(inner.body[0]):
      inner.body = inner.body[1:] or [ast.Pass()]
  return node


def _is_docstring(node: ast.AST) -> bool:
  return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.cache
def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    names = _distributions()[package] if package in _distributions() else []
    return importlib.metadata.version(names[0]) if names else 'standard library'


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
  return importlib.metadata.packages_distributions()
