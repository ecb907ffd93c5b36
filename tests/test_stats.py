"""Streaming statistics against numpy in float64: whole = split = merged = padded = sharded, in any order."""
import dataclasses
import functools
import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import statistics
from aspects.statistics.class_covariance import ClassCovariance
from aspects.statistics.covariance import Covariance
from aspects.statistics.cross_covariance import CrossCovariance
from aspects.statistics.density import Density
from aspects.statistics.histogram import Histogram
from aspects.statistics.projected_covariance import ProjectedCovariance
from aspects.statistics.sample import Sample
from aspects.statistics.shift_covariance import ShiftCovariance
from aspects.statistics.top_examples import TopExamples
from tests.brute import BRUTE, brute, same, scalars

SITES = ('resid.2', 'resid.10')                      # in the order of layers, which is not that of names
WIDTHS = {'resid.2': 5, 'resid.10': 7, 'same': 7}
N, BATCH, CLASSES = 96, 32, 4
LEVELS = (0., .05, .5, .95, 1.)
QUANTITIES = (('value', 'resid.2'), ('norm', 'resid.10'), ('ratio', 'resid.2', 'resid.10'))
CASES = {
    'Covariance': (Covariance(SITES), Covariance(SITES, fold='fit')),
    'ClassCovariance': (ClassCovariance(SITES, CLASSES),
                        ClassCovariance(SITES, CLASSES, labels='random', fold='held')),
    'CrossCovariance': (CrossCovariance(SITES), CrossCovariance(SITES, fold='held')),
    'ProjectedCovariance': (ProjectedCovariance(SITES, 'mean', width=3, groups=2),),
    'Density': (Density(SITES, threshold=0.5),),
    'Histogram': (Histogram(QUANTITIES), Histogram((('cosine', 'resid.10', 'same'),), linear=True)),
    'TopExamples': (TopExamples(SITES, k=5),),
    'Sample': (Sample(SITES, size=40, classes=CLASSES), Sample(SITES, size=4 * N, fold='fit', seed=3)),
    'ShiftCovariance': (ShiftCovariance(SITES),)}
ALL = [pytest.param(s, id=f'{kind}{i}') for kind, cases in CASES.items() for i, s in enumerate(cases)]
ONE = [pytest.param(cases[0], id=kind) for kind, cases in CASES.items()]


def examples(offset=0., seed=0, n=N, dtype=np.float32):
  """({site: [n, D]}, batch) of correlated rows whose mean lies `offset` deviations away."""
  rng = np.random.default_rng(seed)
  common = rng.normal(size=(n, 3))
  acts = {s: common @ rng.normal(size=(3, d)) + rng.normal(size=(n, d)) for s, d in WIDTHS.items()}
  acts = {s: (x + offset * rng.normal(size=x.shape[1])).astype(dtype) for s, x in acts.items()}
  batch = {'weight': np.ones(n, np.float32), 'index': rng.permutation(1000)[:n].astype(np.int32),
           'label': rng.integers(0, CLASSES, n).astype(np.int32)}
  return acts, batch


def take(acts, batch, rows, size):
  """Batches of `size` of the given rows, the last filled up with rows of weight 0 that hold NaN."""
  for k in range(0, len(rows), size):
    some = rows[k:k + size]
    pick = lambda x, empty: np.concatenate([x[some], np.full((size - len(some), *x.shape[1:]), empty, x.dtype)])
    yield ({s: pick(x, np.nan) for s, x in acts.items()},
           {f: pick(x, 0) for f, x in batch.items()})


def run(statistic, batches, state=None):
  batches = list(batches)
  specs = {s: (x.shape[1:], x.dtype) for s, x in batches[0][0].items()}
  state = empty(statistic, tuple(specs.items())) if state is None else state
  for acts, batch in batches:
    state = compiled(statistic)[0](state, acts, batch)
  return state


@functools.cache
def empty(statistic, specs):
  return statistic.init({s: jax.ShapeDtypeStruct((BATCH, *shape), dtype) for s, (shape, dtype) in specs})


@functools.cache
def compiled(statistic):
  return jax.jit(statistic.update), jax.jit(statistic.merge)


def ways(statistic, acts, batch, whole=True):
  """{how the rows came: state}; `whole` as one batch too, on one device and on four."""
  n, rng = len(batch['index']), np.random.default_rng(1)
  split = lambda rows: take(acts, batch, rows, BATCH)
  padded = [{k: np.concatenate([np.full_like(x[:4], bad), x[:20], np.full_like(x[:8], bad)]) for k, x in part.items()}
            for part, bad in zip((acts, batch), (np.nan, 0))]
  rest = run(statistic, split(np.arange(20, n)))
  out = {
      'split': run(statistic, split(np.arange(n))),
      'merged': compiled(statistic)[1](run(statistic, split(np.arange(41))), run(statistic, split(np.arange(41, n)))),
      'padded': run(statistic, [tuple(padded)], rest),
      'shuffled': run(statistic, split(rng.permutation(n)))}
  if whole:
    mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    placed = jax.device_put((acts, batch), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data')))
    out |= {'whole': run(statistic, [(acts, batch)]), 'sharded': run(statistic, [placed])}
  return out


def test_every_statistic_is_here():
  modules = [importlib.import_module(m.name) for m in pkgutil.iter_modules(statistics.__path__, 'aspects.statistics.')]
  kinds = [v for module in modules for v in vars(module).values()
           if inspect.isclass(v) and v.__module__ == module.__name__ and dataclasses.is_dataclass(v)]
  found = [v.__name__ for v in kinds]
  # One that counts rows in blocks depends on their order, one that reruns the network needs one: both have their oracle
  # in the test of their measure.
  free = [name for name, v in zip(found, kinds) if not (getattr(v, 'by_blocks', False) or getattr(v, 'reruns', False))]
  assert sorted(free) == sorted(CASES) == sorted(BRUTE)
  for cases in CASES.values():
    for statistic in cases:
      assert statistic == dataclasses.replace(statistic) and hash(statistic) == hash(dataclasses.replace(statistic))


@pytest.mark.parametrize('statistic', ALL)
def test_equals_numpy_however_the_rows_come(statistic):
  acts, batch = examples()
  expected = brute(statistic, acts, batch)
  for how, state in ways(statistic, acts, batch, statistic == CASES[type(statistic).__name__][0]).items():
    # a value within float32 rounding of an edge may fall into the next bin: see test_quantiles
    skip = ('counts',) if isinstance(statistic, Histogram) else ()
    same(statistic.finish(jax.device_get(state)), expected, how, skip=skip)


@pytest.mark.parametrize('statistic', ALL)
def test_memory_does_not_grow(statistic):
  acts, batch = examples(n=3 * N)
  shapes = lambda state: jax.tree.map(lambda x: (x.shape, x.dtype), state)
  start = empty(statistic, tuple((s, (x.shape[1:], x.dtype)) for s, x in acts.items()))
  for n in (BATCH, 3 * N):
    assert shapes(run(statistic, take(acts, batch, np.arange(n), BATCH))) == shapes(start)
  pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(start)]
  assert len(set(pointers)) == len(pointers), 'a buffer that stands twice in the state cannot be donated'


@pytest.mark.parametrize('statistic', ALL)
def test_a_batch_of_padding_changes_nothing(statistic):
  acts, batch = examples()
  nothing = {s: np.full_like(x[:BATCH], np.nan) for s, x in acts.items()}, {f: 0 * x[:BATCH] for f, x in batch.items()}
  before = run(statistic, take(acts, batch, np.arange(N), BATCH))
  same(statistic.finish(run(statistic, [nothing], before)), statistic.finish(before), 'after')
  first = run(statistic, take(acts, batch, np.arange(N), BATCH), run(statistic, [nothing]))
  same(statistic.finish(first), statistic.finish(before), 'before')
  alone = statistic.finish(run(statistic, [nothing]))
  assert not any(np.isnan(np.asarray(x, np.float64)).any() for x in jax.tree.leaves(alone))


@pytest.mark.parametrize('statistic', ONE)
def test_low_precision_activations_lose_nothing(statistic):
  acts, batch = examples(dtype=jnp.bfloat16)
  state = run(statistic, take(acts, batch, np.arange(N), BATCH))
  assert not any(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(state))
  skip = ('counts',) if isinstance(statistic, Histogram) else ()
  same(statistic.finish(state), brute(statistic, acts, batch), skip=skip)


@pytest.mark.parametrize('statistic', ONE)
def test_no_product_is_rounded_by_the_platform(statistic):
  """GPUs and TPUs multiply float32 in 10 or 8 bits unless told not to."""
  acts, batch = examples()
  statistic = dataclasses.replace(statistic, **(dict(pool='mean') if hasattr(statistic, 'pool') else {}))
  acts = {s: x.reshape(N // 4, 4, -1) for s, x in acts.items()}
  batch = {f: x[::4] for f, x in batch.items()}
  state = jax.eval_shape(statistic.init, {s: jax.ShapeDtypeStruct(x.shape, x.dtype) for s, x in acts.items()})
  with jax.default_matmul_precision('default'):
    programs = jax.make_jaxpr(statistic.update)(state, acts, batch), jax.make_jaxpr(statistic.merge)(state, state)
  text = '\n'.join(map(str, programs))
  assert text.count('dot_general[') == text.count('precision=(Precision.HIGHEST, Precision.HIGHEST)')
  assert text.count('dot_general[') >= 1               # the mean over tokens is one


@pytest.mark.parametrize('offset', (10., 1e2, 1e3, 1e4))
@pytest.mark.parametrize('statistic', [CASES[kind][0] for kind in ('Covariance', 'ClassCovariance', 'CrossCovariance')])
def test_a_large_mean_costs_no_digits(statistic, offset):
  acts, batch = examples(offset=offset)
  expected = brute(statistic, acts, batch)
  for how, state in ways(statistic, acts, batch, whole=False).items():
    same(statistic.finish(jax.device_get(state)), expected, how)


def test_a_mean_is_a_pair_of_floats():
  """The mean of rows at 1e4 deviations is better than one float32 can say."""
  acts, batch = examples(offset=1e4)
  statistic = Covariance(SITES)
  found = statistic.finish(run(statistic, take(acts, batch, np.arange(N), BATCH)))
  for s in SITES:
    exact = acts[s].astype(np.float64).mean(0)
    error = np.abs(found[s].mean - exact).max()
    assert error < 1e-6 < np.abs(exact.astype(np.float32) - exact).max()


def test_a_long_stream_costs_no_digits():
  """4,000 merges of ones and thirds: a plain float32 sum is off by 1e-5."""
  statistic, third = Density(('x',), threshold=0.), np.float32(1 / 3)
  batch = {'weight': np.array([third, 1], np.float32), 'index': np.zeros(2, np.int32)}
  acts = {'x': np.array([[1.], [-1.]], np.float32)}
  @jax.jit
  def stream(state):
    return jax.lax.fori_loop(0, 4000, lambda _, s: statistic.update(s, acts, batch), state)
  found = statistic.finish(stream(statistic.init({'x': jax.ShapeDtypeStruct((2, 1), np.float32)})))
  np.testing.assert_allclose(found['x'].active[0], 4000 * float(third), rtol=1e-9)
  plain = functools.reduce(lambda a, b: np.float32(a + b), [third] * 4000)
  assert abs(plain / (4000 * float(third)) - 1) > 1e-6


@pytest.mark.parametrize('statistic', CASES['Histogram'])
def test_counts_and_quantiles_to_a_bin(statistic):
  acts, batch = examples(seed=2)
  found = statistic.finish(run(statistic, take(acts, batch, np.arange(N), BATCH)))
  x = {s: v.astype(np.float64) for s, v in acts.items()}
  quantiles = found.quantile(LEVELS)
  for k, value in enumerate(scalars(statistic, x)):
    below = np.concatenate([[0], np.cumsum(found.counts[k])])
    slack = 1e-5 * np.maximum(np.abs(found.edges), 1e-6)
    low, high = (np.searchsorted(np.sort(value), found.edges + sign * slack) for sign in (-1, 1))
    assert (low <= below).all() and (below <= high).all()
    # between the two values around rank q n, to the bins that they fall in
    rank = np.maximum(np.ceil(np.array(LEVELS) * len(value)).astype(int), 1)
    around = np.sort(value)[np.maximum(rank - 2, 0)], np.sort(value)[rank - 1]
    bins = [np.diff(found.edges)[np.searchsorted(found.edges, v, side='right') - 1] for v in around]
    assert (around[0] - bins[0] - 1e-6 <= quantiles[k]).all() and (quantiles[k] <= around[1] + bins[1] + 1e-6).all()
    np.testing.assert_allclose(quantiles[k][[0, -1]], [value.min(), value.max()], rtol=1e-6)
