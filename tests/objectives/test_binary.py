"""Sigmoid cross-entropy against closed forms and against probabilities written out in float64."""
import jax
import jax.numpy as jnp
import numpy as np

from aspects.objectives.binary import Binary


def test_zero_logits_cost_log_2_a_label():
  loss, info = Binary()(jnp.zeros((3, 5)), {'label': jnp.ones((3, 5), jnp.int32)})
  np.testing.assert_allclose(loss, 5 * np.log(2), rtol=1e-6)
  np.testing.assert_array_equal(loss, info['nll'])


def test_is_the_likelihood_of_independent_labels():
  z = np.random.default_rng(0).normal(size=(4, 3)) * 3
  y = np.random.default_rng(1).integers(0, 2, (4, 3))
  p = 1 / (1 + np.exp(-z))
  expected = -np.log(np.where(y == 1, p, 1 - p)).sum(1)
  loss, info = Binary()(jnp.float32(z), {'label': jnp.int32(y)})
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  hit = (p > .5) == (y == 1)
  np.testing.assert_allclose(info['accuracy'], hit.mean(1), rtol=1e-6)
  for k in range(3):
    np.testing.assert_array_equal(info[f'accuracy_{k}'], hit[:, k])
  assert set(info) == {'nll', 'accuracy', 'accuracy_0', 'accuracy_1', 'accuracy_2'}


def test_labels_do_not_interact():
  """The gradient is p - y, each label's own."""
  z, y = jnp.array([[2., -1., .5]]), jnp.array([[1, 1, 0]])
  gradient = jax.grad(lambda z: Binary()(z, {'label': y})[0].sum())(z)
  np.testing.assert_allclose(gradient, 1 / (1 + np.exp(-np.float64(z))) - np.float64(y), rtol=1e-5)


def test_a_class_is_its_one_hot_vector():
  z, label = jax.random.normal(jax.random.key(0), (6, 4)), jnp.array([0, 3, 1, 2, 2, 0])
  loss, info = Binary()(z, {'label': label})
  np.testing.assert_allclose(loss, Binary()(z, {'label': jnp.eye(4, dtype=jnp.int32)[label]})[0], rtol=1e-6)
  np.testing.assert_array_equal(info['accuracy'], np.asarray(z).argmax(1) == np.asarray(label))


def test_large_logits_cost_their_size_and_nothing_overflows():
  z, y = jnp.array([[1e4, -1e4], [1e4, -1e4]]), jnp.array([[1, 0], [0, 0]])
  loss, _ = Binary()(z, {'label': y})
  np.testing.assert_array_equal(loss, [0., 1e4])
  assert np.isfinite(jax.grad(lambda z: Binary()(z, {'label': y})[0].sum())(z)).all()


def test_tokens_are_averaged_where_the_mask_allows():
  z = jax.random.normal(jax.random.key(0), (2, 3, 2))
  y, mask = jnp.ones((2, 3, 2), jnp.int32), jnp.array([[1., 1., 0.], [1., 0., 0.]])
  loss, info = Binary()(z, {'label': y, 'mask': mask})
  each = np.log1p(np.exp(-np.float64(z))).sum(-1)
  np.testing.assert_allclose(loss, [each[0, :2].mean(), each[1, 0]], rtol=1e-5)
  np.testing.assert_allclose(info['accuracy_1'], [(np.asarray(z)[0, :2, 1] > 0).mean(), z[1, 0, 1] > 0])
