"""The claim's networks against the skeleton written out, their budgets, and what the assertions make of results."""
import pathlib

import jax
import numpy as np
import pytest

from aspects import sites
from aspects import study
from aspects.claims import judge
from aspects.claims import running
from aspects.claims import spec
from aspects.claims import training
from tests import fill

CONFIG = pathlib.Path(__file__).parents[2] / 'configs' / 'mixers' / 'metaformer.py'
MIXERS = ('pool', 'attention', 'spatial_mlp', 'depthwise')


@pytest.fixture(scope='module')
def claim():
  return spec.load(CONFIG)


# --- networks -------------------------------------------------------------------------------------------------------

def norm(p, x):
  """One mean and one variance over all tokens and units of x [T, D]."""
  return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * p['affine']['scale'] + p['affine']['bias']


def pooled(x):
  """x [16, D] on a grid of 4 x 4: the mean of the 3 x 3 neighbourhood that there is, minus the token."""
  grid = x.reshape(4, 4, -1)
  near = [[grid[max(i - 1, 0):i + 2, max(j - 1, 0):j + 2].mean((0, 1)) for j in range(4)] for i in range(4)]
  return np.reshape(near, x.shape) - x


def mlp(p, x):
  return np.maximum(x @ p['in']['kernel'] + p['in']['bias'], 0) @ p['out']['kernel'] + p['out']['bias']


def skeleton(params, x, mixer=True, channel=True, residual=True):
  """The stream [16, D] through all blocks: Y = X + s Mixer(Norm(X)), Z = Y + s MLP(Norm(Y)), less what is left out."""
  parts = [('mixer', lambda p, h: pooled(h))] * mixer + [('channel', lambda p, h: mlp(p['channel'], h))] * channel
  for layer in range(4):
    p = jax.tree.map(lambda leaf: np.float64(leaf)[layer], params['stage_0']['block'])
    for slot, part in parts:
      y = p['residual'][f'{slot}_branch']['gain'] * part(p, norm(p['residual'][f'{slot}_norm'], x))
      x = x + y if residual else y
  return x


@pytest.mark.parametrize('arm, parts', [
    ('pool', {}), ('no_channel', dict(channel=False)), ('no_residual', dict(residual=False)),
    ('no_mixer', dict(mixer=False))])
def test_networks_are_the_skeleton_and_what_is_left_of_it(claim, arm, parts):
  net = study.make_net(claim.arms[arm]['net'], 10)
  x = fill.normal(1, 3, 8, 8, 1)
  variables = fill.variables(net, x)
  logits, acts = sites.forward(net, variables, x, record=('embed', 'resid_post.3'))
  params = jax.tree.map(np.float64, variables['params'])
  for b in range(3):
    stream = skeleton(params, np.float64(acts['embed'][b]), **parts)
    np.testing.assert_allclose(acts['resid_post.3'][b], stream, rtol=1e-4, atol=1e-4)
    head = params['head']['logits_map']
    expected = norm(params['norm'], stream).mean(0) @ head['kernel'] + head['bias']
    np.testing.assert_allclose(logits[b], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('scale', ['claim', 'full'])
def test_budgets_are_equal(scale):
  """As the gate has it: parameters within 2 % and operations of a training step within 5 %, both of the smallest."""
  claim = spec.load(CONFIG, scale)
  assert {*MIXERS, 'no_residual', 'no_mixer'} == set(claim.budget['arms'])
  arms = [study.build(running.bare(claim, name, (1000,))).arms['main'] for name in claim.budget['arms']]
  parameters, operations = [arm.parameters for arm in arms], [training.operations(arm) for arm in arms]
  assert max(parameters) <= 1.02 * min(parameters) and max(operations) <= 1.05 * min(operations)


# --- the claim ------------------------------------------------------------------------------------------------------

def verdict(claim, **accuracy):
  """The judgement if arms had these mean accuracies, with a spread of 0.02 over seeds that all arms share half of."""
  rng = np.random.default_rng(0)
  shared, rows = rng.normal(size=16), []
  for arm in claim.arms:
    values = accuracy[arm] + .02 * (shared + rng.normal(size=16)) / np.sqrt(2)
    rows += [{'arm': arm, 'seed': seed, 'status': 'done', 'params': 1, 'flops': 1., 'steps': 1,
              'metrics': {'accuracy': value, 'nll': 2.5 * (1 - value)}} for seed, value in enumerate(values)]
  return judge.judge(claim, rows)


PAPER = dict(pool=.86, attention=.85, spatial_mlp=.92, depthwise=.93, no_channel=.4, no_residual=.45, no_mixer=.85)


def test_holds_where_ablations_cost_more_than_mixers_differ(claim):
  found = verdict(claim, **PAPER)
  assert found.verdict['value'] == 'holds' and all(gate['pass'] for gate in found.gates.values())


@pytest.mark.parametrize('changed', [
    dict(attention=.55), dict(spatial_mlp=.3, attention=.3),         # a mixer matters as much as an ablation
    dict(no_channel=.8), dict(no_residual=.85)])                     # an ablation costs no more than a mixer
def test_fails_where_the_mixer_matters_more(claim, changed):
  assert verdict(claim, **{**PAPER, **changed}).verdict['value'] == 'fails'


def test_nothing_is_said_where_taking_out_the_mixer_costs_as_much(claim):
  found = verdict(claim, **{**PAPER, 'no_mixer': .4})
  assert found.verdict['value'] == 'inconclusive' and found.verdict['reason'] == 'control_failed'


def test_what_is_asserted_bounds_the_range_by_every_drop(claim):
  """All pairs of mixers are within the margin that each ablation must exceed, for either metric."""
  for metric in claim.metrics:
    mine = [a for a in claim.assertions.values() if a['metric'] == metric]
    pairs = {frozenset(a['arms']): a['eps'] for a in mine if a['kind'] == 'equivalent'}
    drops = {a['arms']: a['tau'] for a in mine if a['kind'] == 'superior'}
    assert len(pairs) == 6 and set().union(*pairs) == set(MIXERS)
    assert set(drops) == {('pool', 'no_channel'), ('pool', 'no_residual')}
    assert max(pairs.values()) <= min(drops.values())
