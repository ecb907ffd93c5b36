"""Variance shares of labels against least squares on all rows, and where the answer is known."""
import jax
import numpy as np
import pytest

from aspects import measure
from aspects.representations.variance_share import LabelCovariance, VarianceShare


def oracle(acts, labels, factors=1, classes=2):
  """{variable: [site, factor] or [site]} by least squares of all rows on indicators of every value, float64."""
  labels = np.asarray(labels).reshape(len(labels), factors)
  names = ('share', 'marginal', 'units_won', 'explained', 'chance')
  out = {name: [] for name in names}
  hot = [(labels[:, k, None] == np.arange(classes)[None]) * 1. for k in range(factors)]
  hot = [h - h.mean(0) for h in hot]
  spread = lambda x: (x ** 2).sum(0)
  def fit(f, x):
    return np.linalg.lstsq(f, x, rcond=None)[0]
  for x in acts.values():
    x = np.asarray(x, np.float64)
    x = x - x.mean(0)
    total = spread(x).sum()
    alone = np.stack([spread(h @ fit(h, x)) for h in hot])
    both = np.concatenate(hot, 1)
    weights = np.split(fit(both, x), factors)
    out['share'].append([spread(h @ w).sum() / total for h, w in zip(hot, weights)])
    out['marginal'].append(alone.sum(1) / total)
    out['units_won'].append([sum(alone[:, d].argmax() == k and alone[k, d] > 0 for d in range(x.shape[1]))
                             for k in range(factors)])
    out['explained'].append(spread(both @ fit(both, x)).sum() / total)
    out['chance'].append([(len(set(labels[:, k])) - 1) / (len(x) - 1) for k in range(factors)])
  return out


def examples(n=300, d=6, classes=2, seed=0):
  """Rows [n, d] of three labels that go together: the second and third copy the first in some of the rows."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, classes, (n, 3))
  for k, share in ((1, .2), (2, .4)):
    copied = rng.uniform(size=n) < share
    labels[copied, k] = labels[copied, 0]
  effects = rng.normal(size=(3, classes, d)) * np.array([2., 1., .5])[:, None, None]
  x = sum(effects[k][labels[:, k]] for k in range(3)) + rng.normal(size=(n, d))
  return x.astype(np.float32), labels


@pytest.mark.parametrize('classes', [2, 4])
def test_equals_least_squares_on_all_rows(classes):
  x, labels = examples(classes=classes)
  rng = np.random.default_rng(1)
  sites = {'near': x, 'far': x + 1e3 * rng.normal(size=(1, 6)).astype(np.float32), 'narrow': x[:, :1],
           'dead units': np.concatenate([x, np.zeros_like(x)], 1)}
  found = measure.measure_arrays(VarianceShare(('*',), 3, classes), sites, labels, batch_size=64)
  for name, value in oracle(sites, labels, 3, classes).items():
    # at 1e3 deviations the float32 input itself is only exact to 6e-5 deviations
    np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(found[name][[0, 2, 3]], np.array(value)[[0, 2, 3]], rtol=1e-5, atol=1e-9, err_msg=name)
  assert abs(found.share - found.marginal).sel(site='near').max() > .01       # the labels do go together here


def test_known_shares():
  """z = (3 f_0 + e, 2 f_1, 1) with balanced signs f and noise e = +-1/2: variances 9 + 1/4, 4 and 0."""
  f = np.array([[a, b] for a in (0, 1) for b in (0, 1)] * 50)
  signs, noise = 2. * f - 1, np.where(np.arange(200)[:, None] % 8 < 4, .5, -.5)     # as often with each combination
  x = np.concatenate([3 * signs[:, :1] + noise, 2 * signs[:, 1:], np.ones((200, 1))], 1).astype(np.float32)
  found = measure.measure_arrays(VarianceShare(('x',), 2), {'x': x}, f)
  for name in ('share', 'marginal'):
    np.testing.assert_allclose(found[name][0], np.array([9, 4]) / 13.25, rtol=1e-6)
  np.testing.assert_allclose(found.explained[0], 13 / 13.25, rtol=1e-6)
  np.testing.assert_array_equal(found.units_won[0], [1, 1])
  np.testing.assert_allclose(found.chance[0], 1 / 199, rtol=1e-12)


def test_a_label_that_goes_with_another_has_no_share_of_its_own():
  """z copies f_0 only; f_1 agrees with f_0 in 3 of 4 rows, so its marginal is the squared correlation 1/4."""
  f = np.array([[0, 0], [0, 0], [0, 0], [0, 1], [1, 1], [1, 1], [1, 1], [1, 0]] * 10)
  x = np.concatenate([f[:, :1] * 5., f[:, :1] - 2.], 1).astype(np.float32)
  found = measure.measure_arrays(VarianceShare(('x',), 2), {'x': x}, f).isel(site=0)
  np.testing.assert_allclose(found.marginal, [1, .25], rtol=1e-6)
  np.testing.assert_allclose(found.share, [1, 0], atol=1e-6)
  np.testing.assert_array_equal(found.units_won, [2, 0])


def test_chance_is_the_mean_over_orders_of_the_label():
  x, labels = examples(n=40, d=3, classes=4)
  rng = np.random.default_rng(2)
  shuffled = [rng.permutation(labels[:, 0]) for _ in range(400)]
  found = [oracle({'x': x}, y, 1, 4) for y in shuffled]
  each, chance = np.array([f['marginal'][0][0] for f in found]), found[0]['chance'][0][0]
  assert chance == 3 / 39 and abs(each.mean() - chance) < 4 * each.std() / 20


def test_whole_equals_split_merged_padded_and_sharded_with_several_labels():
  x, labels = examples(n=96)
  statistic = LabelCovariance(('x',), 3, 2)
  batch = {'label': labels.astype(np.int32), 'weight': np.ones(96, np.float32)}
  start = statistic.init({'x': jax.ShapeDtypeStruct(x.shape, x.dtype)})
  update = jax.jit(statistic.update)
  part = lambda rows: ({'x': x[rows]}, {k: v[rows] for k, v in batch.items()})
  parts = [update(start, *part(slice(k, k + 32))) for k in (0, 32, 64)]
  mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  placed = jax.device_put(part(slice(0, 96)), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data')))
  empty = ({'x': np.concatenate([x, np.full((32, 6), np.nan, np.float32)])},
           {'label': np.concatenate([batch['label'], np.ones((32, 3), np.int32)]),
            'weight': np.concatenate([batch['weight'], np.zeros(32, np.float32)])})
  states = {'whole': update(start, *part(slice(0, 96))),
            'split': update(update(parts[0], *part(slice(32, 64))), *part(slice(64, 96))),
            'merged': statistic.merge(statistic.merge(parts[2], parts[0]), parts[1]),
            'padded': update(start, *empty), 'sharded': update(start, *placed)}
  f = np.concatenate([labels, x], 1).astype(np.float64)
  f -= f.mean(0)
  for how, state in states.items():
    found = statistic.finish(jax.device_get(state))['x']
    np.testing.assert_allclose(found.scatter, f[:, :3].T @ f, atol=1e-4, err_msg=how)
    np.testing.assert_allclose(found.power, (f[:, 3:] ** 2).sum(0), rtol=1e-6, err_msg=how)
    assert found.n == 96


def test_invariances_both_ways():
  x, labels = examples()
  rng, d = np.random.default_rng(3), x.shape[1]
  turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
  moved = {'as it is': x, 'permutation': x[:, rng.permutation(d)], 'rotation': x @ turn, 'scale': 7 * x,
           'translation': x + 3 * rng.normal(size=(1, d)), 'linear': x @ rng.normal(size=(d, d))}
  found = measure.measure_arrays(VarianceShare(('*',), 3), {s: v.astype(np.float32) for s, v in moved.items()}, labels)
  for name, declared in VarianceShare.invariant.items():
    for move in list(moved)[1:]:
      gap = abs(found[name].sel(site=move) / found[name].sel(site='as it is') - 1).max()
      assert (gap < 1e-4) == (move in declared), (name, move)
  # which units a label wins is a question of the basis
  won = {move: found.units_won.sel(site=move).values.tolist() for move in moved}
  assert won['permutation'] == won['scale'] == won['translation'] == won['as it is'] != won['linear']
  assert found.units_won.sel(site='rotation').sum() == d


def test_swapping_labels_swaps_shares_and_renaming_values_changes_nothing():
  x, labels = examples()
  share = lambda y: measure.measure_arrays(VarianceShare(('*',), 3), {'x': x}, y).share.values
  np.testing.assert_allclose(share(labels[:, [2, 0, 1]]), share(labels)[:, [2, 0, 1]], rtol=1e-6)
  np.testing.assert_allclose(share(1 - labels), share(labels), rtol=2e-5)


def test_what_has_no_share_is_named():
  x, labels = examples()
  with pytest.warns(UserWarning, match="site 'flat' does not vary"):
    found = measure.measure_arrays(VarianceShare(('*',), 3), {'flat': np.ones_like(x), 'x': x}, labels)
  assert np.isnan(found.share.sel(site='flat')).all() and np.isfinite(found.share.sel(site='x')).all()
  labels[:, 2] = 1 - labels[:, 1]
  with pytest.warns(UserWarning, match="some labels determine another in the 300 rows at site 'x'"):
    found = measure.measure_arrays(VarianceShare(('*',), 3), {'x': x}, labels)
  assert np.isnan(found.share).all() and np.isfinite(found.marginal).all()


def test_a_constant_label_explains_nothing():
  x, labels = examples()
  labels[:, 1] = 1
  found = measure.measure_arrays(VarianceShare(('*',), 3), {'x': x}, labels).isel(site=0)
  assert found.share[1] == found.marginal[1] == found.chance[1] == found.units_won[1] == 0 and found.share[0] > 0


def test_errors_say_the_value_and_the_rule():
  x, labels = examples()
  with pytest.raises(ValueError, match=r'labels \(300, 3\) are not \[B, 2\]: factors is'):
    measure.measure_arrays(VarianceShare(('*',), 2), {'x': x}, labels)
  with pytest.raises(ValueError, match='factors is 0; an example has one label or more'):
    VarianceShare(factors=0)
  with pytest.raises(ValueError, match='classes is 1; a label takes two values'):
    VarianceShare(classes=1)
  with pytest.raises(ValueError, match='give the field classes'):
    measure.measure_arrays(VarianceShare(('*',)), {'x': x}, labels[:, 0])
