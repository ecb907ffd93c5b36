"""Collapse in deep linear networks: the theorems' minimiser in closed form, and the descent that finds it."""
import pathlib

import jax
import numpy as np
import pytest
import scipy.optimize

from aspects.claims.rows import Cell
from experiments import nc_deep_linear as nc
from experiments.nc_deep_linear import NcDeepLinear

SIZES, DECAY = (40, 30, 20, 10), 5e-4


def cell(*seeds):
  return Cell(seeds, None, pathlib.Path('.'), lambda: False)


def minimiser(sizes, layers, width, decay, seed=0):
  """(H, square layers, last) built from the theorem: shared singular vectors, singular values s_k."""
  r = np.random.default_rng(seed)
  k, s = len(sizes), nc.singular_values(sizes, layers, decay)
  bases = [np.linalg.qr(r.normal(size=(width, width)))[0][:, :k] for _ in range(layers)]
  h = np.repeat(bases[0].T * (s / np.sqrt(sizes))[:, None], sizes, axis=0)
  square = [b @ np.diag(s) @ a.T for a, b in zip(bases, bases[1:])]
  return h, np.array(square).reshape(layers - 1, width, width), np.diag(s) @ bases[-1].T


def targets(sizes):
  return np.repeat(np.eye(len(sizes)), sizes, axis=0)


@pytest.mark.parametrize('layers', [1, 2, 3, 5])
def test_singular_values_minimise_the_part_of_their_class(layers):
  for n, s in zip(SIZES, nc.singular_values(SIZES, layers, DECAY)):
    cost = lambda s: (s ** (layers + 1) - n ** 0.5) ** 2 / 200 + DECAY * (layers + 1) * s ** 2 / 2
    found = scipy.optimize.minimize_scalar(cost, bounds=(0.5, 7), method='bounded', options=dict(xatol=1e-10)).x
    assert s == pytest.approx(found, abs=1e-6)


def test_singular_values_are_those_of_the_authors_theorem():
  """Theirs: b / n_k = M x^(M-1) / (x^M + 1)^2, b = M N (N decay^(M+1))^(1/M), s = (N decay x^M)^(1 / (2 M))."""
  m, total = 3, 100
  b = m * total * (total * DECAY ** (m + 1)) ** (1 / m)
  for n, s in zip(SIZES, nc.singular_values(SIZES, m, DECAY)):
    x = scipy.optimize.brentq(lambda x: m * x ** (m - 1) / (x ** m + 1) ** 2 - b / n, 1, 100)
    assert s == pytest.approx((total * DECAY * x ** m) ** (1 / (2 * m)), rel=1e-8)


def test_singular_values_of_one_layer_and_of_much_decay_have_closed_forms():
  np.testing.assert_allclose(nc.singular_values((25, 25), 1, 0.02), (5 - 50 * 0.02) ** 0.5)
  np.testing.assert_array_equal(nc.singular_values((25, 25), 1, 0.11), 0)
  assert nc.singular_values((400, 4), 3, 2e-3)[1] == 0 < nc.singular_values((400, 4), 3, 2e-3)[0]


@pytest.mark.parametrize('sizes', [(25,) * 4, SIZES])
def test_the_minimiser_of_the_theorem_has_no_gradient_and_the_stated_geometry(sizes):
  params = minimiser(sizes, 3, 6, DECAY)
  r = np.random.default_rng(1)
  aside = [jax.tree.map(lambda p: p + 0.1 * r.normal(size=p.shape), params) for _ in range(20)]
  with jax.enable_x64(True):
    measure = jax.jit(jax.value_and_grad(lambda p: nc.objective(p, targets(sizes), DECAY)))
    (value, pull), others = jax.tree.map(np.asarray, measure(params)), [float(measure(p)[0]) for p in aside]
  assert max(abs(g).max() for g in pull) < 1e-12
  assert min(others) > value
  found = nc.summary(params, sizes, 3, DECAY)
  assert max(found[name] for name in ('nc1', 'cosine', 'lengths')) < 1e-10
  if len(set(sizes)) == 1:
    assert max(found['nc2'], found['nc3'], abs(found['rows_step'])) < 1e-10
  else:
    s = nc.singular_values(sizes, 3, DECAY)
    assert found['rows_step'] == pytest.approx(np.diff(np.log(s[::-1])).min())                # W_3 alone
    assert found['means_step'] == pytest.approx((3 * np.diff(np.log(s[::-1])) - np.diff(np.log(sizes[::-1])) / 2).max())


def test_geometry_of_matrices_that_one_can_check_by_hand():
  """Two classes on the axes, each of two rows one to the left and one to the right by 0.5 along the third axis."""
  h = np.array([[2, 0, .5], [2, 0, -.5], [0, 2, .5], [0, 2, -.5]])
  found = nc.geometry((h, np.diag([1, 3, 0])[None], np.array([[1., 0, 0], [1, 1, 0]])), (2, 2))
  np.testing.assert_allclose(found['means'], [[[2, 0, 0], [0, 2, 0]], [[2, 0, 0], [0, 6, 0]]])
  np.testing.assert_allclose(found['rows'], [[[1, 0, 0], [1, 3, 0]], [[1, 0, 0], [1, 1, 0]]])
  np.testing.assert_allclose(found['nc1'], 0, atol=1e-12)                  # S_W is orthogonal to the class means
  h = np.array([[2., 0], [4, 0], [0, 2], [0, 4]])                          # S_W = I / 2 in the mean, S_B of (3, -3) / 2
  one = nc.geometry((h, np.zeros((0, 2, 2)), np.eye(2)), (2, 2))
  np.testing.assert_allclose(one['nc1'], [0.5 / 4.5 / 2])


def test_the_distance_from_a_frame():
  assert nc.frame(3 * np.eye(2, 5)) == pytest.approx(0, abs=1e-12)
  assert nc.frame(np.ones((2, 3))) == pytest.approx((2 * (0.5 - 0.5 ** 0.5) ** 2 + 2 * 0.25) ** 0.5)


def test_the_descent_is_nesterovs():
  sizes, rate, momentum = (3, 2), 0.05, 0.8
  params = nc.initial(7, 2, 4, 2, 5, 0.5)
  path, norms = nc.descend(params, targets(sizes).astype('float32'), 0.01, rate, momentum, 22)
  h, (w,), last = (np.asarray(p, np.float64) for p in params)
  state, speed, y = [h, w, last], [np.zeros_like(p) for p in (h, w, last)], targets(sizes)
  for step in range(23):
    h, w, last = state
    error = (h @ w.T @ last.T - y) / 5
    pull = [error @ last @ w + .01 * h, last.T @ error.T @ h + .01 * w, error.T @ h @ w.T + .01 * last]
    if step % 2 == 0:
      np.testing.assert_allclose(path[0][step // 2], h, rtol=1e-4, atol=1e-6)
      assert norms[step // 2] == pytest.approx(sum((g ** 2).sum() for g in pull) ** 0.5, rel=1e-4)
    speed = [momentum * v + g for v, g in zip(speed, pull)]
    state = [p - rate * (momentum * v + g) for p, v, g in zip(state, speed, pull)]


def test_the_descent_reaches_the_minimiser_only_with_decay():
  sizes, decays = (8, 5), (5e-3, 0.0)
  r = np.random.default_rng(0)
  params = tuple(0.3 * r.normal(size=shape).astype('float32') for shape in ((13, 5), (1, 5, 5), (2, 5)))
  run = jax.jit(jax.vmap(lambda decay: nc.descend(params, targets(sizes).astype('float32'), decay, 0.3, 0.9, 1100)))
  path, norms = run(np.array(decays, 'float32'))
  found = [nc.summary([np.asarray(p)[i, -1] for p in path], sizes, 2, decay) for i, decay in enumerate(decays)]
  assert found[0]['lengths'] < 1e-2 and found[0]['nc1'] < 1e-4 and norms[0, -1] < 1e-3 * norms[0, 0]
  assert found[0]['rows_step'] > 0 > found[0]['means_step']
  assert norms[1, -1] < 1e-3 * norms[1, 0] and found[1]['nc2'] > 0.05 and found[1]['nc1'] > 1e-3


def test_rows_hold_what_the_claim_asks_for():
  small = NcDeepLinear(sizes=(4, 3), width=4, layers=2, steps=22)
  found, turned = small.rows(cell(11, 12)), small.rows(cell(12, 11))
  for name, values in found.metrics.items():
    assert values.shape == (2,) and values.dtype == np.float64
    np.testing.assert_allclose(values, turned.metrics[name][::-1], rtol=1e-5)
  assert found.params == 4 * (7 + 4 + 2) and found.steps == 22 and not found.diverged.any()
  x, y = found.curves['nc1@step']
  np.testing.assert_array_equal(x, np.arange(12) * 2)
  np.testing.assert_allclose(y[:, -1], found.metrics['nc1'])


def test_a_descent_that_diverges_says_so():
  found = NcDeepLinear(sizes=(4, 3), width=4, layers=2, rate=1e6, steps=22).rows(cell(1, 2))
  assert found.diverged.all() and np.isnan(found.metrics['nc1']).all()


@pytest.mark.parametrize('change, message', [
    (dict(sizes=(25,)), 'two classes or more'), (dict(width=3), 'no more than width 3'), (dict(layers=0), 'layers 0'),
    (dict(decay=1.0), 'drops a class'), (dict(momentum=1.0), 'momentum 1.0'), (dict(steps=100), 'nearest: 99')])
def test_bad_settings_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    NcDeepLinear(**change)
