"""Canonical correlations from moments against bases of the rows in float64, published values, closed forms, limits."""
import numpy as np
import pytest

from aspects.correlations.cca import Cca
from aspects.measure import measure_arrays


def oracle(acts, variance=0.99, tolerance=3e-5, regularisation=0.0):
  """All forms from orthonormal bases of the centred rows, float64: rho are the singular values of their product."""
  whole, leading, units, ridge = {}, {}, {}, {}
  for s, x in acts.items():
    x = np.asarray(x, np.float64)
    units[s] = x - x.mean(0)
    spread = units[s].std(0)
    basis, size, _ = np.linalg.svd(units[s] / np.where(spread > 0, spread, 1), full_matrices=False)
    whole[s] = basis[:, size ** 2 > tolerance * size[0] ** 2]
    basis, size, _ = np.linalg.svd(units[s], full_matrices=False)
    held = np.cumsum(size ** 2) / (size ** 2).sum()
    leading[s] = basis[:, :np.argmax(held >= variance) + 1]
    ridge[s] = basis * size / np.sqrt(size ** 2 + regularisation * (units[s] ** 2).sum() / x.shape[1])
  out = {form: np.zeros((len(acts),) * 2) for form in ('cca_mean', 'cca_mean_squared', 'svcca_mean', 'pwcca')}
  shrunk = {form: np.zeros((len(acts),) * 2) for form in ('cca_regularised_mean', 'cca_regularised_mean_squared')}
  for i, a in enumerate(acts):
    for j, b in enumerate(acts):
      turn, rho, _ = np.linalg.svd(whole[a].T @ whole[b], full_matrices=False)
      weight = np.abs((whole[a] @ turn).T @ units[a]).sum(1)
      reduced = np.linalg.svd(leading[a].T @ leading[b], compute_uv=False)
      out['cca_mean'][i, j], out['cca_mean_squared'][i, j] = rho.mean(), (rho ** 2).mean()
      out['svcca_mean'][i, j], out['pwcca'][i, j] = reduced.mean(), weight @ rho / weight.sum()
      lessened = np.linalg.svd(ridge[a].T @ ridge[b], compute_uv=False)
      shrunk['cca_regularised_mean'][i, j] = lessened.mean()
      shrunk['cca_regularised_mean_squared'][i, j] = (lessened ** 2).mean()
  out['pwcca_symmetric'] = (out['pwcca'] + out['pwcca'].T) / 2
  return out | (shrunk if regularisation else {})


def check(acts, tolerance, forms=('cca_mean', 'cca_mean_squared', 'svcca_mean', 'pwcca'), **kwargs):
  found = measure_arrays(Cca(('*',)), acts, **kwargs)
  expected = oracle(acts)
  for form in forms:
    np.testing.assert_allclose(found[form], expected[form], rtol=0, atol=tolerance, err_msg=form)
  return found


def uniform_pair():
  rng = np.random.RandomState(0)
  return {'x': rng.uniform(size=(30, 25)), 'y': rng.uniform(size=(30, 25))}


def test_values_on_which_other_repositories_agree():
  """Centred, n = 30 and d = 25, so that 21 correlations are 1 by counting; SVCCA keeps 21 and 21 components.

  The value 0.9588540571 that goes round for PWCCA of this pair is none: with 21 coinciding correlations the weights of
  the definition are not unique, the code behind it depends on the signs of singular vectors, and no choice gives it.
  """
  found = check(uniform_pair(), 1e-6, ('cca_mean', 'cca_mean_squared', 'svcca_mean'), batch_size=16)
  values = [float(found[form][0, 1]) for form in ('cca_mean', 'cca_mean_squared', 'svcca_mean')]
  np.testing.assert_allclose(values, [0.8901049738, 0.8583001426, 0.7831814123], atol=3e-7)


def test_the_value_of_pwcca_that_goes_round_is_beyond_its_definition():
  """The 21 directions of correlation 1 may be turned: their weights sum to sqrt(21) sum_j |P x_j| at most, P on them.

  The weights of the four others are unique, so that their share, and with it PWCCA, is bounded.
  """
  found = measure_arrays(Cca(('*',)), uniform_pair()).pwcca
  units = [x - x.mean(0) for x in uniform_pair().values()]
  bases = [np.linalg.svd(x, full_matrices=False)[0] for x in units]
  for x, basis, other, value in zip(units, bases, bases[::-1], (found[0, 1], found[1, 0])):
    turn, rho, _ = np.linalg.svd(basis.T @ other)
    np.testing.assert_allclose(rho[:21], 1, rtol=1e-12)
    held = (basis @ turn).T @ x
    most, rest = np.sqrt(21) * np.linalg.norm(held[:21], axis=0).sum(), np.abs(held[21:]).sum(1)
    bound = (most + rest @ rho[21:]) / (most + rest.sum())
    assert 0.85 < value < bound < 0.913 < 0.9588540571


def test_value_of_kornblith_et_al():
  """Theirs is not centred: rows and their negatives have mean 0 and the same second moments."""
  rng = np.random.RandomState(1337)
  x = rng.randn(100, 10)
  y = rng.randn(100, 10) + x
  found = measure_arrays(Cca(('*',)), {'x': np.concatenate([x, -x]), 'y': np.concatenate([y, -y])})
  np.testing.assert_allclose(found.cca_mean_squared[0, 1], 0.54312, atol=5e-6)


def layers(rows=300, offset=0., seed=0):
  """Three layers of different widths that share some directions."""
  rng = np.random.default_rng(seed)
  common = rng.normal(size=(rows, 6))
  return {f'layer.{i}': (common @ rng.normal(size=(6, d)) + noise * rng.normal(size=(rows, d))
                         + offset * rng.normal(size=d)).astype(np.float32)
          for i, (d, noise) in enumerate(((8, .3), (12, 1.), (5, 2.)))}


@pytest.mark.parametrize('offset', (0., 1e2, 1e4))
def test_equals_bases_of_the_rows(offset):
  # 1e4 deviations away one step of float32 is 1e-3 deviations, which the rows are in both computations
  found = check(layers(offset=offset), 5e-6, batch_size=64)
  for form in ('cca_mean', 'cca_mean_squared', 'svcca_mean', 'pwcca'):
    np.testing.assert_allclose(np.diag(found[form]), 1, atol=1e-6)
  assert not np.allclose(found.pwcca, found.pwcca.T, atol=1e-3)


def test_regularisation_shrinks_and_vanishes():
  """One unit against itself: 1 / (1 + kappa). Where kappa is small the values are those without it."""
  acts = layers()
  found = measure_arrays(Cca(('*',), regularisation=.1), acts, batch_size=64)
  for form, value in oracle(acts, regularisation=.1).items():
    np.testing.assert_allclose(found[form], value, rtol=0, atol=5e-6, err_msg=form)
  assert found.attrs['regularisation'] == .1
  alone = measure_arrays(Cca(('*',), regularisation=.25), {'x': acts['layer.0'][:, :1]})
  np.testing.assert_allclose(alone.cca_regularised_mean, 1 / 1.25, rtol=1e-6)
  faint = measure_arrays(Cca(('*',), regularisation=1e-9), acts, batch_size=64)
  np.testing.assert_allclose(faint.cca_regularised_mean, found.cca_mean, atol=1e-5)
  assert 'cca_regularised_mean' not in measure_arrays(Cca(('*',)), acts, batch_size=64)


def test_registry_ids_name_the_variance():
  found = measure_arrays(Cca(('*',), variance=.95), layers(), batch_size=64)
  assert [found[v].attrs['registry'] for v in ('cca_mean', 'svcca_mean')] == ['cca-score', 'svcca-var=0.95-score']


def test_weights_are_those_of_the_row():
  """X = [10 a, b], Y = [a, c] of orthonormal a, b, c: rho = 1, 0, weighted 10 : 1 for X and 1 : 1 for Y."""
  rng = np.random.default_rng(0)
  a, b, c = np.linalg.qr(np.concatenate([np.ones((16, 1)), rng.normal(size=(16, 3))], 1))[0].T[1:]
  found = measure_arrays(Cca(('*',)), {'x': np.stack([10 * a, b], 1), 'y': np.stack([a, c], 1)})
  np.testing.assert_allclose(found.pwcca, [[1, 10 / 11], [1 / 2, 1]], atol=1e-6)
  np.testing.assert_allclose(found.cca_mean[0, 1], 0.5, atol=1e-6)


def test_independent_layers():
  """E[R^2] = max(d, e) / (n - 1): the mean over pairs, to four errors; the null says so for each pair."""
  rng = np.random.default_rng(0)
  widths = (12, 12, 20, 20, 30, 30)
  found = measure_arrays(Cca(('*',)), {str(i): rng.normal(size=(121, d)) for i, d in enumerate(widths)})
  larger = np.maximum.outer(widths, widths) / 120
  np.testing.assert_allclose(found.null_mean_squared, larger, rtol=1e-12)
  above = np.triu_indices(6, 1)
  gap = (found.cca_mean_squared.values - larger)[above]
  assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(gap))


def mlp(depth, width, rows, seed=0):
  """A rectified MLP as torch initialises it, biases on: some units die and the spectrum falls by decades."""
  rng = np.random.default_rng(seed)
  x, acts = rng.normal(size=(rows, width)).astype(np.float32), {}
  bound = width ** -0.5
  for layer in range(depth):
    kernel, bias = (rng.uniform(-bound, bound, shape).astype(np.float32) for shape in ((width, width), width))
    x = np.maximum(x @ kernel + bias, 0)
    acts[f'layer.{layer}'] = x
  return acts


def test_deep_default_initialised_mlp():
  """PWCCA is left out: neighbouring layers have coinciding correlations, for which its weights are not unique."""
  acts = mlp(30, 64, 512)
  acts = {s: acts[s] for s in ('layer.0', 'layer.8', 'layer.17', 'layer.29')}
  found = check(acts, 1e-4, ('cca_mean', 'cca_mean_squared', 'svcca_mean'), batch_size=128)
  assert found['rank'][0] == 64 and found['rank'][-1] < 48


def test_duplicated_constant_and_massive_units():
  x, y = (layers()[f'layer.{i}'] for i in (0, 1))
  massive = np.where(np.arange(12) == 3, 1e4, 1).astype(np.float32)
  odd = {'x': x, 'doubled': np.concatenate([x, x], 1), 'with constants': np.concatenate([x, 0 * y + 7], 1), 'y': y,
         'y, massive': y * massive}
  found = measure_arrays(Cca(('*',)), odd)
  np.testing.assert_array_equal(found['rank'], [8, 8, 8, 12, 12])
  # Copies of a layer are multiplied in products of other shapes, so that float32 scatters differ in their last digit,
  # which the inverse enlarges by up to the condition number.
  digit = np.linalg.cond(np.cov(x.T)) * np.finfo(np.float32).eps
  for form in ('cca_mean', 'cca_mean_squared'):
    np.testing.assert_allclose(found[form].values[:3, :3], 1, atol=digit)
    np.testing.assert_allclose(found[form].values[:3, 3:], oracle({'x': x, 'y': y})[form][0, 1], atol=digit)
  # SVCCA looks at variance: at the massive unit and nothing else of its layer
  svcca = oracle({'x': x, 'unit': y[:, [3]]})['svcca_mean'][0, 1]
  np.testing.assert_allclose(found.svcca_mean.sel(site='y, massive', other='x'), svcca, atol=1e-4)


def test_more_units_than_rows_is_said():
  rng = np.random.default_rng(0)
  acts = {'wide': rng.normal(size=(20, 30)), 'narrow': rng.normal(size=(20, 3))}
  with pytest.warns(UserWarning, match=r"\['wide'\] have rank n - 1 = 19"):
    found = measure_arrays(Cca(('*',)), acts)
  np.testing.assert_allclose(found.cca_mean, 1, atol=1e-5)
  np.testing.assert_allclose(found.null_mean_squared, [[1, 1], [1, 3 / 19]])
  np.testing.assert_array_equal(found['rank'], [19, 3])


def test_a_layer_that_does_not_vary_is_named():
  x = np.random.default_rng(3).normal(size=(16, 3))
  with pytest.warns(UserWarning, match=r"\['constant'\] do not vary"):
    found = measure_arrays(Cca(('*',)), {'x': x, 'constant': 0 * x + .1})
  for form in ('cca_mean', 'cca_mean_squared', 'svcca_mean', 'pwcca', 'pwcca_symmetric', 'null_mean_squared'):
    np.testing.assert_array_equal(np.isnan(found[form]), [[False, True], [True, True]])


def test_fewest_rows_and_wrong_fields():
  x = np.random.default_rng(4).normal(size=(3, 1))
  np.testing.assert_allclose(measure_arrays(Cca(('*',)), {'x': x}).cca_mean, 1)
  with pytest.raises(ValueError, match='at least 3 rows, got 2'):
    measure_arrays(Cca(('*',)), {'x': x[:2]})
  with pytest.raises(ValueError, match="site 'x' has activations that are not finite"):
    measure_arrays(Cca(('*',)), {'x': np.array([[1.], [np.inf], [2.]])})
  for fields, message in ((dict(variance=99), 'share in'), (dict(tolerance=0), 'ratio of eigenvalues'),
                          (dict(regularisation=-1), 'regularisation -1')):
    with pytest.raises(ValueError, match=message):
      Cca(**fields)
