"""Laws of every objective: the loss permutes with the batch, rows do not interact, and the gradient is finite."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import plugin

OBJECTIVES = plugin.names('objectives')


@pytest.fixture(params=OBJECTIVES)
def objective(request):
  return plugin.build('objectives', dict(name=request.param))


def example(tokens: bool):
  shape = (6, 5) if tokens else (6,)
  outputs = jax.random.normal(jax.random.key(0), (*shape, 4))
  batch = {'label': jax.random.randint(jax.random.key(1), shape, 0, 4), 'weight': jnp.ones(6)}
  if tokens:
    batch['mask'] = (jnp.arange(5)[None] < jnp.arange(1, 7)[:, None]).astype(jnp.float32)
  return outputs, batch


@pytest.mark.parametrize('tokens', [False, True])
def test_loss_permutes_with_the_batch(objective, tokens):
  outputs, batch = example(tokens)
  order = np.array([3, 1, 5, 0, 2, 4])
  a, _ = objective(outputs, batch, jax.random.key(0))
  b, _ = objective(outputs[order], {k: v[order] for k, v in batch.items()}, jax.random.key(0))
  assert a.shape == (6,)
  np.testing.assert_array_equal(np.asarray(a)[order], b)


@pytest.mark.parametrize('tokens', [False, True])
def test_rows_do_not_interact(objective, tokens):
  outputs, batch = example(tokens)
  jacobian = jax.jacobian(lambda o: objective(o, batch, jax.random.key(0))[0])(outputs)
  weight = np.abs(np.asarray(jacobian)).reshape(6, 6, -1).sum(-1)
  assert (np.diag(weight) > 0).all()
  np.testing.assert_array_equal(weight - np.diag(np.diag(weight)), 0)


def test_masked_tokens_do_not_count(objective):
  outputs, batch = example(True)
  changed = jnp.where(jnp.broadcast_to(batch['mask'][..., None] > 0, outputs.shape), outputs, jnp.nan)
  for a, b in zip(jax.tree.leaves(objective(outputs, batch, None)), jax.tree.leaves(objective(changed, batch, None))):
    np.testing.assert_array_equal(a, b)
  gradient = jax.grad(lambda o: objective(o, batch, None)[0].sum())(outputs)
  np.testing.assert_array_equal(np.asarray(gradient)[np.asarray(batch['mask']) == 0], 0)


def test_a_misfit_of_shapes_says_so(objective):
  outputs, batch = example(True)
  with pytest.raises(ValueError, match='do not match labels'):
    objective(outputs[:, 0], batch, None)
