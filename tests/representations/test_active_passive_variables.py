"""Activity and correlations of latents against samples, closed forms and determinants; the claim."""
import pathlib

import numpy as np
import pytest

from aspects import measure
from aspects import study
from aspects.claims import spec
from aspects.claims import training
from aspects.claims.rows import Cell
from aspects.representations import active_passive_variables as lib
from aspects.representations.active_passive_variables import ActivePassiveVariables, gaussian_tc, latent_activity

CONFIG = pathlib.Path(__file__).parents[2] / 'configs' / 'representations' / 'active_passive_variables.py'


def oracle(mean, variance, lo=0.1, hi=0.9, jitter=1e-6):
  """{variable: array} of mu and s^2 [N, D] by determinants and pairs, float64."""
  mu, s2 = np.asarray(mean, np.float64), np.asarray(variance, np.float64)
  label = np.array([0 if v > hi else 2 if v < lo else 1 for v in s2.mean(0)])
  about = mu - mu.mean(0)
  forms = [sum(np.outer(r, r) for r in about) / len(mu)]
  forms.append(forms[0] + np.diag(s2.mean(0)))
  subsets = [label >= 0, label == 2, label == 0, label > 0]
  tc, pairs = np.zeros((4, 2)), np.full((4, 2), np.nan)
  for i, chosen in enumerate(subsets):
    for j, cov in enumerate(forms):
      units = np.flatnonzero(chosen)
      if len(units) > 1:
        r = np.array([[cov[a, b] / np.sqrt(cov[a, a] * cov[b, b]) for b in units] for a in units])
        tc[i, j] = -0.5 * np.linalg.slogdet((r + jitter * np.eye(len(r))) / (1 + jitter))[1]
        pairs[i, j] = np.mean([abs(r[a, b]) for a in range(len(r)) for b in range(a)])
  return {'activity': label, 'posterior_variance': s2.mean(0), 'posterior_variance_spread': s2.var(0),
          'mean_variance': mu.var(0), 'count': [m.sum() for m in subsets], 'total_correlation': tc,
          'pair_correlation': pairs, 'gap': tc[:, 0] - tc[:, 1]}


def latents(n=3000, seed=0, passive=3, active=4):
  """(mu, s^2): active latents that are independent, passive ones that are small mixtures of one of them and noise."""
  rng = np.random.default_rng(seed)
  main = rng.normal(size=(n, active))
  residue = 0.01 * (main[:, :1] + 0.5 * rng.normal(size=(n, passive)))
  mu = np.concatenate([main, residue], 1)
  s2 = np.concatenate([rng.uniform(.01, .05, (n, active)), rng.uniform(.97, 1., (n, passive))], 1)
  return mu.astype(np.float32), s2.astype(np.float32)


def measured(mu, s2, **fields):
  return measure.measure_arrays(ActivePassiveVariables('mu', 's2', **fields), {'mu': mu, 's2': s2}, batch_size=500)


@pytest.mark.parametrize('lo, hi', [(0.1, 0.9), (0.02, 0.99), (0.0, 0.5)])
def test_equals_determinants_and_pairs(lo, hi):
  mu, s2 = latents()
  found = measured(mu + 30, s2, lo=lo, hi=hi)
  for name, value in oracle(mu + 30, s2, lo, hi).items():
    np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=2e-5, err_msg=name)


def test_the_sampled_representation_is_that_of_samples():
  """Its exact covariance against 400 draws of the noise."""
  mu, s2 = latents(n=2000, seed=1)
  rng = np.random.default_rng(2)
  draws = np.concatenate([mu + np.sqrt(s2) * rng.normal(size=mu.shape) for _ in range(400)])
  cov = np.cov(draws.T)
  found = measured(mu, s2).sel(subset='all', representation='sampled')
  np.testing.assert_allclose(found.total_correlation, gaussian_tc(cov), atol=2e-4)
  np.testing.assert_allclose(found.pair_correlation, lib.pair_correlation(cov), atol=2e-4)


def test_passive_residues_make_the_gap():
  """Each of three residues correlates with the first latent at 1 / sqrt(1.25): in closed form the gap is theirs."""
  found = measured(*latents(n=20000, seed=3))
  assert found['activity'].values.tolist() == [2, 2, 2, 2, 0, 0, 0]
  # R of (x, x + e_1, x + e_2, x + e_3): the determinant is that of the noise over the variances
  closed = -0.5 * np.log(0.25 ** 3 / 1.25 ** 3)
  np.testing.assert_allclose(found.gap.sel(subset='all'), closed, rtol=0.01)
  np.testing.assert_allclose(found.gap.sel(subset='not passive'), 0, atol=1e-3)
  np.testing.assert_allclose(found.shrinkage, 1, atol=1e-3)
  assert found.pair_correlation.sel(subset='passive', representation='sampled') < 1e-3
  np.testing.assert_allclose(found.pair_correlation.sel(subset='passive', representation='mean'), 0.8, atol=0.01)
  # Without three random active latents of four the residues stay, and the first latent one time in four.
  without_first = -0.5 * np.log(np.linalg.det(np.full((3, 3), .8) + .2 * np.eye(3)))
  np.testing.assert_allclose(found.null_shrinkage, 1 - (closed / 4 + 3 / 4 * without_first) / closed, atol=0.06)
  np.testing.assert_allclose(found.shrinkage_excess, found.shrinkage - found.null_shrinkage)


def test_where_others_are_fewer_all_of_them_are_left_out():
  found = measured(*latents(passive=4, active=2))
  only = found.gap.sel(subset='passive') / found.gap.sel(subset='all')
  np.testing.assert_allclose(found.null_shrinkage, 1 - only, rtol=1e-9)


def test_labels_by_their_thresholds():
  np.testing.assert_array_equal(latent_activity(np.array([.05, .1, .5, .9, .95])), [2, 1, 1, 1, 0])
  np.testing.assert_array_equal(latent_activity(np.array([.05, .1, .5, .9, .95]), .5, .5), [2, 2, 1, 0, 0])


def test_gaussian_total_correlation_in_closed_form():
  r = 0.6
  np.testing.assert_allclose(gaussian_tc(np.array([[4, 2 * r], [2 * r, 1]])), -0.5 * np.log(1 - r ** 2), rtol=1e-5)
  np.testing.assert_allclose(gaussian_tc(np.diag([1., 5., 1e-9])), 0, atol=1e-14)
  assert gaussian_tc(np.eye(1)) == 0
  same = gaussian_tc(np.ones((2, 2)), jitter=1e-4)           # (1 + j)^2 - 1 over (1 + j)^2
  np.testing.assert_allclose(same, -0.5 * np.log(((1 + 1e-4) ** 2 - 1) / (1 + 1e-4) ** 2), rtol=1e-9)
  scaled = np.diag([1e-4, 1e3]) @ np.array([[1, r], [r, 1]]) @ np.diag([1e-4, 1e3])
  np.testing.assert_allclose(gaussian_tc(scaled), -0.5 * np.log(1 - r ** 2), rtol=1e-5)


def test_a_latent_that_does_not_vary_is_independent():
  mu, s2 = latents(n=500, passive=2)
  still = np.concatenate([mu, np.full((500, 1), 7, np.float32)], 1)
  found = measured(still, np.concatenate([s2, np.ones((500, 1), np.float32)], 1))
  np.testing.assert_allclose(found.total_correlation.sel(subset='all'),
                             measured(mu, s2).total_correlation.sel(subset='all'), rtol=1e-4, atol=1e-5)


def test_without_two_passive_latents_there_is_nothing_to_test():
  found = measured(*latents(passive=1))
  assert np.isnan(found.shrinkage) and np.isnan(found.shrinkage_excess)
  assert found['count'].values.tolist() == [5, 4, 1, 4]
  assert np.isnan(found.pair_correlation.sel(subset='passive')).all()
  assert found.total_correlation.sel(subset='passive', representation='mean') == 0
  assert np.isnan(measured(*latents(), lo=0., hi=0.).shrinkage)      # all of them are passive
  assert measured(*latents(passive=4, active=1)).shrinkage > 0


def test_errors_say_the_way_out():
  mu, s2 = latents(n=20)
  with pytest.raises(ValueError, match='at least 3 examples, got 2'):
    measured(mu[:2], s2[:2])
  assert measured(mu[:3], s2[:3]).attrs['rows'] == 3
  with pytest.raises(ValueError, match='not its logarithm'):
    measured(mu, np.log(s2))
  with pytest.raises(ValueError, match='7 and 6 units'):
    measured(mu, s2[:, :6])
  with pytest.raises(ValueError, match='name one each'):
    measure.measure_arrays(ActivePassiveVariables('m*', 'm*'), {'mu': mu, 'm2': s2})
  with pytest.raises(ValueError, match='0 <= lo <= hi'):
    ActivePassiveVariables(lo=0.9, hi=0.1)


# --- the claim ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('scale', ['smoke', 'claim', 'full'])
def test_arms_differ_in_beta_alone(scale):
  claim = spec.load(CONFIG, scale)
  assert claim.id == 'active-passive-variables/2'
  betas = {name: arm['learning']['objective']['beta'] for name, arm in claim.arms.items()}
  assert betas == {'beta_1': 1., 'beta_4': 4., 'beta_8': 8.}
  rest = [{**arm, 'learning': {**arm['learning'], 'objective': 0}} for arm in claim.arms.values()]
  assert all(arm == rest[0] for arm in rest)


def test_metrics_are_those_of_the_measure(tmp_path):
  claim = spec.load(CONFIG, 'smoke')
  arm = study.build({**claim.arms['beta_4'], 'seeds': (1000, 1001), 'arms': {}, 'claim': None}).arms['main']
  rows = training.Training(claim.metrics).rows(Cell(arm.seeds, arm, tmp_path / 'a', lambda: False))
  assert set(rows.metrics) == set(claim.metrics) and not rows.diverged.any()
  found = study.run_arm(arm, tmp_path / 'a', lambda: False, False).measures['activity'].isel(step=-1)
  np.testing.assert_array_equal(rows.metrics['gap'], found.gap.sel(subset='all'))
  np.testing.assert_array_equal(rows.metrics['passive'], found['count'].sel(subset='passive'))
  np.testing.assert_array_equal(rows.metrics['active'], found['count'].sel(subset='active'))
  pairs = found.pair_correlation.sel(subset='passive')
  np.testing.assert_allclose(rows.metrics['passive_pairs'],
                             pairs.sel(representation='sampled') - pairs.sel(representation='mean'))
