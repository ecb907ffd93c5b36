"""The flow on the central path: against features followed one by one, and against derivatives taken by machine."""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects.claims.rows import Cell
from aspects.tasks.digits import Digits
from experiments import perturbed_nc
from experiments.perturbed_nc import PerturbedNc

LAM_W, LAM_H = 0.03, 0.2


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return str(tmp_path_factory.mktemp('digits'))


def features(classes=3, count=5, width=4):
  return np.random.default_rng(0).normal(size=(classes, count, width)) + 0.5


def cell(*seeds):
  return Cell(seeds, None, pathlib.Path('.'), lambda: False)


def ridge(h, lam_w):
  """W*(H) as the paper writes it: Y H' (H H' + n lam_w I)^-1, columns of H are examples."""
  columns = h.reshape(-1, h.shape[-1]).T
  y = np.repeat(np.eye(len(h)), h.shape[1], axis=1)
  return y @ columns.T @ np.linalg.inv(columns @ columns.T + h.shape[1] * lam_w * np.eye(len(columns)))


def traces(h):
  """tr S_W, tr S_B about the mean of the class means, tr S_B about zero."""
  means = h.mean(1)
  return (((h - means[:, None]) ** 2).sum(-1).mean(), ((means - means.mean(0)) ** 2).sum(1).mean(),
          (means ** 2).sum(1).mean())


@pytest.mark.parametrize('fixed', [False, True])
def test_the_flow_of_moments_is_the_flow_of_every_feature(fixed):
  h, dt, steps = features(), 0.1, 30
  held = np.random.default_rng(1).normal(size=(3, 4)) if fixed else None
  with jax.enable_x64(True):
    path = np.asarray(perturbed_nc.flow(*perturbed_nc.moments(jnp.asarray(h)), held, LAM_W, LAM_H, dt, steps))
  for k in range(steps + 1):
    within, centred, uncentred = traces(h)
    np.testing.assert_allclose(path[k], [within / centred, within / uncentred], rtol=1e-10)
    w = ridge(h, LAM_W) if held is None else held
    h = h - dt * ((h @ w.T - np.eye(3)[:, None]) @ w + LAM_H * h)


def test_the_best_classifier_is_the_ridge_solution():
  h = features()
  with jax.enable_x64(True):
    w = perturbed_nc.best(*perturbed_nc.moments(jnp.asarray(h)), LAM_W)
  np.testing.assert_allclose(w, ridge(h, LAM_W), rtol=1e-10)


def test_the_velocity_is_the_gradient_of_the_loss_with_the_best_classifier():
  h = features()
  def loss(h):
    w = perturbed_nc.best(*perturbed_nc.moments(h), LAM_W)
    error = h @ w.T - jnp.eye(3)[:, None]
    return ((error ** 2).sum() + LAM_H * (h ** 2).sum()) / (2 * 15) + LAM_W * (w ** 2).sum() / (2 * 3)
  with jax.enable_x64(True):
    down = -15 * jax.jit(jax.grad(loss))(jnp.asarray(h))       # d H / dt = -K n grad L
    means, within = perturbed_nc.moments(jnp.asarray(h))
    speed, a = perturbed_nc.velocity(means, within, perturbed_nc.best(means, within, LAM_W), LAM_H)
    moved = jax.jit(lambda h, d: jax.jvp(perturbed_nc.moments, (h,), (d,))[1])(jnp.asarray(h), down)
    expected = speed, -(a @ within + within @ a)
  for found, value in zip(moved, expected):
    np.testing.assert_allclose(found, value, rtol=1e-9)


def test_the_traces_move_as_stated():
  """The identities of the module's head, from which the theorem follows, against differences of the traces."""
  h = features()
  w = ridge(h, LAM_W)
  down = -((h @ w.T - np.eye(3)[:, None]) @ w + LAM_H * h)
  step = 1e-5
  slopes = (np.array(traces(h + step * down)) - np.array(traces(h - step * down))) / (2 * step)
  means = h.mean(1)
  within = np.cov((h - means[:, None]).reshape(-1, 4).T, bias=True)
  b, off = w @ means.T, np.eye(3) - 1 / 3
  np.testing.assert_allclose(b, b.T, atol=1e-12)
  assert 0 <= np.linalg.eigvalsh(b).min() and np.linalg.eigvalsh(b).max() <= 1
  gain = lambda p: 2 * np.trace(p @ (b - b @ b) @ p) / 3
  spread = 2 * np.trace(w @ within @ w.T)
  at = traces(h)
  np.testing.assert_allclose(slopes, [-spread - 2 * LAM_H * at[0], gain(off) - 2 * LAM_H * at[1],
                                      gain(np.eye(3)) - 2 * LAM_H * at[2]], rtol=1e-7)
  np.testing.assert_allclose(gain(np.eye(3)), spread + 2 * LAM_W * (w ** 2).sum() / 3, rtol=1e-9)


def test_the_images_are_the_digits_in_equal_numbers(folder):
  images = perturbed_nc.images(20, folder)
  assert images.shape == (10, 20, 64) and images.min() == 0 and images.max() == 1
  source = Digits(data_dir=folder)
  known = {}
  for split in source.splits:
    part = source.source(split)
    rows = part[np.arange(len(part))]
    known |= {image.tobytes(): int(label) for image, label in zip(rows['input'], rows['label'])}
  assert all(known[image.tobytes()] == c for c in range(10) for image in images[c])
  assert len({image.tobytes() for image in images.reshape(200, 64)}) == 200


def test_the_ratio_falls_on_the_central_path_and_not_under_the_classifier_of_other_classes(folder):
  small = dict(width=12, per_class=20, steps=60, data_dir=folder)
  flow, shifted = PerturbedNc(**small).rows(cell(5, 6, 7)), PerturbedNc(classifier='shifted', **small).rows(cell(5, 6))
  assert (flow.metrics['rise_centred'] < 0).all() and (flow.metrics['rise_uncentred'] < 0).all()
  assert (shifted.metrics['rise_centred'] > 0).all()
  assert not flow.diverged.any() and flow.metrics['fall_centred'].shape == (3,)
  x, y = flow.curves['centred@time']
  assert x.shape == (12,) and x[-1] == 60 * 0.05 and y.shape == (3, 12) and (np.diff(y) < 0).all()
  np.testing.assert_array_equal(shifted.metrics['start'], flow.metrics['start'][:2])


def test_a_seed_is_the_same_wherever_it_stands(folder):
  small = PerturbedNc(width=12, per_class=20, steps=20, classifier='frozen', data_dir=folder)
  block, turned = small.rows(cell(5, 6)), small.rows(cell(6, 5))
  for name, values in block.metrics.items():
    np.testing.assert_allclose(values, turned.metrics[name][::-1], rtol=1e-9, atol=1e-15)


def test_halving_the_step_halves_the_error_of_integration(folder):
  small = dict(width=12, per_class=20, data_dir=folder)
  errors = [PerturbedNc(dt=dt, steps=round(2 / dt), **small).rows(cell(5)).metrics['integration'][0]
            for dt in (0.04, 0.02)]
  assert errors[0] / errors[1] == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize('change, message', [
    (dict(classifier='bets'), "no classifier 'bets'; did you mean 'best'"), (dict(dt=0.0), 'dt 0.0'),
    (dict(lam_w=0.0), 'lam_w 0.0 must be above')])
def test_bad_settings_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    PerturbedNc(**change)


def test_more_digits_than_there_are_is_refused(folder):
  with pytest.raises(ValueError, match='per_class 175 is not in 2..174'):
    perturbed_nc.images(175, folder)
