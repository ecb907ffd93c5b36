"""Laws of every learning rule: it lowers a convex loss, is deterministic, compiles once, and resumes from its state."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax import linen as nn

from aspects import checkpoint
from aspects import plugin
from aspects import train

RULES = plugin.names('learning')


class Linear(nn.Module):
  """Softmax regression: the cross-entropy is convex in the parameters."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(3)(x)


def batch(n=24):
  x = jax.random.normal(jax.random.key(5), (n, 4))
  return {'input': x, 'label': jnp.argmax(x[:, :3], 1), 'weight': jnp.ones(n), 'index': jnp.arange(n)}


def steps(rule, count, state=None):
  """(state, losses) after `count` steps on one batch, seeds 0 and 1."""
  net, advance = Linear(), train.compiled_step(Linear(), rule)
  state = train.init(net, rule, (0, 1), batch()) if state is None else state
  both = jax.tree.map(lambda x: jnp.stack([x, x]), batch())
  losses = []
  for _ in range(count):
    state, info = advance(state, both)
    losses.append(np.asarray(info['loss']))
  assert advance._cache_size() == 1, 'the second call was compiled again'
  return state, np.asarray(losses)


@pytest.fixture(params=RULES)
def rule(request):
  return plugin.build('learning', dict(name=request.param, learning_rate=0.1, schedule='constant'))


def test_lowers_a_convex_loss(rule):
  losses = steps(rule, 60)[1]
  assert (losses[-1] < 0.5 * losses[0]).all() and np.isfinite(losses).all()


def test_is_deterministic_and_seeds_differ(rule):
  (a, la), (b, lb) = steps(rule, 4), steps(rule, 4)
  jax.tree.map(np.testing.assert_array_equal, a, b)
  np.testing.assert_array_equal(la, lb)
  assert (la[0, 0] != la[0, 1]).all()


def test_state_survives_a_checkpoint(rule, tmp_path):
  whole, _ = steps(rule, 6)
  half, _ = steps(rule, 3)
  with checkpoint.Checkpoints(tmp_path / 'c') as saved:
    saved.save(3, half, {})
    half = saved.restore(half).state
  again, _ = steps(rule, 3, half)
  jax.tree.map(np.testing.assert_array_equal, whole, again)


def test_a_row_of_weight_zero_changes_nothing(rule):
  net, state = Linear(), train.init(Linear(), rule, (0,), batch())
  one = jax.tree.map(lambda x: x[0], state)
  padded = {k: jnp.concatenate([v, v[:5]]) for k, v in batch().items()}
  padded['weight'] = padded['weight'].at[24:].set(0.0)
  padded['input'] = padded['input'].at[24:].set(1e4)
  a, b = (train.step(net, rule, one, b)[0] for b in (batch(), padded))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), a.params, b.params)
