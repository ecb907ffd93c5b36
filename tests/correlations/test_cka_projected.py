"""Projected CKA: equal to the exact value for narrow layers, unbiased and with an honest error for wide ones."""
import zlib

import numpy as np
import pytest

from aspects.correlations.cka import Cka
from aspects.correlations.cka_projected import CkaProjected
from aspects.measure import measure_arrays
from aspects.statistics.projected_covariance import project
from tests.correlations import test_cka


def oracle(acts, width, groups, seed=0):
  """Each projection as a matrix, debiased HSIC of all of them from Gram matrices, the jackknife by leaving out."""
  projected = {}
  for s, x in acts.items():
    for g in range(groups):
      matrix = np.asarray(project(np.eye(x.shape[1], dtype=np.float32), width, zlib.crc32(f'{s} {g} {seed}'.encode())))
      projected[s, g] = np.asarray(x, np.float64) @ matrix.astype(np.float64)
  hsic = test_cka.hsic_song(projected)
  def cka(kept):
    pairs = {(s, t): [hsic[list(projected).index((s, g)), list(projected).index((t, h))]
                      for g in kept for h in kept if s != t or g != h] for s in acts for t in acts}
    mean = {pair: np.mean(values) for pair, values in pairs.items()}
    return np.array([[mean[s, t] / np.sqrt(mean[s, s] * mean[t, t]) for t in acts] for s in acts])
  left = np.stack([cka([g for g in range(groups) if g != out]) for out in range(groups)])
  error = np.sqrt((groups - 1) / groups * ((left - left.mean(0)) ** 2).sum(0))
  return {'cka_linear_song_projected': cka(range(groups)), 'error_projected': error}


def wide(seed=0, rows=200, width=3000):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(rows, 20)) * np.geomspace(1, 0.1, 20)
  a, b = (np.tanh(x @ rng.normal(size=(20, width))) + 3 for _ in range(2))
  return {'a': a, 'b': b + rng.normal(size=b.shape), 'narrow': x}


def test_projections_keep_inner_products_on_average():
  """E <px, py> = <x, y>, and the variance is at most (|x|^2 |y|^2 + <x, y>^2) / width: 400 projections."""
  x, y = np.random.default_rng(0).normal(size=(2, 300)).astype(np.float32)
  y = y + x
  values = np.array([np.prod(project(np.stack([x, y]), 32, seed), 0).sum() for seed in range(400)])
  spread = np.sqrt(((x @ x) * (y @ y) + (x @ y) ** 2) / 32)
  assert abs(values.mean() - x @ y) < 4 * spread / 20
  assert values.std() < 1.15 * spread


def test_unbiased_with_an_error_on_the_safe_side():
  """Other orders of the units are other projections, for one compiled program: the mean over 30 of them meets the exact
  value to four errors, and the stated error is the actual spread or up to twice of it."""
  acts, rng = wide(), np.random.default_rng(3)
  del acts['narrow']
  exact = measure_arrays(Cka(('*',)), acts).cka_linear_song.values
  turned = [{s: x[:, rng.permutation(x.shape[1])] for s, x in acts.items()} for _ in range(30)]
  found = [measure_arrays(CkaProjected(('*',), width=64), x) for x in turned]
  values = np.stack([f.cka_linear_song_projected for f in found])
  stated = np.sqrt(np.mean([f.error_projected ** 2 for f in found], axis=0))
  off = ~np.eye(2, dtype=bool)
  spread = values.std(0, ddof=1)
  assert (abs(values.mean(0) - exact)[off] < 4 * spread[off] / np.sqrt(30) + 0.1 * spread[off]).all()
  assert (stated > 0.9 * spread)[off].all() and (stated < 2 * spread)[off].all()
  np.testing.assert_allclose(np.einsum('sii->si', values), 1)


def test_the_error_falls_with_the_width():
  acts = {s: x for s, x in wide(1).items() if s != 'narrow'}
  measure = lambda width: measure_arrays(CkaProjected(('*',), width=width, groups=3), acts)
  error = [float(measure(width).error_projected[0, 1]) for width in (32, 512)]
  assert error[0] > 2 * error[1] > 0


def test_against_projections_as_matrices():
  acts = {s: x for s, x in wide(2, rows=60, width=300).items() if s != 'b'}
  found = measure_arrays(CkaProjected(('*',), width=32, groups=3), acts, batch_size=16)
  for name, value in oracle(acts, 32, 3).items():
    np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-6, err_msg=name)


def test_a_narrow_layer_is_not_changed():
  acts = {s: x for s, x in test_cka.mlp(2, 32, 64).items()}
  found = measure_arrays(CkaProjected(('*',), groups=3), acts)
  np.testing.assert_allclose(found.cka_linear_song_projected, test_cka.oracle(acts)['cka_linear_song'], atol=2e-6)
  np.testing.assert_allclose(found.error_projected, 0, atol=1e-9)


def test_refused_or_named():
  x = np.random.default_rng(0).normal(size=(40, 5))
  with pytest.raises(ValueError, match='2 groups of width 256: a standard error needs 3'):
    CkaProjected(groups=2)
  with pytest.raises(ValueError, match='at least 4 rows, got 3'):
    measure_arrays(CkaProjected(('*',), groups=3), {'x': x[:3]})
  with pytest.warns(UserWarning, match=r"\['constant'\] do not vary"):
    measure_arrays(CkaProjected(('*',), groups=3), {'x': x, 'constant': np.ones((40, 6))})
