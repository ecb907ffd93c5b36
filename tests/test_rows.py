"""How tensors become rows: pools, masks, samples; and what is refused."""
import jax
import numpy as np
import pytest

from aspects import stats
from aspects.statistics.class_covariance import ClassCovariance
from aspects.statistics.covariance import Covariance
from aspects.statistics.cross_covariance import CrossCovariance
from aspects.statistics.density import Density
from aspects.statistics.histogram import Histogram
from aspects.statistics.sample import Rows, Sample
from tests.brute import BRUTE, mix, same


def test_pools_give_the_rows_they_name():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(3, 4, 2)).astype(np.float32)
  mask = np.array([[1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 0, 0]], np.float32)
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


def once(statistic, acts, batch):
  specs = {s: jax.ShapeDtypeStruct(x.shape, x.dtype) for s, x in acts.items()}
  return statistic.finish(jax.jit(lambda: statistic.update(statistic.init(specs), acts, batch))())


def test_masked_tokens_never_reach_a_statistic():
  rng = np.random.default_rng(0)
  x, mask = rng.normal(size=(8, 5, 3)).astype(np.float32), (rng.uniform(size=(8, 5)) < .7).astype(np.float32)
  mask[:, 0] = 1
  hidden = np.where(mask[..., None] > 0, x, np.nan).astype(np.float32)
  batch = {'weight': np.ones(8, np.float32), 'index': np.arange(8, dtype=np.int32), 'mask': mask,
           'label': rng.integers(0, 3, (8, 5)).astype(np.int32)}
  rows, position = x[mask > 0].astype(np.float64), np.nonzero(mask)[1]
  for statistic in (Covariance(('x',)), ClassCovariance(('x',), 3, 'tokens'), Density(('x',))):
    found = once(statistic, {'x': hidden}, batch)
    same(found, BRUTE[type(statistic).__name__](statistic, {'x': rows}, batch['label'][mask > 0], np.zeros(len(rows))))
  statistic = Sample(('x',), 100, 'tokens', classes=3)
  found = once(statistic, {'x': hidden}, batch)
  example = np.nonzero(mask)[0]
  order = np.argsort(mix(example, position, 0))
  same(found, Rows({'x': rows[order]}, batch['label'][mask > 0][order], example[order], position[order]))


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
    Covariance(('x',), 'max').init(spec)
  with pytest.raises(ValueError, match="kinds are value, norm"):
    Histogram((('ratio', 'x'),)).init(spec)
  for statistic in (CrossCovariance(('x', 'y'), 'tokens'), Sample(('x', 'y'), pool='tokens')):
    with pytest.raises(ValueError, match="different numbers of positions.*pool by 'mean'"):
      statistic.update(statistic.init(spec), acts, batch)
  with pytest.raises(ValueError, match='pool by tokens, first or last'):
    statistic = ClassCovariance(('y',), 2, 'mean')
    statistic.update(statistic.init(spec), acts, batch)
  with pytest.raises(ValueError, match='another batch axis'):
    stats.rows(acts['x'][:3], batch, 'tokens')


def test_a_sample_of_positions_is_drawn_by_the_example():
  """k of the positions that count, without repeats, the same for every site and batch, all equally often."""
  rng = np.random.default_rng(0)
  b, t, k = 400, 6, 2
  place = np.broadcast_to(np.arange(t)[None, :, None], (b, t, 1)).astype(np.float32)
  mask = np.ones((b, t), np.float32)
  mask[:40, 3:] = 0
  mask[40:50, 1:] = 0
  batch = {'weight': np.ones(b, np.float32), 'index': np.arange(b, dtype=np.int32), 'mask': mask,
           'label': rng.integers(0, 9, (b, t)).astype(np.int32)}
  hidden = np.where(mask[..., None] > 0, place, np.nan).astype(np.float32)
  found, weight = (np.asarray(v) for v in stats.rows(hidden, batch, 'sample 2'))
  index, position = (np.asarray(v) for v in stats.row_ids(hidden, batch, 'sample 2'))
  label = np.asarray(stats.row_field(batch['label'], hidden, batch, 'sample 2'))
  assert len(found) == b * k == stats.positions(jax.ShapeDtypeStruct(hidden.shape, np.float32), 'sample 2') * b
  np.testing.assert_array_equal(index, np.repeat(np.arange(b), k))
  np.testing.assert_array_equal(found[weight > 0, 0], position[weight > 0])
  np.testing.assert_array_equal(label, batch['label'][index, position])
  assert (weight.reshape(b, k).sum(1) == np.minimum(mask.sum(1), k)).all()
  pairs = position.reshape(b, k)
  assert (pairs[:, 0] != pairs[:, 1]).all()
  counts = np.bincount(pairs[50:].ravel(), minlength=t)      # 350 examples, each position with probability 1/3
  assert (abs(counts - 350 / 3) < 4 * np.sqrt(350 * 2 / 9)).all()
  later = {f: v[200:] for f, v in batch.items()}
  np.testing.assert_array_equal(np.asarray(stats.rows(hidden[200:], later, 'sample 2')[0]), found[400:])
  whole = stats.rows(place, batch, 'sample 9')[0]
  np.testing.assert_array_equal(np.sort(np.asarray(whole).reshape(b, t), 1), place[..., 0])


def test_a_sample_of_positions_reaches_the_statistics():
  rng = np.random.default_rng(1)
  acts = {s: rng.normal(size=(16, 5, d)).astype(np.float32) for s, d in (('a', 3), ('b', 2))}
  batch = {'weight': np.ones(16, np.float32), 'index': np.arange(16, dtype=np.int32)}
  found = once(CrossCovariance(('a', 'b'), 'sample 3'), acts, batch)
  rows = {s: np.asarray(stats.rows(x, batch, 'sample 3')[0], np.float64) for s, x in acts.items()}
  same(found, BRUTE['CrossCovariance'](CrossCovariance(('a', 'b')), rows, None, np.zeros(48)))
  with pytest.raises(ValueError, match="cannot be paired under pool 'sample 3'"):
    once(CrossCovariance(('a', 'b'), 'sample 3'), {**acts, 'b': acts['b'][:, :4]}, batch)
  with pytest.raises(ValueError, match="'sample' is not one of .* or `sample k`"):
    once(CrossCovariance(('a', 'b'), 'sample'), acts, batch)
