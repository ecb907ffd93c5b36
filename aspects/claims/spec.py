"""The spec of a claim, read from a system's config and checked before anything runs.

A config carries `claim` beside its `arms`; `Claim` is that, resolved: every arm in full, every assertion with all its
fields. `Claim.hash` covers what decides the verdict (arms, metrics, assertions, controls, gates, looks) and no prose,
so that a corrected sentence changes nothing and a moved threshold everything.
"""
import dataclasses
import functools
import hashlib
import importlib.util
import json
import pathlib
import re
from typing import Any, Mapping

from aspects import inference
from aspects import plugin

KINDS = {'superior': ('tau', 'eps'), 'noninferior': ('eps',), 'equivalent': ('eps',), 'band': ('band',),
         'trend': ('tau', 'eps', 'order'), 'identity': ('c',)}
ROLES = ('ours', 'baseline', 'control', 'ablation', 'anchor')
FIELDS = ('id', 'component', 'sentence', 'paper', 'roles', 'metrics', 'assertions', 'controls', 'budget', 'sane',
          'looks', 'block', 'amends')
PAPER = ('ref', 'said', 'value', 'unit', 'direction', 'comparable')
DIRECTIONS = ('higher', 'lower', 'equal', 'band')
ASSERTION = ('kind', 'arms', 'metric', 'better', 'tau', 'eps', 'reason', 'band', 'order', 'c', 'text', 'must')
METRIC = ('source', 'variable', 'select', 'reduce', 'long_name', 'unit', 'worst')
PROSE = ('text', 'reason', 'long_name', 'unit')
BUDGET = ('arms', 'trials', 'waived')
SANE = ('arm', 'metric', 'band')
# What tells how a study runs and nothing of what it computes.
OPERATION = ('title', 'seeds', 'first_seed', 'checkpoint', 'mesh', 'arms', 'claim')
PARAMETERS, OPERATIONS = .02, .05                    # how far the budgets of arms may be apart


@dataclasses.dataclass(frozen=True, eq=False)
class Claim:
  """A claim, resolved and checked. `arms` {name: its whole config}, the rest as in the config's section `claim`."""
  id: str
  scale: str
  path: str
  title: str
  component: str
  sentence: str
  paper: Mapping[str, Any]
  roles: Mapping[str, str]
  metrics: Mapping[str, Mapping]
  assertions: Mapping[str, Mapping]
  controls: Mapping[str, Mapping]
  budget: Mapping[str, Any]
  sane: Mapping[str, Any] | None
  looks: tuple[int, ...]
  block: int
  amends: str | None
  arms: Mapping[str, Mapping]

  @property
  def system(self) -> str:
    return self.id.split('/')[0]

  @property
  def family(self) -> str:
    return pathlib.Path(self.path).parent.name

  @functools.cached_property
  def hash(self) -> str:
    """SHA-256 of all that decides the verdict."""
    return digest(self.decisive())

  def decisive(self) -> dict[str, Any]:
    """What the hash covers."""
    strip = lambda each: {n: {k: v for k, v in spec.items() if k not in PROSE} for n, spec in each.items()}
    return dict(id=self.id, scale=self.scale, roles=self.roles, metrics=strip(self.metrics),
                assertions=strip(self.assertions), controls=strip(self.controls), budget=self.budget, sane=self.sane,
                looks=self.looks, arms={n: self.arm(n) for n in self.arms})

  def arm(self, name: str) -> dict[str, Any]:
    """What an arm computes: its config without how it is operated, and without what is off.

    A field that a later version adds to every config, switched off, leaves this as it was."""
    off = (None, False, {}, ())
    return {k: v for k, v in self.arms[name].items() if k not in OPERATION and not any(v is o or v == o for o in off)}

  def text(self) -> str:
    """The spec for a reader, and for the repository: what a refactoring changed shows as a difference."""
    shown = {**self.decisive(), 'sentence': self.sentence, 'paper': self.paper, 'assertions': self.assertions,
             'controls': self.controls, 'metrics': self.metrics}
    return json.dumps(shown, indent=1, sort_keys=True)


def digest(value: Any) -> str:
  """SHA-256 (hex) of a value's canonical JSON."""
  return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(',', ':')).encode()).hexdigest()


# --- finding and reading --------------------------------------------------------------------------------------------

def find(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """{system: config} of all files `root/<family>/<system>.py`, by name; a file is a system called like it."""
  return {path.stem.replace('_', '-'): path for path in sorted(pathlib.Path(root).glob('*/*.py'))
          if path.name != '__init__.py'}


def registers(path: pathlib.Path) -> bool:
  """Whether a config has a claim; the others of its folder are plain studies."""
  return 'common.claim(' in path.read_text()


def choose(what: str, root: pathlib.Path) -> dict[str, pathlib.Path]:
  """The configs meant by `all`, a family, a system, an id `system/1`, a path, or several of these by comma.

  Raises:
    ValueError: nothing is called so; names the nearest."""
  if ',' in what:
    return {name: path for one in what.split(',') for name, path in choose(one, root).items()}
  found = find(root)
  families = {path.parent.name for path in found.values()}
  if what.endswith('.py') and pathlib.Path(what).exists():
    return {pathlib.Path(what).stem.replace('_', '-'): pathlib.Path(what)}
  name = what.split('/')[0].replace('_', '-')
  if what == 'all':
    return found
  if name in found:
    return {name: found[name]}
  if what in families:
    return {n: p for n, p in found.items() if p.parent.name == what}
  raise ValueError(f'there is no claim or family {what!r}; {plugin.nearest(what, [*found, *families, "all"])}')


def load(path: pathlib.Path, scale: str = 'claim') -> Claim:
  """Reads and checks the claim of a config file at a scale.

  Raises:
    ValueError: what is wrong with it, where, and what it may be."""
  where = f'{path}: '
  module_spec = importlib.util.spec_from_file_location(f'claim_{pathlib.Path(path).stem}', path)
  module = importlib.util.module_from_spec(module_spec)
  module_spec.loader.exec_module(module)
  try:
    return resolve(plugin.freeze(module.get_config(scale).to_dict()), str(path), scale)
  except (ValueError, TypeError) as error:
    raise ValueError(f'{where}{error}') from error


def resolve(config: Mapping[str, Any], path: str, scale: str = 'claim') -> Claim:
  """Checks a whole config with its section `claim` and resolves its arms."""
  section = config['claim'] if 'claim' in config else None
  if not section:
    raise ValueError('this config registers no claim; give it claim=common.claim(...)')
  _keys('claim', section, FIELDS)
  arms = config['arms'] or {'main': {}}
  base = {k: v for k, v in config.items() if k not in ('arms', 'claim')}
  merged = {name: plugin.overlay(base, change, f'arms.{name}') for name, change in arms.items()}
  claim = Claim(scale=scale, path=path, title=config['title'], arms=merged,
                **{k: (v or {}) if k in ('controls', 'assertions') else v for k, v in section.items()})
  _check(claim)
  return claim


# --- checks ---------------------------------------------------------------------------------------------------------

def _keys(where: str, given: Mapping, valid, required=()) -> None:
  for key in given:
    if key not in valid:
      raise ValueError(f'{where} has no field {key!r}; {plugin.nearest(key, valid)}')
  for key in required or valid:
    if key not in given:
      raise ValueError(f'{where} lacks the field {key!r}')


def _one_of(where: str, value: Any, valid) -> None:
  if value not in valid:
    raise ValueError(f'{where} is {value!r}; {plugin.nearest(value, valid)}')


def _check(claim: Claim) -> None:
  if not re.fullmatch(r'[a-z0-9-]+/[0-9]+', str(claim.id)):
    raise ValueError(f'claim.id is {claim.id!r}; it is the system and a number, such as lns/1')
  expected = pathlib.Path(claim.path).stem.replace('_', '-')
  if claim.system != expected:
    raise ValueError(f'claim.id is {claim.id!r}; in the file {expected}.py it begins with {expected!r}')
  _keys('claim.paper', claim.paper, PAPER)
  _one_of('claim.paper.direction', claim.paper['direction'], DIRECTIONS)
  _keys('claim.roles', claim.roles, claim.arms)
  for arm, role in claim.roles.items():
    _one_of(f'claim.roles.{arm}', role, ROLES)
  for name, metric in claim.metrics.items():
    _keys(f'claim.metrics.{name}', metric, METRIC, ('long_name', 'unit'))
  if not claim.assertions:
    raise ValueError('claim.assertions is empty; a claim asserts something')
  for group in ('assertions', 'controls'):
    for name, assertion in getattr(claim, group).items():
      _check_assertion(claim, f'claim.{group}.{name}', assertion, group)
  _check_gates(claim)
  doubling = all(b == 2 * a for a, b in zip(claim.looks, claim.looks[1:]))
  if not 1 <= len(claim.looks) <= 3 or claim.looks[0] < 2 or not doubling:
    raise ValueError(f'claim.looks is {claim.looks}; one to three numbers of seeds from 2, each twice the one before, '
                     'as the level of a look is known for these')
  if not isinstance(claim.block, int) or claim.block < 1:
    raise ValueError(f'claim.block is {claim.block!r}; it is the number of seeds that run as one program, from 1')


def _check_assertion(claim: Claim, where: str, assertion: Mapping, group: str) -> None:
  _keys(where, assertion, ASSERTION, ('kind', 'arms', 'metric'))
  kind, arms = assertion['kind'], assertion['arms']
  _one_of(f'{where}.kind', kind, KINDS)
  _one_of(f'{where}.metric', assertion['metric'], claim.metrics)
  for arm in arms if isinstance(arms, tuple) else (arms,):
    _one_of(f'{where}.arms', arm, claim.arms)
  if not isinstance(arms, tuple) or not arms or (len(arms) > 2 and kind != 'trend') or len(set(arms)) < len(arms):
    raise ValueError(f'{where}.arms is {arms!r}; give a tuple of one arm, or of two: the first against the second')
  for field in ('tau', 'eps', 'band', 'order', 'c'):
    if field in assertion and field not in KINDS[kind]:
      raise ValueError(f'{where}.{field} means nothing for {kind}, whose margins are {", ".join(KINDS[kind])}')
  if kind == 'identity':
    if 'c' not in assertion or not assertion['c'] > 0:
      raise ValueError(f'{where} needs c > 0: how many units of rounding the error may have')
    return
  if kind != 'band':
    _one_of(f'{where}.better', assertion.get('better'), ('higher', 'lower'))
    if not str(assertion.get('reason', '')).strip():
      raise ValueError(f'{where} gives no reason for its eps; say where the margin comes from')
  if group == 'controls':
    _one_of(f'{where}.must', assertion.get('must', 'hold'), ('hold', 'not hold'))
  elif 'must' in assertion:
    raise ValueError(f'{where}.must belongs to controls; an assertion has to hold')
  margins = {k: assertion[k] for k in ('tau', 'eps', 'band') if k in assertion}
  try:
    inference.region('superior' if kind == 'trend' else kind, **margins)
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from error
  if kind == 'trend':
    order = assertion.get('order', tuple(range(len(arms))))
    if len(arms) > 1 and (len(arms) < 3 or len(order) != len(arms)):
      raise ValueError(f'{where}: a trend over arms needs three or more and one number of `order` for each, '
                       f'got {len(arms)} arms and {len(order)} numbers')
    if not -1 < assertion.get('tau', 0.) < assertion.get('tau', 0.) + assertion['eps'] < 1:
      raise ValueError(f'{where}: tau and tau + eps of a trend are rank correlations, inside (-1, 1)')


def _check_gates(claim: Claim) -> None:
  _keys('claim.budget', claim.budget, BUDGET, ('waived',) if 'waived' in claim.budget else ('arms', 'trials'))
  for arm in claim.budget.get('arms', ()):
    _one_of('claim.budget.arms', arm, claim.arms)
  if 'waived' in claim.budget and not str(claim.budget['waived']).strip():
    raise ValueError('claim.budget.waived is empty; say why the budgets of the arms do not compare')
  if claim.sane is not None:
    _keys('claim.sane', claim.sane, SANE)
    _one_of('claim.sane.arm', claim.sane['arm'], claim.arms)
    _one_of('claim.sane.metric', claim.sane['metric'], claim.metrics)
    inference.region('band', band=claim.sane['band'])
