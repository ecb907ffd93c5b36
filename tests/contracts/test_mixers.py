"""Laws of all mixers: `Module(x [B, T, D], *, mask, positions) -> [B, T, D]`, in every file of the folder."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import plugin
from tests import fill

SPECS = plugin.examples('mixers')
B, T, D = 2, 25, 8                                   # 25 tokens are a line for some and a 5 x 5 grid for others
SYMMETRIES = ('causal', 'permutation', 'local', 'shift')
ALL = np.ones((B, T), np.float32)
each = pytest.mark.parametrize('case', range(len(SPECS)), ids=str)


def stream(seed, shape=(B, T, D)):
  return fill.normal(seed, *shape)


@functools.cache
def mixer(case):
  """(module, variables, compiled apply(variables, x, mask), compiled gradients(variables, x, mask, pull))."""
  module = plugin.build('mixers', SPECS[case])
  variables = fill.variables(module, stream(1))
  apply = functools.partial(module.apply, positions=jnp.arange(T))
  def loss(variables, x, mask, pull):
    real = jnp.broadcast_to(mask[..., None] > 0, pull.shape)
    return jnp.sum(jnp.where(real, pull * apply(variables, x, mask=mask), 0))
  run = jax.jit(lambda variables, x, mask=ALL: apply(variables, x, mask=mask))
  return module, variables, run, jax.jit(jax.grad(loss, argnums=(0, 1)))


def masked():
  """A mask that spares some tokens at the start, inside and at the end, and none of the second example."""
  mask = np.ones((B, T), np.float32)
  mask[0, [0, 7, 8, 24]] = 0
  return mask


@each
def test_shape_and_dtype(case):
  _, variables, apply, _ = mixer(case)
  exact = apply(variables, stream(1))
  assert exact.shape == (B, T, D) and exact.dtype == jnp.float32
  low = plugin.build('mixers', SPECS[case], dtype='bfloat16')
  y = jax.jit(lambda v, x: low.apply(v, x, mask=None, positions=None))(variables, stream(1).astype(jnp.bfloat16))
  assert y.shape == (B, T, D) and y.dtype == jnp.bfloat16
  assert np.abs(y.astype(jnp.float32) - exact).max() < 0.05 * np.abs(exact).max()
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))


@each
def test_one_token(case):
  module, x = plugin.build('mixers', SPECS[case]), stream(1, (B, 1, D))
  y = module.apply(fill.variables(module, x), x, mask=np.array([[1.0], [0.0]]))
  assert y.shape == (B, 1, D) and np.isfinite(y).all()


@each
def test_examples_do_not_interact(case):
  _, variables, apply, _ = mixer(case)
  x = stream(1)
  other = x.at[1].set(stream(2)[1])
  np.testing.assert_array_equal(apply(variables, x)[0], apply(variables, other)[0])


@each
@pytest.mark.parametrize('poison', (7.0, 1e4, np.inf, np.nan))
def test_masked_tokens_have_no_influence(case, poison):
  _, variables, apply, _ = mixer(case)
  x, mask = stream(1), masked()
  real = mask[..., None] > 0
  poisoned = jnp.where(real, x, poison)
  np.testing.assert_array_equal(np.where(real, apply(variables, poisoned, mask), 0),
                                np.where(real, apply(variables, x, mask), 0))
  if np.isfinite(poison):                            # without the mask the same tokens are read
    assert np.abs(np.where(real, apply(variables, poisoned) - apply(variables, x), 0)[0]).max() > 1e-3


@each
def test_masked_tokens_have_no_gradient(case):
  _, variables, _, gradients = mixer(case)
  mask, pull = masked(), stream(3)
  real = mask[..., None] > 0
  clean = gradients(variables, stream(1), mask, pull)
  np.testing.assert_array_equal(np.where(real, 0, clean[1]), 0)
  assert (np.abs(clean[1]).sum(-1) > 0)[mask > 0].mean() > 0.9          # a rectifier may be closed at a token
  poisoned = gradients(variables, jnp.where(real, stream(1), jnp.nan), mask, pull)
  jax.tree.map(np.testing.assert_array_equal, poisoned, clean)


@each
def test_gradients_are_finite(case):
  _, variables, _, gradients = mixer(case)
  for x, mask in ((stream(1), ALL), (stream(1) * 1e4, ALL), (jnp.zeros((B, T, D)), ALL), (stream(1), 0 * ALL)):
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients(variables, x, mask, stream(3))))


def broken(symmetry, f):
  """By how much `f` [B, T, D] -> [B, T, D] breaks a symmetry: 0 if it holds."""
  x = stream(4, (B, T + 1, D))
  window = x[:, :T]
  if symmetry == 'causal':                           # later tokens do not reach earlier ones
    later = window.at[:, 13:].set(stream(5)[:, 13:])
    return f(later)[:, :13] - f(window)[:, :13]
  if symmetry == 'permutation':                      # the order of the tokens only orders the outputs
    order = np.random.default_rng(6).permutation(T)
    return f(window[:, order]) - f(window)[:, order]
  if symmetry == 'local':                            # the ends of the line do not reach each other
    first, last = (window.at[:, end].set(stream(5)[:, end]) for end in (0, -1))
    return jnp.stack([f(first)[:, -1] - f(window)[:, -1], f(last)[:, 0] - f(window)[:, 0]])
  if symmetry == 'shift':                            # away from the ends, the same neighbourhood gives the same output
    return f(x[:, 1:])[:, T // 2] - f(window)[:, T // 2 + 1]
  raise ValueError(f'no law is written for the symmetry {symmetry!r}')


@each
@pytest.mark.parametrize('symmetry', SYMMETRIES)
def test_a_symmetry_holds_exactly_where_it_is_declared(case, symmetry):
  module, variables, apply, _ = mixer(case)
  assert set(module.symmetries) <= set(SYMMETRIES)
  size = np.abs(broken(symmetry, functools.partial(apply, variables))).max()
  if symmetry in module.symmetries:
    assert size < 1e-5
  else:
    assert size > 1e-4
