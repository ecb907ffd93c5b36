"""Linear CKA from moments against n x n Gram matrices in float64, published values, closed forms and limits."""
import warnings

import numpy as np
import pytest
from sklearn import datasets
from sklearn import exceptions
from sklearn import neural_network

from aspects.correlations.cka import Cka
from aspects.measure import measure_arrays


def oracle(acts):
  """Three estimators from Gram matrices: Gretton et al. 2005; Song et al. 2012, eq. 5; Lange et al. 2023."""
  grams = [np.asarray(x, np.float64) @ np.asarray(x, np.float64).T for x in centred(acts).values()]
  n = len(grams[0])
  centred_grams = [k - k.mean(0) - k.mean(1)[:, None] + k.mean() for k in grams]
  hollow = [k * (1 - np.eye(n)) for k in grams]
  biased = lambda k, l: (k * l).sum()
  far = lambda k, l: k.sum() * l.sum() / (n - 1) / (n - 2) - 2 * k.sum(0) @ l.sum(1) / (n - 2)
  debiased = lambda k, l: ((k * l).sum() + far(k, l)) / n / (n - 3)
  out = {}
  above = np.triu_indices(n, 1)
  lange = lambda k, l: k[above] @ l[above]
  for name, hsic, kernels in (('gretton', biased, centred_grams), ('song', debiased, hollow),
                              ('lange', lange, centred_grams)):
    h = np.array([[hsic(k, l) for l in kernels] for k in kernels])
    out[f'cka_linear_{name}'] = h / np.sqrt(np.outer(np.diag(h), np.diag(h)))
  return out


def centred(acts):
  """A common shift of the rows changes neither estimator, and keeps the Gram matrices of far rows exact."""
  return {s: np.asarray(x, np.float64) - np.asarray(x, np.float64).mean(0) for s, x in acts.items()}


def check(acts, tolerance, **kwargs):
  found = measure_arrays(Cka(('*',)), acts, **kwargs)
  for name, value in oracle(acts).items():
    np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)
  return found


def uniform_pair():
  rng = np.random.RandomState(0)
  return {'x': rng.uniform(size=(30, 25)), 'y': rng.uniform(size=(30, 25))}


def mlp(depth, width, rows, seed=0):
  """A rectified MLP as torch initialises it, biases on: its layers vary less and less around a large mean."""
  rng = np.random.default_rng(seed)
  x, acts = rng.normal(size=(rows, width)).astype(np.float32), {}
  bound = width ** -0.5
  for layer in range(depth):
    kernel, bias = (rng.uniform(-bound, bound, shape).astype(np.float32) for shape in ((width, width), width))
    x = np.maximum(x @ kernel + bias, 0)
    acts[f'layer.{layer}'] = x
  return acts


def test_values_of_kornblith_et_al():
  rng = np.random.RandomState(1337)
  x = rng.randn(100, 10)
  found = check({'x': x, 'y': rng.randn(100, 10) + x}, 1e-6)
  both = [found.cka_linear_gretton[0, 1], found.cka_linear_song[0, 1]]
  np.testing.assert_allclose(both, [.55761, .51346], atol=5e-6)


def test_values_on_which_other_repositories_agree():
  found = check(uniform_pair(), 1e-6, batch_size=16)
  values = [found[f'cka_linear_{form}'][0, 1] for form in ('gretton', 'song', 'lange')]
  np.testing.assert_allclose(values, [0.4893427391, 0.0235986986, 0.0533364433], atol=1e-7)


def test_deep_default_initialised_mlp():
  """At 18 layers float32 Gram matrices that are not centred are off by up to 1; 30 layers are harder."""
  acts = mlp(30, 64, 512)
  assert np.std(acts['layer.17'], 0).max() < 0.05 * np.abs(acts['layer.17']).max()
  check({s: acts[s] for s in ('layer.0', 'layer.8', 'layer.16', 'layer.17', 'layer.29')}, 1e-4, batch_size=128)


def test_similarity_falls_with_the_distance_of_layers():
  """In one trained network, from every layer in both directions, and every layer is the most like itself."""
  digits = datasets.load_digits()
  x = digits.data / 16
  net = neural_network.MLPClassifier((48,) * 6, max_iter=15, random_state=0, learning_rate_init=2e-3, batch_size=64)
  with warnings.catch_warnings(action='ignore', category=exceptions.ConvergenceWarning):
    net.fit(x[:1200], digits.target[:1200])
  x = x[1200:]
  assert net.score(x, digits.target[1200:]) > 0.8
  acts = {}
  for layer, (kernel, bias) in enumerate(zip(net.coefs_[:-1], net.intercepts_)):
    x = np.maximum(x @ kernel + bias, 0)
    acts[f'layer.{layer}'] = x
  found = measure_arrays(Cka(('*',)), acts)
  for form in ('song', 'gretton'):
    for row in found[f'cka_linear_{form}'].values:
      near = row.argmax()
      assert (np.diff(row[near:]) < 0).all() and (np.diff(row[:near + 1]) > 0).all()
    np.testing.assert_array_equal(found[f'cka_linear_{form}'].values.argmax(1), np.arange(6))


def test_far_means_and_massive_units():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(128, 6))
  acts = {'near': x, 'mapped': x @ rng.normal(size=(6, 6))}
  acts |= {f'{offset:g} deviations away': x + offset * rng.normal(size=6) for offset in (10., 1e2, 1e3, 1e4)}
  acts['massive unit'] = acts['mapped'] * np.where(np.arange(6) == 3, 1e3, 1) + 1e3
  check({s: v.astype(np.float32) for s, v in acts.items()}, 2e-6, batch_size=32)


def test_independent_layers():
  """Debiased about 0, biased about sqrt(d e / ((d + m) (e + m))), m = n - 1: the mean over 15 pairs, to four errors."""
  rng = np.random.default_rng(0)
  found = measure_arrays(Cka(('*',)), {str(i): rng.normal(size=(200, 100)) for i in range(6)})
  above = np.triu_indices(6, 1)
  debiased, biased = (found[f'cka_linear_{form}'].values[above] for form in ('song', 'gretton'))
  assert abs(debiased.mean()) < 4 * debiased.std() / np.sqrt(15) and debiased.min() < 0
  np.testing.assert_allclose(biased.mean(), 100 / (100 + 199), rtol=0.01)
  np.testing.assert_allclose(found.null_gretton, 100 / (100 + 199), rtol=0.01)


def test_linear_map_of_gaussian_rows():
  """Y = X A with X ~ N(0, S): CKA -> |S A|_F^2 / (|S|_F |A' S A|_F)."""
  rng = np.random.default_rng(1)
  s, a = np.diag([4., 2., 1., .5]), rng.normal(size=(4, 3))
  x = rng.normal(size=(20000, 4)) @ np.sqrt(s)
  found = measure_arrays(Cka(('*',)), {'x': x, 'y': x @ a}, batch_size=5000)
  limit = np.linalg.norm(s @ a) ** 2 / np.linalg.norm(s) / np.linalg.norm(a.T @ s @ a)
  np.testing.assert_allclose([found.cka_linear_gretton[0, 1], found.cka_linear_song[0, 1]], limit, atol=0.01)


def test_duplicated_and_constant_units_and_more_units_than_rows():
  rng = np.random.default_rng(2)
  x, y = rng.normal(size=(24, 40)), rng.normal(size=(24, 6))
  same = {'x': x, 'doubled': np.concatenate([x, x], 1), 'with constants': np.concatenate([x, 7 + 0 * y], 1), 'y': y}
  found = check(same, 1e-6)
  for form in ('song', 'gretton', 'lange'):
    np.testing.assert_allclose(found[f'cka_linear_{form}'].values[:3, :3], 1, atol=1e-6)
    np.testing.assert_allclose(np.ptp(found[f'cka_linear_{form}'].values[:3, 3]), 0, atol=1e-6)


def test_a_layer_that_does_not_vary_is_named():
  x = np.random.default_rng(3).normal(size=(16, 3))
  with pytest.warns(UserWarning, match=r"\['constant'\] do not vary"):
    found = measure_arrays(Cka(('*',)), {'x': x, 'constant': 0 * x + 5})
  assert np.isnan(found.cka_linear_song.values[1]).all() and found.cka_linear_song.values[0, 0] == 1


def test_fewest_rows():
  x = np.random.default_rng(4).normal(size=(4, 3))
  check({'x': x}, 1e-6)
  with pytest.raises(ValueError, match='at least 4 rows, got 3'):
    measure_arrays(Cka(('*',)), {'x': x[:3]})


def hsic_song(acts):
  """Debiased HSIC [L, L] of centred rows from Gram matrices (Song et al. 2012, eq. 5)."""
  grams = [x @ x.T * (1 - np.eye(len(x))) for x in centred(acts).values()]
  n = len(grams[0])
  far = lambda k, l: k.sum() * l.sum() / (n - 1) / (n - 2) - 2 * k.sum(0) @ l.sum(1) / (n - 2)
  return np.array([[((k * l).sum() + far(k, l)) / n / (n - 3) for l in grams] for k in grams])
