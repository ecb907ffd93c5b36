"""LayerNorm scaling against its formula, its control, and what it is for: a stream that grows less."""
import jax
import jax.numpy as jnp
import numpy as np

from aspects import sites
from aspects.claims import spec
from aspects.net import Net
from aspects.norms.depth_scaled import DepthScaled
from aspects.norms.scaled_input import ScaledInput

X = np.random.default_rng(0).normal(2, 3, (4, 5, 16)).astype(np.float32)


def layer_norm(x):
  x = x.astype(np.float64)
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def test_the_output_of_the_norm_of_block_l_is_divided_by_its_root():
  norm = DepthScaled()
  variables = norm.init(jax.random.key(0), X, jnp.asarray(0))
  for layer in (0, 1, 11):
    np.testing.assert_allclose(norm.apply(variables, X, jnp.asarray(layer)), layer_norm(X) / np.sqrt(layer + 1),
                               atol=1e-5)
  np.testing.assert_allclose(norm.apply(variables, X, None), layer_norm(X), atol=1e-5, err_msg='the final norm')


def test_scaling_in_front_of_the_norm_does_nothing():
  norm = ScaledInput()
  variables = norm.init(jax.random.key(0), X, jnp.asarray(0))
  np.testing.assert_allclose(norm.apply(variables, X, jnp.asarray(11)), layer_norm(X), atol=1e-4)


def test_the_stream_grows_less_than_under_pre_norm():
  """Untrained, branches of equal size give a variance that is linear in depth, scaled ones a harmonic sum."""
  claim, grown = spec.load('configs/norms/lns.py'), {}
  tokens = jax.random.randint(jax.random.key(1), (16, 32), 0, 256)
  for arm in ('pre', 'lns', 'before'):
    net = Net(outputs=256, **claim.arms[arm]['net'])
    variables = jax.jit(net.init)(jax.random.key(0), tokens)
    acts = sites.forward(net, variables, tokens, record=('resid_post.0', 'resid_post.11'))[1]
    grown[arm] = float(acts['resid_post.11'].var() / acts['resid_post.0'].var())
  assert grown['lns'] < .7 * grown['pre'] and abs(grown['before'] / grown['pre'] - 1) < 1e-2
