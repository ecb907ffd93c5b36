"""The plan of the house, read off the source: what imports what, what each file says of itself, the core's size."""
import ast
import functools
import io
import pathlib
import re
import tokenize

from aspects import plugin
from aspects.claims import spec

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / 'aspects'
FAMILIES = plugin.families()
CORE = sorted(PACKAGE.glob('*.py'))
REPORT = sorted((PACKAGE / 'report').glob('*.py'))
COMPONENTS = sorted(p for family in FAMILIES for p in (PACKAGE / family).glob('*.py') if p.name != '__init__.py')
SHARED = sorted(p for folder in ('nn', 'statistics') for p in (PACKAGE / folder).glob('*.py'))
CLAIMS = sorted((PACKAGE / 'claims').rglob('*.py'))
CONFIGS = sorted((ROOT / 'configs').rglob('*.py'))
SOURCE = [*CORE, *REPORT, *COMPONENTS, *SHARED, *CLAIMS, *CONFIGS, *sorted((ROOT / 'experiments').rglob('*.py'))]
EVERYTHING = [*SOURCE, *sorted((ROOT / 'tests').rglob('*.py')), *sorted((ROOT / 'benchmarks').rglob('*.py'))]
ASPECTS = ('features', 'correlations', 'representations', 'depth', 'locality')
CORE_BUDGET = 2500
REPORT_BUDGET = 650
ENGINE_BUDGET = 1650                                 # of the claims, without the pages of their gallery


def name(path):
  return str(path.relative_to(ROOT))


@functools.cache
def tree(path):
  return ast.parse(path.read_text())


def nodes(paths, *kinds):
  """(where, node) for all nodes of these kinds."""
  return [(f'{name(path)}:{node.lineno}', node) for path in paths for node in ast.walk(tree(path))
          if isinstance(node, kinds)]


def imports(path):
  """The modules that a file imports, as dotted names; `from a import b` is `a.b`."""
  for _, node in nodes([path], ast.Import, ast.ImportFrom):
    yield from (a.name if isinstance(node, ast.Import) else f'{node.module}.{a.name}' for a in node.names)


def ours(path):
  """What a file imports of this repository: the first two parts, `aspects.net` or `configs.common`."""
  here = ('aspects', 'configs', 'experiments', 'tests', 'benchmarks')
  return {'.'.join(m.split('.')[:2]) for m in imports(path) if m.split('.')[0] in here}


def code_lines(text):
  """How many lines have code: not blank, not a comment, not a docstring."""
  documented = set()
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
      documented |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
  silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
  lines = set()
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type not in silent:
      lines |= set(range(token.start[0], token.end[0] + 1))
  return len(lines - documented)


# --- size -----------------------------------------------------------------------------------------------------------

def test_code_lines_are_counted_right():
  text = '"""Title.\n\nMore."""\nimport os  # why\n\n# alone\ndef f(x):\n  """What."""\n  return (x +\n          1)\n'
  assert code_lines(text) == 4
  assert code_lines("x = '''two\nlines'''\n") == 2


def test_the_core_is_small():
  for paths, budget in ((CORE, CORE_BUDGET), (REPORT, REPORT_BUDGET)):
    sizes = {name(p): code_lines(p.read_text()) for p in paths}
    assert sum(sizes.values()) <= budget, f'{sum(sizes.values())} code lines: {sizes}'


def test_the_engine_of_the_claims_is_small_and_the_core_does_without_it():
  sizes = {name(p): code_lines(p.read_text()) for p in CLAIMS if p.parent.name == 'claims'}
  assert sum(sizes.values()) <= ENGINE_BUDGET, f'{sum(sizes.values())} code lines: {sizes}'
  below = [*CORE, *REPORT, *SHARED, *(p for p in COMPONENTS)]
  assert not [name(p) for p in below if any(m.startswith('aspects.claims') for m in imports(p))]


def test_lines_are_short():
  long = []
  for path in EVERYTHING:
    start = 1 if path in COMPONENTS else 0           # a title with its source is one line, whatever it takes
    long += [f'{name(path)}:{i + 1}' for i, line in enumerate(path.read_text().splitlines())
             if i >= start and len(line) > 120]
  assert not long


# --- imports --------------------------------------------------------------------------------------------------------

def test_imports_are_absolute():
  assert not [where for where, node in nodes(EVERYTHING, ast.ImportFrom) if node.level]


def test_the_core_and_shared_modules_import_no_family():
  wrong = {name(p): {m for m in ours(p) if m.split('.')[1] in FAMILIES or not m.startswith('aspects.')}
           for p in (*CORE, *REPORT, *SHARED)}
  assert not {p: m for p, m in wrong.items() if m}


def test_a_family_imports_the_core_and_nn_and_never_another_family():
  wrong = {name(p): {m for m in ours(p) if m.split('.')[1] in set(FAMILIES) - {p.parent.name}
                     or not m.startswith('aspects.')} for p in COMPONENTS}
  assert not {p: m for p, m in wrong.items() if m}, 'what two families share belongs to nn or to the core'


def test_configs_import_values_only():
  for path in CONFIGS:
    assert {m.split('.')[0] for m in imports(path)} <= {'ml_collections', 'configs'}, name(path)
    assert ours(path) <= {'configs.common'}, name(path)


def test_some_imports_have_one_place_or_none():
  libraries = {name(p): {m.split('.')[0] for m in imports(p)} for p in SOURCE}
  assert {p for p, found in libraries.items() if 'orbax' in found} <= {'aspects/checkpoint.py'}
  assert not {p for p, found in libraries.items() if found & {'tensorflow', 'torch', 'clu'}}


# --- components -----------------------------------------------------------------------------------------------------

def test_a_component_says_its_title_and_its_source():
  for path in COMPONENTS:
    docstring = ast.get_docstring(tree(path)) or ''
    assert re.match(r'[A-Z0-9].{20,}', docstring), f'{name(path)}: the docstring starts with a title'
    if path.parent.name != 'tasks':                  # data may have no paper
      source = re.search(r'arXiv:\d{4}\.\d{4,5}|doi:10\.\d+/\S+|\b(?:19|20)\d\d\b', docstring)
      assert source, f'{name(path)}: name the source by authors and year, and its arXiv id or doi'


def test_a_component_is_called_like_its_file():
  for path in COMPONENTS:
    part = plugin.component(path.parent.name, path.stem)
    alike = [node.name for node in tree(path).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))
             and node.name.replace('_', '').casefold() == path.stem.replace('_', '').casefold()]
    assert alike == [part.__name__], f'{name(path)}: {alike} are called like the file, and one name must be'
    assert re.fullmatch(r'[a-z][a-z0-9_]*', path.stem), name(path)


def test_a_component_has_a_test():
  """The contract test of a family walks its folder; a measure has its brute force beside it."""
  contracts = ROOT / 'tests' / 'contracts'
  for path in COMPONENTS:
    aspect = path.parent.name in ASPECTS
    assert (contracts / f'test_{"measures" if aspect else path.parent.name}.py').exists(), name(path)
    own = ROOT / 'tests' / path.parent.name / f'test_{path.stem}.py'
    assert own.exists() or not aspect, f'{name(own)} is missing: a measure has its brute force there'


def test_contract_tests_walk_their_folder_and_branch_on_no_name():
  contracts = {p.stem.removeprefix('test_'): p for p in (ROOT / 'tests' / 'contracts').glob('test_*.py')}
  # an aspect may add laws of its own to those of all measures
  assert set(FAMILIES) - set(ASPECTS) | {'measures'} <= set(contracts) <= {*FAMILIES, 'measures'}
  for family, path in contracts.items():
    assert re.search(r'plugin\.(examples|names)\(', path.read_text()), name(path)
    components = {n for f in (ASPECTS if family == 'measures' else (family,)) for n in plugin.names(f)}
    for where, node in nodes([path], ast.Compare):
      compared = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)}
      assert not compared & components, f'{where} branches on {compared & components}'


# --- systems --------------------------------------------------------------------------------------------------------

def systems():
  """{config: its claim} of all configs that register one."""
  found = [p for p in spec.find(ROOT / 'configs').values() if spec.registers(p)]
  return {path: spec.load(path) for path in found}


def test_a_system_is_one_file_one_config_one_test():
  for path, claim in systems().items():
    inside = claim.component if claim.component.startswith('experiments/') else f'aspects/{claim.component}'
    component = ROOT / f'{inside}.py'
    assert component.exists(), f'{name(path)} names {name(component)}'
    docstring = ast.get_docstring(tree(component)) or ''
    assert re.search(r'arXiv:\d{4}\.\d{4,5}|doi:10\.\d+/\S+', docstring), f'{name(component)}: title and source'
    own = ROOT / 'tests' / path.parent.name / f'test_{path.stem}.py'
    assert own.exists(), f'{name(own)} is missing'


def test_a_system_is_named_nowhere_in_core_and_engine():
  names = {claim.system for claim in systems().values()}
  for path in (*CORE, *CLAIMS):
    words = {c.value for _, c in nodes([path], ast.Constant) if isinstance(c.value, str)}
    assert not words & names, f'{name(path)} knows {words & names}'


# --- habits ---------------------------------------------------------------------------------------------------------

def test_no_bare_except_and_no_star_import():
  assert not [where for where, node in nodes(EVERYTHING, ast.ExceptHandler) if node.type is None]
  assert not [where for where, node in nodes(EVERYTHING, ast.ImportFrom) if node.names[0].name == '*']


def test_no_default_of_a_config_in_a_second_place():
  assert not [where for where, node in nodes(SOURCE, ast.Attribute)
              if node.attr == 'get' and ast.unparse(node.value).split('.')[-1] == 'config']


def test_no_array_is_left_uninitialised():
  assert not [where for where, node in nodes(SOURCE, ast.Attribute)
              if node.attr in ('empty', 'empty_like') and ast.unparse(node.value) in ('jnp', 'jax.numpy')]


def test_nothing_is_called_utils_and_nothing_is_left_for_later():
  assert not [name(p) for p in EVERYTHING if re.search(r'util|helper|misc', p.stem)]
  assert not [name(p) for p in SOURCE if re.search(r'\b(TODO|FIXME|XXX)\b', p.read_text())]


def test_nothing_at_module_level_changes():
  for path in SOURCE:
    bound = {t.id for node in tree(path).body if isinstance(node, ast.Assign) for t in node.targets
             if isinstance(t, ast.Name)}
    for where, node in nodes([path], ast.Call):
      method = node.func if isinstance(node.func, ast.Attribute) else None
      if method and method.attr in ('append', 'add', 'update', 'extend', 'setdefault', 'pop'):
        assert ast.unparse(method.value) not in bound, f'{where} changes {ast.unparse(method.value)}'
  assert not nodes(SOURCE, ast.Global)


def test_no_test_is_switched_off():
  switches = ('skip', 'skipif', 'xfail', 'importorskip')
  assert not [where for where, node in nodes(EVERYTHING, ast.Attribute)
              if node.attr in switches and ast.unparse(node).startswith('pytest.')]
