"""Laws of all measures, in every file of the five aspects: split = merged = padded = whole on four devices; declared
invariances hold and undeclared ones fail; the value is that of the oracle in the measure's own test file.

A measure that declares invariances is a function of rows and is judged on plain arrays. One that declares none (it
reads several slots, attention, or runs the network again) is judged inside a small network only; its oracle is called
by its own test file.
"""
import dataclasses
import functools
import importlib.util
import inspect
import pathlib
import re

import jax
import numpy as np
import pytest

from aspects import measure as measure_lib
from aspects import plugin
from aspects import sites
from aspects.net import Net
from aspects.report.values import KINDS
from tests import fill

N, CLASSES = 160, 4
FAMILIES = measure_lib.ASPECTS
NET = Net(outputs=CLASSES, embed=dict(name='patches', size=4), head=dict(name='classify'), depth=3, width=10,
          mixer=dict(name='attention', heads=2), channel=dict(name='mlp', act='relu', ratio=2.0))
MOVES = ('permutation', 'rotation', 'scale', 'translation', 'linear')


def measures():
  """{family/name: measure} of all examples; those after the first of a name carry their fields behind it."""
  out = {}
  for family in FAMILIES:
    for spec in plugin.examples(family):
      name = f'{family}/{spec["name"]}'
      fields = ', '.join(f'{k}={v}' for k, v in spec.items() if k != 'name')
      out[f'{name} {fields}' if name in out else name] = plugin.build(family, spec, classes=CLASSES)
  return out


MEASURES = measures()
NAMES = list(MEASURES)
each = pytest.mark.parametrize('name', NAMES)
OF_ROWS = [name for name, m in MEASURES.items() if m.invariant]


@functools.cache
def data():
  """Images of four overlapping classes as a batch of all examples."""
  rng = np.random.default_rng(0)
  label = rng.integers(0, CLASSES, N).astype(np.int32)
  image = rng.normal(size=(N, 8, 8, 1)) + rng.normal(size=(CLASSES, 8, 8, 1))[label]
  return {'input': image.astype(np.float32), 'label': label, 'weight': np.ones(N, np.float32),
          'index': np.arange(N, dtype=np.int32)}


def results(name, statistics, wiring, states):
  finished = {key: statistics[i].finish(jax.device_get(states[i])) for key, i in wiring[name].items()}
  return MEASURES[name].compute(**finished)


# --- inside a network -----------------------------------------------------------------------------------------------

@functools.cache
def network_states():
  """(program, {how the examples came: states}) of all measures at once; `sharded` is one batch on four devices."""
  batch = data()
  variables = fill.variables(NET, batch['input'][:1])
  program = measure_lib.bind(NET, variables, batch, MEASURES)
  update = jax.jit(program.update)
  def run(batches):
    return functools.reduce(lambda states, b: update(states, variables, b), batches, program.init())
  part = lambda rows: {f: x[rows] for f, x in batch.items()}
  def padded(rows, size=40):
    def filled(x, by):
      return np.concatenate([x[:3], np.full((size - len(x), *x.shape[1:]), by, x.dtype), x[3:]])
    return {f: filled(x[rows], np.nan if f == 'input' else 0) for f, x in batch.items()}
  mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  shard = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  quarters = [part(slice(k, k + 40)) for k in range(0, N, 40)]
  return program, {
      'split': run(quarters),
      'merged': jax.jit(program.merge)(run(quarters[:1]), run(quarters[1:])),
      'padded': run([padded(slice(k, k + 32)) for k in range(0, N, 32)]),
      'sharded': run([jax.device_put(batch, shard)])}


def of_network(name, how):
  program, states = network_states()
  return results(name, program.statistics, program.wiring, states[how])


@each
def test_says_what_it_is(name):
  part, family = MEASURES[name], name.split('/')[0]
  module = inspect.getmodule(type(part))
  assert re.search(r'(19|20)\d\d', module.__doc__), 'the file names its source'
  said = type(part).__doc__
  assert said and f'{type(part).__name__}(' not in said, 'dataclasses write one of their own'
  assert '[' in type(part).__doc__, 'the docstring gives shapes'
  assert dataclasses.is_dataclass(part) and hash(part) == hash(dataclasses.replace(part))
  found = of_network(name, 'split')
  assert found.attrs['aspect'] == family and found.attrs['title'] and found.attrs['source']
  assert found.attrs['question'].endswith('?') and found.attrs['headline'] in found
  assert set(part.invariant) <= set(found)
  for variable in found.values():
    assert variable.attrs['long_name'] and variable.attrs['units'], variable.name
    assert variable.attrs['figure'] in (*KINDS, 'none'), variable.name
    assert variable.dtype.kind in 'fi' and set(variable.dims) <= set(found.coords), variable.name
    assert not {'seed', 'step'} & set(variable.dims), 'the loop adds seed and step'
    if 'null' in variable.attrs:
      assert variable.attrs['null'] in found and variable.attrs['null_label'], variable.name
  if 'site' in found.dims:
    order = list(sites.sites(NET, fill.variables(NET, data()['input'][:1]), data()['input'][:1]))
    shown = [s for s in found.site.values if s in order]
    assert shown == sorted(shown, key=order.index), 'sites stand in forward order'


@each
@pytest.mark.parametrize('how', ('merged', 'padded', 'sharded'))
def test_batches_devices_and_padding_change_nothing(name, how):
  found, expected = of_network(name, how), of_network(name, 'split')
  assert list(found) == list(expected)
  for key in expected:
    same(found[key], expected[key], f'{key}, {how}', 1e-4)


def test_statistics_keep_the_order_of_their_sites():
  """A state comes back from a compiled program with its dicts sorted by name, layer 10 before layer 2."""
  program, states = network_states()
  pairs = zip(program.statistics, jax.device_get(states['split']))
  keyed = [(statistic, state) for statistic, state in pairs if isinstance(state, dict)]
  assert keyed
  for statistic, state in keyed:
    turned = dataclasses.replace(statistic, sites=statistic.sites[::-1])
    assert list(turned.finish(state)) == list(turned.sites), type(statistic).__name__


def same(found, expected, message, tolerance):
  """Equal to `tolerance` of the largest entry, NaN in the same places."""
  expected = np.asarray(expected, np.float64)
  scale = np.abs(expected[np.isfinite(expected)]).max(initial=1e-12)
  np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=0, atol=tolerance * scale, err_msg=message)


# --- functions of rows ----------------------------------------------------------------------------------------------

@functools.cache
def rows():
  """{site: [N, D]}: the first token of every site that measures of rows read, as layers 9, 10 and 11."""
  batch = data()
  variables = fill.variables(NET, batch['input'][:1])
  acts = sites.forward(NET, variables, batch['input'], record=('*',))[1]
  needed = {s for name in OF_ROWS for statistic in MEASURES[name].needs(acts).values() for s in statistic.sites}
  # results come in the order of layers, which is not that of these names
  later = lambda s: re.sub(r'\d+$', lambda layer: str(int(layer[0]) + 9), s)
  return {later(s): np.asarray(x.reshape(N, -1, x.shape[-1])[:, 0], np.float64) for s, x in acts.items() if s in needed}


@functools.cache
def of_rows():
  """(statistics, wiring, compiled update) of all measures that are functions of rows."""
  specs = {s: jax.ShapeDtypeStruct(x.shape, np.float32) for s, x in rows().items()}
  statistics, wiring = measure_lib.wire({name: MEASURES[name] for name in OF_ROWS}, specs)
  start = tuple(s.init(specs) for s in statistics)
  update = jax.jit(lambda acts, batch: measure_lib.update_all(statistics, start, acts, batch))
  return statistics, wiring, update


def moved(x, move, rng):
  """Rows x [N, D] after a random member of a group of maps."""
  d = x.shape[1]
  if move == 'permutation':
    return x[:, rng.permutation(d)]
  if move == 'rotation':
    return x @ np.linalg.qr(rng.normal(size=(d, d)))[0]
  if move == 'scale':
    return x * rng.uniform(0.2, 5)
  if move == 'translation':
    return x + 3 * x.std() * rng.normal(size=d)
  stretched = np.linalg.qr(rng.normal(size=(d, d)))[0] * np.geomspace(0.5, 2, d)
  return x @ stretched @ np.linalg.qr(rng.normal(size=(d, d)))[0]


@functools.cache
def states_after(move):
  """States over rows that `move` has acted on, at each site on its own; the logits, which labels refer to, stay."""
  rng = np.random.default_rng(5)
  acts = {s: x if move == 'nothing' or s == 'logits' else moved(x, move, rng) for s, x in rows().items()}
  return of_rows()[2]({s: x.astype(np.float32) for s, x in acts.items()}, data())


@functools.cache
def after(name, move):
  return results(name, *of_rows()[:2], states_after(move))


@pytest.mark.parametrize('name', OF_ROWS)
@pytest.mark.parametrize('move', MOVES)
def test_invariances_hold_exactly_where_they_are_declared(name, move):
  found, expected = after(name, move), after(name, 'nothing')
  for key, declared in MEASURES[name].invariant.items():
    assert set(declared) <= set(MOVES), f'{key} declares {declared}; what can be declared: {MOVES}'
    a, b = (np.asarray(ds[key], np.float64) for ds in (found, expected))
    gap = np.nanmax(np.abs(a - b)) / np.nanmax(np.abs(b))
    assert (gap < 2e-4 if move in declared else gap > 2e-3), f'{key} moves by {gap:.1e} of its size under {move}'


@each
def test_has_an_oracle(name):
  """tests/<aspect>/test_<measure>.py defines `oracle`, the value by brute force in float64.

  For a function of rows its arguments are among `acts` {site: [N, D]}, `labels` [N] and the fields of the measure, and
  it returns {variable: array}; it is called here as it is in its own file.
  """
  path = pathlib.Path(__file__).parents[1] / name.split()[0].replace('/', '/test_').join(('', '.py'))
  assert path.exists(), f'write {path.relative_to(path.parents[2])} with a function `oracle`'
  spec = importlib.util.spec_from_file_location(f'oracle_of_{path.stem}', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  oracle = getattr(module, 'oracle', None)
  assert callable(oracle), f'{path.name} defines no function `oracle`'
  if name not in OF_ROWS:
    return
  part, found = MEASURES[name], after(name, 'nothing')
  used = {s for statistic in part.needs(rows()).values() for s in statistic.sites} - {'logits'}
  known = {'acts': {s: x.astype(np.float32) for s, x in rows().items() if s in used}, 'labels': data()['label']}
  known |= {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
  parameters = inspect.signature(oracle).parameters.values()
  expected = oracle(**{p.name: known[p.name] for p in parameters if p.name in known or p.default is p.empty})
  assert found.attrs['headline'] in expected
  for key, value in expected.items():
    same(found[key], value, key, 1e-4)
