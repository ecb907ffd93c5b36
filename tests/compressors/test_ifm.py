"""Iterative feature merging: exact where it must be, its order against a numpy version that deletes what it merges."""
import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import net as net_lib
from aspects import study
from aspects import train
from aspects.claims import spec
from aspects.claims.rows import Cell
from aspects.compressors.feature_merge import FeatureMerge
from aspects.compressors.random_merge import RandomMerge
from aspects.nn import units
from aspects.nn.perceptron import Perceptron
from configs.compressors import ifm as config_file
from experiments import ifm
from tests import fill

CONFIG = pathlib.Path(config_file.__file__)
X = fill.normal(1, 7, 5)


def evidence(widths, seed=0, **fields):
  net = Perceptron(outputs=3, widths=widths, **fields)
  return {'net': net, 'params': fill.variables(net, X, seed=seed)['params'], 'inputs': X}


def run(params):
  """The perceptron of these parameters on X, in numpy float64."""
  h = np.float64(X)
  for name in sorted(set(params) - {'head'}):
    h = np.maximum(h @ np.float64(params[name]['kernel']) + np.float64(params[name]['bias']), 0)
  return h @ np.float64(params['head']['kernel']) + np.float64(params['head']['bias'])


def brute(params, budget):
  """Groups of units of both layers: as said, with rows and columns that are really taken out."""
  w = [np.float64(params[n]['kernel']) for n in ('layer_0', 'layer_1', 'head')]
  groups = [[(i,) for i in range(w[k].shape[1])] for k in (0, 1)]
  left = [max(int(np.floor(budget * len(g) + 1e-9)), 1) for g in groups]
  sizes = [len(g) for g in groups]
  while any(len(g) > n for g, n in zip(groups, left)):
    # The layer that has merged the smallest share, among those that go on.
    _, k = min(((sizes[k] - len(groups[k])) / sizes[k], k) for k in (0, 1) if len(groups[k]) > left[k])
    pairs = itertools.combinations(range(len(groups[k])), 2)
    apart = lambda i, j: ((w[k][:, i] - w[k][:, j]) ** 2).sum() + ((w[k + 1][i] - w[k + 1][j]) ** 2).sum()
    i, j = min(pairs, key=lambda pair: apart(*pair))
    a, b = len(groups[k][i]), len(groups[k][j])
    w[k][:, i] += w[k][:, j]
    w[k + 1][i] = (a * w[k + 1][i] + b * w[k + 1][j]) / (a + b)
    w[k], w[k + 1] = np.delete(w[k], j, 1), np.delete(w[k + 1], j, 0)
    groups[k][i] += groups[k].pop(j)
  return groups, w


@pytest.mark.parametrize('widths', [(12, 12), (16, 6)])
@pytest.mark.parametrize('budget', [0.8, 0.5, 0.2])
def test_the_order_and_the_weights_are_those_of_the_brute_force(widths, budget):
  given = evidence(widths, seed=3)
  plan = FeatureMerge().plan(given, budget)
  groups, kernels = brute(given['params'], budget)
  assert [[tuple(g) for g in layer['groups']] for layer in plan['layers']] == groups
  merged = FeatureMerge().apply(given['params'], plan)
  for name, expected in zip(('layer_0', 'layer_1', 'head'), kernels):
    np.testing.assert_allclose(merged[name]['kernel'], expected, rtol=1e-5, atol=1e-6)
  for layer, name in zip(groups, ('layer_0', 'layer_1')):
    bias = np.float64(given['params'][name]['bias'])
    np.testing.assert_allclose(merged[name]['bias'], [bias[list(g)].sum() for g in layer], rtol=1e-5)


def test_two_units_by_hand():
  net = Perceptron(outputs=1, widths=(3,))
  params = {'layer_0': {'kernel': jnp.array([[1., 5., 2.]]), 'bias': jnp.array([0.5, 7., 0.25])},
            'head': {'kernel': jnp.array([[3.], [-9.], [1.]]), 'bias': jnp.array([4.])}}
  given = {'net': net, 'params': params, 'inputs': jnp.ones((2, 1))}
  merged = FeatureMerge().apply(params, FeatureMerge().plan(given, 0.7))     # 0 and 2: 1 + 4 < 9 + 100, 16 + 144
  np.testing.assert_array_equal(merged['layer_0']['kernel'], [[3., 5.]])
  np.testing.assert_array_equal(merged['layer_0']['bias'], [0.75, 7.])
  np.testing.assert_array_equal(merged['head']['kernel'], [[2.], [-9.]])


@pytest.mark.parametrize('copies', [2, 4])
def test_equal_units_merge_exactly(copies):
  """Every unit `copies` times, fed and read alike; pairs first, whose sums are equal again. The function stays."""
  small = evidence((4, 3))['params']
  spread = lambda w, axis: jnp.repeat(w, copies, axis)
  params = {name: {'kernel': spread(small[name]['kernel'], 1), 'bias': spread(small[name]['bias'], 0)}
            for name in ('layer_0', 'layer_1')} | {'head': small['head']}
  for name in ('layer_1', 'head'):                   # what read one unit now reads its copies, a part each
    params[name] = params[name] | {'kernel': spread(params[name]['kernel'], 0) / copies}
  given = {'net': Perceptron(outputs=3, widths=(4 * copies, 3 * copies)), 'params': params, 'inputs': X}
  plan = FeatureMerge().plan(given, 1 / copies)
  alike = [[tuple(range(copies * i, copies * (i + 1))) for i in range(n)] for n in (4, 3)]
  assert [sorted(tuple(sorted(g)) for g in layer['groups']) for layer in plan['layers']] == alike
  merged = FeatureMerge().apply(params, plan)
  assert merged['layer_1']['kernel'].shape == (4, 3)
  np.testing.assert_allclose(run(merged), run(small), rtol=1e-4, atol=1e-5)


def test_units_fed_alike_merge_exactly_whatever_reads_them():
  """mean(v) relu(n z) = sum(v) relu(z): the sum in front and the mean behind belong together."""
  params = evidence((6, 3))['params']
  first = params['layer_0']
  params['layer_0'] = {'kernel': first['kernel'].at[:, jnp.array([2, 5])].set(first['kernel'][:, :1]),
                       'bias': first['bias'].at[jnp.array([2, 5])].set(first['bias'][0])}
  plan = {'layers': [{'feeds': [['layer_0/kernel', 1], ['layer_0/bias', 0]], 'reads': [['layer_1/kernel', 0]],
                      'groups': [[5, 0, 2], [1], [3], [4]]}]}
  np.testing.assert_allclose(run(units.merge(params, plan)), run(params), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('compressor', [FeatureMerge(), RandomMerge(seed=4)], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize('widths', [(10, 10), (16, 5)])
def test_plans_for_several_budgets_are_the_plans_for_each_and_nest(compressor, widths):
  given, budgets = evidence(widths), (0.2, 0.9, 0.5)
  plans = compressor.plans(given, budgets)
  assert plans == [compressor.plan(given, b) for b in budgets]
  for layer in (0, 1):
    fine, coarse = ([set(g) for g in plans[k]['layers'][layer]['groups']] for k in (1, 0))
    assert all(any(f <= c for c in coarse) for f in fine) and len(fine) > len(coarse)


def test_random_pairs_do_not_ask_the_weights_and_are_uniform():
  a, b = (RandomMerge(seed=2).plan(evidence((8, 8), seed=s), 0.5)['layers'] for s in (0, 1))
  assert a == b
  first = [RandomMerge(seed=s)._pair(np.where(np.eye(4), np.inf, 0.), 0, 0) for s in range(3000)]
  found = np.array([first.count(pair) for pair in itertools.combinations(range(4), 2)])
  assert found.sum() == 3000 and ((found - 500) ** 2 / 500).sum() < 20.5     # chi square, 5 degrees, p = .001


def test_random_pairs_take_only_units_that_are_there():
  distance = np.where(np.eye(6), np.inf, 1.)
  distance[[1, 4]] = distance[:, [1, 4]] = np.inf
  assert {i for s in range(200) for i in RandomMerge(seed=s)._pair(distance, 0, 2)} == {0, 2, 3, 5}


# --- which layers ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('act', ['gelu', 'tanh', 'silu', 'sigmoid'])
def test_other_nonlinearities_are_refused(act):
  with pytest.raises(ValueError, match='not positively homogeneous'):
    FeatureMerge().plan(evidence((6, 6), act=act), 0.5)


def residual(act='relu'):
  net = net_lib.Net(outputs=3, embed=dict(name='vector'), head=dict(name='classify'), depth=1, width=5,
                    channel=dict(name='mlp', act=act, ratio=2.0))
  return {'net': net, 'params': fill.variables(net, X)['params'], 'inputs': X}


def test_in_a_residual_network_only_units_inside_a_block_are_merged():
  """What a unit of the stream writes is read by every later layer; the hidden units of a block have one reader."""
  given = residual()
  plan = FeatureMerge().plan(given, 0.5)
  assert [layer['name'] for layer in plan['layers']] == ['stage_0/block_0/channel/in']
  merged = FeatureMerge().apply(given['params'], plan)
  assert merged['stage_0']['block_0']['channel']['in']['kernel'].shape == (5, 5)
  with pytest.raises(ValueError, match="'embedder/in'.* cannot be merged"):
    FeatureMerge(layers=('embedder/in',)).plan(given, 0.5)
  with pytest.raises(ValueError, match='cannot be merged'):
    FeatureMerge().plan(residual('gelu'), 0.5)


def test_layers_are_chosen_by_name():
  given = evidence((6, 6))
  plan = FeatureMerge(layers=('layer_1',)).plan(given, 0.5)
  assert [layer['name'] for layer in plan['layers']] == ['layer_1'] and plan['cost'] == 0.5
  with pytest.raises(ValueError, match="no hidden layer 'layer_2'"):
    FeatureMerge(layers=('layer_2',)).plan(given, 0.5)


# --- the experiment -------------------------------------------------------------------------------------------------

def test_the_tolerated_share_is_the_last_before_the_first_drop():
  shares = np.array([0., .1, .2, .3])
  accuracy = np.array([[.9, .9, .88, .87], [.9, .85, .9, .9], [.9, .9, .9, .95]])
  np.testing.assert_allclose(ifm.tolerated(shares, accuracy, 0.02), [.2, 0., .3])


def small_config():
  config = config_file.get_config('smoke')
  config.seeds, config.first_seed = 2, 5000
  return config


@functools.cache
def arms():
  return study.build(small_config()).arms


@functools.cache
def trained():
  """The state of both seeds after a few steps."""
  arm = arms()['ifm']
  state = train.init(arm.net, arm.rule, arm.seeds, arm.probe.example())
  advance = train.compiled_step(arm.net, arm.rule)
  for k in range(arm.steps):
    state, _ = advance(state, jax.tree.map(jnp.asarray, arm.streams.batch(k)))
  return state


def test_what_is_judged_is_the_smaller_network():
  """The padded networks of all seeds in one program against each merged network by itself, in numpy float64."""
  arm, procedure, state = arms()['ifm'], ifm.Ifm(fractions=(0.5,), grid=0.3), trained()
  found = procedure.sweep(arm, state, np.zeros(2, bool))
  assert procedure.shares == (0., .3, .5, .6, .9) and found['nll'].shape == (2, 5)
  batch = arm.evaluation.batch(0)
  for s in (0, 1):
    params = jax.tree.map(lambda w, s=s: w[s], state.params)
    plan = FeatureMerge().plan({'net': arm.net, 'params': params, 'inputs': batch['input'][0]}, 0.5)
    h = np.float64(batch['input'][s]).reshape(len(batch['input'][s]), -1)
    merged = FeatureMerge().apply(params, plan)
    for name in ('layer_0', 'layer_1', 'head'):
      h = h @ np.float64(merged[name]['kernel']) + np.float64(merged[name]['bias'])
      h = h if name == 'head' else np.maximum(h, 0)
    p = h - np.log(np.exp(h).sum(1, keepdims=True))
    np.testing.assert_allclose(found['nll'][s, 2], -p[np.arange(len(p)), batch['label'][s]].mean(), rtol=1e-5)
    np.testing.assert_allclose(found['accuracy'][s, 2], (p.argmax(1) == batch['label'][s]).mean(), rtol=1e-6)


def rows(arm, tmp_path, **fields):
  section = dict(arms()[arm].config['procedure'], **fields)
  procedure = ifm.Ifm(**{k: v for k, v in section.items() if k != 'name'})
  return procedure.rows(Cell(arms()[arm].seeds, arms()[arm], tmp_path / arm, lambda: False))


def test_arms_share_the_network_that_they_start_from_and_the_dense_one_stays_as_it_is(tmp_path):
  ours, dense, random = (rows(arm, tmp_path, grid=0.45) for arm in ('ifm', 'dense', 'random'))
  claim = spec.load(CONFIG, 'smoke')
  assert set(ours.metrics) == set(dense.metrics) == set(random.metrics) == set(claim.metrics)
  start = [each.curves['nll@share'][1][:, 0] for each in (ours, dense, random)]
  np.testing.assert_array_equal(start[0], start[1])
  np.testing.assert_array_equal(start[0], start[2])
  for f in (30, 50, 70):
    np.testing.assert_array_equal(dense.metrics[f'nll_{f}'], start[1])
    assert (ours.metrics[f'nll_{f}'] != random.metrics[f'nll_{f}']).all()
  assert dense.metrics['tolerated'].tolist() == [0.9, 0.9] and not ours.diverged.any()


@pytest.mark.parametrize('fields', [dict(fractions=(0.3, 1.0)), dict(grid=0.0),
                                    dict(compressor=dict(name='feature_merges'))])
def test_a_wrong_field_of_the_procedure_is_told(fields):
  with pytest.raises(ValueError, match='fractions|did you mean'):
    ifm.Ifm(**fields)


@pytest.mark.parametrize('scale', ['smoke', 'claim', 'full'])
def test_every_scale_is_a_valid_claim(scale):
  claim = spec.load(CONFIG, scale)
  assert claim.id == 'ifm/1' and {'ours', 'baseline', 'control'} <= set(claim.roles.values())
