"""Convergent learning: planted pairs of layers whose answers are known, the maps against scikit-learn, a small run."""
import pathlib

import numpy as np
import pytest
from sklearn import linear_model

from aspects import measure
from aspects import study
from aspects.claims import spec
from aspects.claims.rows import Cell
from aspects.correlations.unit_matching import UnitMatching
from experiments import convergent_learning as experiment
from experiments.convergent_learning import ConvergentLearning

CONFIG = pathlib.Path(__file__).parents[2] / 'configs' / 'correlations' / 'convergent_learning.py'


def parts(second, rows=600, width=8, seed=0):
  """(fit, test) [2, N, D]: independent units and `second` of them."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(2 * rows, width)) * np.geomspace(.5, 2, width) + 3
  both = np.stack([x, second(x, rng)])
  return both[:, :rows], both[:, rows:]


def test_a_permuted_layer_shares_its_basis():
  metrics, matched, null = ConvergentLearning(ridge=1e-9).layer(*parts(lambda x, rng: x[:, ::-1] * 2 + 1), seed=0)
  np.testing.assert_allclose(matched, 1, atol=1e-9)
  np.testing.assert_allclose([metrics[k] for k in ('match', 'r2', 'single', 'rare')], [1, 1, 1, 0], atol=1e-6)
  assert abs(metrics['gap']) < 1e-6 and metrics['sparse_weights'] <= 2
  assert null.max() < 0.3 and metrics['over_null'] > 0.8


def test_a_rotated_layer_shares_its_space_and_not_its_basis():
  """Each unit of the second layer is the sum of all units of the first with weights of one size: c^2 = 1 / 8."""
  hadamard = np.array([[1]])
  for _ in range(3):
    hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
  rotate = lambda x, rng: (x - x.mean(0)) / x.std(0) @ hadamard
  metrics, matched, _ = ConvergentLearning(ridge=1e-9).layer(*parts(rotate, rows=4000), seed=0)
  np.testing.assert_allclose(metrics['r2'], 1, atol=1e-6)
  np.testing.assert_allclose(metrics['single'], 1 / 8, atol=.02)
  np.testing.assert_allclose(matched.mean(), 8 ** -0.5, atol=.03)
  assert metrics['rare'] == 1 and metrics['sparse_weights'] == 8


def test_independent_layers_share_nothing():
  metrics, _, _ = ConvergentLearning().layer(*parts(lambda x, rng: rng.normal(size=x.shape)), seed=0)
  assert abs(metrics['gap']) < 0.02 and abs(metrics['gap_null']) < 0.02
  assert abs(metrics['over_null']) < 0.03 and metrics['rare'] == 1


def test_maps_are_those_of_regressions_on_the_rows():
  """Standardised units: ridge by n times the penalty, and scikit-learn's lasso, whose loss is over 2 n."""
  mix = lambda x, rng: x @ rng.normal(size=(8, 8)) + rng.normal(size=x.shape)
  fit, test = parts(mix, rows=200)
  a, b = (experiment.moments(part) for part in (fit, test))
  standard = lambda part: (part - fit.mean(1, keepdims=True)) / fit.std(1, keepdims=True)
  (x, y), (u, v) = standard(fit), standard(test)
  found = experiment.sparse_map(a, b, 'a', 'b', 0.05)
  lasso = linear_model.Lasso(alpha=0.05, tol=1e-10, max_iter=10000).fit(x, y)
  np.testing.assert_allclose(found.weights, lasso.coef_.T, atol=1e-6)
  np.testing.assert_array_equal(found.weights == 0, lasso.coef_.T == 0)
  expected = 1 - ((lasso.predict(u) - v) ** 2).sum(0) / ((v - v.mean(0)) ** 2).sum(0)
  np.testing.assert_allclose(found.r2, np.maximum(expected, 0), atol=1e-6)
  r2, single = ConvergentLearning(ridge=.5).explained(a, b)
  scores, best = [], []
  for (source, target), (new, truth) in (((x, y), (u, v)), ((y, x), (v, u))):
    guess = linear_model.Ridge(alpha=.5 * len(x)).fit(source, target).predict(new)
    scores.append(1 - ((guess - truth) ** 2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0))
    c, held = (np.corrcoef(s.T, t.T)[:8, 8:] for s, t in ((source, target), (new, truth)))
    best.append(held[np.abs(c).argmax(0), np.arange(8)] ** 2)
  np.testing.assert_allclose([r2, single], [np.mean(scores), np.mean(best)], rtol=1e-6)


def test_a_penalty_above_all_correlations_leaves_nothing():
  fit, test = parts(lambda x, rng: x)
  a, b = (experiment.moments(part) for part in (fit, test))
  found = experiment.sparse_map(a, b, 'a', 'b', 1.01)
  assert not found.weights.any() and not found.r2.any()
  one = experiment.sparse_map(a, b, 'a', 'b', 0.3)     # orthogonal units shrink by the penalty
  np.testing.assert_allclose(np.diag(one.weights), 0.7, atol=.02)


def test_clusters_of_planted_groups_are_mixed_as_planted():
  """Groups of copies: three units of each network in the first two, six of the second network alone in the third."""
  rng = np.random.default_rng(0)
  common = rng.normal(size=(500, 3))
  noisy = lambda columns: common[:, columns] + .2 * rng.normal(size=(500, len(columns)))
  a = np.concatenate([noisy([0, 0, 0, 1, 1, 1]), np.zeros((500, 6))], 1)         # and six units at rest
  label, network = experiment.joint_clusters(np.stack([a, noisy([0] * 3 + [1] * 3 + [2] * 6)]), 3)
  assert len(label) == 18 and len(set(label[network == 1][6:])) == 1
  np.testing.assert_allclose(experiment.mixed(label, network), 12 / 18)
  assert experiment.mixed(np.array([0, 0, 1]), np.array([0, 1, 1])) == 2 / 3


def test_units_at_rest_are_neither_predicted_nor_used():
  def rest(x, rng):
    y = x[:, ::-1].copy()
    y[:, 2] = 7
    return y
  metrics, matched, _ = ConvergentLearning(ridge=1e-9).layer(*parts(rest), seed=0)
  np.testing.assert_allclose(np.sort(matched), [0] + [1] * 7, atol=1e-9)
  assert all(np.isfinite(v) for v in metrics.values())
  # one unit of the first layer has lost its partner
  np.testing.assert_allclose(metrics['r2'], (1 + 7 / 8) / 2, atol=.02)


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
  claim, out = spec.load(CONFIG, 'smoke'), {}
  for name, config in claim.arms.items():
    arm = study.build({**config, 'arms': {}, 'claim': None, 'seeds': (1000, 1001)}).arms['main']
    procedure = ConvergentLearning(**{k: v for k, v in config['procedure'].items() if k != 'name'})
    seen, record = [], experiment.record
    experiment.record = lambda *args: seen.append(record(*args)) or seen[-1]
    try:
      out[name] = procedure.rows(Cell(arm.seeds, arm, tmp_path_factory.mktemp(name), lambda: False)), seen
    finally:
      experiment.record = record
  return claim, out


def test_metrics_are_those_of_the_activations_of_both_networks(smoke):
  claim, arms = smoke
  for rows, (fit, test) in arms.values():
    assert set(rows.metrics) == set(claim.metrics) and not rows.diverged.any()
    assert list(fit) == list(test) == [f'resid_post.{i}' for i in range(3)]
    assert len(fit['resid_post.0'][0]) == 1437 and test['resid_post.0'].shape == (4, 360, 12)
    for i, acts in enumerate(test.values(), 1):
      for pair in range(2):
        both = {str(k): acts[2 * pair + k][:, acts[2 * pair + k].std(0) > 0] for k in range(2)}
        found = float(measure.measure_arrays(UnitMatching(('*',)), both).match_hard_absolute_score[0, 1])
        live = min(x.shape[1] for x in both.values()) / 12
        np.testing.assert_allclose(rows.metrics[f'match_{i}'][pair], found * live, atol=1e-5)
    for at, curve in rows.curves.values():
      assert at.shape == (12,) and curve.shape == (2, 12) and (np.diff(curve) <= 0).all()


def test_pairs_differ_in_start_and_arms_start_alike(smoke):
  _, arms = smoke
  trained, untrained = (arms[name][1][1]['resid_post.0'] for name in ('trained', 'untrained'))
  for acts in (trained, untrained):
    assert len({acts[k].tobytes() for k in range(4)}) == 4
  apart = np.abs(trained - untrained).max() / np.abs(untrained).max()
  assert 0 < apart < 0.5, 'ten steps away from the same start'


@pytest.mark.parametrize('fields', [dict(ridge=0.), dict(penalties=()), dict(penalties=(0.1, -1.)), dict(clusters=1)])
def test_a_wrong_field_is_told(fields):
  with pytest.raises(ValueError, match=next(iter(fields))):
    ConvergentLearning(**fields)


@pytest.mark.parametrize('scale', ['smoke', 'claim', 'full'])
def test_every_scale_is_a_valid_claim(scale):
  claim = spec.load(CONFIG, scale)
  assert claim.id == 'convergent-learning/1' and set(claim.roles.values()) == {'ours', 'control'}
