"""Topological RSA against scipy, hand-made graphs, and its experiment on planted layers."""
import itertools

import numpy as np
import pytest
from scipy import spatial
from scipy.sparse import csgraph

from aspects import plugin
from aspects import study
from aspects.claims.rows import Cell
from aspects.measure import measure_arrays
from aspects.representations import trsa
from aspects.representations.trsa import Trsa
from configs.representations.trsa import get_config
from experiments import trsa as experiment

METRIC = {'euclidean': 'euclidean', 'correlation': 'correlation'}


def transformed(d, lower, upper):
  above = d[np.triu_indices(len(d), 1)]
  low, high = np.percentile(above, 100 * lower) if lower else 0, np.percentile(above, 100 * upper)
  return np.array([[0. if x <= low and i == j or x < low else 1. if x >= high else (x - low) / (high - low)
                    for j, x in enumerate(row)] for i, row in enumerate(d)])


def geodesic(f, edges):
  """By scipy, which has to be told that an edge of length 0 is one."""
  graph = csgraph.csgraph_from_dense(np.where(edges, f, np.inf), null_value=np.inf)
  path = csgraph.shortest_path(graph, method='D', directed=False)
  joined = np.isfinite(path)
  return np.where(joined, path, max(path[joined].max(), 1))


def oracle(acts, lower=0.2, upper=0.8, distance='euclidean'):
  forms = {'trsa_rdm': [], 'trsa_rgtm': [], 'trsa_rgdm': []}
  for x in acts.values():
    d = spatial.distance.squareform(spatial.distance.pdist(np.asarray(x, np.float64), METRIC[distance]))
    f = transformed(d, lower, upper)
    edges = d <= np.quantile(d[np.triu_indices(len(d), 1)], upper)
    for name, matrix in zip(forms, (d, f, geodesic(transformed(d, 0, upper), edges))):
      forms[name].append(matrix[np.triu_indices(len(d), 1)])
  return {name: np.corrcoef(vectors) for name, vectors in forms.items()}


def measured(acts, **fields):
  return measure_arrays(Trsa(('*',), **fields), acts)


def layers(n=30, offset=0.):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(n, 5))
  return {s: (v + offset).astype(np.float32)
          for s, v in (('x', x), ('noisy', x + .5 * rng.normal(size=x.shape)), ('wide', rng.normal(size=(n, 60))))}


@pytest.mark.parametrize('fields', ({}, {'distance': 'correlation'}, {'lower': 0., 'upper': .3}, {'upper': 1.}))
def test_all_forms(fields):
  found = measured(layers(), **fields)
  for name, value in oracle(layers(), **fields).items():
    np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-9, err_msg=name)


def test_far_means():
  """2^13 away, where float32 holds these rows exactly."""
  near, far = (measured({s: np.round(x * 64) / 64 + o for s, x in layers().items()}) for o in (0, 8192))
  for name in near:
    np.testing.assert_allclose(far[name], near[name], atol=1e-9)


def test_without_thresholds_it_is_rsa():
  """l = 0 and u = the largest: f is D over a constant, and all edges are straight."""
  found = measured(layers(), lower=0., upper=1.)
  d = np.linalg.norm(layers()['x'][:, None] - layers()['x'], axis=-1)
  for geodesic in (False, True):
    np.testing.assert_allclose(trsa.geo_topological(d, 0., 1., geodesic), d / d.max(), rtol=1e-6)
  for name in ('trsa_rgtm', 'trsa_rgdm'):
    np.testing.assert_allclose(found[name], found.trsa_rdm, atol=1e-9)


def line(*places):
  x = np.array(places, float)
  return np.abs(x[:, None] - x)


def test_equal_thresholds_leave_a_graph():
  """Points at 0, 1, 2 and 10: half of the distances, up to 5, are 0 and the others 1."""
  d = line(0, 1, 2, 10)                                    # 1, 2, 10, 1, 9, 8
  f = trsa.geo_topological(d, .5, .5)
  np.testing.assert_array_equal(f, [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 1, 0]])


def test_paths_by_hand():
  """A path a - b - c of lengths .2 and .3, and d alone: a to c is .5; d has the diameter, but 1 at least."""
  no = np.inf
  edges = np.array([[0, .2, no, no], [.2, 0, .3, no], [no, .3, 0, no], [no, no, no, 0]])
  np.testing.assert_allclose(trsa.shortest(edges), [[0, .2, .5, 1], [.2, 0, .3, 1], [.5, .3, 0, 1], [1, 1, 1, 0]])
  np.testing.assert_allclose(trsa.shortest(4 * edges)[3], [2, 2, 2, 0])
  np.testing.assert_array_equal(trsa.shortest(np.zeros((3, 3))), np.zeros((3, 3)))


def test_geodesics_follow_a_ring():
  """Forty points of a circle: a fifth of the distances are steps of up to 4 points, u being the chord of 4. A chord is
  concave in its arc, so that the shortest path takes as many steps of 4 as it can and one for the rest."""
  angle = 2 * np.pi * np.arange(40) / 40
  d = spatial.distance.cdist(*[np.stack([np.cos(angle), np.sin(angle)], 1)] * 2).round(12)
  chord, arc = 2 * np.sin(np.pi * np.arange(5) / 40), np.abs((np.arange(40) + 20) % 40 - 20)
  expected = arc // 4 + chord[arc % 4] / chord[4]
  np.testing.assert_allclose(trsa.geo_topological(d, 0., 0.2, geodesic=True)[0], expected, atol=1e-9)


def test_nothing_to_correlate_is_named():
  x = np.random.default_rng(4).normal(size=(12, 3))
  with pytest.warns(UserWarning, match=r"\['constant'\] have distances that do not vary over the 12 rows"):
    found = measured({'x': x, 'constant': 0 * x + 5.1})
  for name in found:
    np.testing.assert_array_equal(np.isnan(found[name]), [[False, True], [True, True]], err_msg=name)


def test_fewest_rows_and_wrong_fields():
  x = np.random.default_rng(6).normal(size=(3, 4))
  assert np.isfinite(measured({'x': x}).trsa_rgtm).all()
  with pytest.raises(ValueError, match='topological RSA needs at least 3 rows, got 2'):
    measured({'x': x[:2]})
  for fields, message in ((dict(distance='cosine'), "distance 'cosine' is not one of"),
                          (dict(lower=.9, upper=.8), 'lower 0.9 and upper 0.8'), (dict(upper=1.5), 'upper 1.5')):
    with pytest.raises(ValueError, match=message):
      Trsa(**fields)


# --- the experiment -------------------------------------------------------------------------------------------------

def planted(layers=3, networks=4, n=30, width=8, noise=0.):
  """Responses [S, n, D] of layers that are the same in all networks up to a rotation and noise."""
  rng = np.random.default_rng(1)
  true = [rng.normal(size=(n, width)) for _ in range(layers)]
  turn = lambda: np.linalg.qr(rng.normal(size=(width, width)))[0]
  return [np.stack([x @ turn() + noise * rng.normal(size=x.shape) for _ in range(networks)]) for x in true]


def test_planted_layers_are_identified_and_shuffled_ones_are_not():
  found = experiment.Trsa(stimuli=30, units=8, draws=6).found(planted(), 0)
  for name in ('clean_rdm', 'clean_rgtm', 'clean_rgdm'):
    np.testing.assert_array_equal(found[name], 1)
  assert found['noisy_rdm'].mean() > 0.6 and found['shuffled'].mean() < 0.6


def test_leave_one_out_by_hand():
  """Two networks of two layers: layer 0 finds itself in both, layer 1 only in the second."""
  r = np.zeros((2, 2, 2, 2))                               # layer, network, layer, network
  r[0, 0, :, 1], r[0, 1, :, 0] = [.9, .1], [.8, .2]
  r[1, 0, :, 1], r[1, 1, :, 0] = [.5, .4], [.3, .6]
  r[:, 0, :, 0] = r[:, 1, :, 1] = [[0, 9], [9, 0]]         # a network says nothing of itself
  np.testing.assert_allclose(experiment.leave_one_out(r), [1, .5])
  for a, s in itertools.product(range(2), range(2)):
    assert r[a, s, :, 1 - s].argmax() == (a if (a, s) != (1, 0) else 0)


def test_noise_has_the_variance_of_the_units():
  """At a signal-to-noise ratio of 1 a single unit keeps half of its variance: correlations of repeats are 1/2."""
  rng = np.random.default_rng(2)
  part = experiment.Trsa(stimuli=4000, units=1)
  x = part.responses(5 * rng.normal(size=(1, 4000, 3)), rng)[0]
  a, b = (x + rng.normal(size=x.shape) * np.sqrt(x.var(0).mean() / part.snr) for _ in range(2))
  np.testing.assert_allclose(np.corrcoef(a[:, 0], b[:, 0])[0, 1], .5, atol=.05)


def test_wrong_settings():
  for fields in (dict(networks=1), dict(snr=0.), dict(stimuli=2)):
    with pytest.raises(ValueError, match='must be at least 2, 3, 1, 1 and above 0'):
      experiment.Trsa(**fields)
  with pytest.raises(ValueError, match='lower 0.9'):
    experiment.Trsa(lower=.9)


def test_rows_of_a_claim_seed_do_not_depend_on_the_others(tmp_path):
  """Untrained networks of two seeds together, and of one alone, give the same metrics: those that the claim names."""
  config = plugin.freeze(get_config('smoke').to_dict())
  fields = {k: v for k, v in config['procedure'].items() if k != 'name'}
  config |= {'arms': {}, 'claim': None, 'procedure': None, 'steps': 0}
  config['task'] = {**config['task'], 'data_dir': str(tmp_path / 'digits')}
  def metrics(*seeds):
    arm = study.build({**config, 'seeds': seeds}).arms['main']
    return experiment.Trsa(**fields).rows(Cell(seeds, arm, tmp_path / str(len(seeds)), lambda: False)).metrics
  both, alone = metrics(1001, 1002), metrics(1002)
  assert set(both) == set(get_config().claim.metrics)
  for name in both:
    np.testing.assert_allclose(both[name][1], alone[name][0], atol=1e-6, err_msg=name)
