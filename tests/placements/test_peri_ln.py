"""Peri-LN: what a sublayer adds is of unit size whatever it computes; the control bounds nothing."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import plugin

X = jax.random.normal(jax.random.key(0), (2, 3, 8))


def joined(name, sublayer):
  """x + what the placement adds for one sublayer, RMS norm with gain 1: (result, number of parameters)."""
  placement = plugin.build('placements', dict(name=name), norm=dict(name='rms'), branch=None, depth=1)
  variables = placement.init(jax.random.key(1), X, {'channel': sublayer}, jnp.asarray(0))
  return placement.apply(variables, X, {'channel': sublayer}, jnp.asarray(0)), len(jax.tree.leaves(variables['params']))


def rms_norm(x):
  x = np.asarray(x, np.float64)
  return x / np.sqrt((x ** 2).mean(-1, keepdims=True) + 1e-6)


@pytest.mark.parametrize('size', [1e-1, 1.0, 1e3])
def test_the_contribution_has_unit_rms_whatever_the_sublayer_does(size):
  added = np.asarray(joined('peri', lambda h: size * jnp.sin(3 * h))[0] - X)
  np.testing.assert_allclose(added, rms_norm(size * np.sin(3 * rms_norm(X))), atol=1e-4)
  np.testing.assert_allclose(np.sqrt((added ** 2).mean(-1)), 1, atol=1e-3)


def test_both_norms_in_front_are_one_and_bound_nothing():
  pre, one = joined('pre', lambda h: 50 * h)
  twice, two = joined('twice_pre', lambda h: 50 * h)
  np.testing.assert_allclose(twice, pre, atol=1e-3)
  assert np.abs(twice - X).max() > 50 and two == joined('peri', lambda h: h)[1] == 2 * one
