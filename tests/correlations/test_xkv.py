"""Shared subspaces against full decompositions of rows, planted subspaces, the accounting; the experiment's metrics."""
import numpy as np
import pytest

from aspects.correlations.xkv import cross_layer_svd
from aspects.correlations.xkv import kv_compress
from aspects.correlations.xkv import shared_rank
from aspects.correlations.xkv import subspace_alignment
from aspects.correlations.xkv import Xkv
from aspects.measure import measure_arrays
from configs.correlations.xkv import get_config
from experiments import xkv as experiment


def truncated(x, rank):
  u, s, vt = np.linalg.svd(x, full_matrices=False)
  return (u[:, :rank] * s[:rank]) @ vt[:rank]


def oracle(acts, rank, group=2, centred=True):
  """By singular values of the rows themselves, in groups in the order of the sites."""
  x = [np.asarray(v, np.float64).reshape(len(v), -1) for v in acts.values()]
  x = [v - v.mean(0) for v in x] if centred else x
  n = len(x[0])
  left = [np.linalg.svd(v, full_matrices=False)[0][:, :min(rank, v.shape[1])] for v in x]
  alignment = [[np.linalg.norm(a.T @ b) ** 2 / min(a.shape[1], b.shape[1]) for b in left] for a in left]
  shared, separate = [], []
  for i in range(0, len(x) - group + 1, group):
    side = np.concatenate(x[i:i + group], 1)
    numbers = sum(rank * (n + v.shape[1]) for v in x[i:i + group])
    r = next(r for r in range(n, 0, -1) if r * (n + side.shape[1]) <= numbers)
    each = np.concatenate([truncated(v, rank) for v in x[i:i + group]], 1)
    shared.append(np.linalg.norm(side - truncated(side, r)) / np.linalg.norm(side))
    separate.append(np.linalg.norm(side - each) / np.linalg.norm(side))
  return {'subspace_alignment': alignment, 'shared_error': shared, 'separate_error': separate}


def layers(n=400, heads=3, common=6):
  """Four layers [n, 1, 3, 4] that share some directions of tokens, about means of their own."""
  rng = np.random.default_rng(0)
  tokens = rng.normal(size=(n, common)) * np.geomspace(4, 1, common)
  out = {}
  for i in range(4):
    x = tokens @ rng.normal(size=(common, 12)) + rng.normal(size=(n, 12)) + 3 * rng.normal(size=12)
    out[f'k.{i}'] = x.reshape(n, 1, heads, 4).astype(np.float32)
  return out


@pytest.mark.parametrize('fields', (dict(rank=4), dict(rank=3, group=3), dict(rank=4, centred=False)))
def test_equals_decompositions_of_rows(fields):
  acts = layers()
  found = measure_arrays(Xkv(('k.*',), **fields), acts)
  for name, value in oracle(acts, **fields).items():
    np.testing.assert_allclose(found[name], value, atol=2e-4, err_msg=name)
  groups = ['k.0+k.1', 'k.2+k.3'] if 'group' not in fields else ['k.0+k.1+k.2']
  assert list(found.group.values) == groups


def test_layers_in_one_subspace_share_it_and_others_do_not():
  """One subspace: alignment 1 and no error; independent ones: alignment k / n, and sharing loses."""
  rng = np.random.default_rng(1)
  tokens = rng.normal(size=(1000, 5))
  same = [tokens @ rng.normal(size=(5, 20)) for _ in range(2)]
  np.testing.assert_allclose(subspace_alignment(*same, 5), 1, rtol=1e-9)
  found = measure_arrays(Xkv(('k.*',), rank=5), dict(zip(('k.0', 'k.1'), same)))
  assert found.shared_error < 1e-3 and found.shared_rank == 9      # 2 * 5 * 1020 // 1040
  apart = [rng.normal(size=(4000, 20)) * np.geomspace(9, 1, 20) for _ in range(2)]
  assert subspace_alignment(*apart, 5) < 4 * 5 / 4000
  found = measure_arrays(Xkv(('k.*',), rank=5), dict(zip(('k.0', 'k.1'), apart)))
  assert found.shared_error >= found.separate_error * (1 - 1e-6)


def test_numbers_are_counted():
  """r (n + G D) <= G r_1 (n + D) < (r + 1)(n + G D)."""
  for n, d, g, rank in ((16384, 384, 2, 32), (16384, 384, 3, 128), (100, 50, 4, 8)):
    r = shared_rank(rank, n, [d] * g)
    assert r * (n + g * d) <= g * rank * (n + d) < (r + 1) * (n + g * d)


def test_compressed_caches():
  rng = np.random.default_rng(2)
  keys, values = rng.normal(size=(2, 4, 60, 8))
  found = kv_compress(keys, values, 2, 5, 7)
  assert found.stored == 2 * (5 * (60 + 16) + 7 * (60 + 16))
  for x, rank, again in zip((keys, values), (5, 7), found.restored()):
    for i in (0, 2):
      side = np.concatenate([x[i], x[i + 1]], 1)
      np.testing.assert_allclose(np.concatenate([again[i], again[i + 1]], 1), truncated(side, rank), atol=1e-8)
  shared, bases = cross_layer_svd(keys[:2], 5)
  np.testing.assert_allclose((shared ** 2).sum(0), (bases ** 2).sum((0, 2)), rtol=1e-8)      # the root on either side
  whole = kv_compress(keys, values, 4, 32, 32).restored()
  np.testing.assert_allclose(whole[0], keys, atol=1e-8)


def test_what_is_refused():
  with pytest.raises(ValueError, match='4 layers of keys and 4 of values are not groups of 3'):
    kv_compress(np.ones((4, 5, 2)), np.ones((4, 5, 2)), 3, 1, 1)
  with pytest.raises(ValueError, match='group 1 must be at least 2'):
    Xkv(group=1)
  with pytest.raises(ValueError, match='1 sites make no group of 2'):
    measure_arrays(Xkv(('k.*',)), {'k.0': np.ones((30, 4), np.float32)})


# --- the experiment -------------------------------------------------------------------------------------------------

def test_advantages_of_planted_caches():
  """Layers that share a subspace gain, and lose the gain with their tokens in another order each."""
  rng = np.random.default_rng(3)
  tokens = rng.normal(size=(1000, 30)) * np.geomspace(5, 1, 30)
  x = np.stack([tokens @ rng.normal(size=(30, 40)) + 0.1 * rng.normal(size=(1000, 40)) for _ in range(6)])
  found = experiment.advantages(x, experiment.blocks(x), 2, (4, 8), True)
  expected = []
  for rank in (4, 8):
    r = 2 * rank * 1040 // 1080
    side = [np.concatenate([x[i], x[i + 1]], 1) for i in (0, 2, 4)]
    side = [s - s.mean(0) for s in side]
    shared = sum(np.linalg.norm(s - truncated(s, r)) ** 2 for s in side)
    alone = sum(np.linalg.norm(s[:, k:k + 40] - truncated(s[:, k:k + 40], rank)) ** 2 for s in side for k in (0, 40))
    expected.append(1 - np.sqrt(shared / alone))
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert min(found) > 0.1
  permuted = np.stack([layer[rng.permutation(1000)] for layer in x])
  assert max(experiment.advantages(permuted, experiment.blocks(permuted), 2, (4, 8), True)) < 0.01


def test_cosines_by_token():
  x = np.array([[[1., 0], [0, 2]], [[3, 0], [1, 0]], [[0, 1], [0, 1]]])
  # layers 0 and 1: cosines 1 and 0; 1 and 2: 0 and 0; neighbours only
  np.testing.assert_allclose(experiment.token_cosine(x), 0.25)


def test_the_config_names_what_is_measured():
  assert set(get_config().claim.metrics) == set(experiment.METRICS)
