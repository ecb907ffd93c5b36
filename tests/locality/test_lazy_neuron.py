"""What the claim of the lazy neuron reads: half of the units before training, and the change over it."""
import jax
import numpy as np
import xarray as xr

from aspects.claims import spec
from aspects.claims import training
from aspects.locality.density import Density
from aspects.measure import measure_arrays
from aspects.nn.perceptron import Perceptron


def test_metrics_are_the_density_before_after_and_their_difference():
  claim = spec.load('configs/locality/lazy_neuron.py')
  density = np.array([[[.50, .52], [.30, .20]], [[.48, .50], [.60, .60]]])          # seed, step, site
  found = {'density': xr.Dataset({'density': (('seed', 'step', 'site'), density)})}
  read = lambda name: training.reduced(found, claim.metrics[name], name)
  np.testing.assert_allclose(read('start'), [.51, .49])
  np.testing.assert_allclose(read('end'), [.25, .60])
  np.testing.assert_allclose(read('change'), [-.26, .11])


def test_half_of_the_units_of_an_untrained_perceptron_are_active():
  net = Perceptron(outputs=10, widths=(2000,))
  x = jax.random.uniform(jax.random.key(0), (50, 8, 8, 1))
  _, state = net.apply(net.init(jax.random.key(1), x), x, mutable=['intermediates'])
  pre, = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state) if 'channel_pre' in str(path)]
  found = measure_arrays(Density(('*',)), {'pre': np.asarray(pre)})
  assert abs(float(found.density[0]) - .5) < .04                    # one sd of 2,000 units is .011


def test_the_odd_arm_differs_by_its_nonlinearity_alone():
  claim = spec.load('configs/locality/lazy_neuron.py')
  ours, odd = claim.arm('width_256'), claim.arm('odd')
  assert odd['net'] == {**ours['net'], 'act': 'tanh'} and {**odd, 'net': ours['net']} == ours
