"""Matching of units against correlations of the rows and another assignment in float64; closed forms, nulls, limits."""
import itertools

import numpy as np
import pytest

from aspects.correlations import unit_matching
from aspects.correlations.unit_matching import UnitMatching
from aspects.measure import measure_arrays


def oracle(acts):
  """numpy's correlations of the rows; the assignment unit by unit along cheapest paths, see `assigned`."""
  out = {name: np.zeros((len(acts),) * 2) for name in unit_matching.SAID}
  for (i, x), (j, y) in itertools.product(enumerate(acts.values()), repeat=2):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    c = np.corrcoef(x.T, y.T)[:x.shape[1], x.shape[1]:]
    size = np.abs(c)
    pairs = assigned(size)
    out['match_hard_signed_score'][i, j] = assigned(c).mean()
    out['match_hard_absolute_score'][i, j] = pairs.mean()
    out['match_rare_share'][i, j] = np.mean([v < 0.5 for v in pairs])
    out['match_semi_absolute_score'][i, j] = np.mean([max(row) for row in size])
    for name, m in (('signed', c), ('absolute', size)):
      both = [np.mean([max(row) for row in each]) for each in (m, m.T)]
      out[f'match_soft_{name}_score'][i, j] = np.mean(both)
  return out


def assigned(gain):
  """The values of the best one-to-one assignment [D, E]: units join one by one, each along the path that gains most."""
  gain = gain if gain.shape[0] <= gain.shape[1] else gain.T
  d, e = gain.shape
  owner = np.full(e, -1)
  for unit in range(d):
    # Bellman and Ford over columns: the gain of reaching column j when all on the way move on.
    gained, before = gain[unit].copy(), np.full(e, -1)
    for _ in range(unit + 1):
      for j in np.flatnonzero(owner >= 0):
        through = gained[j] - gain[owner[j], j] + gain[owner[j]]
        better = through > gained + 1e-15
        gained[better], before[better] = through[better], j
    j = int(np.argmax(np.where(owner < 0, gained, -np.inf)))
    while before[j] >= 0:
      owner[j], j = owner[before[j]], before[j]
    owner[j] = unit
  return np.array([gain[owner[j], j] for j in np.flatnonzero(owner >= 0)])


def layers(rows=300, offset=0., seed=0):
  rng = np.random.default_rng(seed)
  common = rng.normal(size=(rows, 6))
  return {f'layer.{i}': (common @ rng.normal(size=(6, d)) + noise * rng.normal(size=(rows, d))
                         + offset * rng.normal(size=d)).astype(np.float32)
          for i, (d, noise) in enumerate(((8, .3), (12, 1.), (5, 2.)))}


def test_the_assignment_of_the_oracle_is_the_best():
  rng = np.random.default_rng(0)
  for shape in ((5, 5), (4, 6), (6, 3)):
    gain = rng.normal(size=shape)
    wide = gain if shape[0] <= shape[1] else gain.T
    orders = itertools.permutations(range(wide.shape[1]), len(wide))
    best = max(wide[np.arange(len(wide)), list(p)].sum() for p in orders)
    np.testing.assert_allclose(assigned(gain).sum(), best)


@pytest.mark.parametrize('offset', (0., 1e2, 1e4))
def test_equals_correlations_of_the_rows(offset):
  acts = layers(offset=offset)
  found = measure_arrays(UnitMatching(('*',)), acts, batch_size=64)
  for form, value in oracle(acts).items():
    np.testing.assert_allclose(found[form], value, rtol=0, atol=5e-6, err_msg=form)


def test_order_scale_and_sign_of_units():
  rng = np.random.default_rng(1)
  x = rng.normal(size=(200, 12))
  y = x[:, rng.permutation(12)] * rng.uniform(.1, 9, 12) + 5
  flipped = y * np.where(np.arange(12) < 4, -1, 1)
  found = measure_arrays(UnitMatching(('*',)), {'x': x, 'y': y, 'flipped': flipped})
  for form in unit_matching.SAID:
    if form != 'match_rare_share':
      np.testing.assert_allclose(found[form][0, 1], 1, atol=1e-6, err_msg=form)
  for how in ('hard', 'soft', 'semi'):
    np.testing.assert_allclose(found[f'match_{how}_absolute_score'][:, 2], 1, atol=1e-6)
  # without its sign a third of the units finds at best a chance partner
  assert 0.6 < found.match_soft_signed_score[0, 2] < 0.8 and found.match_hard_signed_score[0, 2] < 0.8
  np.testing.assert_array_equal(found.match_rare_share, 0)


def test_matchings_by_hand():
  """Greedy would take .9 and then .1; one to one the best sum is .8 + .7. Both rows prefer the first column."""
  c = np.array([[.9, .8], [.7, .1]])
  hard, semi = (unit_matching.match_units(c, how) for how in unit_matching.KINDS)
  np.testing.assert_array_equal(hard.partner, [1, 0])
  np.testing.assert_array_equal(semi.partner, [0, 0])
  np.testing.assert_array_equal(semi.correlation, [.9, .7])
  assert hard.correlation.sum() >= 1.5 - 1e-12
  wide = unit_matching.match_units(np.array([[-.2, -.1, -.3]]))
  assert wide.partner.tolist() == [1]                # signed matches may be negative
  np.testing.assert_array_equal(unit_matching.match_units(np.abs([[-.2, -.1, -.3]])).partner, [2])
  with pytest.raises(ValueError, match="'greedy' is not one of hungarian, semi"):
    unit_matching.match_units(c, 'greedy')


def test_independent_units_match_by_chance_only():
  """|c| of independent units is the size of a normal number over sqrt(n), to first order; the best is of 20."""
  rng = np.random.default_rng(3)
  found = measure_arrays(UnitMatching(('*',)), {s: rng.normal(size=(400, 20)) for s in 'xy'})
  best = np.abs(rng.normal(size=(4000, 20))).max(1).mean() / 20
  np.testing.assert_allclose(found.match_soft_absolute_score[0, 1], best, rtol=.1)
  assert found.match_hard_absolute_score[0, 1] < found.match_semi_absolute_score[0, 1] < 0.15
  assert found.match_rare_share[0, 1] == 1


def test_dead_units_are_counted_and_correlate_nothing():
  x = layers()['layer.0']
  dead = x.copy()
  dead[:, [1, 5]] = .1
  with pytest.warns(UserWarning, match=r'dead \(2 of 8\), constant \(8 of 8\); their correlations are 0'):
    found = measure_arrays(UnitMatching(('*',)), {'x': x, 'dead': dead, 'constant': 0 * x + 3})
  assert not np.isnan(found.to_dataarray()).any()
  np.testing.assert_array_equal(found.match_hard_absolute_score[2], 0)
  np.testing.assert_allclose(found.match_semi_absolute_score[1, 1], 6 / 8, atol=1e-6)
  np.testing.assert_array_equal(found.match_rare_share[1], [.25, .25, 1])


def test_more_units_than_rows_and_too_few_rows():
  rng = np.random.default_rng(4)
  acts = {'wide': rng.normal(size=(6, 12)), 'narrow': rng.normal(size=(6, 3))}
  found = measure_arrays(UnitMatching(('*',)), acts)
  for form, value in oracle(acts).items():
    np.testing.assert_allclose(found[form], value, atol=1e-6, err_msg=form)
  with pytest.raises(ValueError, match='at least 3 rows, got 2'):
    measure_arrays(UnitMatching(('*',)), {'x': rng.normal(size=(2, 3))})
