"""The order in which features become readable, on networks' activations that are made by hand and on trained ones."""
import dataclasses
import pathlib

import numpy as np
import pytest
from scipy import stats as scipy_stats

from aspects import study
from aspects.claims import spec
from aspects.claims.rows import Cell
from experiments import feature_complexity as experiment
from experiments.feature_complexity import FeatureComplexity

CONFIG = pathlib.Path(__file__).parents[2] / 'configs' / 'features' / 'feature_complexity.py'


def planted(rows=1200, features=8, reverse=False, seed=0):
  """(layers, checkpoints) of a last layer of independent codes: feature i is readable from layer i // 2 and, in
  training, from checkpoint i on, or in the reverse order."""
  rng = np.random.default_rng(seed)
  z = rng.exponential(size=(rows, features))
  noise = lambda: rng.exponential(size=(rows, features))
  layers = {f'layer.{d}': np.where(np.arange(features)[None] // 2 <= d, z, noise()) for d in range(features // 2)}
  when = np.arange(features)[::-1] if reverse else np.arange(features)
  return layers, [np.where(when[None] <= t, z, noise()) for t in range(features)]


@pytest.mark.parametrize('reverse, sign', [(False, 1), (True, -1)])
def test_planted_order_is_found(reverse, sign):
  """Two features share a complexity: the correlation of (0 0 1 1 2 2 3 3) with (0 1 ... 7), by ranks with ties."""
  layers, early = planted(reverse=reverse)
  procedure = FeatureComplexity(atoms=8, iterations=2000, permutations=400)
  weights = np.diag(2. ** -np.arange(8))                 # the complex features matter less
  found = procedure.atom_facts(layers, early, weights, seed=0)
  tied = scipy_stats.spearmanr([0, 0, 1, 1, 2, 2, 3, 3], sign * np.arange(8))[0]
  # what a layer's K says within a pair is noise, so that the ties are broken either way
  assert abs(found['rho'] - tied) < 0.05
  assert (found['p'] < 0.01) == (not reverse) and found['explained'] > 0.999 and found['reached'] == 1
  assert found['rho_importance'] < -0.9
  assert 0.7 < found['spread'] < 0.8                     # K runs from 0 to 3/4
  assert found['advantage'] == found['rho'] - found['rho_random']


def test_without_a_linear_head_there_is_no_importance():
  layers, early = planted(rows=200)
  found = FeatureComplexity(atoms=8, head=None, permutations=10).atom_facts(layers, early, None, seed=0)
  assert 'rho_importance' not in found


def test_first_reached():
  r2 = np.array([[.2, .9, np.nan, .1], [.5, .1, np.nan, .2], [.9, .9, .7, .3]])
  np.testing.assert_array_equal(experiment.first_reached(r2, 0.5), [1, 0, 2, 3])


def test_checkpoints_are_even_in_the_logarithm():
  assert experiment.schedule(1000, 5) == (0, 1, 10, 100, 1000)
  assert experiment.schedule(3, 12) == (0, 1, 2, 3) and experiment.schedule(0, 4) == (0,)


def test_correlation_is_spearmans_with_ties():
  rng = np.random.default_rng(1)
  a, b = rng.integers(0, 5, 40).astype(float), rng.normal(size=40)
  np.testing.assert_allclose(experiment.correlation(a, b), scipy_stats.spearmanr(a, b)[0])
  assert experiment.correlation(np.ones(5), np.arange(5.)) == 0


def test_permutations_of_independent_features_are_uniform():
  """p is uniform where the order of the atoms means nothing: its mean over 200 draws is 1/2 with an error of .02."""
  rng, p = np.random.default_rng(2), []
  for _ in range(200):
    rho, chance = experiment.permuted(rng.normal(size=12), rng.normal(size=12), 60, rng)
    p.append((1 + (chance >= rho - 1e-12).sum()) / (1 + len(chance)))
  assert abs(np.mean(p) - 0.5) < 0.08 and abs(np.mean(np.array(p) < 0.2) - 0.2) < 0.09


def test_rows_of_a_trained_arm(tmp_path):
  claim = spec.load(CONFIG, 'smoke')
  config = claim.arms['atoms']
  arm = study.build({**config, 'arms': {}, 'claim': None, 'seeds': (1000, 1001)}).arms['main']
  procedure = FeatureComplexity(**{k: v for k, v in config['procedure'].items() if k != 'name'})
  rows = procedure.rows(Cell(arm.seeds, arm, tmp_path / 'a', lambda: False))
  assert set(rows.metrics) == set(claim.metrics) and not rows.diverged.any()
  assert all(np.isfinite(v).all() and v.shape == (2,) for v in rows.metrics.values())
  # the loop of the procedure is that of every study: same steps, same end
  done = study.run_arm(arm, tmp_path / 'b', lambda: False, False)
  np.testing.assert_allclose(rows.metrics['nll'], done.measures['training'].test_nll.values[:, -1], rtol=1e-6)
  with pytest.raises(study.Preempted, match='step 1'):
    procedure.rows(Cell(arm.seeds, arm, tmp_path / 'c', lambda: True))
  alone = dataclasses.replace(procedure, head=None).rows(Cell(arm.seeds, arm, tmp_path / 'd', lambda: False))
  assert 'rho_importance' not in alone.metrics
  np.testing.assert_array_equal(alone.metrics['rho'], rows.metrics['rho'])


@pytest.mark.parametrize('fields', [dict(atoms=3), dict(checkpoints=1), dict(readable=1.0)])
def test_a_wrong_field_is_told(fields):
  with pytest.raises(ValueError, match='needs 4 atoms or more'):
    FeatureComplexity(**fields)


@pytest.mark.parametrize('scale', ['smoke', 'claim', 'full'])
def test_every_scale_is_a_valid_claim(scale):
  assert spec.load(CONFIG, scale).id == 'feature-complexity/1'
