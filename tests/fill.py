"""Variables and inputs for tests, drawn by numpy: compiling an initialiser takes longer than most tests."""
import jax
import jax.numpy as jnp
import numpy as np


def normal(seed, *shape):
  """A float32 array of independent standard normal numbers."""
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def variables(module, *inputs, seed=0, **kwargs):
  """Variables of the shapes that `module.init` gives: matrices around 0, vectors (gains and biases) around 1."""
  rng = np.random.default_rng(seed)
  def draw(leaf):
    return jnp.asarray(0.3 * rng.normal(size=leaf.shape) + (leaf.ndim < 2), leaf.dtype)
  return jax.tree.map(draw, jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **kwargs)))
