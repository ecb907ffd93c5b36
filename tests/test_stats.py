"""Streaming statistics against numpy in float64: whole = split = merged = padded = sharded, in any order."""
import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import stats

SITES = ('embed', 'resid.0')
WIDTHS = {'embed': 5, 'resid.0': 7, 'same': 7}
N, BATCH, CLASSES = 96, 32, 4
LEVELS = (0., .05, .5, .95, 1.)
QUANTITIES = (('value', 'embed'), ('norm', 'resid.0'), ('ratio', 'embed', 'resid.0'))
CASES = {
    'Covariance': (stats.Covariance(SITES), stats.Covariance(SITES, fold='fit')),
    'ClassCovariance': (stats.ClassCovariance(SITES, CLASSES), stats.ClassCovariance(SITES, CLASSES, labels='random', fold='held')),
    'CrossCovariance': (stats.CrossCovariance(SITES), stats.CrossCovariance(SITES, fold='held')),
    'Density': (stats.Density(SITES, threshold=0.5),),
    'Histogram': (stats.Histogram(QUANTITIES), stats.Histogram((('cosine', 'resid.0', 'same'),), linear=True)),
    'TopExamples': (stats.TopExamples(SITES, k=5),),
    'Sample': (stats.Sample(SITES, size=40, classes=CLASSES), stats.Sample(SITES, size=4 * N, fold='fit', seed=3))}
ALL = [pytest.param(s, id=f'{kind}{i}') for kind, cases in CASES.items() for i, s in enumerate(cases)]
ONE = [pytest.param(cases[0], id=kind) for kind, cases in CASES.items()]


def examples(offset=0., seed=0, n=N, dtype=np.float32):
  """({site: [n, D]}, batch) of correlated rows whose mean lies `offset` deviations away; `same` has the width of resid.0."""
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


# --- what each statistic is, written down once more -------------------------------------------------------------------

def mix(*words):
  """MurmurHash3's finaliser over words, in Python integers: [N] uint32."""
  out = []
  for each in np.broadcast(*words):
    h = 0x9E3779B9
    for word in each:
      h ^= int(word) * 0xCC9E2D51 % 2 ** 32
      h = (h ^ h >> 16) * 0x85EBCA6B % 2 ** 32
      h = (h ^ h >> 13) * 0xC2B2AE35 % 2 ** 32
      h ^= h >> 16
    out.append(h)
  return np.array(out, np.uint32)


def brute(statistic, acts, batch):
  """What `finish` should return, from all rows at once in float64."""
  index = batch['index']
  held = mix(index, 5) % 5 == 0
  fold = getattr(statistic, 'fold', 'all')
  kept = {'all': held | True, 'held': held, 'fit': ~held}[fold]
  x = {s: np.asarray(v, np.float64)[kept] for s, v in acts.items()}
  label, index = batch['label'][kept], index[kept]
  return BRUTE[type(statistic).__name__](statistic, x, label, index)


def covariance(statistic, x, label, index):
  return {s: stats.Moments(len(v), v.mean(0), (v - v.mean(0)).T @ (v - v.mean(0)))
          for s, v in x.items() if s in statistic.sites}


def class_covariance(statistic, x, label, index):
  if statistic.labels == 'random':
    label = mix(index, 0, 77) % statistic.classes
  out = {}
  for s, m in covariance(statistic, x, label, index).items():
    members = [x[s][label == c] for c in range(statistic.classes)]
    means = np.stack([v.mean(0) if len(v) else m.mean for v in members])
    out[s] = stats.ClassMoments(*m, np.array([len(v) for v in members]), means)
  return out


def cross_covariance(statistic, x, label, index):
  u = {s: x[s] - x[s].mean(0) for s in statistic.sites}
  length = {s: (v ** 2).sum(1) for s, v in u.items()}
  pairs = [(a, b) for i, a in enumerate(statistic.sites) for b in statistic.sites[i:]]
  return stats.CrossMoments(len(index), {s: x[s].mean(0) for s in statistic.sites}, {(a, b): u[a].T @ u[b] for a, b in pairs},
                            np.array([[length[a] @ length[b] for b in statistic.sites] for a in statistic.sites]))


def density(statistic, x, label, index):
  return {s: stats.Extremes(len(index), (x[s] > statistic.threshold).sum(0), x[s].min(0), x[s].max(0))
          for s in statistic.sites}


def scalars(statistic, x):
  norm = lambda v: np.sqrt((v ** 2).sum(1))
  forms = {'value': lambda v: v.reshape(-1), 'norm': norm, 'ratio': lambda v, w: norm(v) / norm(w),
           'cosine': lambda v, w: (v * w).sum(1) / norm(v) / norm(w)}
  return [forms[kind](*(x[s] for s in sites)) for kind, *sites in statistic.quantities]


def histogram(statistic, x, label, index):
  values = scalars(statistic, x)
  counts = np.stack([np.histogram(v, statistic.edges())[0] for v in values])
  each = lambda f: np.array([f(v) for v in values], np.float64)
  return stats.Histograms(statistic.edges(), counts, each(len), each(np.mean), each(np.min), each(np.max))


def top_examples(statistic, x, label, index):
  out = {}
  for s in statistic.sites:
    order = np.stack([np.lexsort((index, -unit))[:statistic.k] for unit in x[s].T])
    out[s] = stats.Top(np.take_along_axis(x[s].T, order, 1), index[order], np.zeros_like(order))
  return out


def sample(statistic, x, label, index):
  order = np.lexsort((index, mix(index, 0, statistic.seed)))[:statistic.size]
  kept = label[order] if statistic.classes else np.zeros(len(order))
  return stats.Rows({s: x[s][order] for s in statistic.sites}, kept, index[order], np.zeros(len(order)))


BRUTE = {'Covariance': covariance, 'ClassCovariance': class_covariance, 'CrossCovariance': cross_covariance, 'Density': density,
         'Histogram': histogram, 'TopExamples': top_examples, 'Sample': sample}


def same(found, expected, message='', rtol=1e-6, skip=()):
  """Equal structures whose arrays agree to `rtol` of each array's largest entry."""
  if hasattr(found, '_fields'):
    found, expected = ({f: getattr(t, f) for f in t._fields if f not in skip} for t in (found, expected))
  if isinstance(found, dict):
    assert list(found) == list(expected), message
    for key in found:
      same(found[key], expected[key], f'{message}/{key}', rtol, skip)
    return
  scale = np.abs(np.asarray(expected, np.float64)).max(initial=0)
  np.testing.assert_allclose(np.asarray(found, np.float64), np.asarray(expected, np.float64), rtol=0, atol=rtol * scale,
                             err_msg=message)


# --- the laws -----------------------------------------------------------------------------------------------------------

def test_every_statistic_is_here():
  found = [name for name, v in vars(stats).items() if inspect.isclass(v) and v.__module__ == stats.__name__
           and dataclasses.is_dataclass(v)]
  assert sorted(found) == sorted(CASES) == sorted(BRUTE)
  for cases in CASES.values():
    for statistic in cases:
      assert statistic == dataclasses.replace(statistic) and hash(statistic) == hash(dataclasses.replace(statistic))


@pytest.mark.parametrize('statistic', ALL)
def test_equals_numpy_however_the_rows_come(statistic):
  acts, batch = examples()
  expected = brute(statistic, acts, batch)
  for how, state in ways(statistic, acts, batch, statistic == CASES[type(statistic).__name__][0]).items():
    # a value within float32 rounding of an edge may fall into the next bin: see test_quantiles
    skip = ('counts',) if isinstance(statistic, stats.Histogram) else ()
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
  skip = ('counts',) if isinstance(statistic, stats.Histogram) else ()
  same(statistic.finish(state), brute(statistic, acts, batch), skip=skip)


@pytest.mark.parametrize('statistic', ONE)
def test_no_product_is_rounded_by_the_platform(statistic):
  """GPUs and TPUs multiply float32 in 10 or 8 bits unless told not to."""
  acts, batch = examples()
  acts = {s: x.reshape(N // 2, 2, -1) for s, x in acts.items()}
  batch = {f: x[::2] for f, x in batch.items()}
  state = jax.eval_shape(statistic.init, {s: jax.ShapeDtypeStruct(x.shape, x.dtype) for s, x in acts.items()})
  with jax.default_matmul_precision('default'):
    programs = jax.make_jaxpr(statistic.update)(state, acts, batch), jax.make_jaxpr(statistic.merge)(state, state)
  text = '\n'.join(map(str, programs))
  assert text.count('dot_general[') == text.count('precision=(Precision.HIGHEST, Precision.HIGHEST)')
  assert 'dot_general[' in text or isinstance(statistic, (stats.Density, stats.Histogram, stats.TopExamples, stats.Sample))


@pytest.mark.parametrize('offset', (10., 1e2, 1e3, 1e4))
@pytest.mark.parametrize('statistic', [c for kind in ('Covariance', 'ClassCovariance', 'CrossCovariance') for c in CASES[kind][:1]])
def test_a_large_mean_costs_no_digits(statistic, offset):
  acts, batch = examples(offset=offset)
  expected = brute(statistic, acts, batch)
  for how, state in ways(statistic, acts, batch, whole=False).items():
    same(statistic.finish(jax.device_get(state)), expected, how)


def test_a_mean_is_a_pair_of_floats():
  """The mean of rows at 1e4 deviations is better than one float32 can say."""
  acts, batch = examples(offset=1e4)
  statistic = stats.Covariance(SITES)
  found = statistic.finish(run(statistic, take(acts, batch, np.arange(N), BATCH)))
  for s in SITES:
    exact = acts[s].astype(np.float64).mean(0)
    error = np.abs(found[s].mean - exact).max()
    assert error < 1e-6 < np.abs(exact.astype(np.float32) - exact).max()


def test_a_long_stream_costs_no_digits():
  """4,000 merges of ones and thirds: a plain float32 sum is off by 1e-5."""
  statistic, third = stats.Density(('x',), threshold=0.), np.float32(1 / 3)
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


# --- rows -------------------------------------------------------------------------------------------------------------

def test_pools_give_the_rows_they_name():
  rng = np.random.default_rng(0)
  x, mask = rng.normal(size=(3, 4, 2)).astype(np.float32), np.array([[1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 0, 0]], np.float32)
  hidden = np.where(mask[..., None] > 0, x, np.nan).astype(np.float32)
  weight = np.array([1, 1, 0], np.float32)
  batch = {'weight': weight, 'mask': mask}
  whole = {'tokens': x.reshape(12, 2), 'mean': x.astype(np.float64).mean(1), 'first': x[:, 0], 'last': x[:, 3],
           'flatten': x.reshape(3, 8)}
  for pool, expected in whole.items():
    found, each = stats.rows(x, {'weight': weight}, pool)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(each, np.repeat(weight, 4) if pool == 'tokens' else weight)
    assert stats.width(jax.ShapeDtypeStruct(x.shape, x.dtype), pool) == expected.shape[1]
    assert stats.positions(jax.ShapeDtypeStruct(x.shape, x.dtype), pool) == len(expected) // 3
  found, each = stats.rows(hidden, batch, 'tokens')
  np.testing.assert_array_equal(each.reshape(3, 4), weight[:, None] * mask)
  np.testing.assert_allclose(stats.rows(hidden, batch, 'mean')[0][:2], [x[0].mean(0), x[1, 1:3].mean(0)], rtol=1e-6)
  np.testing.assert_array_equal(stats.rows(hidden, batch, 'last')[0], [x[0, 3], x[1, 2], x[2, 0]])
  np.testing.assert_array_equal(stats.rows(hidden, batch, 'flatten')[0], np.nan_to_num(hidden).reshape(3, 8))
  # where the position that is asked for is masked, the example is no row
  np.testing.assert_array_equal(stats.rows(hidden, batch, 'first')[1], [1, 0, 0])
  for pool in ('mean', 'last', 'flatten'):
    np.testing.assert_array_equal(stats.rows(hidden, {**batch, 'mask': mask * [[1], [0], [1]]}, pool)[1], [1, 0, 0])


def test_masked_tokens_never_reach_a_statistic():
  rng = np.random.default_rng(0)
  x, mask = rng.normal(size=(8, 5, 3)).astype(np.float32), (rng.uniform(size=(8, 5)) < .7).astype(np.float32)
  mask[:, 0] = 1
  hidden = np.where(mask[..., None] > 0, x, np.nan).astype(np.float32)
  batch = {'weight': np.ones(8, np.float32), 'index': np.arange(8, dtype=np.int32), 'mask': mask,
           'label': rng.integers(0, 3, (8, 5)).astype(np.int32)}
  rows, position = x[mask > 0].astype(np.float64), np.nonzero(mask)[1]
  for statistic in (stats.Covariance(('x',)), stats.ClassCovariance(('x',), 3, 'tokens'), stats.Density(('x',))):
    found = statistic.finish(run(statistic, [({'x': hidden}, batch)]))
    same(found, BRUTE[type(statistic).__name__](statistic, {'x': rows}, batch['label'][mask > 0], np.zeros(len(rows))))
  statistic = stats.Sample(('x',), 100, 'tokens', classes=3)
  found = statistic.finish(run(statistic, [({'x': hidden}, batch)]))
  example = np.nonzero(mask)[0]
  order = np.argsort(mix(example, position, 0))
  same(found, stats.Rows({'x': rows[order]}, batch['label'][mask > 0][order], example[order], position[order]))


def test_images_are_pooled_over_space():
  x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
  weight = {'weight': np.ones(2, np.float32)}
  np.testing.assert_allclose(stats.rows(x, weight, 'mean')[0], x.astype(np.float64).mean((1, 2)), rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(stats.rows(x, weight, 'tokens')[0], x.reshape(24, 5))


def test_a_sample_is_uniform():
  """Of 1,000 rows 100 are kept: over 400 seeds each row is kept 40 times, give or take a binomial."""
  index = np.arange(1000, dtype=np.uint32)
  kept = np.zeros(1000)
  for seed in range(400):
    kept[np.argsort(np.asarray(stats.mix(index, np.uint32(0), np.uint32(seed))))[:100]] += 1
  z = (kept - 40) / np.sqrt(400 * .1 * .9)
  assert abs(z.mean()) < 1e-9 and .9 < z.std() < 1.1 and np.abs(z).max() < 5


def test_errors_name_the_value_and_the_way_out():
  spec = {'x': jax.ShapeDtypeStruct((4, 2), np.float32), 'y': jax.ShapeDtypeStruct((4, 3, 2), np.float32)}
  batch = {'weight': np.ones(4, np.float32), 'index': np.arange(4, dtype=np.int32), 'label': np.zeros((4, 3), np.int32)}
  acts = {'x': np.zeros((4, 2), np.float32), 'y': np.zeros((4, 3, 2), np.float32)}
  with pytest.raises(ValueError, match="pool 'max' is not one of tokens"):
    stats.Covariance(('x',), 'max').init(spec)
  with pytest.raises(ValueError, match="kinds are value, norm"):
    stats.Histogram((('ratio', 'x'),)).init(spec)
  for statistic in (stats.CrossCovariance(('x', 'y'), 'tokens'), stats.Sample(('x', 'y'), pool='tokens')):
    with pytest.raises(ValueError, match="different numbers of rows.*pool by 'mean'"):
      statistic.update(statistic.init(spec), acts, batch)
  with pytest.raises(ValueError, match='pool by tokens, first or last'):
    statistic = stats.ClassCovariance(('y',), 2, 'mean')
    statistic.update(statistic.init(spec), acts, batch)
  with pytest.raises(ValueError, match='another batch axis'):
    stats.rows(acts['x'][:3], batch, 'tokens')
