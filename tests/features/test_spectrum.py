"""Dimension counts and power laws from moments against the rows in float64, published values and closed forms."""
import numpy as np
import pytest

from aspects.features.spectrum import Spectrum
from aspects.measure import measure_arrays


def entropy(size, epsilon=0.):
  p = size / size.sum() + epsilon
  return np.exp(-sum(v * np.log(v) for v in p if v > 0))


def oracle(acts, ranks=(11, 500), epsilon=1e-7):
  """Every count from singular values of the rows, float64, and the power law by weighted least squares."""
  out = {}
  for x in acts.values():
    x = np.asarray(x, np.float64)
    n, d = x.shape
    raw = np.linalg.svd(x, compute_uv=False)
    singular = np.linalg.svd(x - x.mean(0), compute_uv=False)[:n - 1]
    value = singular ** 2
    covariance = np.cov(x.T)
    # unbiased estimates of tr(C)^2 and tr(C^2) of Gaussian rows from the covariance (Srivastava 2005)
    m, first, second = n - 1, np.trace(covariance), np.trace(covariance @ covariance)
    square = m ** 2 / ((m - 1) * (m + 2)) * (second - first ** 2 / m)
    whole = m * (m + 1) / ((m - 1) * (m + 2)) * (first ** 2 - 2 * second / (m + 1))
    kept = (value > 1e-7 * value[0]).sum()
    k = np.arange(max(1, min(ranks[0], kept // 4)), min(ranks[1], kept) + 1)
    line = np.polyfit(np.log(k), np.log(value[k - 1]), 1, w=k ** -0.5)
    shares = np.concatenate([value / value.sum(), np.zeros(d - len(value))])
    counts = dict(
        participation_ratio=value.sum() ** 2 / (value ** 2).sum(), participation_ratio_debiased=whole / square,
        rankme_singular=entropy(raw, epsilon), effective_rank=entropy(singular), stable_rank=value.sum() / value[0],
        rankme_eigenvalue=entropy(np.concatenate([value, np.zeros(min(n, d) - len(value))]), epsilon), alpha=-line[0],
        alpha_first=k[0], alpha_last=k[-1])
    for name, v in counts.items():
      out.setdefault(name, []).append(v)
    out.setdefault('spectrum', []).append(shares)
  widest = max(map(len, out['spectrum']))
  out['spectrum'] = [np.concatenate([s, np.full(widest - len(s), np.nan)]) for s in out['spectrum']]
  return {name: np.stack(v) for name, v in out.items()}


def check(acts, tolerance, fields={}, **kwargs):
  found = measure_arrays(Spectrum(('*',), **fields), acts, **kwargs)
  for name, value in oracle(acts, **fields).items():
    np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance * 1e-3, err_msg=name)
  return found


def torch_randn(seed, *shape):
  """torch.randn after torch.manual_seed(seed): the lower 24 bits of MT19937's words by Box-Muller, 8 pairs a block."""
  words = np.random.RandomState(seed).randint(0, 2 ** 32, np.prod(shape), np.uint32)
  first, second = ((words & 0xFFFFFF) * 2. ** -24).reshape(-1, 2, 8).swapaxes(0, 1)
  radius, angle = np.sqrt(-2 * np.log(1 - first)), 2 * np.pi * second
  return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(shape)


def test_published_values_of_rankme():
  """reptrix's test has 613.4726, from eigenvalues of the covariance.

  The paper's form, from singular values of rows that are not centred, is 813.85 without its epsilon of 1e-7, and 814.36
  with it."""
  x = torch_randn(0, 1000, 1024)
  np.testing.assert_allclose(x[0, :4], [-1.1258398, -1.1523602, -0.25057858, -0.4338788], atol=2e-6)
  found = measure_arrays(Spectrum(('*',)), {'x': x})
  np.testing.assert_allclose([found.rankme_eigenvalue[0], found.rankme_singular[0]], [613.4726, 814.35695], rtol=1e-6)
  np.testing.assert_allclose(measure_arrays(Spectrum(('*',), epsilon=0.), {'x': x}).rankme_singular, 813.85, rtol=1e-5)


def gaussian(rows, spectrum, seed=0, mean=0.):
  """Rows whose centred singular values are exactly the square roots of `spectrum`, in a random orientation."""
  rng = np.random.default_rng(seed)
  d = len(spectrum)
  left = np.linalg.qr(np.concatenate([np.ones((rows, 1)), rng.normal(size=(rows, d))], 1))[0][:, 1:]
  return left * np.sqrt(spectrum) @ np.linalg.qr(rng.normal(size=(d, d)))[0] + mean * rng.normal(size=d)


@pytest.mark.parametrize('offset', (0., 1e2, 1e4))
def test_equals_singular_values_of_the_rows(offset):
  rng = np.random.default_rng(0)
  acts = {s: rng.normal(size=(200, d)) * np.geomspace(1, 0.05, d) @ np.linalg.qr(rng.normal(size=(d, d)))[0]
          for s, d in (('a', 16), ('b', 30))}
  acts = {s: (x + offset * rng.normal(size=x.shape[1])).astype(np.float32) for s, x in acts.items()}
  check(acts, 2e-5, batch_size=64)
  check({'few rows': acts['b'][:20]}, 2e-5, dict(ranks=(2, 12)), batch_size=8)


def test_isotropic_spectrum():
  found = measure_arrays(Spectrum(('*',)), {'x': gaussian(300, np.full(24, 5.))})
  for name in ('participation_ratio', 'effective_rank', 'stable_rank', 'rankme_singular', 'rankme_eigenvalue'):
    np.testing.assert_allclose(found[name], 24, rtol=2e-5, err_msg=name)
  np.testing.assert_allclose(found.alpha, 0, atol=1e-5)
  np.testing.assert_allclose(found.spectrum, 1 / 24, rtol=1e-5)


def test_power_law_is_found():
  """l_k = k^-1.5 on ranks 11 to 60 and another law before: only the fitted ranks count."""
  k = np.arange(1, 61)
  x = gaussian(400, np.where(k < 11, k ** -0.3, k ** -1.5))
  found = measure_arrays(Spectrum(('*',)), {'x': x})
  fitted = [found[name][0] for name in ('alpha', 'alpha_r2', 'alpha_first', 'alpha_last')]
  np.testing.assert_allclose(fitted, [1.5, 1, 11, 60], rtol=1e-4)
  narrow = measure_arrays(Spectrum(('*',), ranks=(3, 8)), {'x': x})
  np.testing.assert_allclose([narrow.alpha[0], narrow.alpha_first[0], narrow.alpha_last[0]], [0.3, 3, 8], rtol=1e-4)


def test_isotropic_sample():
  """The participation ratio of n independent rows is d / (1 + d / (n - 1)), its null; debiased it is d."""
  rng = np.random.default_rng(0)
  for d, n in ((20, 61), (60, 31)):
    found = measure_arrays(Spectrum(('*',)), {str(i): rng.normal(size=(n, d)) for i in range(20)})
    biased, debiased = found.participation_ratio.values, found.participation_ratio_debiased.values
    np.testing.assert_allclose(biased.mean(), d / (1 + d / (n - 1)), rtol=0.02)
    np.testing.assert_allclose(found.null_participation, d / (1 + d / (n - 1)), rtol=0.02)
    assert abs(debiased.mean() - d) < 4 * debiased.std() / np.sqrt(20) < d / 10 < d - biased.mean()


def test_a_large_mean_is_the_whole_rank_where_rows_are_not_centred():
  flat = np.ones(16)
  near, far = (measure_arrays(Spectrum(('*',)), {'x': gaussian(200, flat, mean=m)}) for m in (0., 1e4))
  np.testing.assert_allclose([near.rankme_singular[0], near.effective_rank[0]], 16, rtol=1e-5)
  np.testing.assert_allclose([far.rankme_singular[0], far.effective_rank[0]], [1, 16], rtol=2e-2)


def test_duplicated_and_constant_units():
  x = np.random.default_rng(1).normal(size=(100, 12)).astype(np.float32)
  found = measure_arrays(Spectrum(('*',)), {'x': x, 'doubled': np.concatenate([x, x], 1),
                                            'with constants': np.concatenate([x, 0 * x + 7], 1)})
  for name in ('participation_ratio', 'participation_ratio_debiased', 'effective_rank', 'stable_rank', 'alpha',
               'rankme_eigenvalue'):
    np.testing.assert_allclose(found[name], float(found[name][0]), rtol=1e-4, err_msg=name)
  np.testing.assert_allclose(found.rankme_singular[1], found.rankme_singular[0], rtol=1e-4)
  assert (found.spectrum[1, 12:] == 0).all() and np.isnan(found.spectrum[0, 12:]).all()


def test_one_direction():
  """Rounding of float32 moments is no dimension: all counts are 1, up to the epsilon of RankMe."""
  rng = np.random.default_rng(2)
  x = (rng.normal(size=(1000, 1)) * rng.normal(size=64)).astype(np.float32)
  with pytest.warns(UserWarning, match="'x' has 1 eigenvalues above rounding, too few for a power law"):
    found = measure_arrays(Spectrum(('*',)), {'x': x})
  for name in ('participation_ratio', 'effective_rank', 'stable_rank', 'rankme_singular', 'rankme_eigenvalue'):
    np.testing.assert_allclose(found[name], 1, rtol=2e-4, err_msg=name)
  assert np.isnan(found.alpha).all()


def test_a_layer_that_does_not_vary_is_named():
  x = np.random.default_rng(3).normal(size=(50, 6))
  with pytest.warns(UserWarning, match="'constant' does not vary over its 50 rows"):
    found = measure_arrays(Spectrum(('*',)), {'x': x, 'constant': 0 * x + 5})
  for name in found:
    assert np.isnan(found[name].values[1]).all() and np.isfinite(found[name].values[0]).all(), name


def test_fewest_rows_and_wrong_fields():
  x = np.random.default_rng(4).normal(size=(2, 5))
  with pytest.raises(ValueError, match="'x' has 2 rows; a spectrum needs at least 3"):
    measure_arrays(Spectrum(('*',)), {'x': x})
  with pytest.raises(ValueError, match='not finite'):
    measure_arrays(Spectrum(('*',)), {'x': np.full((8, 2), np.nan)})
  with pytest.raises(ValueError, match=r'ranks \(5, 6\)'):
    Spectrum(ranks=(5, 6))
