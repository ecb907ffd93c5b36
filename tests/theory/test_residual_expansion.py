"""The expansion of a residual tower: against explicit Jacobians, the sum over all subsets, and closed forms."""
import itertools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects.claims.rows import Cell
from experiments import residual_expansion as residual
from experiments.residual_expansion import ResidualExpansion

SMALL = dict(width=8, depths=(2, 4, 8), expanded=4, linear=3, strengths=(0.02, 0.04, 0.08))


def cell(*seeds):
  return Cell(seeds, None, pathlib.Path('.'), lambda: False)


def weights(count, width):
  r = np.random.default_rng(0)
  return r.normal(size=(2, count, width, width)) / width ** 0.5, r.normal(size=width)


def module(w, z):
  return w[1] @ jnp.tanh(w[0] @ z)


def test_the_second_order_has_the_jacobian_of_the_later_module():
  (first, second), z = weights(5, 4)
  value = lambda i: second[i] @ np.tanh(first[i] @ z)
  jacobian = lambda i: second[i] @ np.diag(1 - np.tanh(first[i] @ z) ** 2) @ first[i]
  with jax.enable_x64(True):
    pair = jnp.asarray(first), jnp.asarray(second)
    one, two = (np.asarray(x) for x in residual.taylor(module, pair, jnp.asarray(z)))
  np.testing.assert_allclose(one, sum(value(i) for i in range(5)), rtol=1e-12)
  pairs = itertools.combinations(range(5), 2)
  np.testing.assert_allclose(two, sum(jacobian(j) @ value(i) for i, j in pairs), rtol=1e-12)


@pytest.mark.parametrize('order', [1, 2])
def test_the_error_of_the_expansion_is_that_of_a_loop_in_numpy(order):
  (first, second), z = weights(5, 4)
  with jax.enable_x64(True):
    pair = jnp.asarray(first), jnp.asarray(second)
    one, two = (np.asarray(x) for x in residual.taylor(module, pair, jnp.asarray(z)))
    errors = np.asarray(residual.truncation(jnp.tanh, pair, jnp.asarray(z), (0.1, 0.3), order))
  for c, error in zip((0.1, 0.3), errors):
    out, lam = z, c / 5
    for w1, w2 in zip(first, second):
      out = out + lam * w2 @ np.tanh(w1 @ out)
    guess = z + lam * one + (order == 2) * lam ** 2 * two
    assert error == pytest.approx(np.linalg.norm(out - guess) / np.linalg.norm(out), rel=1e-9)


def test_the_growth_is_that_of_a_loop_in_numpy():
  pair, z = weights(6, 5)
  found = residual.growth(tuple(jnp.asarray(w, 'float32') for w in pair), jnp.asarray(z, 'float32'), (2, 3, 6), -0.5)
  for n, value in zip((2, 3, 6), found):
    out = z
    for w1, w2 in list(zip(*pair))[:n]:
      out = out + n ** -0.5 * w2 @ np.maximum(w1 @ out, 0)
    assert value == pytest.approx(np.log(np.linalg.norm(out) / np.linalg.norm(z)), rel=1e-4, abs=1e-5)


def test_the_mean_square_grows_as_its_closed_form():
  """E|z_n|^2 = (1 + lam^2)^n |z_0|^2, with the gain 2 of relu."""
  r = np.random.default_rng(0)
  first, second = r.normal(size=(2, 48, 16, 64, 64)).astype('float32') / 8
  start, depths = r.normal(size=(48, 64)).astype('float32'), np.array([4, 16])
  nets = jax.jit(jax.vmap(lambda a, b, z: residual.growth((a * 2 ** 0.5, b), z, depths, -0.5)))
  square = np.exp(2 * np.asarray(nets(first, second, start), np.float64))
  expected, error = (1 + 1 / depths) ** depths, square.std(0, ddof=1) / 48 ** 0.5
  assert (abs(square.mean(0) - expected) < 4 * error).all() and error.max() < 0.2


def by_subsets(matrices, z):
  """{modules taken: product applied to z}, the latest module leftmost, in numpy."""
  terms = {}
  for size in range(len(matrices) + 1):
    for taken in itertools.combinations(range(len(matrices)), size):
      out = z
      for i in taken:
        out = matrices[i] @ out
      terms[taken] = out
  return terms


def test_paths_are_all_subsets_of_the_modules_in_order():
  (_, matrices), z = weights(4, 3)
  terms = by_subsets(matrices, z)
  with jax.enable_x64(True):
    found = {paths: np.asarray(residual.along_paths(jnp.asarray(matrices), jnp.asarray(z), paths))
             for paths in residual.PATHS}
    tower = np.asarray(residual.tower(lambda w, x: w @ x, jnp.asarray(matrices), jnp.asarray(z), 1.0))
  assert len(terms) == 2 ** 4 and sum(len(t) == 2 for t in terms) == math.comb(4, 2)
  np.testing.assert_allclose(found['all'], sum(terms.values()), rtol=1e-12)
  np.testing.assert_allclose(found['all'], tower, rtol=1e-12)
  np.testing.assert_allclose(found['all'] - found['short'], terms[0, 1, 2, 3], rtol=1e-9)
  np.testing.assert_allclose(found['reversed'], sum(by_subsets(matrices[::-1], z).values()), rtol=1e-12)


def test_rows_hold_what_the_claim_asks_for():
  found = ResidualExpansion(**SMALL).rows(cell(3, 4, 5))
  assert all(v.shape == (3,) and v.dtype == np.float64 for v in found.metrics.values())
  np.testing.assert_allclose(found.metrics['order_slope'], 3, atol=0.1)
  for dtype in ('float32', 'float64'):
    bound = 64 * np.finfo(dtype).eps * found.metrics[f'expansion_scale_{dtype}']
    assert (found.metrics[f'expansion_error_{dtype}'] <= bound).all()
  scales = [found.metrics[f'expansion_scale_{dtype}'] for dtype in ('float32', 'float64')]
  np.testing.assert_allclose(*scales, rtol=1e-5)
  assert found.params == 2 * 8 * 8 ** 2 and all(len(x) == 3 == y.shape[1] for x, y in found.curves.values())
  turned = ResidualExpansion(**SMALL).rows(cell(5, 4, 3))
  for name, values in found.metrics.items():
    np.testing.assert_allclose(values, turned.metrics[name][::-1], rtol=1e-6)


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_a_path_too_few_or_turned_around_is_far_beyond_rounding(dtype):
  (_, matrices), z = weights(6, 8)
  with jax.enable_x64(dtype == 'float64'):
    matrices, z = jnp.asarray(matrices, dtype), jnp.asarray(z, dtype)
    tower = np.asarray(residual.tower(lambda w, x: w @ x, matrices, z, 1.0))
    found = {paths: np.asarray(residual.along_paths(matrices, z, paths)) for paths in residual.PATHS}
  bound = 64 * np.finfo(dtype).eps * abs(tower).max()
  assert abs(found['all'] - tower).max() < bound
  assert min(abs(found[paths] - tower).max() for paths in ('short', 'reversed')) > 100 * bound


def test_slope_is_least_squares():
  x, y = np.array([1., 2., 4., 7.]), np.random.default_rng(0).normal(size=(3, 4))
  np.testing.assert_allclose(residual.slope(x, y), [np.polyfit(x, row, 1)[0] for row in y])


@pytest.mark.parametrize('change, message', [
    (dict(activation='tahn'), "did you mean 'tanh'"), (dict(depths=(4,)), 'depths .4,. must rise'),
    (dict(strengths=(0.2, 0.1)), 'strengths .0.2, 0.1. must rise'), (dict(order=3), 'order 3 is not 1 or 2'),
    (dict(paths='some'), "no paths 'some'"), (dict(linear=20), 'linear 20'), (dict(width=1), 'width 1')])
def test_bad_settings_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    ResidualExpansion(**change)
