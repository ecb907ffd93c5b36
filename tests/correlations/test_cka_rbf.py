"""CKA of Gaussian kernels against kernels and estimators written out, published values, limits of the width."""
import numpy as np
import pytest
from scipy import spatial

from aspects.correlations.cka import Cka
from aspects.correlations.cka_rbf import CkaRbf
from aspects.measure import measure_arrays

ESTIMATORS = ('song', 'gretton', 'lange')


def gretton(k, l):
  h = np.eye(len(k)) - 1 / len(k)
  return np.trace(k @ h @ l @ h)


def song(k, l):
  n, k, l = len(k), k * (1 - np.eye(len(k))), l * (1 - np.eye(len(l)))
  return np.trace(k @ l) + k.sum() * l.sum() / (n - 1) / (n - 2) - 2 * (k.sum(0) @ l.sum(0)) / (n - 2)


def lange(k, l):
  h, below = np.eye(len(k)) - 1 / len(k), np.tril_indices(len(k), -1)
  return (h @ k @ h)[below] @ (h @ l @ h)[below]


FORMS = {'gretton': gretton, 'song': song, 'lange': lange}


def oracle(acts, fraction=0.5, sigma=None, estimators=('song', 'gretton')):
  """Kernels by scipy's distances; the median is that of the whole matrix, diagonal and all."""
  square = [spatial.distance.cdist(*[np.asarray(x, np.float64)] * 2, 'sqeuclidean') for x in acts.values()]
  variance = {}
  if fraction:
    variance['median'] = [fraction ** 2 * np.median(d) for d in square]
  if sigma:
    variance['sigma'] = [sigma ** 2] * len(square)
  out = {}
  for width, each in variance.items():
    kernels = [np.exp(-d / 2 / v) for d, v in zip(square, each)]
    for e in estimators:
      h = np.array([[FORMS[e](k, l) for l in kernels] for k in kernels])
      out[f'cka_rbf_{width}_{e}'] = h / np.sqrt(np.outer(np.diag(h), np.diag(h)))
  return out


def measured(acts, **fields):
  return measure_arrays(CkaRbf(('*',), **{'estimators': ESTIMATORS, **fields}), acts)


def layers(n=40, offset=0.):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(n, 5))
  return {s: (v + offset).astype(np.float32)
          for s, v in (('x', x), ('noisy', x + rng.normal(size=x.shape)), ('wide', rng.normal(size=(n, 60))))}


@pytest.mark.parametrize('offset', (0., 1e4))
def test_every_width_and_estimator(offset):
  acts = layers(offset=offset)
  found = measured(acts, sigma=1.5)
  expected = oracle(acts, sigma=1.5, estimators=ESTIMATORS)
  assert list(found) == list(expected) and len(expected) == 6
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-8, err_msg=name)


def test_a_wide_kernel_is_the_linear_one():
  """exp(-d^2 / 2 s^2) = 1 - d^2 / 2 s^2 for large s: kernels that differ from 1 by 1e-9 keep their digits."""
  acts = layers()
  found, linear = measured(acts, fraction=3e4), measure_arrays(Cka(('*',)), acts)
  np.testing.assert_allclose(found.cka_rbf_median_gretton, linear.cka_linear_gretton, atol=1e-6)
  np.testing.assert_allclose(found.cka_rbf_median_song, linear.cka_linear_song, atol=1e-6)


def test_a_narrow_kernel_sees_no_neighbours():
  """K -> 1 on the diagonal and 0 elsewhere: biased CKA of anything goes to 1, which says nothing."""
  found = measured(layers(), fraction=1e-2, estimators=('gretton',))
  np.testing.assert_allclose(found.cka_rbf_median_gretton, 1, atol=1e-6)


def test_independent_layers():
  """The debiased mean over pairs is 0 to four errors."""
  rng = np.random.default_rng(1)
  found = measured({str(i): rng.normal(size=(200, 20)) for i in range(6)}).cka_rbf_median_song.values
  pairs = found[np.triu_indices(6, 1)]
  assert abs(pairs.mean()) < 4 * pairs.std() / np.sqrt(15) and pairs.min() < 0


def test_the_fixed_width_is_in_units_of_the_layer():
  acts = {s: x for s, x in layers().items()}
  found, doubled = measured(acts, sigma=1.5, fraction=None), measured({s: 2 * x for s, x in acts.items()}, sigma=3.)
  np.testing.assert_allclose(found.cka_rbf_sigma_song, doubled.cka_rbf_sigma_song, atol=1e-9)
  assert found.cka_rbf_sigma_song.attrs['registry'] == 'cka-kernel=(rbf-sigma=1.5)-hsic=song-score'


def test_no_width_is_named():
  """A layer that does not vary, and one of whose pairs most are equal, so that the median is 0."""
  x = np.random.default_rng(3).normal(size=(16, 3))
  mostly = np.where(np.arange(16)[:, None] < 13, 0, x)
  with pytest.warns(UserWarning, match=r"\['constant', 'mostly'\] do not vary .* use more examples, or sigma"):
    found = measured({'x': x, 'constant': 0 * x + 5.1, 'mostly': mostly})
  np.testing.assert_array_equal(np.isnan(found.cka_rbf_median_song[0]), [False, True, True])
  assert np.isfinite(measured({'x': x, 'mostly': mostly}, fraction=None, sigma=1.).cka_rbf_sigma_song).all()


def test_fewest_rows_and_wrong_fields():
  x = np.random.default_rng(4).normal(size=(4, 3))
  measured({'x': x})
  with pytest.raises(ValueError, match='needs at least 4 rows, got 3'):
    measured({'x': x[:3]})
  for fields, message in ((dict(fraction=None), 'needs a width'), (dict(sigma=0.), 'sigma width 0.0 is not positive'),
                          (dict(fraction=-1.), 'median width -1.0'),
                          (dict(estimators=('biased',)), "estimator 'biased'"),
                          (dict(estimators='song'), 'is not a tuple')):
    with pytest.raises(ValueError, match=message):
      CkaRbf(**fields)
