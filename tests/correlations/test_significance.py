"""Significance of CKA against permutations recomputed from shuffled rows, level and power, limits."""
import itertools

import numpy as np
import pytest
from scipy import stats

from aspects.correlations.cka import Cka
from aspects.correlations.significance import Significance
from aspects.measure import measure_arrays
from aspects.statistics.sample import Rows


def hsic(x, y, estimator):
  """From the rows: Gretton et al. 2005, or Song et al. 2012, eq. 5."""
  n = len(x)
  k, l = x @ x.T, y @ y.T
  if estimator == 'gretton':
    h = np.eye(n) - 1 / n
    return np.trace(k @ h @ l @ h)
  k, l = (g * (1 - np.eye(n)) for g in (k, l))
  return (k * l).sum() + k.sum() * l.sum() / (n - 1) / (n - 2) - 2 * k.sum(0) @ l.sum(1) / (n - 2)


def corrected(p):
  """Benjamini and Hochberg: the least level at which a test is among the largest k with p_(k) <= level k / m."""
  order = np.sort(p)
  return np.array([min(m * len(p) / (k + 1) for k, m in enumerate(order) if m >= v) for v in p])


def oracle(acts, draws, estimator, seed=0):
  """CKA recomputed from shuffled rows, pair by pair; the shuffles are the measure's. p_best has a test of its own."""
  rows = [np.asarray(x, np.float64) - np.asarray(x, np.float64).mean(0) for x in acts.values()]
  rng, count, n = np.random.default_rng(seed), len(rows), len(rows[0])
  orders = [rng.permutation(n) for _ in range(draws)]
  own = [hsic(x, x, estimator) for x in rows]
  score, (p, q, mean, quantile) = np.eye(count), np.full((4, count, count), np.nan)
  pairs = list(itertools.combinations(range(count), 2))
  for i, j in [*pairs, *((i, i) for i in range(count))]:
    cka = lambda order: hsic(rows[i], rows[j][order], estimator) / np.sqrt(own[i] * own[j])
    null = np.sort([cka(order) for order in orders])
    score[i, j] = score[j, i] = cka(np.arange(n))
    quantile[i, j] = quantile[j, i] = null[-int(.05 * (draws + 1))]
    if i != j:
      p[i, j] = p[j, i] = (1 + (null >= score[i, j]).sum()) / (1 + draws)
    if estimator == 'gretton':                             # tr K tr L / (n - 1) over all permutations
      mean[i, j] = mean[j, i] = (np.prod([(rows[a] ** 2).sum() for a in (i, j)]) / (n - 1) / np.sqrt(own[i] * own[j]))
    else:
      mean[i, j] = mean[j, i] = 0
  above = tuple(np.transpose(pairs))
  q[above] = q.T[above] = corrected(p[above])
  values = dict(score=score, p=p, q=q, null_mean=mean, null_95=quantile, calibrated_score=(score - mean) / (1 - mean))
  return {f'cka_linear_{estimator}_{form}': value for form, value in values.items()}


def layers(rng, rows=40, shared=.3, widths=(3, 8, 60, 5)):
  common = rng.normal(size=(rows, 4))
  return {f'layer.{9 + i}': shared * common @ rng.normal(size=(4, d)) + rng.exponential(size=(rows, d))
          for i, d in enumerate(widths)}


def measured(acts, **fields):
  return measure_arrays(Significance(('*',), **fields), acts)


@pytest.mark.parametrize('estimator', ('song', 'gretton'))
@pytest.mark.parametrize('offset', (0., 1e4))
def test_equals_recomputing_from_shuffled_rows(estimator, offset):
  acts = {s: (x + offset * x.std()).astype(np.float32) for s, x in layers(np.random.default_rng(0)).items()}
  found = measured(acts, draws=59, estimator=estimator)
  for name, value in oracle(acts, 59, estimator).items():
    np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-7, err_msg=name)
    np.testing.assert_array_equal(found[name], found[name].T)
  assert found.attrs['draws'] == 59 and found.attrs['rows'] == 40 and 'at most 256' in found.attrs['sample']


def test_score_is_that_of_the_full_stream():
  acts = layers(np.random.default_rng(1), 200)
  found = measured(acts, draws=19)
  np.testing.assert_allclose(found.cka_linear_song_score, measure_arrays(Cka(('*',)), acts).cka_linear_song, atol=2e-6)


def test_best_pair_is_corrected_by_its_own_search():
  """By the definition, standardised by moments of 20,000 other shuffles."""
  acts, draws = layers(np.random.default_rng(2), 24), 199
  rows = [x.astype(np.float32).astype(np.float64) for x in acts.values()]
  rows = [x - x.mean(0) for x in rows]
  grams = [x @ x.T for x in rows]
  grams = [k / np.linalg.norm(k) for k in grams]
  pairs = list(itertools.combinations(range(4), 2))
  def null(rng, count):
    orders = [rng.permutation(24) for _ in range(count)]
    return np.array([[(grams[i] * grams[j][o][:, o]).sum() for i, j in pairs] for o in orders])
  many = null(np.random.default_rng(99), 20000)
  standard = lambda x: (x - many.mean(0)) / many.std(0)
  best = standard(null(np.random.default_rng(0), draws)).max(1)
  score = standard(np.array([(grams[i] * grams[j]).sum() for i, j in pairs]))
  expected = (1 + (best >= score[:, None]).sum(1)) / (1 + draws)
  found = measured(acts, draws=draws, estimator='gretton').cka_linear_gretton_p_best.values
  # the estimated moments err by up to .03, which moves the rank of a score by a few of 199
  np.testing.assert_allclose(found[tuple(np.transpose(pairs))], expected, atol=.03)
  assert np.isnan(np.diag(found)).all()


def test_independent_layers_are_found_alike_at_the_level_only():
  """A false alarm of each count has chance 1e-4; q and p_best err in 1 of 20 families of ten pairs, p in 8 of 20."""
  rng, p, best, q = np.random.default_rng(3), [], [], []
  above = np.triu_indices(5, 1)
  for seed in range(300):
    acts = {f'{i}': rng.exponential(size=(16, 3 + 4 * i)) for i in range(5)}
    found = Significance(draws=99, seed=seed).compute(Rows(acts, None, np.arange(16), np.zeros(16)))
    p.append(found.cka_linear_song_p.values[above])
    best.append(np.nanmin(found.cka_linear_song_p_best))
    q.append(np.nanmin(found.cka_linear_song_q))
  not_more = lambda hits: stats.binomtest(int(hits), 300, .05, alternative='greater').pvalue > 1e-4
  assert stats.binomtest(int((np.array(p)[:, 0] <= .05).sum()), 300, .05).pvalue > 1e-4
  assert stats.binomtest(int((np.array(best) <= .05).sum()), 300, .05).pvalue > 1e-4
  assert not_more((np.array(q) <= .05).sum())
  assert not not_more((np.min(p, 1) <= .05).sum())


def test_calibrated_scores_of_independent_wide_layers_are_centred():
  """Biased CKA says .75 of independent layers of 100 units and 32 examples; calibrated it is 0 within 4 errors."""
  rng = np.random.default_rng(4)
  found = measured({f'{i}': rng.normal(size=(32, 100)) for i in range(12)}, draws=99, estimator='gretton')
  above = np.triu_indices(12, 1)
  score, calibrated = (found[f'cka_linear_gretton_{form}'].values[above] for form in ('score', 'calibrated_score'))
  assert score.min() > .7 and calibrated.min() < 0
  assert abs(calibrated.mean()) < 4 * calibrated.std() / len(calibrated) ** .5
  np.testing.assert_array_equal(np.diag(found.cka_linear_gretton_calibrated_score), 1)


def test_two_networks_of_one_stream():
  """Layers of the two networks that read the same three units are found, and no others."""
  rng = np.random.default_rng(5)
  signal = rng.normal(size=(200, 3))
  read = lambda: signal @ rng.normal(size=(3, 20)) + rng.normal(size=(200, 20))
  acts = {'a/resid_post.0': rng.normal(size=(200, 20)), 'a/resid_post.1': read(),
          'b/resid_post.0': read(), 'b/resid_post.1': rng.normal(size=(200, 20))}
  found = measure_arrays(Significance(('a/*', 'b/*'), draws=999), acts)
  assert list(found.site.values) == list(acts)
  alike = np.zeros((4, 4), bool)
  alike[1, 2] = alike[2, 1] = True
  for form in ('p_best', 'q'):
    np.testing.assert_array_equal(found[f'cka_linear_song_{form}'] <= .01, alike)
  assert found.cka_linear_song_p[1, 2] == 1e-3
  np.testing.assert_array_equal(found.cka_linear_song_score > found.cka_linear_song_null_95,
                                (found.cka_linear_song_p <= .05) | np.eye(4, dtype=bool))


def test_a_layer_that_does_not_vary_is_named_and_in_no_family():
  acts = layers(np.random.default_rng(6))
  without = measured(acts, draws=39)
  with pytest.warns(UserWarning, match=r"\['layer.0', 'layer.99'\] do not vary over the 40 rows"):
    found = measured({'layer.0': np.full((40, 2), 1e4), **acts, 'layer.99': np.full((40, 3), .1)}, draws=39)
  for name in without:
    np.testing.assert_allclose(found[name].values[1:-1, 1:-1], without[name], atol=1e-12, err_msg=name)
    assert np.isnan(found[name].values[[0, -1]]).all()


def test_duplicated_and_constant_units_and_a_single_layer():
  x = np.random.default_rng(7).normal(size=(12, 3))
  found = measured({'x': x, 'twice': np.concatenate([x, x, 5 + 0 * x], 1)}, draws=19, estimator='gretton')
  np.testing.assert_allclose(found.cka_linear_gretton_score, 1, atol=1e-6)
  assert found.cka_linear_gretton_p[0, 1] == 1 / 20
  alone = measured({'x': x}, draws=19)
  assert alone.cka_linear_song_score == 1 and np.isnan(alone.cka_linear_song_p)


def test_fewest_rows_and_wrong_fields():
  x = np.random.default_rng(8).normal(size=(4, 2))
  assert np.isfinite(measured({'x': x, 'y': x ** 2}, draws=19).cka_linear_song_p[0, 1])
  with pytest.raises(ValueError, match='at least 4 rows, got 3'):
    measured({'x': x[:3], 'y': x[:3]}, draws=19)
  with pytest.raises(ValueError, match='18 draws have no p of 0.05; give at least 19'):
    Significance(draws=18)
  with pytest.raises(ValueError, match="'lange2'.*gretton"):
    Significance(estimator='lange2')
