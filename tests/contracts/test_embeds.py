"""Laws of all embeds: `Module(inputs [B, ...]) -> [B, T, width]` for each input that the class `takes`; every file."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import plugin
from tests import fill

CASES = [(spec, takes) for spec in plugin.examples('embeds')
         for takes in plugin.component('embeds', spec['name']).takes]
B, WIDTH = 3, 8
each = pytest.mark.parametrize('case', range(len(CASES)), ids=str)


def inputs(case, seed):
  shape, dtype = CASES[case][1]
  if jnp.issubdtype(dtype, jnp.integer):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 9, (B, *shape)), dtype)
  return fill.normal(seed, B, *shape)


@functools.cache
def embed(case):
  module = plugin.build('embeds', CASES[case][0], width=WIDTH)
  variables = fill.variables(module, inputs(case, 1))
  return variables, jax.jit(module.apply)


@each
def test_shape_and_dtype(case):
  variables, apply = embed(case)
  exact = apply(variables, inputs(case, 1))
  assert exact.ndim == 3 and exact.shape[::2] == (B, WIDTH) and exact.dtype == jnp.float32
  low = plugin.build('embeds', CASES[case][0], width=WIDTH, dtype='bfloat16').apply(variables, inputs(case, 1))
  assert low.shape == exact.shape and low.dtype == jnp.bfloat16
  np.testing.assert_allclose(low.astype(jnp.float32), exact, atol=0.05)


@each
def test_examples_do_not_interact_and_each_counts(case):
  variables, apply = embed(case)
  first, second = inputs(case, 1), inputs(case, 2)
  mixed = apply(variables, first.at[1:].set(second[1:]))
  np.testing.assert_array_equal(mixed[0], apply(variables, first)[0])
  np.testing.assert_array_equal(mixed[1:], apply(variables, second)[1:])
  assert (np.abs(apply(variables, first) - apply(variables, second)).max((1, 2)) > 1e-4).all()


@each
def test_every_part_of_the_input_is_read(case):
  variables, apply = embed(case)
  x = inputs(case, 1)
  for position in np.ndindex(x.shape[1:]):
    other = x.at[(0, *position)].add(1)
    assert np.abs(apply(variables, other)[0] - apply(variables, x)[0]).max() > 1e-5, position


@each
def test_an_input_without_features_is_refused(case):
  spec, (_, dtype) = CASES[case]
  with pytest.raises(ValueError, match=r'\[B, .*got'):
    jax.eval_shape(plugin.build('embeds', spec, width=WIDTH).init, jax.random.key(0),
                   jax.ShapeDtypeStruct((B,), jnp.dtype(dtype)))
