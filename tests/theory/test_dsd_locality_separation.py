"""Samples that CNNs, LCNs and FCNs need: the data, the networks, the descent and the crossing, each against numpy."""
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects.claims.rows import Cell
from experiments import dsd_locality_separation as dsd
from experiments.dsd_locality_separation import DsdLocalitySeparation

SMALL = dict(patches=(1, 4), compared=(1, 4), d=3, sizes=(4, 16, 64), tests=128, steps=20, chunk=16)


def cell(*seeds):
  return Cell(seeds, None, pathlib.Path('.'), lambda: False)


def made(count=48, k=3, d=2, seed=0):
  r = np.random.default_rng(seed)
  return r.normal(size=(count, k, d)).astype('float32'), r.choice([-1, 1], count).astype('float32'), r


def outputs(params, network, x):
  """The three networks, unit after unit, in float64."""
  w, b = np.asarray(params[0], np.float64), float(params[1])
  threshold = lambda z: np.sign(z) * np.maximum(np.abs(z) - b, 0) if b >= 0 else None
  units = {'cnn': lambda i: x[:, i] @ w, 'lcn': lambda i: x[:, i] @ w[i], 'fcn': lambda i: x.reshape(len(x), -1) @ w[i]}
  return sum(threshold(units[network](i)) for i in range(x.shape[1]))


def shaped(network, r, k=3, d=2):
  return r.normal(size=dict(cnn=(d,), lcn=(k, d), fcn=(k, k * d))[network]).astype('float32'), np.float32(0.3)


def test_an_image_has_its_signal_in_one_patch_and_noise_in_all():
  k, w = 4, jnp.array([0.6, 0.8, 0.0])
  draws = jax.jit(lambda: dsd.draw(jax.random.key(0), 64, 64, 6, 3))()
  quiet, loud = np.asarray(dsd.images(draws, w, k, 0.0)), np.asarray(dsd.images(draws, w, k, 2.0))
  place = np.abs(quiet).sum(-1).argmax(1)
  expected = np.zeros((4096, k, 3))
  expected[np.arange(4096), place] = np.asarray(draws.label)[:, None] * np.asarray(w)
  np.testing.assert_allclose(quiet, expected, atol=1e-7)
  np.testing.assert_allclose((loud - quiet) / 2, draws.noise[:, :k], atol=1e-5)
  share = 4 * 4096 ** -0.5                           # four standard deviations of shares and means
  assert abs((place == np.arange(k)[:, None]).mean(1) - 1 / k).max() < share / 2
  assert abs(np.mean(draws.label)) < share and set(np.unique(draws.label)) == {-1, 1}
  assert abs(np.mean(draws.label * (place - 1.5))) < 2 * share             # the place tells nothing of the label
  np.testing.assert_allclose(np.cov(np.asarray(draws.noise).reshape(4096, -1).T), np.eye(18), atol=2 * share)


def test_rows_are_the_same_however_many_there_are():
  few, many = (dsd.draw(jax.random.key(1), n, 8, 2, 3) for n in (2, 5))
  for a, b in zip(few, many):
    np.testing.assert_array_equal(a, b[:16])


@pytest.mark.parametrize('network', dsd.NETWORKS)
def test_the_networks_are_those_of_the_paper(network):
  x, _, r = made()
  params = shaped(network, r)
  np.testing.assert_allclose(dsd.apply(params, network, x), outputs(params, network, x.astype(float)), atol=1e-5)


def test_the_soft_threshold():
  np.testing.assert_allclose(dsd.soft_threshold(jnp.array([-2., -.5, 0., .5, 3.]), 1.), [-1, 0, 0, 0, 2])


@pytest.mark.parametrize('network', dsd.NETWORKS)
def test_the_descent_is_that_of_the_whole_batch_and_of_nothing_else(network):
  """n = 21 of 48 rows in chunks of 8, the gradient by differences in numpy float64; b is held at 0 from below."""
  x, y, r = made()
  (w, b), n, rate, bias_rate = shaped(network, r), 21, 0.2, 0.5
  run = jax.jit(lambda x, y, n: dsd.fit((w, b), network, x, y, n, rate, bias_rate, 3, 8))
  found = run(x, y, np.int32(n))
  loss = lambda w, b: np.logaddexp(0, -y[:n] * outputs((w, b), network, x[:n].astype(float))).mean()
  w, b, step = w.astype(float), float(b), 1e-6
  for _ in range(3):
    pull = np.array([(loss(w + step * e, b) - loss(w - step * e, b)) / (2 * step)
                     for e in np.eye(w.size).reshape(-1, *w.shape)]).reshape(w.shape)
    lift = (loss(w, b + step) - loss(w, b - step)) / (2 * step)
    w, b = w - rate * pull, max(b - rate * bias_rate * lift, 0)
  np.testing.assert_allclose(found[0], w, atol=1e-4)
  np.testing.assert_allclose(found[1], b, atol=1e-4)
  other = x.copy()
  other[n:] = 9
  np.testing.assert_array_equal(run(other, y, np.int32(n))[0], found[0])


@pytest.mark.parametrize('network', dsd.NETWORKS)
def test_training_commutes_with_the_rotations_of_the_theorems(network):
  """One rotation of all patches for the CNN, one for each patch for the LCN, one of the image for the FCN."""
  x, y, r = made()
  turn = lambda size: np.linalg.qr(r.normal(size=(size, size)))[0].astype('float32')
  w, b = shaped(network, r)
  if network == 'fcn':
    q = turn(6)
    moved, start = (x.reshape(48, 6) @ q.T).reshape(x.shape), w @ q.T
  else:
    q = np.stack([turn(2)] * 3 if network == 'cnn' else [turn(2) for _ in range(3)])
    moved = np.einsum('nkd,ked->nke', x, q)
    start = q[0] @ w if network == 'cnn' else np.einsum('kd,ked->ke', w, q)
  run = jax.jit(lambda w, x: dsd.apply(dsd.fit((w, b), network, x, y, np.int32(48), 0.1, 0.1, 5, 16), network, x))
  np.testing.assert_allclose(run(start, moved), run(w, x), atol=1e-4)


def test_the_crossing_is_interpolated_in_logarithms():
  sizes, errors = (4, 8, 16), np.array([[.4, .2, .05], [.1, .3, .01], [.4, .3, .2], [.4, .1, .3]])
  between = 2 + (math.log(.4) - math.log(.125)) / (math.log(.4) - math.log(.1))
  later = 3 + (math.log(.2) - math.log(.125)) / (math.log(.2) - math.log(.05))
  np.testing.assert_allclose(dsd.crossing(sizes, errors, .125), [later, 2, 5, between])
  assert np.isfinite(dsd.crossing(sizes, np.array([[.4, 0., 0.]]), .125)).all()


@pytest.mark.parametrize('k', [1, 4, 8])
def test_the_right_filter_without_a_threshold_errs_as_its_closed_form(k):
  """The sum over patches of <w*, x_i> is y + sigma sqrt(k) noise: error Phi(-1 / (sigma sqrt k))."""
  w = jnp.array([0.6, 0.8])
  draws = jax.jit(lambda: dsd.draw(jax.random.key(2), 256, 64, 8, 2))()
  wrong = np.asarray(dsd.apply((w, 0.0), 'cnn', dsd.images(draws, w, k, 0.5)) * draws.label) < 0
  expected = 0.5 * math.erfc(1 / (0.5 * k ** 0.5) / 2 ** 0.5)
  assert wrong.mean() == pytest.approx(expected, abs=4 * (expected * (1 - expected) / wrong.size) ** 0.5)


def test_with_one_patch_the_three_networks_are_one():
  runs = {network: DsdLocalitySeparation(network=network, **SMALL).rows(cell(3, 4)) for network in dsd.NETWORKS}
  first = runs['cnn'].metrics
  for found in runs.values():
    np.testing.assert_allclose(found.metrics['log2_n_k1'], first['log2_n_k1'], atol=1e-6)
    np.testing.assert_allclose(found.metrics['growth'], found.metrics['log2_n_k4'] - found.metrics['log2_n_k1'])
    assert all(np.all((2 <= found.metrics[name]) & (found.metrics[name] <= 7)) for name in ('log2_n_k1', 'log2_n_k4'))
  assert [runs[n].params for n in dsd.NETWORKS] == [4, 13, 49]
  x, y = runs['cnn'].curves['test_error_k4@n']
  assert list(x) == [4, 16, 64] and y.shape == (2, 3) and ((0 <= y) & (y <= 1)).all()
  turned = DsdLocalitySeparation(**SMALL).rows(cell(4, 3)).metrics
  for name, values in first.items():
    np.testing.assert_allclose(values, turned[name][::-1], atol=1e-6)


def test_a_silent_network_errs_on_one_half():
  silent = DsdLocalitySeparation(**SMALL | dict(spread=0.0, sizes=(4, 64)))
  np.testing.assert_allclose(silent.errors((3, 4))[4], 0.5)


@pytest.mark.parametrize('change, message', [
    (dict(network='ccn'), "no network 'ccn'; did you mean 'lcn'"), (dict(compared=(4, 32)), 'two of the patches'),
    (dict(sizes=(8, 4)), 'sizes .8, 4. must rise'), (dict(target=0.5), 'target 0.5'), (dict(rate=0.0), 'rate 0.0')])
def test_bad_settings_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    DsdLocalitySeparation(**change)
