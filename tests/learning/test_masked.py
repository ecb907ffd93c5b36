"""Learning under a mask: against the smaller network that the mask describes, and against plain backpropagation."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects.learning.backprop import Backprop
from aspects.learning.masked import Masked
from aspects.nn.perceptron import Perceptron
from tests import fill

X, LABEL = fill.normal(1, 10, 5), jnp.arange(10) % 3
BATCH = {'input': X, 'label': LABEL, 'weight': jnp.ones(10).at[7].set(0.5), 'index': jnp.arange(10)}
NET, SMALL = Perceptron(outputs=3, widths=(6, 4)), Perceptron(outputs=3, widths=(4, 4))
KEPT = np.array([0, 2, 3, 5])                        # units of layer 0 that the mask leaves
OPTIMIZERS = ({'name': 'adam'}, {'name': 'sgd', 'momentum': 0.9, 'nesterov': True})


def start(seed=0):
  params = fill.variables(NET, X, seed=seed)['params']
  mask = jax.tree.map(lambda w: np.ones(w.shape, bool), params)
  mask['layer_0']['kernel'][:, [1, 4]] = False
  mask['layer_0']['bias'][[1, 4]] = False
  mask['layer_1']['kernel'][[1, 4]] = False
  return params, mask


def fit(rule, net, params, state, steps=5):
  step = jax.jit(lambda p, s: rule.step(net, p, s, BATCH, jax.random.key(0)))
  for _ in range(steps):
    params, state, info = step(params, state)
  return params, state, info


def smaller(params):
  """The network without the units that are masked."""
  return {'layer_0': {'kernel': params['layer_0']['kernel'][:, KEPT], 'bias': params['layer_0']['bias'][KEPT]},
          'layer_1': {'kernel': params['layer_1']['kernel'][KEPT], 'bias': params['layer_1']['bias']},
          'head': params['head']}


@pytest.mark.parametrize('optimizer', OPTIMIZERS, ids=lambda o: o['name'])
def test_masked_units_train_like_the_network_without_them(optimizer):
  """Clipping sees the whole gradient, decay the whole kernel: all must leave out what is masked."""
  fields = dict(optimizer=optimizer, learning_rate=0.05, schedule='constant', clip=0.1, decay=0.1)
  (params, mask), rule, plain = start(), Masked(**fields), Backprop(**fields)
  masked, state = rule.under(mask, params, rule.init(NET, params, BATCH))
  masked, _, info = fit(rule, NET, masked, state)
  small, _, expected = fit(plain, SMALL, smaller(params), plain.init(SMALL, smaller(params), BATCH))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), smaller(masked), small)
  assert info.keys() == expected.keys()
  for name in info:
    np.testing.assert_allclose(info[name], expected[name], rtol=1e-4)


@pytest.mark.parametrize('optimizer', ({'name': 'adam'}, {'name': 'noisy_sgd', 'key': 0}), ids=lambda o: o['name'])
def test_masked_weights_are_zero_bit_by_bit(optimizer):
  (params, mask), rule = start(), Masked(optimizer=optimizer, learning_rate=0.05, decay=0.1)
  fresh, state = rule.under(mask, params, rule.init(NET, params, BATCH))
  for found in (fresh, fit(rule, NET, fresh, state)[0]):
    for m, w in zip(jax.tree.leaves(mask), jax.tree.leaves(found)):
      assert np.asarray(w)[~m].tobytes() == bytes(4 * (~m).sum()) and (np.asarray(w)[m] != 0).all()


def test_weights_set_while_masked_do_not_count():
  """Whatever stands where the mask is closed, the step is the same."""
  (params, mask), rule = start(), Masked(learning_rate=0.05)
  fresh, state = rule.under(mask, params, rule.init(NET, params, BATCH))
  a, b = fit(rule, NET, fresh, state, 1), fit(rule, NET, params, state, 1)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_an_open_mask_is_backpropagation_bit_by_bit():
  (params, _), fields = start(), dict(learning_rate=0.05, decay=0.1)
  a, b = (fit(rule, NET, params, rule.init(NET, params, BATCH)) for rule in (Masked(**fields), Backprop(**fields)))
  jax.tree.map(np.testing.assert_array_equal, a[0], b[0])
  np.testing.assert_array_equal(a[2]['nll'], b[2]['nll'])
  np.testing.assert_array_equal(a[2]['gradient_norm'], b[2]['gradient_norm'])


def test_every_seed_has_its_own_mask():
  (params, mask), rule = start(), Masked(optimizer={'name': 'sgd'}, learning_rate=0.05, schedule='constant')
  stack = lambda a, b: jax.tree.map(lambda x, y: np.stack([x, y]), a, b)
  state = rule.init(NET, params, BATCH)
  params, state = jax.vmap(rule.under)(stack(mask, jax.tree.map(np.ones_like, mask)), stack(params, params),
                                       stack(state, state))
  step = jax.jit(jax.vmap(lambda p, s: rule.step(NET, p, s, BATCH, jax.random.key(0))))
  params, _, _ = step(params, state)
  assert [int((np.asarray(params['layer_0']['kernel'][s]) == 0).sum()) for s in (0, 1)] == [5 * 2, 0]
