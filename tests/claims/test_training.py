"""The usual procedure's arithmetic: reductions by hand, operations by the layers' sizes."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from aspects import study
from aspects.claims import spec
from aspects.claims import running
from aspects.claims import training

CURVE = np.array([[3., 1., 2.], [6., 4., 5.]])                     # seed, step
MAP = np.arange(24.).reshape(2, 3, 4)                              # seed, step, site
FOUND = {'training': xr.Dataset({'x': (('seed', 'step'), CURVE)}),
         'map': xr.Dataset({'y': (('seed', 'step', 'site'), MAP)})}


@pytest.mark.parametrize('reduce, expected', [
    ('last', [2, 5]), ('first', [3, 6]), ('min', [1, 4]), ('max', [3, 6]), ('mean', [2, 5]), ('range', [2, 2]),
    ('difference', [-1, -1]), ('ratio', [2 / 3, 5 / 6]), ('slope', [-.5, -.5]), ('sd', [1, 1]), ('cv', [.5, .2]),
    ('rank', [-.5, -.5]), ('sum', [6, 15]), ('median', [2, 5])])
def test_reductions_by_hand(reduce, expected):
  np.testing.assert_allclose(training.reduced(FOUND, dict(source='training', variable='x', reduce=reduce), 'm'),
                             expected)


@pytest.mark.parametrize('spec_, expected', [
    (dict(reduce='sum'), MAP[:, -1].sum(1)), (dict(select=dict(step=0), reduce='mean'), MAP[:, 0].mean(1)),
    (dict(select=dict(site=(2, 4)), reduce='share'), MAP[:, -1, 2:].sum(1) / MAP[:, -1].sum(1)),
    (dict(select=dict(site=-1)), MAP[:, -1, -1]), (dict(select=dict(site=(1, 3)), reduce='max'), MAP[:, -1, 2]),
    (dict(reduce=dict(site='mean', step='difference')), MAP[:, -1].mean(1) - MAP[:, 0].mean(1))])
def test_selections_by_hand(spec_, expected):
  np.testing.assert_allclose(training.reduced(FOUND, dict(source='map', variable='y', **spec_), 'm'), expected)


@pytest.mark.parametrize('spec_, message', [
    (dict(source='map', variable='z'), "no variable 'z'"), (dict(source='map', variable='y', select=dict(sit=0)),
                                                            "'site'")])
def test_what_is_not_there_is_named(spec_, message):
  with pytest.raises(ValueError, match=message):
    training.reduced(FOUND, spec_, 'm')


def test_unknown_sources_and_reductions_are_refused_before_anything_runs():
  with pytest.raises(ValueError, match="did you mean 'skip'"):
    training.check({'m': dict(source='skips', variable='x')}, {'skip': None})
  with pytest.raises(ValueError, match="did you mean 'mean'"):
    training.check({'m': dict(source='training', variable='x', reduce='meen')}, {})


def test_operations_of_products_convolutions_and_loops():
  a, b = jnp.ones((3, 5)), jnp.ones((5, 7))
  assert training.count(jax.make_jaxpr(lambda a, b: a @ b)(a, b).jaxpr) == 2 * 3 * 5 * 7
  def loop(a, b):
    return jax.lax.scan(lambda c, _: (c + (a @ b).sum(), None), 0., length=11)[0]
  assert training.count(jax.make_jaxpr(jax.jit(loop))(a, b).jaxpr) == 11 * 2 * 3 * 5 * 7
  image, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
  conv = lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  assert training.count(jax.make_jaxpr(conv)(image, kernel).jaxpr) == 2 * (2 * 8 * 8 * 4) * (3 * 3 * 3)


def test_operations_of_a_training_step_are_those_of_its_layers():
  """A perceptron 64-256-10 at batch 64: forward, weights' gradient, and the hidden layer's gradient."""
  claim = spec.load('configs/locality/lazy_neuron.py')
  arm = study.build(running.bare(claim, 'width_256', (running.TUNING,))).arms['main']
  first, second = 64 * 256, 256 * 10
  assert training.operations(arm) == 2 * 64 * (2 * first + 3 * second)
