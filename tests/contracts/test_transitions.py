"""Laws of all transitions: `Module(x [B, T, D]) -> [B, T', width]`, from one stage to the next; every file."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import plugin
from tests import fill

SPECS = plugin.examples('transitions')
B, T, D, WIDTH = 2, 16, 8, 12
each = pytest.mark.parametrize('case', range(len(SPECS)), ids=str)


def stream(seed):
  return fill.normal(seed, B, T, D)


@functools.cache
def transition(case):
  module = plugin.build('transitions', SPECS[case], width=WIDTH)
  return fill.variables(module, stream(1)), jax.jit(module.apply)


@each
def test_shape_and_dtype(case):
  variables, apply = transition(case)
  exact = apply(variables, stream(1))
  assert exact.shape[::2] == (B, WIDTH) and exact.shape[1] <= T
  low = plugin.build('transitions', SPECS[case], width=WIDTH, dtype='bfloat16')
  y = low.apply(variables, stream(1).astype(jnp.bfloat16))
  assert y.shape == exact.shape and y.dtype == jnp.bfloat16
  np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.05)


@each
def test_every_token_counts_and_examples_do_not_interact(case):
  variables, apply = transition(case)
  jacobian = jax.jacobian(lambda x: apply(variables, x))(stream(1))       # [B, T', W, B, T, D]
  reach = np.abs(jacobian).sum((1, 2, 5))                                 # [B, B, T]
  assert (np.diagonal(reach, axis1=0, axis2=1) > 0).all()
  np.testing.assert_array_equal(reach[0, 1], 0)
  np.testing.assert_array_equal(reach[1, 0], 0)


@each
@pytest.mark.parametrize('size', (0.0, 1e4))
def test_finite(case, size):
  variables, apply = transition(case)
  assert np.isfinite(apply(variables, stream(1) * size)).all()
