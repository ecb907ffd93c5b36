"""Laws of all channels: `Module(x [B, T, D]) -> [B, T, D]`, each token alone, in every file of the folder."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import plugin
from aspects import sites
from tests import fill

SPECS = plugin.examples('channels')
B, T, D = 2, 5, 8
each = pytest.mark.parametrize('case', range(len(SPECS)), ids=str)


def stream(seed):
  return fill.normal(seed, B, T, D)


@functools.cache
def channel(case):
  """(module, variables, compiled apply -> (output, sites), compiled gradients)."""
  module = plugin.build('channels', SPECS[case])
  variables = fill.variables(module, stream(1))
  apply = jax.jit(lambda v, x: sites.record_sites(module, v, (x,), ('*',), {}, {}))
  gradients = jax.jit(jax.grad(lambda v, x: jnp.sum(jnp.square(module.apply(v, x))), argnums=(0, 1)))
  return module, variables, apply, gradients


@each
def test_shape_and_dtype(case):
  _, variables, apply, _ = channel(case)
  exact, _ = apply(variables, stream(1))
  assert exact.shape == (B, T, D) and exact.dtype == jnp.float32
  low = plugin.build('channels', SPECS[case], dtype='bfloat16').apply(variables, stream(1).astype(jnp.bfloat16))
  assert low.shape == (B, T, D) and low.dtype == jnp.bfloat16
  assert np.abs(low.astype(jnp.float32) - exact).max() < 0.05 * np.abs(exact).max()


@each
def test_commutes_with_any_order_of_tokens(case):
  _, variables, apply, _ = channel(case)
  x, order = stream(1), np.array([3, 0, 4, 1, 2])
  np.testing.assert_allclose(apply(variables, x[:, order])[0], apply(variables, x)[0][:, order], atol=1e-6)


@each
def test_each_token_alone(case):
  _, variables, apply, _ = channel(case)
  x = stream(1)
  changed, same = apply(variables, x.at[:, 2].set(jnp.nan))[0], apply(variables, x)[0]
  assert np.isnan(changed[:, 2]).all()
  np.testing.assert_array_equal(np.delete(changed, 2, 1), np.delete(same, 2, 1))


@each
@pytest.mark.parametrize('size', (0.0, 1.0, 1e4))
def test_finite_with_its_gradients(case, size):
  _, variables, apply, gradients = channel(case)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients(variables, stream(1) * size)))
  assert np.isfinite(apply(variables, stream(1) * size)[0]).all()


@each
def test_the_neurons_are_what_the_output_map_reads(case):
  _, variables, apply, _ = channel(case)
  y, acts = apply(variables, stream(1))
  assert {'channel_pre', 'channel_act'} <= set(acts)
  out = variables['params']['out']
  neurons = np.float64(acts['channel_act'])
  written = neurons @ np.float64(out['kernel']) + np.float64(out.get('bias', 0))
  np.testing.assert_allclose(written, y, rtol=1e-5, atol=1e-5)
  assert np.abs(np.float64(acts['channel_pre'])[..., :D] @ np.float64(out['kernel'])[:D] - y).max() > 1e-2
