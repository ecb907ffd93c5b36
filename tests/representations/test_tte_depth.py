"""Depth and its rank-sum test against loops over pairs, closed forms, the null distribution; the experiment's texts."""
import ast
import inspect

import numpy as np
import pytest
from scipy import spatial
from scipy import stats

from aspects.measure import measure_arrays
from aspects.representations.tte_depth import TteDepth
from aspects.representations.tte_depth import cosine_depth
from aspects.representations.tte_depth import depth_rank_sum
from configs.representations.tte_depth import get_config
from experiments import tte_depth as experiment
from tests import brute


def pairs(f, g, leave_one_out=True):
  """Q, z and p by every pair of texts and every pair of distances."""
  f, g = (np.asarray(x, np.float64) for x in (f, g))
  delta = lambda x, y: spatial.distance.cosine(x, y)
  inner = [2 - np.mean([delta(x, h) for j, h in enumerate(f) if i != j or not leave_one_out]) for i, x in enumerate(f)]
  outer = [2 - np.mean([delta(y, h) for h in f]) for y in g]
  wins = [1 if a < b else .5 if a == b else 0 for a in inner for b in outer]
  q, z = np.mean(wins), (np.mean(wins) - .5) * np.sqrt(12 * len(f) * len(g) / (len(f) + len(g)))
  return q, z, 2 * stats.norm.cdf(-abs(z)), np.mean(inner)


def oracle(acts, labels, seed=0):
  """Of each class against the others, in the order of the sample, which halves the classes."""
  order = np.argsort(brute.mix(np.arange(len(labels)), 0, seed))
  out = {name: [] for name in ('depth_q', 'depth_z', 'depth_p', 'depth_own', 'null_q')}
  for x in acts.values():
    x, label = np.asarray(x)[order], labels[order]
    each = [(*pairs(x[label == c], x[label != c]), pairs(x[label == c][::2], x[label == c][1::2])[0])
            for c in np.unique(labels)]
    for name, values in zip(out, zip(*each)):
      out[name].append(values)
  return out


def measured(acts, labels, **fields):
  return measure_arrays(TteDepth(('*',), **{'classes': 3, **fields}), acts, labels)


def layers(n=60):
  rng = np.random.default_rng(0)
  label = np.arange(n) % 3
  x = rng.normal(size=(n, 6)) * np.array([.5, 1, 2])[label, None] + 1
  return {'x': x.astype(np.float32), 'y': rng.normal(size=(n, 20)).astype(np.float32)}, label


def test_classes_by_pairs():
  acts, label = layers()
  found = measured(acts, label)
  for name, value in oracle(acts, label).items():
    np.testing.assert_allclose(found[name], value, atol=1e-7, err_msg=name)
  # class 0 is the tightest around the common mean, so that the others lie outside it, and it lies inside class 2
  assert found.depth_q.values[0, 0] < 0.25 < 0.75 < found.depth_q.values[0, 2]


def test_depth_by_hand():
  """Directions at 0, 90 and 180 degrees: the middle one is deepest; cosines 0, -1 and 0 to the others."""
  x = np.array([[2., 0], [0, 5], [-1, 0]])
  np.testing.assert_allclose(cosine_depth(x, x, leave_one_out=True), [.5, 1, .5], atol=1e-12)
  np.testing.assert_allclose(cosine_depth(x, x), [1, 4 / 3, 1], atol=1e-12)       # itself at cosine 1
  np.testing.assert_allclose(cosine_depth(np.zeros((1, 2)), x), 1)


@pytest.mark.parametrize('leave_one_out', (True, False))
def test_rank_sum_by_pairs(leave_one_out):
  rng = np.random.default_rng(1)
  f, g = rng.normal(size=(15, 8)), 2 + rng.normal(size=(11, 8))
  np.testing.assert_allclose(depth_rank_sum(f, g, leave_one_out), pairs(f, g, leave_one_out)[:3], rtol=1e-9)


def test_equal_rows_are_ties():
  """All depths equal: Q is 1/2 and p is 1."""
  assert depth_rank_sum(np.ones((9, 3)), 2 * np.ones((12, 3))) == (0.5, 0.0, 1.0)


def rejections(leave_one_out, common=0.5, half=60, draws=400):
  """Share of true nulls rejected at 5 %, normal rows in 64 dimensions with this mean in each."""
  rng = np.random.default_rng(2)
  p = [depth_rank_sum(*(rng.normal(size=(2, half, 64)) + common), leave_one_out).p for _ in range(draws)]
  return np.mean(np.array(p) < 0.05)


def test_the_null_is_true_to_its_level_only_without_the_row_itself():
  """400 true nulls at 5 %: between 1.7 and 8.3 % with a chance of 0.998; in sample a quarter and more.

  Without a common direction the level is lost, which the docstring says."""
  assert 0.017 < rejections(True) < 0.083
  assert rejections(False) > 0.25
  assert rejections(True, common=0) > 0.083


def test_spread_shows_only_from_the_tighter_sample():
  rng = np.random.default_rng(3)
  centre = np.eye(16)[0] * 5
  tight, wide = centre + .5 * rng.normal(size=(80, 16)), centre + 2 * rng.normal(size=(80, 16))
  there, back = depth_rank_sum(tight, wide), depth_rank_sum(wide, tight)
  assert there.q < 0.1 and there.p < 1e-6 and back.q > 0.9


def test_what_is_refused_and_warned_of():
  acts, label = layers(60)
  with pytest.raises(ValueError, match='a test of depths needs at least 16 rows, got 15'):
    measured({'x': acts['x'][:15]}, label[:15])
  with pytest.raises(ValueError, match='all 60 rows have the label 0'):
    measured(acts, 0 * label)
  with pytest.warns(UserWarning, match=r'classes \[1, 2\] have fewer than 16 of the 60 rows'):
    found = measured(acts, np.where(np.arange(60) < 12, 1, np.where(np.arange(60) < 17, 2, 0)))
  np.testing.assert_array_equal(np.isnan(found.depth_q[0]), [False, False, True])
  np.testing.assert_array_equal(np.isnan(found.null_q[0]), [False, True, True])
  with pytest.raises(ValueError, match='3 rows cannot leave themselves out of 2'):
    cosine_depth(np.ones((3, 2)), np.ones((2, 2)), leave_one_out=True)
  with pytest.raises(ValueError, match='a rank sum of 1 and 3 rows'):
    depth_rank_sum(np.ones((1, 2)), np.ones((3, 2)))


# --- the experiment -------------------------------------------------------------------------------------------------

def test_docstrings_are_read_and_not_run():
  source = b'"""Of the module."""\nraise SystemExit\nclass A:\n  """Of A."""\n  async def f(self):\n    """Of f."""\n'
  assert sorted(experiment.read(source)) == ['Of A.', 'Of f.', 'Of the module.']
  assert experiment.read(b'print "old"') == []


def test_the_corpus_has_no_repetitions():
  corpus = experiment.docstrings()
  assert len(corpus) > 2000
  assert len({experiment.plain(text) for _, text in corpus}) == len(corpus)
  assert min(len(experiment.plain(text)) for _, text in corpus) >= 40
  assert inspect.getdoc(ast) in {text for package, text in corpus if package == 'ast'}
  for package in get_config().procedure.packages:
    assert sum(name == package for name, _ in corpus) >= 120, package


def test_latent_rows_are_the_leading_directions_of_weighted_words(monkeypatch):
  """All directions kept, cosines of rows are those of the weighted counts."""
  texts = ('alpha beta beta', 'beta gamma', 'alpha alpha gamma delta', 'delta delta')
  monkeypatch.setattr(experiment, 'docstrings', lambda: tuple(('p', text) for text in texts))
  experiment.latent.cache_clear()
  found = experiment.latent(4, 4)
  experiment.latent.cache_clear()
  names = ('alpha', 'beta', 'gamma', 'delta')
  count = np.array([[text.split().count(w) for w in names] for text in texts])
  weight = np.where(count > 0, 1 + np.log(np.maximum(count, 1)), 0) * np.log(4 / (count > 0).sum(0))
  np.testing.assert_allclose(spatial.distance.cdist(found, found, 'cosine'),
                             spatial.distance.cdist(weight, weight, 'cosine'), atol=1e-12)


def test_texts_as_bytes():
  tokens, real = experiment.encoded(['ab', 'abcdef'], 4, 3)
  np.testing.assert_array_equal(tokens, [[97, 98, 0, 0], [97, 98, 99, 100], [0, 0, 0, 0]])
  np.testing.assert_array_equal(real, [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])


def test_metrics_of_planted_embeddings():
  """Rows without structure are rejected at the level; two packages in opposite directions are told apart."""
  corpus = [('a', '')] * 100 + [('b', '')] * 100 + [('c', '')] * 300
  rng = np.random.default_rng(4)
  rows = rng.normal(size=(500, 32)) + .5
  part = experiment.TteDepth(texts=300, splits=200, half=30, packages=('a', 'b'), draws=5)
  found = part.found(lambda ids: rows[ids], corpus, 0)
  # 200 nulls at 5 %: within four errors
  assert abs(found['rejected'] - 0.05) < 0.062 < 0.2 < found['rejected_in_sample'] and found['separation'] < 2
  rows[:100, 0] += 5
  rows[100:200, 0] -= 5
  assert part.found(lambda ids: rows[ids], corpus, 0)['separation'] > 6
  assert set(found) == set(get_config().claim.metrics)


def test_wrong_settings():
  for fields, message in ((dict(embedding='minilm'), "no embedding 'minilm'"), (dict(half=4), 'half 4 is at least 8'),
                          (dict(texts=100), 'texts 100 at least two halves')):
    with pytest.raises(ValueError, match=message):
      experiment.TteDepth(**fields)
