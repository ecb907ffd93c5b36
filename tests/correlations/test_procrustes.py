"""Procrustes distances from moments against alignments of the rows in float64, published values, identities, limits."""
import numpy as np
import pytest
import scipy.linalg

from aspects.correlations.procrustes import Procrustes
from aspects.measure import measure_arrays

FORMS = ('procrustes_angular_score', 'procrustes_angular_distance', 'procrustes_euclidean_distance')


def oracle(acts):
  """Rows are really rotated onto each other, then compared."""
  x = centred(acts)
  width = max(v.shape[1] for v in x)
  x = [np.pad(v, ((0, 0), (0, width - v.shape[1]))) for v in x]
  out = {form: np.zeros((len(x),) * 2) for form in FORMS}
  for i, a in enumerate(x):
    for j, b in enumerate(x):
      turned = a @ scipy.linalg.orthogonal_procrustes(a, b)[0] if i != j else a
      cosine = (turned * b).sum() / np.linalg.norm(turned) / np.linalg.norm(b)
      out['procrustes_angular_score'][i, j] = cosine
      out['procrustes_angular_distance'][i, j] = np.arccos(min(cosine, 1)) if i != j else 0
      out['procrustes_euclidean_distance'][i, j] = np.linalg.norm(turned - b)
  return out


def centred(acts):
  return [np.asarray(x, np.float64) - np.asarray(x, np.float64).mean(0) for x in acts.values()]


def layers(rows=300, offset=0., seed=0):
  """Three layers of different widths that share some directions."""
  rng = np.random.default_rng(seed)
  common = rng.normal(size=(rows, 6))
  return {f'layer.{i}': (common @ rng.normal(size=(6, d)) + noise * rng.normal(size=(rows, d))
                         + offset * rng.normal(size=d)).astype(np.float32)
          for i, (d, noise) in enumerate(((8, .3), (12, 1.), (5, 2.)))}


def uniform_pair():
  rng = np.random.RandomState(0)
  return {'x': rng.uniform(size=(30, 25)), 'y': rng.uniform(size=(30, 25))}


def check(acts, tolerance, **kwargs):
  found = measure_arrays(Procrustes(('*',)), acts, **kwargs)
  for form, value in oracle(acts).items():
    np.testing.assert_allclose(found[form], value, rtol=tolerance, atol=tolerance, err_msg=form)
  return found


def test_values_on_which_other_repositories_agree():
  found = check(uniform_pair(), 1e-6, batch_size=16)
  values = [float(found[form][0, 1]) for form in FORMS]
  np.testing.assert_allclose(values, [np.cos(0.7629815799), 0.7629815799, 5.8511260779], atol=1e-6)


@pytest.mark.parametrize('offset', (0., 1e2, 1e4))
def test_equals_rows_that_are_rotated(offset):
  # 1e4 deviations away one step of float32 is 1e-3 deviations, which the rows are in both computations
  check(layers(offset=offset), 5e-6, batch_size=64)


def test_is_the_bures_similarity_of_gram_matrices():
  x, y = centred(layers(rows=20))[:2]
  k, l = x @ x.T, y @ y.T
  value, vector = np.linalg.eigh(k)
  root = vector * np.sqrt(np.maximum(value, 0)) @ vector.T
  fidelity = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ l @ root)[-8:], 0)).sum()      # X has 8 units
  found = measure_arrays(Procrustes(('*',)), layers(rows=20))
  np.testing.assert_allclose(found.procrustes_angular_score[0, 1], fidelity / np.sqrt(k.trace() * l.trace()), rtol=1e-6)


def test_closed_forms():
  """Y = 3 X Q: angle 0 and 2 |X| apart. Orthogonal one-unit layers: angle pi / 2, and Pythagoras."""
  rng = np.random.default_rng(0)
  a, b = np.linalg.qr(np.concatenate([np.ones((16, 1)), rng.normal(size=(16, 2))], 1))[0].T[1:]
  found = measure_arrays(Procrustes(('*',)), {'a': 3 * a[:, None], 'b': 4 * b[:, None], 'ab': np.stack([a, b], 1)})
  np.testing.assert_allclose(found.procrustes_angular_distance[0, 1], np.pi / 2, atol=1e-6)
  np.testing.assert_allclose(found.procrustes_euclidean_distance[0, 1], 5, rtol=1e-6)
  np.testing.assert_allclose(found.procrustes_angular_score[2, :2], 2 ** -0.5, rtol=1e-6)
  x = rng.normal(size=(50, 4))
  turned = 3 * x @ np.linalg.qr(rng.normal(size=(4, 4)))[0] + 7
  found = measure_arrays(Procrustes(('*',)), {'x': x, 'turned': turned})
  np.testing.assert_allclose(found.procrustes_angular_distance, 0, atol=2e-3)
  np.testing.assert_allclose(found.procrustes_euclidean_distance[0, 1], 2 * np.linalg.norm(x - x.mean(0)), rtol=1e-6)


def test_distances_obey_the_triangle_inequality():
  rng = np.random.default_rng(2)
  acts = {str(k): rng.normal(size=(12, d)) ** 3 for k, d in enumerate(rng.integers(1, 7, 12))}
  found = measure_arrays(Procrustes(('*',)), acts)
  for form in FORMS[1:]:
    d = found[form].values
    assert (d[:, None] <= d[:, :, None] + d.T[None] + 1e-5).all(), form
    np.testing.assert_array_equal(d, d.T)


def test_more_units_than_rows():
  rng = np.random.default_rng(4)
  check({'wide': rng.normal(size=(10, 30)), 'narrow': rng.normal(size=(10, 3))}, 1e-5)


def test_duplicated_and_constant_units_and_layers():
  x = layers()['layer.0']
  doubled = np.concatenate([x, x], 1) / np.sqrt(2)
  with pytest.warns(UserWarning, match=r"\['constant'\] do not vary over the 300 rows"):
    found = measure_arrays(Procrustes(('*',)), {'x': x, 'doubled': doubled.astype(np.float32),
                                                'more': np.concatenate([x, 0 * x + 7.1], 1), 'constant': 0 * x + 0.1})
  np.testing.assert_allclose(found.procrustes_angular_score[:3, :3], 1, atol=1e-6)
  for form in FORMS[:2]:
    assert np.isnan(found[form][3]).all() and not np.isnan(found[form][:3, :3]).any()
  size = np.linalg.norm(x - x.mean(0, dtype=np.float64))
  np.testing.assert_allclose(found.procrustes_euclidean_distance[3], [size, size, size, 0], rtol=1e-5)


def test_fewest_rows_and_values_that_are_not_finite():
  x = np.random.default_rng(4).normal(size=(2, 3))
  assert measure_arrays(Procrustes(('*',)), {'x': x}).procrustes_angular_score.item() == 1
  with pytest.raises(ValueError, match='need at least 2 rows, got 1'):
    measure_arrays(Procrustes(('*',)), {'x': x[:1]})
  with pytest.raises(ValueError, match="site 'y' has activations that are not finite"):
    measure_arrays(Procrustes(('*',)), {'x': x, 'y': np.array([[1.], [np.inf]])})
