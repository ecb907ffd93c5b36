"""Barriers and curvature on a line where they are known: polynomials, a double well, a small network by differences."""
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from aspects.nn import segments
from aspects.nn.perceptron import Perceptron


def polynomial(coefficients):
  """A loss whose restriction to the line from {'x': 0} to {'x': 1} is the polynomial."""
  return lambda p: jnp.polyval(jnp.asarray(coefficients), p['x'][0])


ENDS = {'x': jnp.zeros(1)}, {'x': jnp.ones(1)}


@pytest.mark.parametrize('coefficients', [(3., -1., 2.), (1., -2., .5, 4.), (-16., 32., -20., 4., 1.)])
@pytest.mark.parametrize('n', [5, 13])
def test_curvature_gives_the_midpoint_exactly_up_to_degree_four(coefficients, n):
  """f(1/2) - (f(0) + f(1)) / 2 = -1/2 int min(a, 1 - a) f'' da, with Simpson's rule exact for cubic integrands."""
  loss = polynomial(coefficients)
  curvature = segments.segment_curvature(loss, *ENDS, n)
  np.testing.assert_allclose(curvature, np.polyval(np.polyder(coefficients, 2), np.linspace(0, 1, n)), atol=2e-4)
  excess = np.polyval(coefficients, .5) - (np.polyval(coefficients, 0) + np.polyval(coefficients, 1)) / 2
  found = segments.midpoint_from_curvature(np.polyval(np.polyder(coefficients, 2), np.linspace(0, 1, n)))
  np.testing.assert_allclose(found, excess, atol=1e-13)
  np.testing.assert_allclose(segments.midpoint_from_curvature(curvature), excess, atol=1e-5)
  np.testing.assert_allclose(segments.lmc_barrier(loss, *ENDS, n).midpoint, excess, atol=1e-6)


def test_the_identity_converges_with_the_fourth_power_of_the_step_on_a_smooth_function():
  """f = sin(7 a) exp(a), in float64 on the host: the rule alone."""
  f = lambda a: np.sin(7 * a) * np.exp(a)
  second = lambda a: np.exp(a) * (14 * np.cos(7 * a) - 48 * np.sin(7 * a))
  excess = f(.5) - (f(0) + f(1)) / 2
  errors = [abs(segments.midpoint_from_curvature(second(np.linspace(0, 1, n))) - excess) for n in (33, 65, 129)]
  np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 16, rtol=.05)


def test_a_double_well_has_a_barrier_that_its_ends_do_not_show():
  """16 a^2 (1 - a)^2: two minima of loss 0 with curvature 32 each, and 1 between them."""
  loss = polynomial((16., -32., 16., 0., 0.))
  found = segments.lmc_barrier(loss, *ENDS, 21)
  np.testing.assert_allclose([found.barrier, found.midpoint, found.curve[0], found.curve[-1]], [1, 1, 0, 0], atol=1e-6)
  curvature = segments.segment_curvature(loss, *ENDS, 21)
  np.testing.assert_allclose(segments.midpoint_from_curvature(curvature), 1, atol=1e-5)
  np.testing.assert_allclose(segments.midpoint_from_ends(curvature), -4, atol=1e-4)


def test_ends_are_enough_where_the_curvature_is_linear():
  coefficients = (1., -3., 0., 2.)                                  # f'' = 6 a - 6
  curvature = np.polyval(np.polyder(coefficients, 2), np.linspace(0, 1, 9))
  np.testing.assert_allclose(segments.midpoint_from_ends(curvature), segments.midpoint_from_curvature(curvature))


def test_a_convex_loss_has_no_barrier_and_a_tilt_adds_none():
  convex = polynomial((1., 0., 0.))
  assert segments.lmc_barrier(convex, *ENDS, 11).barrier == 0
  well = segments.lmc_barrier(polynomial((16., -32., 16., 0., 0.)), *ENDS, 21)
  tilted = segments.lmc_barrier(polynomial((16., -32., 16., 5., 3.)), *ENDS, 21)
  np.testing.assert_allclose(tilted.barrier, well.barrier, atol=1e-5)


@pytest.fixture(scope='module')
def network():
  """(loss, two sets of parameters) of a small tanh network."""
  net, x = Perceptron(outputs=3, widths=(6, 5), act='tanh'), jax.random.normal(jax.random.key(0), (40, 4))
  label = jax.random.randint(jax.random.key(1), (40,), 0, 3)
  p, q = (jax.tree.map(lambda w: 2 * w, net.init(jax.random.key(k), x)['params']) for k in (2, 3))
  return lambda p: -jax.nn.log_softmax(net.apply({'params': p}, x))[jnp.arange(40), label].mean(), p, q


def test_curvature_of_a_network_is_that_of_its_hessian(network):
  """The whole Hessian, made and multiplied; the identity ties it to the loss at three points."""
  loss, p, q = network
  flat, back = flatten_util.ravel_pytree(p)
  d = flatten_util.ravel_pytree(q)[0] - flat
  expected = [d @ jax.hessian(lambda w: loss(back(w)))(flat + a * d) @ d for a in np.linspace(0, 1, 5)]
  np.testing.assert_allclose(segments.segment_curvature(loss, p, q, 5), expected, rtol=1e-3, atol=1e-4)
  fine = segments.midpoint_from_curvature(segments.segment_curvature(loss, p, q, 65))
  found = segments.lmc_barrier(loss, p, q, 65)
  np.testing.assert_allclose(fine, found.midpoint, atol=1e-4)
  assert found.barrier >= found.midpoint and abs(found.midpoint) > .1


def test_ends_of_the_curve_are_the_networks_and_layers_move_alone(network):
  loss, p, q = network
  whole = segments.lmc_barrier(loss, p, q, 5)
  np.testing.assert_allclose([whole.curve[0], whole.curve[-1]], [loss(p), loss(q)], rtol=1e-6)
  mixed = {'layer_0': p['layer_0'], 'layer_1': q['layer_1'], 'head': p['head']}
  one = segments.lmc_barrier(loss, p, q, 5, layers=('layer_1',))
  np.testing.assert_allclose(one.curve, segments.lmc_barrier(loss, p, mixed, 5).curve, rtol=1e-6)
  np.testing.assert_allclose(one.curve[-1], loss(mixed), rtol=1e-6)
  every = segments.lmc_barrier(loss, p, q, 5, layers=tuple(p))
  np.testing.assert_array_equal(every.curve, whole.curve)


def test_it_compiles_once_and_maps(network):
  loss, p, q = network
  traced = []
  def counted(p):
    traced.append(1)
    return loss(p)
  program = jax.jit(jax.vmap(lambda p, q: segments.lmc_barrier(counted, p, q, 9)))
  pairs = jax.tree.map(lambda *w: jnp.stack(w), p, q), jax.tree.map(lambda *w: jnp.stack(w), q, p)
  there = program(*pairs).curve
  calls = len(traced)
  np.testing.assert_allclose(there[0], there[1][::-1], rtol=1e-4)                        # a line has two directions
  assert program(*pairs[::-1]).curve.shape == (2, 9) and len(traced) == calls


def test_what_cannot_be_is_told(network):
  loss, p, q = network
  with pytest.raises(ValueError, match='n is 4; give an odd number'):
    segments.lmc_barrier(loss, p, q, 4)
  with pytest.raises(ValueError, match="no layer 'layer_7'; layers: head, layer_0, layer_1"):
    segments.lmc_barrier(loss, p, q, 5, layers=('layer_7',))
  with pytest.raises(ValueError, match='at 7 points'):
    segments.midpoint_from_curvature(np.zeros(7))
