"""Neural collapse against its definition on all rows, and against the collapsed simplex."""
import itertools

import numpy as np
import pytest

from aspects import measure
from aspects import stats
from aspects.representations import collapse
from aspects.representations.collapse import Collapse
from aspects.statistics.class_covariance import ClassMoments

CLASSES = 5                                              # of which class 3 has no rows


def folds(n):
  """Which of n examples are held out."""
  batch = {'index': np.arange(n), 'weight': np.ones(n)}
  return np.asarray(stats.in_fold(np.zeros((n, 1), np.float32), batch, 'mean', 'held')) > 0


def oracle(acts, labels, ridge=1e-3):
  """{variable: [site]} from sums over pairs of rows and classes, float64; example i has index i."""
  held = folds(len(labels))
  out = {}
  for x in acts.values():
    x = np.asarray(x, np.float64)
    fit, y = x[~held], labels[~held]
    present = sorted(set(y))
    means = np.array([fit[y == c].mean(0) for c in present])
    d, c = x.shape[1], len(present)
    centre = sum(means) / c
    about = [row - means[present.index(k)] for row, k in zip(fit, y)]
    within = sum(np.outer(row, row) for row in about) / len(y)
    spread = sum(np.outer(m - centre, m - centre) for m in means) / c
    pairs = [(m - centre, k - centre) for m, k in itertools.permutations(means, 2)]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    norms = [np.linalg.norm(m - centre) for m in means]
    gram = np.array([[(a - centre) @ (b - centre) for b in means] for a in means])
    etf = np.eye(c) - np.ones((c, c)) / c
    hot = (y[:, None] == np.array(present)) * 1.
    rows = fit - fit.mean(0)
    penalty = ridge * np.trace(rows.T @ rows) / d
    # the same ridge classifier as a least-squares fit with added rows
    weights = np.linalg.lstsq(np.concatenate([rows, np.sqrt(penalty) * np.eye(d)]),
                              np.concatenate([hot - hot.mean(0), np.zeros((d, c))]), rcond=None)[0]
    dual = weights.T / np.linalg.norm(weights) - (means - centre) / np.linalg.norm(means - centre)
    nearest = [np.argmin([np.linalg.norm(row - m) for m in means]) for row in x[held]]
    chosen = ((x[held] - fit.mean(0)) @ weights + hot.mean(0)).argmax(1)
    values = dict(
        nc1=np.trace(within @ np.linalg.pinv(spread, rcond=1e-10)) / c, nc1_ratio=np.trace(within) / np.trace(spread),
        nc2_equinorm=np.std(norms) / np.mean(norms), nc2_equiangular=np.mean([abs(v + 1 / (c - 1)) for v in cosines]),
        nc2_etf=np.linalg.norm(gram / np.linalg.norm(gram) - etf / np.linalg.norm(etf)), nc3=np.linalg.norm(dual),
        nc4=np.mean(np.array(nearest) == chosen))
    for k, v in values.items():
      out.setdefault(k, []).append(v)
  return out


def examples(n=500, d=8, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.choice([0, 1, 2, 4], n, p=[.4, .3, .2, .1])
  centres = rng.normal(size=(CLASSES, d))
  return (2 * centres[labels] + rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / 2).astype(np.float32), labels


def simplex(classes, d, rng):
  """A simplex ETF [C, D] in a random orientation."""
  frame = np.eye(classes) - 1 / classes
  return frame @ np.linalg.qr(rng.normal(size=(d, classes)))[0].T


def test_equals_its_definition_on_all_rows():
  near, labels = examples()
  rng = np.random.default_rng(1)
  sites = {'near': near, 'far': near + 1e3 * rng.normal(size=(1, 8)).astype(np.float32),
           'narrow': near[:, :2], 'dead units': np.concatenate([near, np.zeros_like(near)], 1)}
  found = measure.measure_arrays(Collapse(('*',), CLASSES), sites, labels, batch_size=96)
  for name, value in oracle(sites, labels).items():
    # at 1e3 deviations the float32 input itself is only exact to 6e-5 deviations
    np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(found[name][[0, 2, 3]], np.array(value)[[0, 2, 3]], rtol=2e-5, atol=1e-12, err_msg=name)
  assert found.attrs['classes'] == 4 and found.attrs['classes_absent'] == 1


def test_collapsed_simplex():
  """Rows on a simplex ETF: 0 everywhere and agreement 1; with isotropic noise s^2, nc1 is s^2 (C - 1) / C."""
  rng = np.random.default_rng(0)
  held = folds(6000)
  labels = np.where(held, held.cumsum(), (~held).cumsum()) % CLASSES      # as many of each class in the fit fold
  keep = np.arange(6000) < np.flatnonzero(~held)[(~held).sum() // CLASSES * CLASSES - 1] + 1
  labels = labels[keep]
  frame = simplex(CLASSES, 9, rng) * np.sqrt(CLASSES)      # S_B is the projection on the simplex
  collapsed = frame[labels]
  sites = {'collapsed': collapsed + 3., 'noisy': collapsed + .1 * rng.normal(size=(len(labels), 9)) + 3.}
  found = measure.measure_arrays(Collapse(('*',), CLASSES), {s: x.astype(np.float32) for s, x in sites.items()}, labels)
  exact, noisy = found.sel(site='collapsed'), found.sel(site='noisy')
  for name in ('nc1', 'nc1_ratio', 'nc2_equinorm', 'nc2_equiangular', 'nc2_etf'):
    assert abs(exact[name]) < 5e-6, name
  assert exact.nc3 < 1e-3                                  # the rounding of float32 moments over the ridge
  assert exact.nc4 == noisy.nc4 == 1
  np.testing.assert_allclose(noisy.nc1, .01 * (CLASSES - 1) / CLASSES, rtol=.05)
  np.testing.assert_allclose(noisy.nc1_ratio, .01 * 9 / (CLASSES - 1), rtol=.05)
  # random labels: class means are noise, so within dwarfs between by the rows of a class
  assert noisy.null_nc1_ratio > 500 and noisy.null_nc4 < 1


def test_agreement_with_the_network():
  """Logits that are the distances to the means agree on every row; logits that are turned by one class on none."""
  near, labels = examples()
  held = folds(len(labels))
  means = np.array([near[~held][labels[~held] == c].mean(0) if (labels == c).any() else np.full(8, 1e3)
                    for c in range(CLASSES)])
  logits = -((near[:, None] - means[None]) ** 2).sum(-1).astype(np.float32)
  agree, turned = (measure.measure_arrays(Collapse(('x',)), {'x': near, 'logits': z}, labels)
                   for z in (logits, np.roll(logits, 1, 1)))
  assert agree.nc4_network == 1 and turned.nc4_network == 0


def test_tokens_pair_with_logits_only_where_there_is_one_for_each():
  spec = lambda *shape: np.zeros(shape)
  assert collapse.paired(spec(2, 7, 4), spec(2, 7, 9), 'tokens')
  assert collapse.paired(spec(2, 7, 4), spec(2, 9), 'mean')
  assert not collapse.paired(spec(2, 7, 4), spec(2, 9), 'tokens')
  assert not collapse.paired(spec(2, 7, 4), spec(2, 7, 9), 'mean')


def test_invariances_both_ways():
  x, labels = examples()
  rng, d = np.random.default_rng(3), x.shape[1]
  turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
  moved = {'as it is': x, 'permutation': x[:, rng.permutation(d)], 'rotation': x @ turn, 'scale': 7 * x,
           'translation': x + 3 * rng.normal(size=(1, d)), 'linear': x @ rng.normal(size=(d, d))}
  found = measure.measure_arrays(Collapse(('*',), CLASSES), {s: v.astype(np.float32) for s, v in moved.items()}, labels)
  for name, declared in Collapse.invariant.items():
    for move in list(moved)[1:]:
      gap = abs(found[name].sel(site=move) / found[name].sel(site='as it is') - 1)
      assert (gap < 1e-4) == (move in declared), (name, move)


def test_layer_without_geometry_is_named():
  x, labels = examples()
  with pytest.warns(UserWarning, match="all class means coincide at site 'flat'"):
    found = measure.measure_arrays(Collapse(('*',), CLASSES), {'flat': np.ones_like(x), 'x': x}, labels)
  assert np.isnan(found.nc1.sel(site='flat')) and np.isfinite(found.nc1.sel(site='x'))


def test_one_class_is_refused():
  moments = ClassMoments(3., np.zeros(2), np.eye(2), np.array([3., 0.]), np.zeros((2, 2)))
  with pytest.raises(ValueError, match='two classes or more, got 1'):
    collapse.geometry(moments, np.zeros((1, 2)), 1e-3)
  with pytest.raises(ValueError, match='ridge 0 must be above 0'):
    Collapse(ridge=0)
