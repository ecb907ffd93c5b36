"""Aligned cosine similarity against scipy's Procrustes rotation of padded rows, closed forms, limits."""
import numpy as np
import pytest
from scipy import linalg

from aspects.correlations.aligned_cosine import AlignedCosine
from aspects.measure import measure_arrays

FORMS = ('aligned_cosine_distance', 'aligned_cosine_centred_score')


def oracle(acts):
  """The narrower layer padded with zeros, one rotation and one cosine a row."""
  rows = {FORMS[0]: [np.asarray(x, np.float64) for x in acts.values()]}
  rows[FORMS[1]] = [x - x.mean(0) for x in rows[FORMS[0]]]
  wide = max(x.shape[1] for x in rows[FORMS[0]])
  def value(x, y):
    x, y = (np.pad(v, ((0, 0), (0, wide - v.shape[1]))) for v in (x, y))
    turned = x @ linalg.orthogonal_procrustes(x, y)[0]
    return np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(turned, y)])
  out = {form: np.array([[value(x, y) for y in each] for x in each]) for form, each in rows.items()}
  return out | {FORMS[0]: 1 - out[FORMS[0]]}


def measured(acts, **fields):
  return measure_arrays(AlignedCosine(('*',), **fields), acts)


def layers(n=40, offset=0.):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(n, 5))
  turned = x @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
  return {s: (v + offset).astype(np.float32)
          for s, v in (('x', x), ('turned', turned), ('wide', rng.normal(size=(n, 60))), ('narrow', x[:, :2] ** 3))}


@pytest.mark.parametrize('offset', (0., 1e4))
def test_both_forms_and_unequal_widths(offset):
  acts = layers(offset=offset)
  found = measured(acts)
  for form, value in oracle(acts).items():
    np.testing.assert_allclose(found[form], value, rtol=0, atol=1e-8, err_msg=form)
  if not offset:
    np.testing.assert_allclose([found[form].sel(site='x', other='turned') for form in FORMS], [0, 1], atol=1e-6)
  else:
    assert found.aligned_cosine_distance.values.max() < 1e-3, 'an offset fills the published form'


def test_more_units_than_rows():
  rng = np.random.default_rng(1)
  acts = {'wide': rng.normal(size=(9, 30)).astype(np.float32), 'wider': rng.normal(size=(9, 50)).astype(np.float32)}
  found = measured(acts)
  for form, value in oracle(acts).items():
    np.testing.assert_allclose(found[form], value, rtol=0, atol=1e-9, err_msg=form)


def test_one_unit_each():
  """In one dimension a rotation is a sign: the share of rows with the sign of the sum of products, less the others."""
  x, y = np.array([[1.], [2], [-3], [4]]), np.array([[1.], [-1], [-1], [1]])
  found = measured({'x': x, 'y': -y})
  np.testing.assert_allclose(found.aligned_cosine_distance, [[0, .5], [.5, 0]], atol=1e-12)


def test_rows_and_layers_of_zero():
  x = np.random.default_rng(2).normal(size=(16, 3))
  one = np.where(np.arange(16)[:, None] == 3, 0, x)
  np.testing.assert_allclose(np.diag(measured({'x': x, 'one': one}).aligned_cosine_distance), [0, 1 / 16], atol=1e-12)
  with pytest.warns(UserWarning, match=r"\['zero', 'constant'\] do not vary over the 16 rows, or are zero"):
    found = measured({'x': x, 'zero': 0 * x, 'constant': 0 * x + 5.1})
  np.testing.assert_array_equal(np.isnan(found.aligned_cosine_distance[0]), [False, True, False])
  np.testing.assert_array_equal(np.isnan(found.aligned_cosine_centred_score[0]), [False, True, True])


def test_fewest_rows():
  with pytest.raises(ValueError, match='aligned cosine similarity needs at least 2 rows, got 1'):
    measured({'x': np.ones((1, 3))})
