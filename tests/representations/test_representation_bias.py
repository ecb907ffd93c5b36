"""The claim's metrics where the answer is known, and arms that differ in their labels alone."""
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from aspects import measure
from aspects import plugin
from aspects import study
from aspects.claims import spec
from aspects.claims import training
from aspects.claims.rows import Cell
from aspects.data import Stream
from aspects.nn.perceptron import Perceptron
from aspects.objectives.binary import Binary
from aspects.results import stack_seeds
from aspects.tasks.parities import Parities

CONFIG = pathlib.Path(__file__).parents[2] / 'configs' / 'representations' / 'representation_bias.py'


@pytest.fixture(scope='module')
def claim():
  return spec.load(CONFIG, 'smoke')


def by_hand(xor: float, copied: float):
  """Parameters of a perceptron 6-3-2-2 that computes x_0 XOR x_1 and copies x_2 without an error, as 0 and `xor`, and
  as 0 and `copied`, in its last hidden layer."""
  first, second = np.zeros((6, 3)), np.zeros((3, 2))
  first[0], first[1], first[2, 2] = [1, -1, 0], [-1, 1, 0], 1
  second[:2, 0], second[2, 1] = xor, copied
  layer = lambda kernel, bias: {'kernel': jnp.asarray(kernel, jnp.float32), 'bias': jnp.asarray(bias, jnp.float32)}
  return {'layer_0': layer(first, [-1, -1, 0]), 'layer_1': layer(second, [0, 0]),
          'head': layer(np.diag([40 / xor, 40 / copied]), [-20, -20])}


@pytest.mark.parametrize('xor, copied', [(1., 1.), (1., 3.), (4., 2.)])
def test_networks_of_one_function_may_have_any_gap(claim, xor, copied):
  """A label that is 0 or a unit of size a has variance a^2 / 4: equal outputs, and shares a^2 / (a^2 + b^2)."""
  task = Parities(labels=(2, 1), bits=6, train_size=32, test_size=32)
  net, variables = Perceptron(outputs=2, widths=(3, 2)), {'params': by_hand(xor, copied)}
  stream = Stream(task.source('test'), 16)
  for k in range(len(stream)):
    loss, info = Binary()(net.apply(variables, stream.batch(k)['input']), stream.batch(k))
    assert (info['accuracy'] == 1).all() and loss.max() < 1e-6
  shares = plugin.build('representations', claim.arms['xor']['measures']['shares'])
  found = measure.measure_network(net, variables, stream, shares).expand_dims(step=[0])
  # by the metric as the claim has it, of two seeds
  gap = training.reduced({'shares': stack_seeds({0: found, 1: found})}, claim.metrics['gap'], 'gap')
  np.testing.assert_allclose(gap, [(copied ** 2 - xor ** 2) / (copied ** 2 + xor ** 2)] * 2, atol=1e-6)
  np.testing.assert_allclose(found.explained.isel(site=-1, step=0), 1, rtol=1e-6)


@pytest.mark.parametrize('scale', ['claim', 'smoke', 'full'])
def test_arms_differ_in_their_labels_alone(scale):
  arms = spec.load(CONFIG, scale).arms
  assert {name: arm['task']['labels'] for name, arm in arms.items()} == {
      'xor': (2, 1), 'parity': (3, 1), 'twins': (1, 1)}
  rest = [{**arm, 'task': {**arm['task'], 'labels': ()}} for arm in arms.values()]
  assert all(arm == rest[0] for arm in rest)


def test_the_procedure_reads_what_the_measure_found(claim, tmp_path):
  """Ten steps of two seeds: every metric against the measure's own arrays."""
  config = {**claim.arms['xor'], 'seeds': (1000, 1001), 'arms': {}, 'claim': None}
  arm = study.build(config).arms['main']
  rows = training.Training(claim.metrics).rows(Cell(arm.seeds, arm, tmp_path / 'a', lambda: False))
  assert set(rows.metrics) == set(claim.metrics) and not rows.diverged.any()
  found = study.run_arm(arm, tmp_path / 'a', lambda: False, False).measures
  share = found['shares'].share.transpose('seed', 'step', 'site', 'factor').values[:, :, -1]
  gap = share[..., 1] - share[..., 0]
  np.testing.assert_allclose(rows.metrics['gap'], gap[:, 1], rtol=1e-12)
  np.testing.assert_allclose(rows.metrics['grown'], gap[:, 1] - gap[:, 0], rtol=1e-9)
  np.testing.assert_array_equal(rows.metrics['accuracy'], found['training'].test_accuracy[:, -1])
  # multiply-adds of one step on 128 rows, forward, to the weights and to the hidden units, two operations each
  layers = [16 * 128, 128 * 64, 64 * 64, 64 * 2]
  assert rows.flops / rows.steps == 2 * 128 * (3 * sum(layers) - layers[0])
  assert rows.params == sum(layers) + 128 + 64 + 64 + 2
