"""Minibatch CKA against the sum of Song et al. over loops in float64, one block, the exact value and limits."""
import itertools

import numpy as np
import pytest

from aspects.correlations.cka import Cka
from aspects.correlations.cka_minibatch import CkaMinibatch
from aspects.measure import measure_arrays
from tests.correlations.test_cka import mlp


def gram(x, kernel, width, fraction):
  if kernel == 'linear':
    x = x - x.mean(0)
    return x @ x.T
  distance = ((x[:, None] - x[None]) ** 2).sum(-1)
  pairs = np.sort(distance[~np.eye(len(x), dtype=bool)])
  scale = width ** 2 if width else fraction ** 2 * pairs[(len(pairs) - 1) // 2]
  return np.exp(-distance / 2 / scale)


def hsic(k, l):
  """Song et al. 2012, eq. 5, from Gram matrices without their diagonals."""
  n = len(k)
  k, l = (g * (1 - np.eye(n)) for g in (k, l))
  return ((k * l).sum() + k.sum() * l.sum() / (n - 1) / (n - 2) - 2 * k.sum(0) @ l.sum(1) / (n - 2)) / n / (n - 3)


def oracle(acts, block, kernel, width=0., fraction=0.5):
  acts = {s: np.asarray(x, np.float64) for s, x in acts.items()}
  n, total = len(next(iter(acts.values()))), 0
  for start in range(0, n, block):
    grams = [gram(x[start:start + block], kernel, width, fraction) for x in acts.values()]
    if len(grams[0]) >= 4:
      total = total + len(grams[0]) * np.array([[hsic(k, l) for l in grams] for k in grams])
  return {f'cka_{kernel}_song_minibatch': total / np.sqrt(np.outer(np.diag(total), np.diag(total)))}


def check(acts, tolerance, batch_size=1024, **fields):
  found = measure_arrays(CkaMinibatch(('*',), **fields), acts, batch_size=batch_size)
  expected = oracle(acts, **{'block': 256, 'kernel': 'linear', **fields})
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance)
  return found


def layers(rows=90, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(rows, 7))
  return {'a': x, 'b': np.maximum(x @ rng.normal(size=(7, 40)), 0), 'c': rng.normal(size=(rows, 3)) + x[:, :3]}


@pytest.mark.parametrize('fields', [dict(), dict(kernel='rbf'), dict(kernel='rbf', width=2.),
                                    dict(kernel='rbf', fraction=2.)])
@pytest.mark.parametrize('block', [30, 31, 32])
def test_blocks_of_whole_and_broken_batches(fields, block):
  """90 rows are three blocks of 30, or leave one of 28 or 26; batches are blocks, or hold three and padding."""
  for batch_size in (block, 3 * block):
    found = check(layers(), 2e-6, batch_size=batch_size, block=block, **fields)
    assert found.attrs['rows'] == 90 and found.attrs['blocks'] == 3


def test_one_block_of_the_linear_kernel_is_the_exact_value():
  acts = layers()
  exact = measure_arrays(Cka(('*',)), acts).cka_linear_song
  one = measure_arrays(CkaMinibatch(('*',), block=90), acts).cka_linear_song_minibatch
  np.testing.assert_allclose(one, exact, rtol=0, atol=2e-6)


def test_the_mean_over_blocks_estimates_the_exact_value():
  """HSIC is unbiased at any size: blocks of 8 and of 64 agree with all 8,192 rows to four standard errors."""
  acts = layers(8192, seed=1)
  exact = measure_arrays(Cka(('*',)), acts).cka_linear_song
  for block in (8, 64):
    parts = [oracle({s: x[k:k + 1024] for s, x in acts.items()}, block, 'linear')['cka_linear_song_minibatch']
             for k in range(0, 8192, 1024)]
    found = measure_arrays(CkaMinibatch(('*',), block=block), acts).cka_linear_song_minibatch
    for i, j in itertools.combinations(range(3), 2):
      error = np.std([p[i, j] for p in parts], ddof=1) / np.sqrt(8)
      assert abs(found[i, j] - exact[i, j]) < 4 * error + 1e-6


def test_deep_default_initialised_mlp():
  acts = mlp(18, 64, 512)
  check({s: acts[s] for s in ('layer.0', 'layer.8', 'layer.16', 'layer.17')}, 1e-4)


def test_far_means():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(128, 6))
  acts = {f'{offset:g} deviations away': x @ rng.normal(size=(6, 6)) + offset for offset in (0., 10., 1e2, 1e3, 1e4)}
  for kernel in ('linear', 'rbf'):
    check({s: v.astype(np.float32) for s, v in acts.items()}, 1e-5, block=64, kernel=kernel)


def test_rows_left_out_and_layers_without_variance_are_named():
  acts = layers(66)
  with pytest.warns(UserWarning, match='2 of 66 rows stood in blocks of fewer than 4'):
    found = measure_arrays(CkaMinibatch(('*',), block=32), acts)
  np.testing.assert_allclose(found.cka_linear_song_minibatch, oracle(acts, 32, 'linear')['cka_linear_song_minibatch'],
                             atol=2e-6)
  for kernel in ('linear', 'rbf'):
    with pytest.warns(UserWarning, match=r"\['constant'\] do not vary"):
      found = measure_arrays(CkaMinibatch(('*',), kernel=kernel), {**acts, 'constant': np.ones((66, 2))})
    assert np.isnan(found[f'cka_{kernel}_song_minibatch'].values[3]).all()


def test_too_few_rows():
  with pytest.raises(ValueError, match='a block of at least 4 rows; 3 rows came in smaller ones'):
    measure_arrays(CkaMinibatch(('*',)), layers(3))
  with pytest.raises(ValueError, match='block 3: debiased HSIC needs 4'):
    CkaMinibatch(block=3)
  with pytest.raises(ValueError, match="kernel 'cosine' is not one of linear, rbf"):
    CkaMinibatch(kernel='cosine')
