"""Runs that part are the same up to their fork, and the claim's metrics are those of lines made by hand."""
import jax
import numpy as np
import pytest

from aspects import plugin
from aspects import study
from aspects.claims import running
from aspects.claims import spec
from aspects.claims.rows import Cell
from experiments import lmc_landscape
from experiments.lmc_landscape import LmcLandscape

CONFIG = 'configs/correlations/lmc_landscape.py'
FORKS = (0, 1, 2)


@pytest.fixture(scope='module')
def arm():
  config = running.bare(spec.load(CONFIG, 'smoke'), 'forked', (1000, 1001))
  return study.build(plugin.overlay(config, dict(steps=36), 'smoke')).arms['main']


@pytest.fixture(scope='module')
def ran(arm, tmp_path_factory):
  """{common: (rows, the first state, the last state)} of both arms of the claim."""
  out, whole = {}, study.run_arm
  for common in (True, False):
    kept = {}
    def spy(*args, kept=kept, **kwargs):
      kept['start'] = jax.tree.map(np.array, kwargs['start'])
      kept['done'] = whole(*args, **kwargs)
      return kept['done']
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(study, 'run_arm', spy)
      rows = LmcLandscape(FORKS, 21, common).rows(Cell(arm.seeds, arm, tmp_path_factory.mktemp('a'), lambda: False))
    out[common] = rows, kept['start'].params, jax.device_get(kept['done'].state.params)
  return out


def test_batches_are_the_same_up_to_the_fork_and_others_after_it(arm):
  both, epoch = lmc_landscape.forked(arm, FORKS), len(arm.streams)
  assert epoch == 12 and len(both.streams.streams) == len(both.seeds) == 8
  for k, fork in enumerate(FORKS):
    for step in range(36):
      index = both.streams.batch(step)['index']
      for s in (0, 1):
        assert (index[4 * s] == index[4 * s + 1 + k]).all() == (step < fork * epoch)
        np.testing.assert_array_equal(index[4 * s], arm.streams.batch(step)['index'][s])
  other = np.concatenate([both.streams.batch(step)['index'][1] for step in range(12)])
  assert len(set(other[:1437].tolist())) == 1437                    # another order, of the same examples


def test_runs_start_alike_or_from_other_weights(ran):
  for common, (_, start, _) in ran.items():
    w = start['layer_0']['kernel'].reshape(2, 4, 64, 8)
    np.testing.assert_array_equal(w[:, 1], w[:, 2])
    assert (w[:, 0] == w[:, 1]).all() == common and (w[0, 0] != w[1, 0]).any()


def test_metrics_are_those_of_lines_made_by_hand(arm, ran):
  """The whole procedure against numpy float64: losses on the lines, and the curvature by second differences."""
  rows, _, last = ran[True]
  batch = arm.evaluation.batch(0)
  for s in (0, 1):
    runs = [jax.tree.map(lambda w, i=i: np.float64(w[4 * s + i]), last) for i in range(4)]
    def loss(p, s=s):
      h = batch['input'][s].reshape(512, -1).astype(np.float64)
      for name in ('layer_0', 'layer_1', 'layer_2'):
        h = np.tanh(h @ p[name]['kernel'] + p[name]['bias'])
      h = h @ p['head']['kernel'] + p['head']['bias']
      return -(h - np.log(np.exp(h).sum(1, keepdims=True)))[np.arange(512), batch['label'][s]].mean()
    def on(q, a):
      return loss(jax.tree.map(lambda x, y: (1 - a) * x + a * y, runs[0], q))
    for k, q in zip(FORKS, runs[1:]):
      middle = on(q, .5) - (on(q, 0) + on(q, 1)) / 2
      np.testing.assert_allclose(rows.metrics[f'midpoint_{k}'][s], middle, atol=3e-6)
      squares = [((x - y) ** 2).sum() for x, y in zip(jax.tree.leaves(runs[0]), jax.tree.leaves(q))]
      np.testing.assert_allclose(rows.metrics[f'distance_{k}'][s], np.sqrt(sum(squares)), rtol=1e-5)
    excess, h = [], 1e-3
    for layer in runs[0]:
      for q in runs[1:]:
        one = {**runs[0], layer: q[layer]}
        curvature = [(on(one, a + h) - 2 * on(one, a) + on(one, a - h)) / h ** 2 for a in np.linspace(0, 1, 41)]
        shares = np.linspace(0, 1, 41)
        predicted = -.5 * np.trapezoid(np.minimum(shares, 1 - shares) * curvature, shares)
        excess.append((on(one, .5) - (on(one, 0) + on(one, 1)) / 2, predicted))
    measured, predicted = np.array(excess).T
    ranks = lambda x: np.argsort(np.argsort(x))
    np.testing.assert_allclose(rows.metrics['rho_path'][s], np.corrcoef(ranks(measured), ranks(predicted))[0, 1],
                               atol=.05)
  assert rows.metrics['error'].max() < .01 and not rows.diverged.any()


def test_summary_of_planted_lines():
  """Two layers and all of them, three forks: barriers 4, 2, 1 of all and 1, 1, 0 of the higher layer."""
  a = np.linspace(0, 1, 5)
  curve = lambda heights: np.array(heights, float)[None, :, None] * 4 * (a * (1 - a)) + 7 * a
  curvature = lambda heights: np.repeat(-8. * np.array(heights, float)[None, :, None], 5, 2)
  made = lambda heights: {'curve': curve(heights), 'curvature': curvature(heights)}
  found = lmc_landscape.summary({'all': made((4, 2, 1)), 'x': made((1, 1, 0)), 'y': made((.5, .2, .1))}, (0, 1, 3))
  value = {k: float(v[0]) for k, v in found.items()}
  assert value['fall'] == pytest.approx(-1) and value['layer_share'] == pytest.approx(2 / 7)
  assert value['layer_excess'] == pytest.approx(-.9 / 4)     # y at k = 3: .1 of 1, over the 4 of k = 0
  assert [value[f'midpoint_{k}'] for k in (0, 1, 3)] == pytest.approx([4, 2, 1])
  assert value['rho_path'] == pytest.approx(1) and value['rho_ends'] == pytest.approx(1)
  assert value['error'] == pytest.approx(0, abs=1e-12)


def test_what_cannot_be_is_told(arm):
  with pytest.raises(ValueError, match='increase from 0'):
    LmcLandscape(forks=(3, 1, 10))
  with pytest.raises(ValueError, match='points is 7'):
    LmcLandscape(points=7)
  with pytest.raises(ValueError, match='36 steps end before epoch 30'):
    lmc_landscape.forked(arm, (0, 1, 30))


@pytest.mark.parametrize('scale', ['claim', 'smoke', 'full'])
def test_every_scale_is_a_valid_claim(scale):
  claim = spec.load(CONFIG, scale)
  assert claim.roles == {'forked': 'ours', 'apart': 'control'}
