"""Mixers on the grid of tokens, place by place in numpy float64."""
import numpy as np
import pytest

from aspects import plugin
from tests import fill

B, SIDE, D = 2, 4, 3
X = fill.normal(1, B, SIDE * SIDE, D)
MASK = np.ones((B, SIDE * SIDE), np.float32)
MASK[0, [0, 5, 6, 15]] = 0
MASK[1, 1:] = 0


def run(spec, x=X, mask=None):
  module = plugin.build('mixers', spec)
  variables = fill.variables(module, x)
  return variables.get('params', {}), np.asarray(module.apply(variables, x, mask=mask))


def window(b, i, j, reach, mask):
  """(row offset, column offset, token) of the real tokens around place (i, j) of example b."""
  places = [(i + a, j + c) for a in range(-reach, reach + 1) for c in range(-reach, reach + 1)]
  return [(p - i, q - j, p * SIDE + q) for p, q in places
          if 0 <= p < SIDE and 0 <= q < SIDE and mask[b, p * SIDE + q] > 0]


@pytest.mark.parametrize('size', [1, 3, 5])
@pytest.mark.parametrize('mask', [None, MASK], ids=['whole', 'masked'])
def test_pool_is_the_mean_of_the_window_minus_the_token(size, mask):
  _, y = run(dict(name='pool', size=size), mask=mask)
  read = np.ones_like(MASK) if mask is None else mask
  for b, i, j in np.ndindex(B, SIDE, SIDE):
    if read[b, i * SIDE + j]:
      near = [np.float64(X[b, t]) for _, _, t in window(b, i, j, size // 2, read)]
      np.testing.assert_allclose(y[b, i * SIDE + j], np.mean(near, 0) - X[b, i * SIDE + j], atol=1e-6)


def test_pool_forgets_what_is_constant_and_has_no_parameters():
  params, y = run(dict(name='pool'), x=np.full((1, 9, 2), 3.5, np.float32))
  assert not params
  np.testing.assert_array_equal(y, 0)


@pytest.mark.parametrize('size', [1, 3])
@pytest.mark.parametrize('mask', [None, MASK], ids=['whole', 'masked'])
def test_depthwise_is_a_filter_for_each_unit(size, mask):
  params, y = run(dict(name='depthwise', size=size), mask=mask)
  kernel, reach = np.float64(params['kernel']), size // 2
  assert kernel.shape == (size, size, D)
  read = np.ones_like(MASK) if mask is None else mask
  for b, i, j in np.ndindex(B, SIDE, SIDE):
    near = window(b, i, j, reach, read)
    expected = sum((kernel[a + reach, c + reach] * np.float64(X[b, t]) for a, c, t in near), np.zeros(D))
    np.testing.assert_allclose(y[b, i * SIDE + j], expected, atol=1e-5)


@pytest.mark.parametrize('name', ['pool', 'depthwise'])
def test_what_has_no_middle_or_no_grid_is_refused(name):
  with pytest.raises(ValueError, match='size 4 of a window is not odd; .* nearest 3 or 5'):
    plugin.build('mixers', dict(name=name, size=4))
  with pytest.raises(ValueError, match='7 tokens are not a square grid'):
    run(dict(name=name), x=fill.normal(0, 1, 7, 2))
