"""From claims to rows: which cells a look needs, what one cell does, and the loop that goes on until all are decided.

A cell is one arm of a claim under a block of seeds. Its key is a hash of all that its rows depend on: the spec, the
code that the arm reaches, its data, the packages. So a finished cell is never run again, and one whose code changed is
another cell. Rows that a record already has count as finished.
"""
import dataclasses
import functools
import importlib
import json
import pathlib
import shutil
import time
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Sequence

from flax import core
import jax
import numpy as np

from aspects import data
from aspects import inference
from aspects import plugin
from aspects import study
from aspects.claims import cells
from aspects.claims import closure
from aspects.claims import judge as judge_lib
from aspects.claims import record as record_lib
from aspects.claims import spec as spec_lib
from aspects.claims import training
from aspects.claims import worker
from aspects.claims.rows import Cell, Rows


TUNING = 1000                                        # the first seed of pilots and tuning; claims use those from 0


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """A claim with what the keys of its rows are made of, by arm."""
  claim: spec_lib.Claim
  code: Mapping[str, closure.Code]
  data: Mapping[str, str]

  @functools.cached_property
  def made_of(self) -> dict[str, tuple[str, str, str]]:
    """(hash of the code, of the data, of the packages) of every arm."""
    return {arm: (code.code_hash, self.data[arm], code.lock_hash) for arm, code in self.code.items()}

  def key(self, arm: str, seed: int) -> str:
    return spec_lib.digest([self.claim.hash, arm, seed, *self.made_of[arm]])[:32]

  def blocks(self, seeds: int) -> list[tuple[int, ...]]:
    """Seeds 0..seeds-1 in blocks that no look divides, so that another look adds cells and changes none."""
    edges = sorted({0, *(n for n in self.claim.looks if n <= seeds), seeds})
    return [tuple(range(k, min(k + self.claim.block, b))) for a, b in zip(edges, edges[1:])
            for k in range(a, b, self.claim.block)]

  def cell(self, arm: str, block: Sequence[int]) -> tuple[str, dict]:
    """(key, what a worker is told) of a cell."""
    key = spec_lib.digest([self.key(arm, seed) for seed in block])[:32]
    return key, {'claim': self.claim.id, 'config': str(pathlib.Path(self.claim.path).resolve()),
                 'scale': self.claim.scale, 'spec': self.claim.hash, 'arm': arm, 'seeds': list(block),
                 'keys': [self.key(arm, s) for s in block]}


def plan(claim: spec_lib.Claim) -> Plan:
  """Resolves what the rows of a claim will depend on; builds no network and runs nothing.

  Raises:
    ValueError: a procedure, component, metric or setting that does not exist, in any arm."""
  for name, config in claim.arms.items():
    procedure(claim, name)
    if 'net' in config:
      study.check(bare(claim, name, (0,)), f'arms.{name}: ')
  return Plan(claim, code(claim), {n: data_hash(claim.arms[n]) for n in claim.arms})


def code(claim: spec_lib.Claim) -> dict[str, closure.Code]:
  """The code that each arm reaches."""
  return {name: closure.of_arm(claim.arm(name), type(procedure(claim, name))) for name in claim.arms}


def procedure(claim: spec_lib.Claim, arm: str):
  """The procedure of an arm: `config.procedure`, found as experiments/<name>.py, or the usual one."""
  config = claim.arms[arm]
  spec = config['procedure'] if 'procedure' in config else None
  if not spec:
    training.check(claim.metrics, config['measures'])
    return training.Training(claim.metrics)
  return plugin.build('nn', {**spec, 'name': located(spec['name'])}, f'arms.{arm}: procedure')


def located(name: str) -> str:
  """`package.module:Class` of a procedure: experiments/<name>.py has a class called like it."""
  if ':' in name:
    return name
  try:
    module = importlib.import_module(f'experiments.{name}')
  except ModuleNotFoundError as error:
    raise ValueError(f'there is no procedure experiments/{name}.py ({error})') from error
  wanted = name.replace('_', '')
  classes = [k for k, v in vars(module).items() if isinstance(v, type) and k.casefold() == wanted]
  if not classes:
    raise ValueError(f'experiments/{name}.py has no class called like it; expected {name.title().replace("_", "")}')
  return f'experiments.{name}:{classes[0]}'


@functools.cache
def _fingerprint(task: core.FrozenDict) -> str:
  source = plugin.build('tasks', task, 'task').source
  return spec_lib.digest([data.fingerprint(source(split)) for split in ('train', 'test')])


def data_hash(config: Mapping[str, Any]) -> str:
  """Hash of the data that an arm reads: of every `task` in its config."""
  tasks = [section['task'] for section in (config, config['procedure'] if 'procedure' in config else None)
           if section and 'task' in section and section['task']]
  return spec_lib.digest([_fingerprint(plugin.freeze(task, core.FrozenDict)) for task in tasks])


def bare(claim: spec_lib.Claim, arm: str, seeds: Sequence[int]) -> dict[str, Any]:
  """The config of one arm as a study of its own, for these runs of the claim."""
  return {**claim.arms[arm], 'arms': {}, 'claim': None, 'procedure': None, 'seeds': folded(claim, seeds)}


def folded(claim: spec_lib.Claim, seeds: Sequence[int]) -> tuple[int, ...]:
  """The integers that runs `seeds` of a claim start from, equal for all its arms."""
  return tuple(inference.arm_seed(claim.id, seed) for seed in seeds)


# --- one cell -------------------------------------------------------------------------------------------------------

def run_cell(task: Mapping[str, Any], folder: pathlib.Path, preempted: Callable[[], bool]) -> dict[str, Any]:
  """Runs a cell: {'rows': [...]}. If a block of seeds fails, each is run alone, and says itself what became of it.

  Raises:
    ValueError: the config on this machine is not the one that was planned."""
  claim = spec_lib.load(pathlib.Path(task['config']), task['scale'])
  here = plan(claim)
  if [here.key(task['arm'], seed) for seed in task['seeds']] != task['keys']:
    raise ValueError(f'{task["claim"]}: spec, code, data or packages are others here than those of the plan; start the '
                     'workers from the code that the run was started from, and run it again')
  seeds, keys = tuple(task['seeds']), dict(zip(task['seeds'], task['keys']))
  workdir = pathlib.Path(folder) / task['keys'][0]
  def attempt(block):
    return rows_of(claim, task['arm'], block, workdir / f'{block[0]}-{block[-1]}', preempted, keys)
  try:
    rows = attempt(seeds)
  except (KeyboardInterrupt, SystemExit, TimeoutError):
    raise
  except Exception:
    if len(seeds) == 1:
      raise
    rows = []
    for seed in seeds:
      try:
        rows += attempt((seed,))
      except (KeyboardInterrupt, SystemExit, TimeoutError):
        raise
      except Exception as error:
        rows += failed(claim, {**task, 'seeds': [seed], 'keys': [keys[seed]]}, worker.failure(error))
  shutil.rmtree(workdir, ignore_errors=True)
  return {'rows': rows}


def rows_of(claim, arm: str, seeds, workdir, preempted, keys) -> list[dict]:
  """The rows of one arm under a block of seeds, as one program."""
  started, begin = record_lib.now(), time.monotonic()
  with Compiling() as compiling:
    built = None
    if 'net' in claim.arms[arm]:
      built = study.build(bare(claim, arm, seeds)).arms['main']
    found = procedure(claim, arm).rows(Cell(folded(claim, seeds), built, workdir, preempted))
  seconds = (time.monotonic() - begin) / len(seeds)
  return [_row(claim, arm, seed, i, found, keys[seed], seconds, compiling.seconds / len(seeds), started)
          for i, seed in enumerate(seeds)]


def _row(claim, arm, seed, i, found: Rows, key, seconds, compiled, started) -> dict:
  lost = found.diverged is not None and bool(np.asarray(found.diverged)[i])
  row = {'key': key, 'arm': arm, 'role': claim.roles[arm], 'seed': seed, 'status': 'diverged' if lost else 'done',
         'metrics': {n: float(np.asarray(v)[i]) for n, v in found.metrics.items()}}
  row |= {n: v for n, v in (('params', found.params), ('steps', found.steps)) if v is not None}
  if found.flops is not None:
    row['flops'] = float(found.flops)
  if found.curves:
    row['curve'] = '; '.join(f'{name} ' + ' '.join(f'{_short(a)}:{_short(b)}' for a, b in zip(x, np.asarray(y)[i]))
                             for name, (x, y) in found.curves.items())
  return {**row, 'seconds': round(seconds, 3), 'compile_s': round(compiled, 3), 'started': started}


def _short(value) -> str:
  return f'{float(value):.4g}'


def failed(claim: spec_lib.Claim, task: Mapping, result: Mapping) -> list[dict]:
  """The rows of a cell that has none: its typed failure, for every seed."""
  return [{'key': key, 'arm': task['arm'], 'role': claim.roles[task['arm']], 'seed': seed, 'status': result['status'],
           'metrics': {}, 'detail': str(result['detail'])} for seed, key in zip(task['seeds'], task['keys'])]


class Compiling:
  """Seconds that XLA spent compiling inside the block."""

  def __enter__(self):
    self.seconds = 0.
    self._listen = lambda event, duration, **_: self._add(event, duration)
    jax.monitoring.register_event_duration_secs_listener(self._listen)
    return self

  def _add(self, event: str, duration: float) -> None:
    if 'backend_compile' in event:
      self.seconds += duration

  def __exit__(self, *_):
    jax.monitoring.unregister_event_duration_listener(self._listen)


# --- all cells ------------------------------------------------------------------------------------------------------

class Progress(NamedTuple):
  """Where a call stands: cells done of those known so far, the claims that were decided, and what just happened."""
  done: int
  cells: int
  running: int
  records: list[dict]
  events: list[str]


class Campaign:
  """Claims on their way to verdicts over one queue: `advance` again and again until `finished`."""

  def __init__(self, plans: Mapping[str, Plan], queue: cells.Queue, folder: record_lib.Folder | None,
               registered: Mapping[str, Mapping], *, retry: bool = False):
    """`folder` None: nothing is recorded (smoke). `retry`: cells that failed before are run again."""
    self.plans, self.queue, self.folder, self.registered, self.retry = plans, queue, folder, registered, retry
    self.look = {id: 0 for id in plans}
    self.records: dict[str, dict] = {}
    self.rows = {id: self._known(id) for id in plans}
    self.recorded = {id: set(rows) for id, rows in self.rows.items()}
    self.cells: dict[str, tuple[str, dict]] = {}
    self.collected: set[str] = set()

  def _known(self, id: str) -> dict[str, dict]:
    if self.folder is None:
      return {}
    path = self.folder.record(id, self.plans[id].claim.scale)
    if not path.exists():
      return {}
    record = json.loads(path.read_text())
    if record['registered']['spec_hash'] != self.plans[id].claim.hash:
      number = int(id.split('/')[1])
      raise ValueError(
          f'{id}: its spec was edited after its rows (record {record["registered"]["spec_hash"][:12]}, config '
          f'{self.plans[id].claim.hash[:12]}); a registered spec stays as it is: undo the edit, or register an '
          f'amendment: claim.id={id.split("/")[0]}/{number + 1}, amends={id!r}')
    return {row['key']: row for row in record['runs'] if row['status'] in ('done', 'diverged') or not self.retry}

  @property
  def finished(self) -> bool:
    return len(self.records) == len(self.plans)

  def needed(self, id: str) -> dict[str, dict]:
    """The cells of a claim up to its present look that have no rows yet."""
    plan = self.plans[id]
    out = {}
    for block in plan.blocks(plan.claim.looks[self.look[id]]):
      for arm in plan.claim.arms:
        key, task = plan.cell(arm, block)
        if not all(k in self.rows[id] for k in task['keys']):
          out[key] = task
    return out

  def advance(self) -> Progress:
    """Collects what is done, judges what can be judged, asks for what is missing; never waits."""
    events = []
    for id in [i for i in self.plans if i not in self.records]:
      while id not in self.records:
        missing = self.needed(id)
        for key, task in missing.items():
          result = self.queue.result(key)
          if result is not None and self.retry and key not in self.cells and not _good(result):
            self.queue.retry(key)
            result = None
          if key not in self.cells:
            self.cells[key] = (id, task)
            if result is None:
              self.queue.put(key, task)
          if result is not None:
            rows = result['rows'] if result['status'] == 'done' else failed(self.plans[id].claim, task, result)
            self.rows[id] |= {row['key']: row for row in rows}
            self.collected.add(key)
            if result['status'] != 'done':
              events.append(f'{id}: {task["arm"]}, seeds {task["seeds"][0]}-{task["seeds"][-1]}: {result["status"]}, '
                            f'{result["detail"].strip().splitlines()[-1][:160]}')
        if self.needed(id):
          break
        events += self._judge(id)
    running = len(self.queue.running())
    return Progress(len(self.collected), len(self.cells), running, list(self.records.values()), events)

  def _judge(self, id: str) -> list[str]:
    claim = self.plans[id].claim
    seeds = claim.looks[self.look[id]]
    keys = {self.plans[id].key(arm, s) for arm in claim.arms for s in range(seeds)}
    rows = [row for key, row in self.rows[id].items() if key in keys]
    judged = judge_lib.judge(claim, record_lib.rounded(rows))
    if not judged.decided and self.look[id] + 1 < len(claim.looks):
      self.look[id] += 1
      return [f'{id}: not decided at {seeds} seeds, going on to {claim.looks[self.look[id]]}']
    new = record_lib.compose(claim, [_stored(r) for r in rows], self.registered[id], provenance(self.plans[id], rows))
    # Rows that the record has already: then nothing was computed and nothing is written.
    if self.folder is not None and not {row['key'] for row in new['runs']} <= self.recorded[id]:
      record_lib.settle(self.folder, [new])
    self.records[id] = new
    return [f'{id}: {new["verdict"]["value"]} ({new["verdict"]["reason"]}) at {seeds} seeds']


def _good(result: Mapping) -> bool:
  return result['status'] == 'done' and all(row['status'] in ('done', 'diverged') for row in result['rows'])


def _stored(row: Mapping) -> dict:
  return {k: v for k, v in row.items() if k not in ('started', 'detail')}


def provenance(plan: Plan, rows: Iterable[Mapping]) -> dict[str, Any]:
  """What made the rows, on which machine, and the command that makes them again."""
  rows, device = list(rows), jax.devices()[0]
  claim, code = plan.claim, plan.code
  path = pathlib.Path(claim.path)
  here = record_lib.git('status', '--porcelain', '--untracked-files=no', '--', 'aspects', 'experiments', 'configs',
                        at=pathlib.Path.cwd())
  return {'code_hash': spec_lib.digest({a: c.code_hash for a, c in code.items()}), 'dirty': bool(here),
          'code': {a: c.code_hash for a, c in code.items()}, 'data': dict(plan.data),
          'data_hash': spec_lib.digest(dict(plan.data)),
          'lock_hash': spec_lib.digest({a: c.packages for a, c in code.items()}),
          'jax': jax.__version__, 'jaxlib': jax.lib.__version__, 'platform': device.platform,
          'device': device.device_kind, 'x64': bool(jax.config.jax_enable_x64),
          'precision': str(jax.config.jax_default_matmul_precision or 'default'), 'vmap_seeds': True,
          'started': min((r['started'] for r in rows if 'started' in r), default=record_lib.now()),
          'seconds': round(sum(r['seconds'] for r in rows if 'seconds' in r), 1),
          'config': f'configs/{path.parent.name}/{path.name}', 'component': claim.component,
          'command': f'python -m experiments.claims run {claim.id} --scale {claim.scale}'}


def stale(plan: Plan, record: Mapping) -> str | None:
  """Why a record is not what this code would give, None if it is."""
  if record['registered']['spec_hash'] != plan.claim.hash:
    return 'its spec was edited after its rows'
  now = {a: c.code_hash for a, c in plan.code.items()}
  changed = [a for a in now if record['provenance']['code'].get(a) != now[a]]
  if changed:
    return f'the code of {", ".join(changed)} has changed'
  if record['provenance']['data'] != dict(plan.data):
    return 'its data have changed'
  keys = {plan.key(arm, s) for arm in plan.claim.arms for s in range(1 + max(r['seed'] for r in record['runs']))}
  return None if {r['key'] for r in record['runs']} <= keys else 'other versions of the packages it uses'
