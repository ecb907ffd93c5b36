"""Laws of all norms: `Module(x [B, T, D], layer) -> [B, T, D]`, `layer` None for the final norm; every file."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import plugin
from tests import fill

SPECS = plugin.examples('norms')
B, T, D = 2, 5, 16
each = pytest.mark.parametrize('case', range(len(SPECS)), ids=str)


def stream(seed):
  return 3 + 2 * fill.normal(seed, B, T, D)


@functools.cache
def norm(case):
  module = plugin.build('norms', SPECS[case])
  variables = jax.jit(module.init)(jax.random.key(0), stream(1), jnp.asarray(0))
  cubes = lambda v, x: jnp.sum(module.apply(v, x, None) ** 3)
  return variables, jax.jit(module.apply), jax.jit(jax.grad(cubes, argnums=(0, 1)))


@each
def test_shape_and_dtype(case):
  variables, apply, _ = norm(case)
  assert apply(variables, stream(1), None).shape == (B, T, D)
  low = plugin.build('norms', SPECS[case], dtype='bfloat16')
  y = low.apply(variables, stream(1).astype(jnp.bfloat16), jnp.asarray(6))
  assert y.shape == (B, T, D) and y.dtype == jnp.bfloat16
  np.testing.assert_allclose(y.astype(jnp.float32), apply(variables, stream(1), jnp.asarray(6)), atol=0.05)


@each
def test_a_fresh_norm_has_mean_square_one(case):
  variables, apply, _ = norm(case)
  y = np.asarray(apply(variables, stream(1) * 100, None))
  np.testing.assert_allclose((y ** 2).mean((1, 2)), 1, rtol=1e-4)


@each
def test_the_scale_of_the_stream_does_not_matter(case):
  variables, apply, _ = norm(case)
  x = stream(1) * 100                                # far above epsilon
  np.testing.assert_allclose(apply(variables, 7 * x, None), apply(variables, x, None), atol=1e-4)


@each
def test_examples_do_not_interact(case):
  variables, apply, _ = norm(case)
  x = stream(1)
  np.testing.assert_array_equal(apply(variables, x.at[1].set(9.0), None)[0], apply(variables, x, None)[0])


@each
def test_the_parameters_do_not_depend_on_the_layer(case):
  variables, apply, _ = norm(case)
  fresh = jax.eval_shape(plugin.build('norms', SPECS[case]).init, jax.random.key(0), stream(1), None)
  assert jax.tree.structure(fresh) == jax.tree.structure(variables)
  x = stream(1) * 100                                # far above epsilon
  for layer in (0, 1, 30):
    y = np.asarray(apply(variables, x, jnp.asarray(layer)))
    base = np.asarray(apply(variables, x, None))
    ratio = (y * base).sum() / (base * base).sum()
    np.testing.assert_allclose(y, ratio * base, atol=1e-5)           # a layer may be scaled, as a whole
    assert 0 < ratio <= 1 + 1e-6


@each
@pytest.mark.parametrize('size', (0.0, 1e-4, 1.0, 1e4))
def test_finite_with_its_gradients(case, size):
  variables, apply, gradients = norm(case)
  x = (stream(1) - 3) * size
  assert np.isfinite(apply(variables, x, None)).all()
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients(variables, x)))
