"""Shape distances from moments against whitened rows in float64, and their two ends, which are known."""
import numpy as np
import pytest
import scipy.linalg

from aspects.correlations.cca import Cca
from aspects.correlations.procrustes import Procrustes
from aspects.correlations.shape_distance import ShapeDistance
from aspects.measure import measure_arrays


def oracle(acts, alphas=(0.0, 0.5), normalise='none', tolerance=1e-6):
  """Rows are whitened in part, rotated onto each other, and the angle between them is taken."""
  out = {}
  for alpha in alphas:
    x = [whitened(np.asarray(v, np.float64), alpha, normalise, tolerance) for v in acts.values()]
    width = max(v.shape[1] for v in x)
    x = [np.pad(v, ((0, 0), (0, width - v.shape[1]))) for v in x]
    angles = np.zeros((len(x),) * 2)
    for i, a in enumerate(x):
      for j, b in enumerate(x):
        turned = a @ scipy.linalg.orthogonal_procrustes(a, b)[0]
        cosine = (turned * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
        angles[i, j] = np.arccos(min(cosine, 1)) if i != j else 0
    out[f'shape_angular_distance_alpha_{alpha:g}'] = angles
  return out


def whitened(x, alpha, normalise, tolerance):
  x = x - x.mean(0)
  left, size, right = np.linalg.svd(x, full_matrices=False)
  if normalise == 'variance':
    size = size / np.sqrt((size ** 2).sum() / x.shape[1])
  kept = size ** 2 > tolerance * size[0] ** 2
  return left * (alpha * size + (1 - alpha) * kept) @ right


def layers(rows=300, offset=0., seed=0):
  rng = np.random.default_rng(seed)
  common = rng.normal(size=(rows, 6))
  return {f'layer.{i}': (common @ rng.normal(size=(6, d)) + noise * rng.normal(size=(rows, d))
                         + offset * rng.normal(size=d)).astype(np.float32)
          for i, (d, noise) in enumerate(((8, .3), (12, 1.), (5, 2.)))}


def uniform_pair():
  rng = np.random.RandomState(0)
  return {'x': rng.uniform(size=(30, 25)), 'y': rng.uniform(size=(30, 25))}


@pytest.mark.parametrize('normalise', ('none', 'variance'))
@pytest.mark.parametrize('offset', (0., 1e4))
def test_equals_rows_that_are_whitened(offset, normalise):
  fields = dict(alphas=(0., .1, .5, 1.), normalise=normalise)
  acts = layers(offset=offset)
  found = measure_arrays(ShapeDistance(('*',), **fields), acts, batch_size=64)
  for form, value in oracle(acts, **fields).items():
    np.testing.assert_allclose(found[form], value, rtol=0, atol=1e-5, err_msg=form)


def test_ends_are_canonical_correlations_and_procrustes():
  acts = uniform_pair()
  found = measure_arrays(ShapeDistance(('*',), alphas=(0., 1.)), acts)
  mean, angle = np.cos(found.shape_angular_distance_alpha_0), found.shape_angular_distance_alpha_1
  np.testing.assert_allclose([mean[0, 1], angle[0, 1]], [0.8901049738, 0.7629815799], atol=1e-6)
  np.testing.assert_allclose(mean, measure_arrays(Cca(('*',)), acts).cca_mean, atol=1e-6)
  np.testing.assert_allclose(angle, measure_arrays(Procrustes(('*',)), acts).procrustes_angular_distance, atol=1e-6)
  rank = np.array([8, 12, 5])
  found = measure_arrays(ShapeDistance(('*',), alphas=(0.,)), layers())
  scale = np.minimum.outer(rank, rank) / np.sqrt(np.outer(rank, rank))
  expected = measure_arrays(Cca(('*',)), layers()).cca_mean * scale
  np.testing.assert_allclose(np.cos(found.shape_angular_distance_alpha_0), expected, atol=1e-5)


def test_formula_of_netrep_by_hand():
  """x = (3, 0), y = (3, 4) times orthonormal a, b: (alpha 3 + 1 - alpha, 0) against (3 + ..., 4 + ...)."""
  rng = np.random.default_rng(0)
  a, b = np.linalg.qr(np.concatenate([np.ones((16, 1)), rng.normal(size=(16, 2))], 1))[0].T[1:]
  found = measure_arrays(ShapeDistance(('*',), alphas=(.25,)), {'x': 3 * a[:, None], 'y': np.stack([3 * a, 4 * b], 1)})
  cosine = 1.5 / np.hypot(1.5, 1.75)
  np.testing.assert_allclose(np.cos(found.to_dataarray()[0, 0, 1]), cosine, rtol=1e-6)


def test_obey_the_triangle_inequality():
  rng = np.random.default_rng(2)
  acts = {str(k): rng.normal(size=(20, d)) ** 3 for k, d in enumerate(rng.integers(1, 7, 12))}
  for d in measure_arrays(ShapeDistance(('*',), alphas=(0., .3, .7)), acts).values():
    assert (d.values[:, None] <= d.values[:, :, None] + d.values.T[None] + 1e-5).all(), d.name


def test_normalised_distances_see_neither_scale_nor_number_of_rows():
  acts = layers()
  once = measure_arrays(ShapeDistance(('*',), normalise='variance'), acts)
  twice = measure_arrays(ShapeDistance(('*',), normalise='variance'),
                         {s: 30 * np.concatenate([x, x]) for s, x in acts.items()})
  plain = measure_arrays(ShapeDistance(('*',)), {s: 30 * x for s, x in acts.items()})
  np.testing.assert_allclose(twice.to_dataarray(), once.to_dataarray(), atol=1e-5)
  assert np.abs(plain.to_dataarray() - once.to_dataarray()).max() > 0.01
  assert 'scale' in ShapeDistance(normalise='variance').invariant['shape_angular_distance_alpha_0.5']


def test_duplicated_constant_and_too_many_units():
  x = layers()['layer.0']
  odd = {'x': x, 'more': np.concatenate([x, x, 0 * x + 7], 1), 'constant': 0 * x + 3}
  with pytest.warns(UserWarning, match=r"\['constant'\] do not vary"):
    found = measure_arrays(ShapeDistance(('*',), alphas=(0.,)), odd)
  np.testing.assert_allclose(found.to_dataarray()[0, :2, :2], 0, atol=2e-3)
  assert np.isnan(found.to_dataarray()[0, 2]).all()
  rng = np.random.default_rng(4)
  wide = {'wide': rng.normal(size=(10, 30)), 'narrow': rng.normal(size=(10, 3))}
  for form, value in oracle(wide).items():
    np.testing.assert_allclose(measure_arrays(ShapeDistance(('*',)), wide)[form], value, atol=1e-5)


def test_wrong_fields_and_too_few_rows():
  for fields, message in ((dict(alphas=(2.,)), r'alphas \(2.0,\) are not in'), (dict(alphas=()), 'alphas'),
                          (dict(normalise='max'), "'max' is not one of"), (dict(tolerance=0), 'ratio of eigenvalues')):
    with pytest.raises(ValueError, match=message):
      ShapeDistance(**fields)
  with pytest.raises(ValueError, match='at least 2 rows, got 1'):
    measure_arrays(ShapeDistance(('*',)), {'x': np.ones((1, 3))})
