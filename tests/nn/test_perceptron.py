"""The perceptron against its formula in numpy float64."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import sites
from aspects.nn.perceptron import Perceptron
from tests import fill

X = fill.normal(1, 5, 2, 3)


@pytest.mark.parametrize('widths', [(), (4,), (6, 4)])
def test_equals_its_formula_and_names_every_layer(widths):
  net = Perceptron(outputs=3, widths=widths)
  variables = fill.variables(net, X)
  out, acts = sites.forward(net, variables, X, record=('*',))
  p = jax.tree.map(np.float64, variables['params'])
  assert set(p) == {*(f'layer_{i}' for i in range(len(widths))), 'head'}
  h, expected = np.float64(X).reshape(5, 6), {}
  for i in range(len(widths)):
    expected[f'channel_pre.{i}'] = h @ p[f'layer_{i}']['kernel'] + p[f'layer_{i}']['bias']
    expected[f'resid_post.{i}'] = h = np.maximum(expected[f'channel_pre.{i}'], 0)
  expected['logits'] = h @ p['head']['kernel'] + p['head']['bias']
  assert list(acts) == list(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(acts[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
  np.testing.assert_array_equal(out, acts['logits'])


def test_the_nonlinearity_and_the_precision_are_fields():
  net = Perceptron(outputs=3, widths=(4,), act='tanh')
  variables = fill.variables(net, X)
  p = jax.tree.map(np.float64, variables['params'])
  h = np.tanh(np.float64(X).reshape(5, 6) @ p['layer_0']['kernel'] + p['layer_0']['bias'])
  np.testing.assert_allclose(net.apply(variables, X), h @ p['head']['kernel'] + p['head']['bias'], rtol=1e-5)
  low = Perceptron(outputs=3, widths=(4,), act='tanh', dtype='bfloat16')
  out, acts = sites.forward(low, variables, X, record=('resid_post.0',))
  assert acts['resid_post.0'].dtype == jnp.bfloat16 and out.dtype == jnp.float32
  assert np.abs(out - net.apply(variables, X)).max() < 0.05


def test_an_unknown_nonlinearity_names_the_nearest():
  with pytest.raises(ValueError, match="no activation 'relus'; did you mean 'relu'"):
    fill.variables(Perceptron(outputs=3, act='relus'), X)
