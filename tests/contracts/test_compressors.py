"""Laws of all compressors: `plan(evidence, budget) -> plan`, `apply(params, plan) -> params`; every file of the folder.

`evidence` holds `net`, the `params` of one network, and example `inputs`; `budget` is the share that may stay."""
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import plugin
from aspects.nn.perceptron import Perceptron
from tests import fill

SPECS = plugin.examples('compressors')
BUDGETS = (0.9, 0.5, 0.25, 0.1)
X = fill.normal(1, 4, 6)
NET = Perceptron(outputs=3, widths=(20, 12))
each = pytest.mark.parametrize('case', range(len(SPECS)), ids=str)


@functools.cache
def evidence(dtype='float32'):
  params = jax.tree.map(lambda w: w.astype(dtype), fill.variables(NET, X)['params'])
  params['layer_0']['bias'] = params['layer_0']['bias'].at[3].set(-0.0)
  return {'net': NET, 'params': params, 'inputs': X}


@functools.cache
def planned(case, budget):
  return plugin.build('compressors', SPECS[case]).plan(evidence(), budget)


def applied(case, budget):
  return plugin.build('compressors', SPECS[case]).apply(evidence()['params'], planned(case, budget))


def weights_left(params):
  """How many weights of kernels are not zero."""
  return sum(int(np.count_nonzero(layer['kernel'])) for layer in params.values())


def same_bits(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    assert x.dtype == y.dtype and x.shape == y.shape and np.asarray(x).tobytes() == np.asarray(y).tobytes()


@each
@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
def test_a_full_budget_is_the_identity_bit_by_bit(case, dtype):
  compressor = plugin.build('compressors', SPECS[case])
  plan = compressor.plan(evidence(dtype), 1.0)
  assert plan['cost'] == 1
  same_bits(compressor.apply(evidence(dtype)['params'], plan), evidence(dtype)['params'])


@each
def test_the_weights_that_stay_are_within_the_cost_and_the_cost_is_within_the_budget(case):
  before, costs = weights_left(evidence()['params']), [1]
  for budget in BUDGETS:
    cost = planned(case, budget)['cost']
    assert weights_left(applied(case, budget)) / before <= cost + 1e-12 and cost <= budget
    assert cost > budget - 0.07, 'the budget is hardly used'   # a unit of both layers is 2 / 32
    costs.append(cost)
  assert costs == sorted(costs, reverse=True)


@each
def test_the_plan_is_json_and_says_everything(case):
  plan = planned(case, 0.5)
  read = json.loads(json.dumps(plan, allow_nan=False))
  assert read == plan
  same_bits(plugin.build('compressors', SPECS[case]).apply(evidence()['params'], read), applied(case, 0.5))


@each
def test_it_is_deterministic_and_changes_no_argument(case):
  before = jax.tree.map(np.array, evidence()['params'])
  same_bits(applied(case, 0.5), applied(case, 0.5))
  assert plugin.build('compressors', SPECS[case]).plan(evidence(), 0.5) == planned(case, 0.5)
  jax.tree.map(np.testing.assert_array_equal, before, evidence()['params'])


@each
@pytest.mark.parametrize('budget', BUDGETS)
def test_what_stays_is_a_network_with_the_same_inputs_and_outputs(case, budget):
  params = applied(case, budget)
  assert jax.tree.structure(params) == jax.tree.structure(evidence()['params'])
  widths = tuple(params[name]['kernel'].shape[1] for name in ('layer_0', 'layer_1'))
  out = Perceptron(outputs=3, widths=widths).apply({'params': params}, X)
  assert out.shape == (4, 3) and np.isfinite(out).all()
  np.testing.assert_array_equal(params['head']['bias'], evidence()['params']['head']['bias'])


@each
def test_another_network_of_the_same_shapes_takes_the_plan(case):
  other = jax.tree.map(lambda w: 2 * w, evidence()['params'])
  compressor = plugin.build('compressors', SPECS[case])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(b, 2 * a, rtol=1e-6), applied(case, 0.5),
               compressor.apply(other, planned(case, 0.5)))


@each
@pytest.mark.parametrize('budget', (0.0, -0.1, 1.1, float('nan')))
def test_a_budget_that_is_no_share_is_refused(case, budget):
  with pytest.raises(ValueError, match='budget is'):
    plugin.build('compressors', SPECS[case]).plan(evidence(), budget)


@each
def test_a_tree_that_no_network_uses_is_refused(case):
  params = dict(evidence()['params'], spare={'kernel': jnp.ones((2, 2))})
  with pytest.raises(ValueError, match='spare/kernel'):
    plugin.build('compressors', SPECS[case]).plan(evidence() | {'params': params}, 0.5)
