"""Cross-entropy against closed forms."""
import jax
import jax.numpy as jnp
import numpy as np

from aspects.objectives.cross_entropy import CrossEntropy


def test_uniform_logits_cost_log_c():
  loss, info = CrossEntropy()(jnp.zeros((3, 8)), {'label': jnp.array([0, 3, 7])})
  np.testing.assert_allclose(loss, np.log(8), rtol=1e-6)
  np.testing.assert_allclose(info['nll'], np.log(8), rtol=1e-6)


def test_two_classes_are_logistic():
  margin = jnp.array([-2.0, 0.5, 3.0])
  loss, info = CrossEntropy()(jnp.stack([jnp.zeros(3), margin], 1), {'label': jnp.ones(3, jnp.int32)})
  np.testing.assert_allclose(loss, np.log1p(np.exp(-np.asarray(margin))), rtol=1e-5)
  np.testing.assert_array_equal(info['accuracy'], [0, 1, 1])


def test_smoothing_mixes_in_the_mean_over_classes():
  outputs, batch = jax.random.normal(jax.random.key(0), (4, 5)), {'label': jnp.arange(4)}
  log_p = np.asarray(jax.nn.log_softmax(outputs))
  loss, info = CrossEntropy(smoothing=0.1)(outputs, batch)
  np.testing.assert_allclose(loss, -(0.9 * log_p[range(4), range(4)] + 0.1 * log_p.mean(1)), rtol=1e-5)
  np.testing.assert_allclose(info['nll'], -log_p[range(4), range(4)], rtol=1e-6)
