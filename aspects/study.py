"""A study: networks, data, training and measures, resolved and frozen by `build`, executed by `run`, the only door.

A config is values only. Its `arms` are named overrides of everything else, so that arms differ in what they say and in
nothing more; seed s fixes initialisation and order for every arm.
"""
import dataclasses
import functools
import importlib
import json
import pathlib
import shutil
import sys
from typing import Any, Callable, Mapping, NamedTuple

import jax
import numpy as np
import tqdm
import xarray as xr

from aspects import checkpoint
from aspects import data
from aspects import files
from aspects import measure as measure_lib
from aspects import mesh as mesh_lib
from aspects import net as net_lib
from aspects import plugin
from aspects import report
from aspects import results
from aspects import train

# Everything that a config may say, with the sections' keys; values of the parts are theirs to check.
SCHEMA = {
    'title': None, 'seeds': None, 'first_seed': None, 'steps': None, 'batch': None, 'task': None, 'net': None,
    'learning': None, 'measures': None, 'arms': None, 'resplit': None, 'procedure': None, 'claim': None,
    'comparisons': None, 'evaluation': ('split', 'examples', 'batch', 'every'),
    'analysis': ('split', 'examples', 'batch', 'when', 'call'),
    'checkpoint': ('every', 'keep'), 'mesh': ('devices', 'params')}
# What a net may say beside the fields of `Net`: the directory of a checkpoint, and whether its parameters are left out.
OF_PRETRAINED = ('pretrained', 'fresh')


class Preempted(SystemExit):
  """The job was asked to stop and has saved its state; the same command goes on. Exit status 75: try again."""

  def __init__(self, message: str):
    super().__init__(75)
    self.message = message

  def __str__(self) -> str:
    return self.message


class Comparison(NamedTuple):
  """A measure of all pairs of sites of the networks of an arm: its seeds at the end, or its steps, seed by seed."""
  over: str
  program: measure_lib.Program


@dataclasses.dataclass(frozen=True, eq=False)
class Arm:
  """One network, trained on one task under several seeds, and the measures asked of it; everything checked."""
  name: str
  config: Mapping[str, Any]
  task: Any
  net: Any
  rule: Any
  program: measure_lib.Program
  streams: data.SeedStreams
  evaluation: data.Stream | data.SeedStreams
  probe: data.Stream | data.SeedStreams
  when: tuple[int, ...]
  parameters: int
  comparisons: Mapping[str, Comparison]

  @property
  def seeds(self) -> tuple[int, ...]:
    return seeds_of(self.config)

  @property
  def steps(self) -> int:
    return self.config['steps']


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
  """What `build` makes of a config: its arms by name."""
  title: str
  config: Mapping[str, Any]
  arms: Mapping[str, Arm]

  def describe(self) -> str:
    """A line for each arm: what will run."""
    return '\n'.join(
        f'{a.name}: {a.parameters:,} parameters, {len(a.seeds)} seeds x {a.steps} steps of {a.config["batch"]} '
        f'on {a.config["task"]["name"]}; {len(a.program.measures)} measures at steps {", ".join(map(str, a.when))}'
        for a in self.arms.values())


# --- build ----------------------------------------------------------------------------------------------------------

def build(config) -> Study:
  """Resolves and checks all of a config (ConfigDict or mapping) before anything is trained.

  Raises:
    ValueError: an unknown field, component or site, or a value out of range: with its place and the nearest valid name.
  """
  plain = plugin.freeze(config.to_dict() if hasattr(config, 'to_dict') else dict(config))
  _check_keys(plain, '')
  arms = plain['arms'] or {'main': {}}
  base = {k: v for k, v in plain.items() if k != 'arms'}
  merged = {name: plugin.overlay(base, change, f'arms.{name}') for name, change in arms.items()}
  merged = {name: one | {'net': pretrained_spec(one['net'])} for name, one in merged.items()}
  for name, one in merged.items():                   # names and fields of all arms, before any data are read
    check(one, f'arms.{name}: ' if len(merged) > 1 else '')
  return Study(plain['title'], plain, {name: _build_arm(name, one) for name, one in merged.items()})


def _check_keys(config: Mapping, where: str) -> None:
  for key in config:
    if key not in SCHEMA:
      raise ValueError(f'{where}a config has no field {key!r}; {plugin.nearest(key, SCHEMA)}')
  for key, inner in SCHEMA.items():
    if key not in config:
      raise ValueError(f'{where}the config lacks the field {key!r}; start from configs.common.base()')
    for name in (config[key] if inner else ()):
      if name not in inner:
        raise ValueError(f'{where}{key} has no field {name!r}; {plugin.nearest(name, inner)}')
    for name in (inner or ()):
      if name not in config[key]:
        raise ValueError(f'{where}{key} lacks the field {name!r}; start from configs.common.base()')


def check(config: Mapping, where: str) -> None:
  """Names and fields of all components, and the ranges of all numbers, without touching data."""
  _check_keys({**config, 'arms': None}, where)
  plugin.check('tasks', config['task'], where=f'{where}task')
  if 'name' in config['net']:
    if ':' not in str(config['net']['name']):
      raise ValueError(f"{where}net.name is {config['net']['name']!r}; a module of your own is named "
                       "package.module:Class, and the skeleton, whose parts are fields, has no name")
    plugin.check('nn', config['net'], ('outputs',), f'{where}net')
  else:
    try:
      net_lib.check({k: v for k, v in config['net'].items() if k not in OF_PRETRAINED})
    except ValueError as error:
      raise ValueError(f'{where}{error}') from error
  plugin.check('learning', config['learning'], ('steps',), f'{where}learning')
  for name, spec in config['measures'].items():
    if spec is not None:
      plugin.check(aspect_of(spec, name), spec, where=f'{where}measures.{name}')
  for name, spec in config['comparisons'].items():
    _check_comparison(config, name, spec, f'{where}comparisons.{name}')
  for key, value in (('batch', config['batch']), ('seeds', len(seeds_of(config)))):
    if not isinstance(value, int) or value < 1:
      raise ValueError(f'{where}{key} is {config[key]!r}; it must be a whole number from 1')
  if not isinstance(config['steps'], int) or config['steps'] < 0:
    raise ValueError(f'{where}steps is {config["steps"]!r}; it must be a whole number from 0')
  for share in config['analysis']['when']:
    if not 0 <= share <= 1:
      raise ValueError(f'{where}analysis.when holds {share!r}; it lists shares of the training, from 0 to 1')


def _check_comparison(config: Mapping, name: str, spec: Any, where: str) -> None:
  if spec is None:
    return
  if not isinstance(spec, Mapping) or set(spec) != {'over', 'measure'}:
    raise ValueError(f"{where} is {spec!r}; give dict(over='seed' or 'step', "
                     "measure=dict(name='correlations/cka', ...))")
  if name in config['measures']:
    raise ValueError(f'{where} is called like a measure; give it a name of its own')
  count = {'seed': len(seeds_of(config)), 'step': len(config['analysis']['when'])}
  if spec['over'] not in count:
    raise ValueError(f"{where}.over is {spec['over']!r}; 'seed' or 'step'")
  if count[spec['over']] < 2:
    raise ValueError(f'{where} compares over {spec["over"]}s, but there is one; give more in '
                     + {'seed': 'seeds', 'step': 'analysis.when'}[spec['over']])
  if spec['over'] == 'seed' and config['resplit']:
    raise ValueError(f'{where} compares seeds on the same examples, but with resplit each seed has its own; set it off')
  plugin.check(aspect_of(spec['measure'], name), spec['measure'], where=f'{where}.measure')


def seeds_of(config: Mapping) -> tuple[int, ...]:
  """The seeds of a config: as many as `seeds` says from `first_seed` on, or those that it lists."""
  seeds, first = config['seeds'], config['first_seed']
  if not isinstance(seeds, (int, tuple)) or (isinstance(seeds, tuple) and len(set(seeds)) < len(seeds)):
    raise ValueError(f'seeds is {seeds!r}; give a whole number from 1, or a tuple of different seeds')
  return seeds if isinstance(seeds, tuple) else tuple(range(first, first + seeds))


def aspect_of(spec: Any, where: str) -> str:
  """The aspect in which a measure is found: as it says, or the only one with a file of its name."""
  if not isinstance(spec, Mapping) or 'name' not in spec:
    raise ValueError(f'measures.{where}: a measure is given as dict(name=\'correlations/cka\', ...), got {spec!r}')
  if '/' in spec['name'] or ':' in spec['name']:
    return spec['name'].split('/')[0] if '/' in spec['name'] else 'features'
  homes = [a for a in measure_lib.ASPECTS if spec['name'] in plugin.names(a)]
  if not homes:
    every = [n for a in measure_lib.ASPECTS for n in plugin.names(a)]
    raise ValueError(f'measures.{where}: there is no measure {spec["name"]!r}; {plugin.nearest(spec["name"], every)}')
  return homes[0]


def _build_arm(name: str, config: Mapping) -> Arm:
  task = plugin.build('tasks', config['task'], 'task')
  net = make_net(config['net'], task.outputs)
  if 'pretrained' in config['net']:
    _importers().check(config['net']['pretrained'], net, _new_parts(config['net']))
  rule = plugin.build('learning', config['learning'], 'learning', steps=config['steps'])
  measures = {n: plugin.build(aspect_of(s, n), s, f'measures.{n}')
              for n, s in config['measures'].items() if s is not None}
  seeds = seeds_of(config)
  tasks = [plugin.build('tasks', {**config['task'], 'split_seed': s}, 'task') for s in seeds if config['resplit']]
  sources = [t.source('train') for t in tasks] or [task.source('train')] * len(seeds)
  streams = data.SeedStreams(tuple(data.Stream(source, config['batch'], seed, True, mesh_lib.host())
                                   for source, seed in zip(sources, seeds)))
  evaluation, probe = (_pass(tasks or [task], config[section]) for section in ('evaluation', 'analysis'))
  batch = probe.example()
  call = dict(config['analysis']['call'])
  shapes = jax.eval_shape(lambda: train.init(net, rule, (0,), batch, call))
  one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (shapes.params, shapes.rule))
  try:
    program = measure_lib.bind(net, rule.variables(*one), batch, measures, **call)
  except ValueError as error:
    raise ValueError(f'arm {name!r}: {error}') from error
  when = tuple(sorted({round(share * config['steps']) for share in config['analysis']['when']}))
  parameters = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(one[0]))
  comparisons = {}
  for n, spec in config['comparisons'].items():
    if spec is not None:
      networks = [f'{spec["over"]} {k}' for k in (seeds if spec['over'] == 'seed' else when)]
      measure = plugin.build(aspect_of(spec['measure'], n), spec['measure'], f'comparisons.{n}.measure')
      comparisons[n] = Comparison(spec['over'], measure_lib.bind(
          dict.fromkeys(networks, net), dict.fromkeys(networks, rule.variables(*one)), batch, {n: measure}, **call))
  return Arm(name, config, task, net, rule, program, streams, evaluation, probe, when, parameters, comparisons)


def _pass(tasks, section: Mapping) -> data.Stream | data.SeedStreams:
  """One pass in order over `examples` of a split (0: all), drawn by a fixed seed; for several tasks, of each."""
  streams = []
  for source in (task.source(section['split']) for task in tasks):
    if 0 < section['examples'] < len(source):
      source = data.take(source, section['examples'], seed=0)
    streams.append(data.Stream(source, min(section['batch'], len(source)), host=mesh_lib.host()))
  return data.SeedStreams(tuple(streams)) if len(streams) > 1 else streams[0]


def make_net(spec: Mapping, outputs: int):
  """The network of a spec: the skeleton, or a module of the user's own, `dict(name='package.module:Class', ...)`.

  A skeleton without `embed` or `head` cannot be built; own modules get `outputs` if they have the field.
  """
  if 'name' in spec:
    return plugin.build('nn', spec, 'net', outputs=outputs)
  return net_lib.Net(**{'outputs': outputs, **{k: v for k, v in spec.items() if k not in OF_PRETRAINED}})


def _importers():
  """The family of importers, found by name and only where a net is `pretrained`: other studies do without it."""
  return importlib.import_module('aspects.pretrained')


def pretrained_spec(spec: Mapping) -> Mapping:
  """`dict(pretrained=DIR, ...)` as the spec of the checkpoint with the other fields laid over; others as they are.

  A `head` of another kind is new, and as large as the task asks. `fresh=True` keeps the shape and no parameter: the
  untrained control.
  """
  if 'pretrained' not in spec:
    return spec
  base, kept = dict(_importers().describe(spec['pretrained']).spec), {k: spec[k] for k in OF_PRETRAINED if k in spec}
  change = {k: v for k, v in spec.items() if k not in OF_PRETRAINED}
  if 'head' in change and change['head']['name'] != base['head']['name']:
    base.pop('outputs')
  out = plugin.overlay({**dict.fromkeys(plugin.fields(net_lib.Net)), **base}, change, 'net')
  return plugin.freeze({k: v for k, v in out.items() if v is not None} | kept)


def _new_parts(spec: Mapping) -> tuple[str, ...]:
  """The parts of a pretrained network that do not come from its checkpoint."""
  theirs = plugin.freeze(dict(_importers().describe(spec['pretrained']).spec))
  return () if 'outputs' in spec and spec['head'] == theirs['head'] else ('head',)


# --- run ------------------------------------------------------------------------------------------------------------

def run(study: Study, workdir: str | pathlib.Path, *, progress: bool = True) -> xr.DataTree:
  """Trains, analyses, and leaves `results.nc` and `report.html` in `workdir`; goes on where an earlier call stopped.

  A finished run is read back and nothing is computed.

  Raises:
    ValueError: `workdir` belongs to another config; the message lists what differs.
    Preempted: SIGTERM came; the state is saved.
    train.Diverged: a loss was not finite.
  """
  workdir = pathlib.Path(workdir)
  claim_directory(study, workdir)
  if (workdir / 'results.nc').exists() and (workdir / 'report.html').exists():
    return results.load(workdir / 'results.nc')
  with checkpoint.Preemption() as preempted:
    trees = {name: run_arm(arm, workdir / name, preempted, progress).measures for name, arm in study.arms.items()}
  provenance = results.provenance(study.config) | {'data': {n: data.fingerprint(a.streams.source)
                                                            for n, a in study.arms.items()}}
  tree = xr.DataTree.from_dict({f'/{arm}/{name}': ds for arm, each in trees.items() for name, ds in each.items()})
  tree.attrs |= {'title': study.title, 'provenance': provenance}
  for name, arm in study.arms.items():
    tree[name].attrs |= {'task': describe_spec(arm.config['task']), 'net': describe_spec(arm.config['net']),
                         'parameters': arm.parameters, 'seeds': list(arm.seeds), 'steps': arm.steps,
                         'examples': len(arm.probe.source)}
  if mesh_lib.host()[0] == 0:
    results.save(tree, workdir / 'results.nc')
    report.render(tree, workdir / 'report.html')
  return tree


def claim_directory(study: Study, workdir: pathlib.Path) -> None:
  """Writes the config into a new directory; refuses one that belongs to another config, naming the differences."""
  path, text = workdir / 'config.json', json.dumps(study.config, indent=1)
  if path.exists():
    theirs, mine = _flat(json.loads(path.read_text())), _flat(json.loads(text))
    say = lambda tree, key: repr(tree[key]) if key in tree else 'absent'
    differences = [f'{key}: {say(theirs, key)} there, {say(mine, key)} here' for key in sorted(theirs | mine)
                   if say(theirs, key) != say(mine, key)]
    if differences:
      raise ValueError(f'{workdir} holds a run of another config; choose another --workdir or remove it. Differences: '
                       + '; '.join(differences[:20]))
  elif mesh_lib.host()[0] == 0:
    files.write(path, text.encode())


def _flat(tree: Any, prefix: str = '') -> dict[str, Any]:
  if not isinstance(tree, Mapping) or not tree:
    return {prefix: tree}
  return {k: v for key, value in tree.items() for k, v in _flat(value, f'{prefix}.{key}' if prefix else key).items()}


def describe_spec(spec: Any) -> str:
  """A spec in one line: `digits`, or `mixer=attention(heads=4), depth=6`."""
  def one(value):
    if isinstance(value, Mapping) and 'name' in value:
      inner = ', '.join(f'{k}={one(v)}' for k, v in value.items() if k != 'name')
      return f'{value["name"]}({inner})' if inner else value['name']
    return str(value)
  if 'name' in spec:
    return one(spec)
  return ', '.join(f'{k}={one(v)}' for k, v in spec.items() if v is not None and v != ())


class _Paths(NamedTuple):
  analyses: pathlib.Path
  partial: pathlib.Path
  checkpoints: pathlib.Path
  networks: pathlib.Path


class Finished(NamedTuple):
  """What an arm leaves: {measure: Dataset}, with `training`, and the state of all its seeds."""
  measures: Mapping[str, xr.Dataset]
  state: train.State


def run_arm(arm: Arm, workdir: pathlib.Path, preempted: Callable[[], bool], progress: bool, *,
            start: train.State | None = None, check: Callable[[train.State], None] = train.check_finite) -> Finished:
  """Trains and analyses one arm, from its last checkpoint if it has one, else from `start`, else from its seeds.

  `check` is asked before anything of a state is kept; by default it refuses values that are not finite. The buffers of
  `start` are used up.
  """
  paths = _Paths(*(workdir / name for name in _Paths._fields))
  paths.analyses.mkdir(parents=True, exist_ok=True)
  mesh = mesh_lib.make(arm.config['mesh']['devices'] or None)
  advance, evaluation = _programs(arm)
  state = start or train.init(arm.net, arm.rule, arm.seeds, arm.probe.example(), arm.config['analysis']['call'],
                              _given(arm.config['net'], arm.net))
  state = jax.device_put(state, mesh_lib.shardings(mesh, state, arm.config['mesh']['params']))
  every = arm.config['evaluation']['every']
  with checkpoint.Checkpoints(paths.checkpoints, **arm.config['checkpoint']) as saved:
    restored = saved.restore(state)
    state, curve = (restored.state, restored.notes['curve']) if restored else (state, [])
    at = int(np.asarray(state.step).reshape(-1)[0])
    bar = tqdm.tqdm(total=arm.steps, initial=at, desc=arm.name, unit='step', disable=not progress, file=sys.stderr,
                    dynamic_ncols=True, mininterval=0.5 if sys.stderr.isatty() else 15)

    def leave(step, state, where):
      saved.save(step, state, {'curve': curve})
      saved.close()
      bar.close()
      raise Preempted(f'{arm.name}: stopped at step {step}{where}; the same command goes on')

    def visit(step, state, info):
      last = every is not None and step == arm.steps
      if (every and step % every == 0 or last) and not (curve and curve[-1]['step'] >= step):
        check(state)
        curve.append(_row(arm, step, state, info, evaluation, mesh))
        bar.set_postfix_str(' '.join(f'{k} {np.mean(v):.3f}' for k, v in curve[-1].items()
                                     if k == 'train_loss' or k.endswith('nll') and k != 'train_nll'), refresh=False)
      if step in arm.when and not (paths.analyses / f'{step:08d}.nc').exists():
        check(state)
        if any(c.over == 'step' for c in arm.comparisons.values()):
          with checkpoint.Checkpoints(paths.networks / f'{step:08d}') as kept:
            kept.save(step, variables(arm, state), {})
        if not _analyse(arm, step, state, mesh, paths, preempted, bar):
          leave(step, state, ', during its analysis')
      if saved.due(step) or step == arm.steps:
        check(state)
        saved.save(step, state, {'curve': curve})
      if preempted():
        leave(step, state, '')

    visit(at, state, None)
    for state, info in train.loop(advance, state, arm.streams, arm.steps, mesh):
      at += 1
      bar.update()
      visit(at, state, info)
    for name in arm.comparisons:
      if not _compare(arm, name, state, mesh, paths, preempted, bar):
        leave(at, state, f', during the comparison {name}')
    bar.close()
  trees = {step: results.load(paths.analyses / f'{step:08d}.nc') for step in arm.when}
  out = {name: results.concat_steps({step: tree[name].to_dataset() for step, tree in trees.items()})
         for name in arm.program.measures}
  out |= {name: results.load(paths.analyses / f'{name}.nc')[name].to_dataset() for name in arm.comparisons}
  return Finished({**out, 'training': _training(arm, curve)}, state)


def _given(spec: Mapping, net) -> dict:
  """The variables of a checkpoint that all seeds start from; none for a network that starts untrained."""
  fresh = 'pretrained' not in spec or ('fresh' in spec and spec['fresh'])
  return {} if fresh else _importers().read(spec['pretrained'], net, skip=_new_parts(spec))


@functools.lru_cache(maxsize=4)                      # by identity: an arm that is trained again compiles once
def _programs(arm: Arm) -> tuple[Callable, Callable]:
  """(a training step, an evaluation) of all seeds, compiled."""
  objective, call = arm.config['learning']['objective'], arm.config['analysis']['call']
  return (train.compiled_step(arm.net, arm.rule), train.compiled_evaluation(
      arm.net, objective, call, own=isinstance(arm.evaluation, data.SeedStreams)))


def _row(arm: Arm, step: int, state, info, evaluation, mesh) -> dict:
  """One entry of the training curve: every value is a list over seeds."""
  held = train.evaluate(evaluation, variables(arm, state), arm.evaluation, mesh)
  held = {f'{arm.config["evaluation"]["split"]}_{k}': v.tolist() for k, v in held.items() if k != 'loss'}
  seen = jax.device_get(info) if info is not None else {}
  return {'step': step, **{f'train_{k}': np.asarray(v, np.float64).tolist() for k, v in seen.items()}, **held}


def variables(arm: Arm, state: train.State) -> dict:
  """What the network is applied with, for all seeds along a leading axis."""
  return arm.rule.variables(state.params, state.rule)


def _analyse(arm: Arm, step: int, state, mesh, paths: _Paths, preempted, bar) -> bool:
  """All measures at `step`, written when complete; False if the job was asked to stop, with what was done saved."""
  partial = paths.partial / f'{step:08d}'
  start = None
  if partial.exists():
    with checkpoint.Checkpoints(partial) as saved:
      restored = saved.restore(jax.eval_shape(lambda: measure_lib.initial_states(arm.program, len(arm.seeds))))
    start = measure_lib.Progress(restored.step, restored.state) if restored else None

  def watch(now: measure_lib.Progress) -> bool:
    bar.set_description_str(f'{arm.name}, analysis {now.step}/{len(arm.probe)}', refresh=sys.stderr.isatty())
    if now.step == len(arm.probe) or not preempted():
      return False
    with checkpoint.Checkpoints(partial) as saved:
      saved.save(now.step, now.states, {})
    return True

  own = isinstance(arm.probe, data.SeedStreams)
  found = measure_lib.analyse(arm.program, variables(arm, state), arm.probe.batch, len(arm.probe), own=own,
                              seeds=len(arm.seeds), start=start, watch=watch,
                              place=lambda b: mesh_lib.place_batch(mesh, b, axis=int(own)))
  bar.set_description_str(arm.name, refresh=False)
  if arm.program.measures and not found:
    return False
  found = {n: ds.assign_coords(seed=list(arm.seeds)) for n, ds in found.items()}
  if mesh_lib.host()[0] == 0:
    results.save(xr.DataTree.from_dict({f'/{n}': ds for n, ds in found.items()}), paths.analyses / f'{step:08d}.nc')
    shutil.rmtree(partial, ignore_errors=True)
  return True


def _compare(arm: Arm, name: str, state, mesh, paths: _Paths, preempted, bar) -> bool:
  """One comparison of the networks of an arm, written when complete; False if the job was asked to stop."""
  path, (over, program) = paths.analyses / f'{name}.nc', arm.comparisons[name]
  if path.exists():
    return True
  bar.set_description_str(f'{arm.name}, {name}', refresh=sys.stderr.isatty())
  own, last = isinstance(arm.probe, data.SeedStreams), variables(arm, state)
  if over == 'seed':
    networks = {n: jax.tree.map(lambda x, i=i: x[i], last) for i, n in enumerate(program.net)}
  else:
    networks = {}
    for n, step in zip(program.net, arm.when):
      with checkpoint.Checkpoints(paths.networks / f'{step:08d}') as kept:
        networks[n] = kept.restore(last).state
  found = measure_lib.analyse(program, networks, arm.probe.batch, len(arm.probe), own=own, watch=lambda _: preempted(),
                              seeds=len(arm.seeds) if over == 'step' else None,
                              place=lambda b: mesh_lib.place_batch(mesh, b, axis=int(own)))
  if not found:
    return False
  found = found[name].assign_coords(seed=list(arm.seeds)) if over == 'step' else found[name]
  if mesh_lib.host()[0] == 0:
    results.save(xr.DataTree.from_dict({f'/{name}': found}), path)
  return True


def _training(arm: Arm, curve: list[dict]) -> xr.Dataset:
  """The training curve: every metric [seed, step]; NaN before the first step for what only a step can tell."""
  names = list(dict.fromkeys(k for row in curve for k in row if k != 'step'))
  missing = [float('nan')] * len(arm.seeds)
  values = {n: (('seed', 'step'), np.asarray([row[n] if n in row else missing for row in curve], np.float64).T)
            for n in names}
  out = xr.Dataset(values, {'seed': list(arm.seeds), 'step': [row['step'] for row in curve]},
                   attrs={'title': 'Training', 'question': 'What was learned, and when?'})
  for name in names:
    metric = name.split('_', 1)[-1]
    units = {'loss': 'nats', 'nll': 'nats', 'accuracy': '1'}
    out[name].attrs = {'long_name': name.replace('_', ' '), 'units': units[metric] if metric in units else '1',
                       'figure': 'trajectory'}
  return out
