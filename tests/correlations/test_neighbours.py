"""Agreement of nearest neighbours against sets in plain Python, closed forms under independence, ties, limits."""
import numpy as np
import pytest
from scipy import spatial

from aspects import inference
from aspects.correlations.neighbours import Neighbours
from aspects.measure import measure_arrays
from tests import brute

FORMS = ('mutual_knn', 'jaccard', 'rank_similarity')
VARIABLES = {'second_order_cosine': 'second_order_cosine_distance'}


def nearest(x, k, metric):
  """The k nearest of each row, nearest first, the earlier one of equals."""
  d = spatial.distance.cdist(x, x, metric).round(9)
  return [sorted((j for j in range(len(x)) if j != i), key=lambda j: (d[i, j], j))[:k] for i in range(len(x))]


def rank_similarity(a, b):
  both = set(a) & set(b)
  total = sum(2 / (1 + abs(a.index(j) - b.index(j))) / (a.index(j) + b.index(j) + 2) for j in both)
  return total / sum(1 / m for m in range(1, len(both) + 1)) if both else 0


def oracle(acts, k=10, metric='cosine'):
  layers = [np.asarray(x, np.float64) for x in acts.values()]
  near = [nearest(x, k, metric) for x in layers]
  cosines = [1 - spatial.distance.cdist(x, x, 'cosine') for x in layers]
  def second(p, q, s, t):
    values = []
    for i, (a, b) in enumerate(zip(p, q)):
      union = sorted(set(a) | set(b))
      values.append(spatial.distance.cosine(s[i, union], t[i, union]))
    return np.mean(values)
  mean = lambda value: np.array([[np.mean([value(a, b) for a, b in zip(p, q)]) for q in near] for p in near])
  out = {'mutual_knn': mean(lambda a, b: len(set(a) & set(b)) / k),
         'jaccard': mean(lambda a, b: len(set(a) & set(b)) / len(set(a) | set(b))),
         'rank_similarity': mean(rank_similarity)}
  if metric == 'cosine':
    out['second_order_cosine'] = np.array([[second(p, q, s, t) for q, t in zip(near, cosines)]
                                           for p, s in zip(near, cosines)])
  return {VARIABLES.get(form, f'{form}_{metric}_score'): value for form, value in out.items()}


def measured(acts, **fields):
  return measure_arrays(Neighbours(('*',), **fields), acts)


def layers(n=40, offset=0.):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(n, 5))
  return {s: (v + offset).astype(np.float32)
          for s, v in (('x', x), ('noisy', x + .5 * rng.normal(size=x.shape)), ('wide', rng.normal(size=(n, 60))))}


@pytest.mark.parametrize('metric', ('cosine', 'euclidean'))
@pytest.mark.parametrize('k', (1, 4, 10))
def test_every_form(metric, k):
  acts = layers()
  order = np.argsort(brute.mix(np.arange(40), 0, 0))     # that of the sample, which decides between equals
  found = measured(acts, metric=metric, k=k)
  expected = oracle({s: x[order] for s, x in acts.items()}, k, metric)
  assert [v for v in found if not v.startswith('null')] == list(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-9, err_msg=name)


def test_neighbours_of_far_rows():
  """2^13 away, where float32 holds these rows exactly, Euclidean neighbours are the same ones."""
  near, far = (measured({s: np.round(x * 64) / 64 + o for s, x in layers().items()}, metric='euclidean')
               for o in (0, 8192))
  for form in FORMS:
    np.testing.assert_array_equal(far[f'{form}_euclidean_score'], near[f'{form}_euclidean_score'])


def test_a_layer_agrees_with_itself():
  found = measured(layers())
  for form in FORMS:
    np.testing.assert_allclose(np.diag(found[f'{form}_cosine_score']), 1, atol=1e-12)
  np.testing.assert_allclose(np.diag(found.second_order_cosine_distance), 0, atol=1e-12)


def test_independent_layers():
  """E mutual_knn = k / (n - 1), and E Jaccard by the hypergeometric overlap: means over 15 pairs, to four errors."""
  rng = np.random.default_rng(1)
  found = measured({str(i): rng.normal(size=(120, 30)) for i in range(6)}, k=15)
  above = np.triu_indices(6, 1)
  assert float(found.null_mutual_knn[0, 1]) == inference.null_neighbours(15, 120) == 15 / 119
  for form in ('mutual_knn', 'jaccard'):
    pairs = found[f'{form}_cosine_score'].values[above]
    assert abs(pairs.mean() - float(found[f'null_{form}'][0, 1])) < 4 * pairs.std() / np.sqrt(15), form


def test_expected_jaccard_of_small_sets():
  """One neighbour of three others: the sets agree with chance 1/3."""
  found = measured({'x': np.random.default_rng(2).normal(size=(4, 3))}, k=1)
  np.testing.assert_allclose(found.null_jaccard, 1 / 3)
  np.testing.assert_allclose(found.null_mutual_knn, 1 / 3)


def test_one_agreement_at_unlike_ranks():
  """Rows on a line: every value can be read off the positions."""
  x = np.array([[0.], [1], [3], [7]])
  y = np.array([[0.], [7], [3], [1]])                       # the neighbours of 0: (1, 2) and (3, 2)
  found = measured({'x': x, 'y': y}, k=2, metric='euclidean')
  overlap = np.array([1, 1, 1, 1])
  assert nearest(x, 2, 'euclidean') == [[1, 2], [0, 2], [1, 0], [2, 1]]
  assert nearest(y, 2, 'euclidean') == [[3, 2], [2, 3], [3, 0], [0, 2]]
  np.testing.assert_allclose(found.mutual_knn_euclidean_score[0, 1], overlap.mean() / 2)
  np.testing.assert_allclose(found.jaccard_euclidean_score[0, 1], 1 / 3)
  # ranks of the one common neighbour: (2, 2), (2, 1), (2, 2), (1, 2)
  expected = np.mean([2 / (1 * 4), 2 / (2 * 3), 2 / (1 * 4), 2 / (2 * 3)])
  np.testing.assert_allclose(found.rank_similarity_euclidean_score[0, 1], expected)


def test_equal_distances_go_to_the_earlier_row():
  """Of equal rows every order is as good; the sample's decides, so that two equal layers agree entirely."""
  x = np.repeat(np.random.default_rng(3).normal(size=(6, 4)), 5, 0)
  rotation = np.linalg.qr(np.random.default_rng(4).normal(size=(4, 4)))[0]
  found = measured({'x': x, 'rotated': x @ rotation}, k=3)
  np.testing.assert_allclose(found.mutual_knn_cosine_score, 1)


def test_rows_that_are_all_equal_are_named():
  x = np.random.default_rng(5).normal(size=(16, 3))
  with pytest.warns(UserWarning, match=r"\['constant'\] have 16 rows that are equal in direction"):
    found = measured({'x': x, 'constant': 0 * x + 5.1}, k=3)
  for name in (*(f'{form}_cosine_score' for form in FORMS), 'second_order_cosine_distance'):
    np.testing.assert_array_equal(np.isnan(found[name]), [[False, True], [True, True]])


def test_fewest_rows_and_wrong_fields():
  x = np.random.default_rng(6).normal(size=(12, 3))
  measured({'x': x})
  with pytest.raises(ValueError, match='agreement on 10 neighbours needs at least 12 rows, got 11'):
    measured({'x': x[:11]})
  for fields, message in ((dict(metric='l1'), "metric 'l1' is not one of cosine, euclidean"), (dict(k=0), 'k 0')):
    with pytest.raises(ValueError, match=message):
      Neighbours(**fields)
