"""The Measure contract and the one analysis loop.

A measure is a frozen dataclass: it names the statistics it needs of which sites, and computes, on the host in float64,
an `xr.Dataset` with named dimensions. All statistics of all measures accumulate in one compiled program together with
the forward pass; equal statistics are computed once.
"""
import dataclasses
import functools
import inspect
from typing import Any, Callable, Mapping, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from aspects import results as results_lib
from aspects import sites as sites_lib
from aspects import stats

ASPECTS = ('features', 'correlations', 'representations', 'depth', 'locality')


class Measure(Protocol):
  """A question about layers.

  `sites` are patterns; `needs(specs)` sees the shapes of all sites of the network and returns the statistics, with
  concrete sites; `compute` receives what each `finish` returned, under the same keys. A statistic with `reruns = True`
  is updated with a fourth argument `rerun(edits, record) -> (outputs, acts)`, which runs the network again on the same
  batch. `invariant` says, for each variable that is a function of rows alone, which of `permutation, rotation, scale,
  translation, linear` leave it unchanged; the others must change it.
  """
  sites: tuple[str, ...]
  invariant: Mapping[str, tuple[str, ...]]

  def needs(self, specs: Mapping[str, jax.ShapeDtypeStruct]) -> Mapping[str, stats.Statistic]: ...
  def compute(self, **finished) -> xr.Dataset: ...


def classes_of(specs, classes: int | None) -> int:
  """The number of classes: as given, or the width of the site `logits`."""
  if classes:
    return classes
  if 'logits' not in specs:
    raise ValueError("the number of classes is not known: this network has no site 'logits'; give the field classes")
  return specs['logits'].shape[-1]


def network_inputs(net, batch: Mapping[str, Any]) -> tuple[tuple, dict]:
  """What of a batch the network is called with: its input, and the mask if it takes one."""
  takes_mask = 'mask' in batch and 'mask' in inspect.signature(type(net).__call__).parameters
  return (batch['input'],), ({'mask': batch['mask']} if takes_mask else {})


def _survey(net, variables, batch, modules: bool | None, call) -> dict[str, jax.ShapeDtypeStruct]:
  """The sites of a network, or of several as `network:site`."""
  if isinstance(net, Mapping):
    return {f'{name}:{site}': spec for name, one in net.items()
            for site, spec in _survey(one, variables[name], batch, modules, call).items()}
  inputs, kwargs = network_inputs(net, batch)
  return sites_lib.survey(net, variables, *inputs, modules=modules, **kwargs, **call).specs


def _recorded(net, variables, batch, record, edits, call):
  """(outputs, {site: value}) of a network, or of several on the same batch; networks of one kind share a program."""
  if not isinstance(net, Mapping):
    inputs, kwargs = network_inputs(net, batch)
    return sites_lib.record_sites(net, variables, inputs, tuple(record), dict(edits), {**kwargs, **call})
  if edits:
    raise ValueError('several networks cannot be edited together; measure each on its own')
  asked = {name: tuple(s.split(':', 1)[1] for s in record if s.split(':', 1)[0] == name) for name in net}
  names, nets = list(net), list(net.values())
  alike = len({jax.tree.structure(variables[n]) for n in names}) == len(set(asked.values())) == 1
  if len(names) > 1 and alike and all(one == nets[0] for one in nets):
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(variables[n] for n in names))
    one = lambda v: _recorded(nets[0], v, batch, asked[names[0]], {}, call)
    # One network after another: the program is as large as that of one.
    out, acts = jax.lax.map(one, stacked)
    parts = {n: jax.tree.map(lambda x, i=i: x[i], (out, dict(acts))) for i, n in enumerate(names)}
  else:
    parts = {n: _recorded(net[n], variables[n], batch, asked[n], {}, call) for n in names}
  acts = {f'{n}:{s}': x for n in names for s, x in parts[n][1].items()}
  return {n: parts[n][0] for n in names}, {s: acts[s] for s in record}


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
  """Measures bound to a network, or several: which sites are recorded, which statistics accumulate. From `bind`."""
  net: Any
  measures: Mapping[str, Measure]
  specs: Mapping[str, jax.ShapeDtypeStruct]
  statistics: tuple[stats.Statistic, ...]
  wiring: Mapping[str, Mapping[str, int]]
  record: tuple[str, ...]
  call: tuple[tuple[str, Any], ...] = ()

  def init(self) -> tuple:
    return tuple(s.init(self.specs) for s in self.statistics)

  def update(self, states: tuple, variables, batch) -> tuple:
    """One batch through the network and into every statistic; pure, to be compiled by the caller."""
    def rerun(edits, record):
      return _recorded(self.net, variables, batch, record, edits, dict(self.call))
    acts = rerun({}, self.record)[1]
    return update_all(self.statistics, states, acts, batch, rerun)

  def merge(self, a: tuple, b: tuple) -> tuple:
    return tuple(s.merge(x, y) for s, x, y in zip(self.statistics, a, b))

  def compute(self, states: tuple) -> dict[str, xr.Dataset]:
    """What the measures say of accumulated states: {name: Dataset}."""
    finished = [s.finish(state) for s, state in zip(self.statistics, states)]
    out = {}
    for name, measure in self.measures.items():
      out[name] = measure.compute(**{key: finished[i] for key, i in self.wiring[name].items()})
    return out


def update_all(statistics, states, acts, batch, rerun=None) -> tuple:
  """The states of all statistics after one more batch; pure."""
  new = []
  for statistic, state in zip(statistics, states):
    extra = (rerun,) if getattr(statistic, 'reruns', False) else ()
    new.append(statistic.update(state, acts, batch, *extra))
  return tuple(new)


def wire(measures: Mapping[str, Measure], specs) -> tuple[tuple, dict]:
  """(the distinct statistics that the measures need, {measure: {key: position}})."""
  statistics, wiring = [], {}
  for name, measure in measures.items():
    wiring[name] = {}
    try:
      needs = measure.needs(specs)
    except ValueError as error:
      raise ValueError(f'measure {name!r}: {error}') from error
    for key, statistic in needs.items():
      if statistic not in statistics:
        statistics.append(statistic)
      wiring[name][key] = statistics.index(statistic)
  return tuple(statistics), wiring


def bind(net, variables, batch: Mapping[str, Any], measures: Mapping[str, Measure], **call) -> Program:
  """Resolves what the measures need of `net` without running anything; `batch` and `variables` may be shapes.

  Several networks, {name: net} with variables {name: variables}, read the same batches; their sites are `name:site`.

  Raises:
    ValueError: a site that does not exist, or a measure that does not fit the network; names the measure.
  """
  if isinstance(net, Mapping) and (odd := [n for n in net if ':' in n or n not in variables] or [
      n for n in variables if n not in net]):
    raise ValueError(f'networks {list(net)} and variables {list(variables)} must have the same names, without a colon; '
                     f'see {odd[0]!r}')
  specs = _survey(net, variables, batch, None, call)
  try:
    statistics, wiring = wire(measures, specs)
  except ValueError:
    # A site may be the output of a module without a tag; those are looked up only if asked for.
    specs = _survey(net, variables, batch, True, call)
    statistics, wiring = wire(measures, specs)
  used = {s for statistic in statistics for s in statistic.sites}
  record = tuple(n for n in specs if n in used)
  program = Program(net, dict(measures), specs, statistics, wiring, record, tuple(sorted(call.items())))
  jax.eval_shape(program.update, jax.eval_shape(program.init), variables, batch)
  return program


class Progress(NamedTuple):
  """Where an interrupted analysis stands: the next step of the stream and the states so far."""
  step: int
  states: Any


def analyse(program: Program, variables, batches: Callable[[int], Mapping[str, Any]], steps: int, *,
            seeds: int | None = None, own: bool = False, start: Progress | None = None,
            watch: Callable[[Progress], bool] | None = None, place: Callable = lambda x: x) -> dict[str, xr.Dataset]:
  """Runs `steps` batches through the network and computes all measures: {measure: Dataset}.

  Args:
    variables: of the network; with `seeds=S` every leaf has a leading axis of S, and so have all results (dim `seed`).
    batches: step -> batch, shared by the seeds unless each has its `own`, along a leading axis.
    start: goes on from there.
    watch: called after every batch with the progress; True stops the analysis, which then returns {}.
    place: puts a batch onto the devices.
  """
  update = _compiled(program, seeds, own)
  states = start.states if start else initial_states(program, seeds)
  for step in range(start.step if start else 0, steps):
    states = update(states, variables, place(batches(step)))
    if watch is not None and watch(Progress(step + 1, states)):
      return {}
  return results(program, jax.device_get(states), seeds)


def results(program: Program, states, seeds: int | None) -> dict[str, xr.Dataset]:
  if seeds is None:
    return program.compute(states)
  each = [program.compute(jax.tree.map(lambda x: x[s], states)) for s in range(seeds)]
  return {name: results_lib.stack_seeds({s: e[name] for s, e in enumerate(each)}) for name in program.measures}


def initial_states(program: Program, seeds: int | None):
  one = program.init()
  if seeds is None:
    return one
  return jax.tree.map(lambda x: jnp.broadcast_to(x[None], (seeds, *x.shape)).copy(), one)


@functools.lru_cache(maxsize=8)                      # by identity: several analyses of one program compile once
def _compiled(program: Program, seeds: int | None, own: bool):
  if seeds is None:
    return jax.jit(program.update, donate_argnums=0)
  # Seeds pass one after another through one program: on a CPU a batched product of small matrices is far slower.
  def update(states, variables, batch):
    return jax.lax.map(lambda x: program.update(*(*x, batch)[:3]), (states, variables, *[batch] * own))
  return jax.jit(update, donate_argnums=0)


def measure_network(net, variables, stream, measures: Mapping[str, Measure] | Measure, **call):
  """Measures over a stream, for notebooks: {name: Dataset}, or one Dataset for one measure.

  Several networks are compared in one pass as {name: net} with {name: variables}; see `bind` and `between`. `stream`
  has `batch(step)` and a length (`data.Stream`). Further keywords go to `net.apply`.
  """
  several = measures if isinstance(measures, Mapping) else {'measure': measures}
  program = bind(net, variables, stream.batch(0), several, **call)
  out = analyse(program, variables, stream.batch, len(stream))
  return out if isinstance(measures, Mapping) else out['measure']


def between(values: xr.DataArray) -> xr.DataArray:
  """`values` [site, other] of several networks, `network:site`, as [network, site, other_network, other].

  Networks and sites stay in their order; NaN where a network lacks a site. `.sel(network=..., other_network=...)` is
  the map of two networks.

  Raises:
    ValueError: the sites are those of one network."""
  axes = {}
  for dim in ('site', 'other'):
    names = [str(n) for n in values[dim].values]
    if not all(':' in n for n in names):
      raise ValueError(f'{dim} {names[0]!r} is of one network; of several, sites are called network:site')
    axes[dim] = [n.split(':', 1) for n in names]
  order = {d: [list(dict.fromkeys(part)) for part in zip(*pairs)] for d, pairs in axes.items()}
  shape = [len(part) for d in ('site', 'other') for part in order[d]]
  lead = values.transpose(..., 'site', 'other')
  out = np.full((*lead.shape[:-2], *shape), np.nan)
  place = {d: tuple(np.array([order[d][k].index(pair[k]) for pair in axes[d]]) for k in (0, 1)) for d in axes}
  rows, columns = (tuple(p[:, None] for p in place['site']), tuple(p[None] for p in place['other']))
  out[..., rows[0], rows[1], columns[0], columns[1]] = lead.values
  dims = ('network', 'site', 'other_network', 'other')
  coords = dict(zip(dims, (*order['site'], *order['other'])))
  coords |= {d: values[d].values for d in lead.dims[:-2] if d in values.coords}
  return xr.DataArray(out, coords, (*lead.dims[:-2], *dims), values.name, values.attrs)


def measure_arrays(measure: Measure, acts: Mapping[str, np.ndarray], labels: np.ndarray | None = None, *,
                   weight: np.ndarray | None = None, batch_size: int = 1024) -> xr.Dataset:
  """A measure of activations that are already at hand, from any framework: {site: [N, ..., D]} -> Dataset.

  Raises:
    ValueError: arrays of different lengths, or a measure that needs to run a network.
  """
  lengths = {s: len(x) for s, x in acts.items()}
  n = next(iter(lengths.values()))
  if len(set(lengths.values())) > 1 or (labels is not None and len(labels) != n):
    raise ValueError(f'all arrays and labels must have one length, got {lengths}'
                     + (f' and {len(labels)} labels' if labels is not None else ''))
  batch_size = min(batch_size, n)
  specs = {s: jax.ShapeDtypeStruct((batch_size, *np.shape(x)[1:]), jnp.asarray(x[:1]).dtype) for s, x in acts.items()}
  statistics, wiring = wire({'measure': measure}, specs)
  needs_net = [type(s).__name__ for s in statistics if getattr(s, 'reruns', False)]
  if needs_net:
    raise ValueError(f'{type(measure).__name__} runs the network again ({needs_net[0]}); use measure_network')
  used = {s for statistic in statistics for s in statistic.sites}
  fields = {'weight': np.ones(n, np.float32) if weight is None else np.asarray(weight), 'index': np.arange(n)}
  if labels is not None:
    fields['label'] = np.asarray(labels, np.int32)
  states = tuple(s.init(specs) for s in statistics)
  for k in range(0, n, batch_size):
    part = lambda x: _pad(np.asarray(x[k:k + batch_size]), batch_size)
    batch = {f: part(v) for f, v in fields.items()}
    states = _update_arrays(statistics, states, {s: part(acts[s]) for s in used}, batch)
  program = Program(None, {'measure': measure}, specs, statistics, wiring, ())
  return program.compute(jax.device_get(states))['measure']


_update_arrays = jax.jit(update_all, static_argnums=0, donate_argnums=1)


def _pad(x: np.ndarray, size: int) -> np.ndarray:
  return np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)]) if len(x) < size else x
