"""Eigenspace overlap from moments against orthonormal bases of the rows in float64, published values, identities."""
import numpy as np
import pytest

from aspects.correlations.cca import Cca
from aspects.correlations.eigenspace_overlap import EigenspaceOverlap
from aspects.measure import measure_arrays


def oracle(acts):
  """Bases of the rows by their singular values in float64, each unit scaled to one variance."""
  out = {}
  for name, centre in (('eigenspace_overlap_score', False), ('eigenspace_overlap_centred_score', True)):
    bases = []
    for x in acts.values():
      x = np.asarray(x, np.float64)
      spread = (x - x.mean(0)).std(0)
      x = (x - x.mean(0) * centre) / np.where(spread > 0, spread, 1)
      left, size, _ = np.linalg.svd(x, full_matrices=False)
      bases.append(left[:, size > 1e-10 * size[0]])
    out[name] = np.array([[((a.T @ b) ** 2).sum() / max(a.shape[1], b.shape[1]) for b in bases] for a in bases])
  return out


def layers(rows=300, offset=0., seed=0):
  rng = np.random.default_rng(seed)
  common = rng.normal(size=(rows, 6))
  return {f'layer.{i}': (common @ rng.normal(size=(6, d)) + noise * rng.normal(size=(rows, d))
                         + offset * rng.normal(size=d)).astype(np.float32)
          for i, (d, noise) in enumerate(((8, .3), (12, 1.), (5, 2.)))}


def uniform_pair():
  rng = np.random.RandomState(0)
  return {'x': rng.uniform(size=(30, 25)), 'y': rng.uniform(size=(30, 25))}


def test_values_on_which_other_repositories_agree():
  found = measure_arrays(EigenspaceOverlap(('*',)), uniform_pair(), batch_size=16)
  np.testing.assert_allclose(found.eigenspace_overlap_score[0, 1], 0.8310349228, atol=1e-6)
  np.testing.assert_allclose(found.eigenspace_overlap_centred_score[0, 1], 0.8583001426, atol=1e-6)


@pytest.mark.parametrize('offset', (0., 1e2, 1e4))
def test_equals_bases_of_the_rows(offset):
  acts = layers(offset=offset)
  found = measure_arrays(EigenspaceOverlap(('*',)), acts, batch_size=64)
  for form, value in oracle(acts).items():
    np.testing.assert_allclose(found[form], value, rtol=0, atol=1e-5, err_msg=form)
    np.testing.assert_allclose(np.diag(found[form]), 1, atol=1e-6)


def test_centred_is_the_mean_squared_canonical_correlation_over_the_larger_rank():
  found, rank = measure_arrays(EigenspaceOverlap(('*',)), layers()), np.array([8, 12, 5])
  share = np.minimum.outer(rank, rank) / np.maximum.outer(rank, rank)
  expected = measure_arrays(Cca(('*',)), layers()).cca_mean_squared * share
  np.testing.assert_allclose(found.eigenspace_overlap_centred_score, expected, atol=1e-6)


def test_closed_forms():
  """Part of a layer overlaps with it by the ratio of ranks; a shifted unit, by the share of its square that varies."""
  x = np.random.default_rng(0).normal(size=(64, 6))
  x = np.linalg.qr(x - x.mean(0))[0] * 8             # orthogonal to 1, of variance 1
  one = np.ones((64, 1))
  acts = {'x': x, 'part': x[:, :2], 'shifted': x[:, :1] + 3, 'with 1': np.concatenate([x[:, :1], one], 1)}
  found = measure_arrays(EigenspaceOverlap(('*',)), acts).eigenspace_overlap_score
  np.testing.assert_allclose(found[0], [1, 1 / 3, 1 / 10 / 6, 1 / 6], atol=1e-6)
  np.testing.assert_allclose(found[2], [1 / 10 / 6, 1 / 10 / 2, 1, 1 / 2], atol=1e-6)


def test_duplicated_units_and_a_constant_difference():
  """Copies add nothing; a copy that is moved adds the direction 1."""
  x = layers()['layer.0']
  found = measure_arrays(EigenspaceOverlap(('*',)), {
      'x': x, 'doubled': np.concatenate([x, x], 1), 'moved': np.concatenate([x, x[:, :1] + 3], 1),
      'with 1': np.concatenate([x, np.ones((300, 1))], 1)})
  np.testing.assert_allclose(found.eigenspace_overlap_centred_score, 1, atol=1e-5)
  whole = found.eigenspace_overlap_score.values
  np.testing.assert_allclose(whole[:2, :2], 1, atol=1e-5)
  np.testing.assert_allclose(whole[2:, 2:], 1, atol=1e-5)
  np.testing.assert_allclose(whole[:2, 2:], 8 / 9, atol=1e-5)


def test_layers_that_do_not_vary_and_more_units_than_rows():
  x = np.random.default_rng(3).normal(size=(16, 3))
  with pytest.warns(UserWarning, match=r"\['constant', 'zero'\] do not vary"):
    found = measure_arrays(EigenspaceOverlap(('*',)), {'x': x, 'constant': 0 * x + 5, 'zero': 0 * x})
  np.testing.assert_array_equal(np.isnan(found.eigenspace_overlap_centred_score), [[0, 1, 1], [1, 1, 1], [1, 1, 1]])
  np.testing.assert_array_equal(np.isnan(found.eigenspace_overlap_score), [[0, 0, 1], [0, 0, 1], [1, 1, 1]])
  q = np.linalg.qr(x)[0]
  np.testing.assert_allclose(found.eigenspace_overlap_score[0, 1], (q.sum(0) ** 2).sum() / 16 / 3, atol=1e-6)
  rng = np.random.default_rng(4)
  acts = {'wide': rng.normal(size=(10, 30)), 'narrow': rng.normal(size=(10, 3))}
  found = measure_arrays(EigenspaceOverlap(('*',)), acts)
  np.testing.assert_allclose(found.eigenspace_overlap_score[0], [1, .3], atol=1e-5)
  np.testing.assert_allclose(found.eigenspace_overlap_centred_score[0], [1, 3 / 9], atol=1e-5)


def test_wrong_fields_and_too_few_rows():
  with pytest.raises(ValueError, match='ratio of eigenvalues'):
    EigenspaceOverlap(tolerance=2)
  with pytest.raises(ValueError, match='at least 2 rows, got 1'):
    measure_arrays(EigenspaceOverlap(('*',)), {'x': np.ones((1, 3))})
