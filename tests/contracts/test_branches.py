"""Laws of all branches: `Module(y [B, T, D], layer) -> [B, T, D]`, a linear map of what a sublayer adds; every file."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import plugin
from tests import fill

SPECS = plugin.examples('branches')
B, T, D = 2, 5, 8
each = pytest.mark.parametrize('case', range(len(SPECS)), ids=str)


def stream(seed):
  return fill.normal(seed, B, T, D)


@functools.cache
def branch(case):
  module = plugin.build('branches', SPECS[case], depth=6)
  variables = fill.variables(module, stream(1), jnp.asarray(0))
  return module, variables, jax.jit(module.apply)


@each
def test_shape_and_dtype(case):
  module, variables, apply = branch(case)
  assert apply(variables, stream(1), jnp.asarray(1)).shape == (B, T, D)
  low = module.apply(variables, stream(1).astype(jnp.bfloat16), jnp.asarray(1))
  assert low.shape == (B, T, D) and low.dtype == jnp.bfloat16
  np.testing.assert_allclose(low.astype(jnp.float32), apply(variables, stream(1), jnp.asarray(1)), rtol=0.02, atol=0.01)


@each
def test_linear(case):
  _, variables, apply = branch(case)
  f = functools.partial(apply, variables, layer=jnp.asarray(2))
  np.testing.assert_allclose(f(2 * stream(1) - 3 * stream(2)), 2 * f(stream(1)) - 3 * f(stream(2)), atol=1e-5)
  np.testing.assert_array_equal(f(jnp.zeros((B, T, D))), 0)


@each
def test_each_token_alone_and_what_is_added_lets_gradients_through(case):
  _, variables, apply = branch(case)
  jacobian = jax.jacobian(lambda row: apply(variables, stream(1).at[0, 0].set(row), jnp.asarray(0)))(stream(1)[0, 0])
  assert np.isfinite(jacobian).all() and (np.abs(np.diagonal(jacobian[0, 0])) > 0).all()
  np.testing.assert_array_equal(jacobian[0, 1:], 0)
  np.testing.assert_array_equal(jacobian[1], 0)
