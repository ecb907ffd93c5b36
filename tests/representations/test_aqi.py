"""Indices of labelled clusters against loops over rows, scikit-learn and clusters that are known; the claim."""
import pathlib

import numpy as np
import pytest
from sklearn import metrics
import xarray as xr

from aspects import measure
from aspects import sites
from aspects import study
from aspects.claims import spec
from aspects.claims.rows import Cell
from aspects.nn.perceptron import Perceptron
from aspects.objectives.cross_entropy import CrossEntropy
from aspects.representations import aqi as aqi_lib
from aspects.representations.aqi import Aqi, combined, of_rows
from experiments import aqi as experiment
from tests import fill

CONFIG = pathlib.Path(__file__).parents[2] / 'configs' / 'representations' / 'aqi.py'


def oracle(acts, labels, gamma=0.5):
  """{variable: [site]} by loops over rows and clusters, float64; all rows are in the sample."""
  out = {}
  for x in acts.values():
    x = np.asarray(x, np.float64)
    present = sorted(set(labels))
    centre = {k: x[labels == k].mean(0) for k in present}
    far = lambda a, b: np.sqrt(((a - b) ** 2).sum(-1))
    within = sum(far(row, centre[k]) ** 2 for row, k in zip(x, labels))
    between = sum(far(centre[k], x.mean(0)) ** 2 for k in labels)
    pairs = [(k, j) for k in present for j in present if k != j]
    spread = {k: np.mean([far(row, centre[k]) for row in x[labels == k]]) for k in present}
    worst = [max((spread[k] + spread[j]) / far(centre[k], centre[j]) for j in present if j != k) for k in present]
    silhouettes, across, inside = [], [], []
    for i, row in enumerate(x):
      distance = far(row[None], x)
      own = (labels == labels[i]) & (np.arange(len(x)) != i)
      across.append(distance[labels != labels[i]].min())
      inside.append(distance[own].max() if own.any() else 0)
      a = distance[own].mean() if own.any() else 0
      b = min(distance[labels == k].mean() for k in present if k != labels[i])
      silhouettes.append((b - a) / max(a, b) if own.any() else 0)
    values = dict(
        xie_beni=within / len(x) / min(far(centre[k], centre[j]) ** 2 for k, j in pairs),
        calinski_harabasz=between / (len(present) - 1) / (within / (len(x) - len(present))),
        davies_bouldin=np.mean(worst), dunn=min(across) / max(inside), silhouette=np.mean(silhouettes))
    for k, v in values.items():
      out.setdefault(k, []).append(v)
  scale = lambda v: (np.array(v) - min(v)) / (np.ptp(v) or 1)
  out['aqi'] = gamma * scale(out['calinski_harabasz']) + (1 - gamma) * scale(1 / np.array(out['xie_beni']))
  return out


def examples(n=200, d=5, classes=4, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, classes, n)
  x = 2 * rng.normal(size=(classes, d))[labels] + rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
  return x.astype(np.float32), labels.astype(np.int32)


@pytest.mark.parametrize('gamma', [0.5, 1.0])
def test_equals_loops_over_rows(gamma):
  x, labels = examples()
  rng = np.random.default_rng(1)
  acts = {'a': x, 'moved': x * 3 + 100, 'few': x[:, :2], 'noise': rng.normal(size=x.shape).astype(np.float32)}
  found = measure.measure_arrays(Aqi(('*',), classes=6, gamma=gamma), acts, labels, batch_size=64)
  for name, value in oracle(acts, labels, gamma).items():
    np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=1e-6, err_msg=name)
  assert found.attrs['classes'] == 4 and found.attrs['classes_absent'] == 2 and found.attrs['rows_sampled'] == 200
  assert np.isnan(found.pooled_dunn)                         # layers of several widths cannot be mixed


def test_equals_scikit_learn():
  x, labels = examples(seed=2)
  labels[labels == 3] = 2
  labels[7] = 3                                              # a cluster of one row
  acts = {'a': x, 'b': np.tanh(x)}
  found = measure.measure_arrays(Aqi(('*',), classes=4), acts, labels)
  for k, v in enumerate(acts.values()):
    v = v.astype(np.float64)
    np.testing.assert_allclose(found.calinski_harabasz[k], metrics.calinski_harabasz_score(v, labels), rtol=1e-5)
    np.testing.assert_allclose(found.davies_bouldin[k], metrics.davies_bouldin_score(v, labels), rtol=1e-9)
    np.testing.assert_allclose(found.silhouette[k], metrics.silhouette_score(v, labels), rtol=1e-9)


def test_two_clusters_by_hand():
  """Rows at -1, 1 and at 9, 11 of a line: s = 1, centroids 10 apart."""
  x = np.array([[-1.], [1.], [9.], [11.]], np.float32)
  found = measure.measure_arrays(Aqi(('*',), classes=2), {'x': x}, np.array([0, 0, 1, 1]))
  np.testing.assert_allclose(found.xie_beni, [4 / 4 / 100])
  np.testing.assert_allclose(found.calinski_harabasz, [100 / (4 / 2)])
  np.testing.assert_allclose(found.davies_bouldin, [2 / 10])
  np.testing.assert_allclose(found.dunn, [8 / 2])
  outer, inner = 1 - 2 / 11, 1 - 2 / 9
  np.testing.assert_allclose(found.silhouette, [(outer + inner) / 2])
  assert found.aqi == 0.5                                    # one layer: nothing to be compared with


def test_labels_that_say_nothing():
  """Calinski-Harabasz is then a ratio of two estimates of one variance, the mean silhouette below 0."""
  rng = np.random.default_rng(3)
  found = measure.measure_arrays(Aqi(('*',), classes=3), {'x': rng.normal(size=(3000, 20)).astype(np.float32)},
                                 rng.integers(0, 3, 3000))
  np.testing.assert_allclose(found.calinski_harabasz, found.null_calinski_harabasz, atol=0.6)
  assert -0.05 < found.silhouette < 0


def test_layers_are_mixed_by_their_weights():
  x, labels = examples(seed=4)
  acts = {'a': x, 'b': np.tanh(x), 'c': x ** 2}
  mixed = {'uniform': (x + np.tanh(x) + x ** 2) / 3, (1., 0., 3.): (x + 3 * x ** 2) / 4, (0, 1, 0): np.tanh(x)}
  for weights, z in mixed.items():
    found = measure.measure_arrays(Aqi(('*',), classes=4, weights=weights), acts, labels)
    for name, value in oracle({'z': z}, labels).items():
      if name != 'aqi':
        np.testing.assert_allclose(found[f'pooled_{name}'], value[0], rtol=1e-4, err_msg=name)


def test_models_are_compared_jointly():
  """Two models of three layers: scaled over all six, so that the weaker one has no layer of 1 and may have the 0."""
  strong, weak = np.array([10., 40., 90.]), np.array([5., 20., 50.])
  both = combined(np.stack([strong, weak]), 1 / np.stack([strong, weak]), 0.3)
  np.testing.assert_allclose(both, (np.stack([strong, weak]) - 5) / 85)
  assert both[1].max() < 1 == both[0].max() and (both[0] > both[1]).all()
  alone = [combined(v, 1 / v) for v in (strong, weak)]
  assert alone[0].max() == alone[1].max() == 1               # scaled by itself each is perfect somewhere
  np.testing.assert_array_equal(np.isnan(combined([1., np.nan, 3.], [3., 2., np.inf])), [False, True, False])


def test_offsets_cost_no_digits():
  x, labels = examples(seed=5)
  far = (x.astype(np.float64) + 1e4 * x.std()).astype(np.float32)
  near = (far.astype(np.float64) - 1e4 * x.std()).astype(np.float32)
  a, b = (measure.measure_arrays(Aqi(('*',), classes=4), {'x': v}, labels) for v in (far, near))
  for name in (*aqi_lib.EXACT, *aqi_lib.SAMPLED):
    np.testing.assert_allclose(a[name], b[name], rtol=1e-3, err_msg=name)


def test_layers_without_clusters_are_named():
  x, labels = examples()
  with pytest.warns(UserWarning, match="'flat' clusters coincide or have no extent: xie_beni, calinski_harabasz"):
    found = measure.measure_arrays(Aqi(('*',), classes=4), {'flat': 0 * x + 3, 'x': x}, labels)
  assert np.isnan(found.xie_beni[0]) and np.isfinite(found.xie_beni[1]) and np.isnan(found.aqi[0])
  with pytest.warns(UserWarning, match="'x' clusters coincide or have no extent: calinski_harabasz, dunn"):
    found = measure.measure_arrays(Aqi(('*',), classes=4), {'x': np.eye(4, dtype=np.float32)[labels]}, labels)
  np.testing.assert_allclose([found.xie_beni[0], found.davies_bouldin[0], found.silhouette[0]], [0, 0, 1], atol=1e-12)


def test_errors_say_the_way_out():
  x, labels = examples()
  with pytest.raises(ValueError, match='two clusters or more, got rows of 1'):
    measure.measure_arrays(Aqi(('*',), classes=4), {'x': x}, 0 * labels)
  with pytest.raises(ValueError, match='4 rows of 4 clusters .* give at least 5'):
    measure.measure_arrays(Aqi(('*',), classes=4), {'x': x[:4]}, np.arange(4))
  assert measure.measure_arrays(Aqi(('*',), classes=4), {'x': x[:5]}, np.array([0, 1, 2, 3, 3])).attrs['classes'] == 4
  with pytest.raises(ValueError, match='3 weights for 1 sites'):
    measure.measure_arrays(Aqi(('*',), classes=4, weights=(1, 1, 1)), {'x': x}, labels)
  for fields, message in ((dict(gamma=2), 'from 0 to 1'), (dict(weights='learned'), "is not 'uniform'"),
                          (dict(weights=(0., 0.)), 'not all of them'), (dict(weights=(-1., 2.)), 'at least 0')):
    with pytest.raises(ValueError, match=message):
      Aqi(**fields)


def test_a_sample_is_of_rows_of_all_clusters():
  x, labels = examples(n=2000)
  whole = of_rows(x.astype(np.float64), labels)
  found = measure.measure_arrays(Aqi(('*',), classes=4, size=1000), {'x': x}, labels)
  assert found.attrs['rows_sampled'] == 1000 and found.attrs['rows'] == 2000
  np.testing.assert_allclose(found.silhouette, whole['silhouette'], atol=0.02)
  np.testing.assert_allclose(found.davies_bouldin, whole['davies_bouldin'], rtol=0.05)


# --- the claim ------------------------------------------------------------------------------------------------------

def test_the_open_network_is_the_perceptron_with_a_layer_beside_it():
  x = fill.normal(1, 5, 4)
  net = Perceptron(outputs=3, widths=(6, 5, 4), act='tanh')
  variables = fill.variables(net, x)
  logits, acts = sites.forward(net, variables, x, record=('resid_post.1',))
  opened = experiment.Open(outputs=3, widths=(6, 5, 4), act='tanh', layer=1)
  np.testing.assert_allclose(opened.apply(variables, x), np.concatenate([logits, acts['resid_post.1']], 1), rtol=1e-6)
  assert list(sites.sites(opened, variables, x)) == list(sites.sites(net, variables, x))


def test_the_scatter_is_that_of_the_rows_that_count():
  rng = np.random.default_rng(0)
  x, label = rng.normal(size=(12, 3)).astype(np.float32), np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 2, 2])
  weight = np.ones(12, np.float32)
  weight[[0, 1]] = 0
  kept = slice(2, None)
  expected = np.mean([((r - x[kept][label[kept] == c].mean(0)) ** 2).sum() for r, c in zip(x[kept], label[kept])])
  np.testing.assert_allclose(experiment.scatter(x, label, weight, 4), expected, rtol=1e-6)
  batch = {'label': label, 'weight': weight}
  outputs = np.concatenate([rng.normal(size=(12, 4)).astype(np.float32), x], 1)
  plain, _ = CrossEntropy()(outputs[:, :4], batch)
  with_scatter, info = experiment.Scatter(classes=4, weight=0.5)(outputs, batch)
  np.testing.assert_allclose(with_scatter, plain - 0.5 * np.log(expected), rtol=1e-6)
  np.testing.assert_array_equal(experiment.Scatter(classes=4)(outputs, batch)[0], plain)
  order = rng.permutation(12)
  moved = experiment.Scatter(classes=4, weight=0.5)(outputs[order], {k: v[order] for k, v in batch.items()})[0]
  np.testing.assert_allclose(moved, with_scatter[order], rtol=1e-6)
  assert set(info) == {'nll', 'accuracy'}


def test_networks_are_compared_at_the_layer_by_hand():
  """Two layers of two networks of one seed; all of the index is Calinski-Harabasz."""
  dataset = lambda ch: xr.Dataset({'calinski_harabasz': (('site', 'seed'), np.array([ch]).T),
                                   'xie_beni': (('site', 'seed'), 1 / np.array([ch]).T)})
  procedure = experiment.Aqi(layer=0, gamma=1.0)
  metrics, scores = procedure.compared(dataset([4., 10.]), dataset([2., 8.]))
  np.testing.assert_allclose(scores, [[[2 / 8, 1], [0, 6 / 8]]])
  found = {k: v.item() for k, v in metrics.items()}
  assert found == {'drop': 0.25, 'drop_after': 0.25, 'ranked': 1., 'ch_ratio': 0.5, 'xb_ratio': 2.}


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
  claim = spec.load(CONFIG, 'smoke')
  def run(name):
    config = claim.arms[name]
    arm = study.build({**config, 'arms': {}, 'claim': None, 'seeds': (1000, 1001)}).arms['main']
    procedure = experiment.Aqi(**{k: v for k, v in config['procedure'].items() if k != 'name'})
    return procedure.rows(Cell(arm.seeds, arm, tmp_path_factory.mktemp(name), lambda: False)), arm
  return claim, {name: run(name) for name in claim.arms}


def test_arms_start_from_one_network_and_differ_by_the_damage(rows):
  claim, found = rows
  (damaged, arm), (kept, _) = found['damaged'], found['kept']
  for each in (damaged, kept):
    assert set(each.metrics) == set(claim.metrics) and not each.diverged.any()
    assert all(v.shape == (2,) and np.isfinite(v).all() for v in each.metrics.values())
  np.testing.assert_array_equal(damaged.metrics['accuracy'], kept.metrics['accuracy'])
  assert (damaged.metrics['drop'] != kept.metrics['drop']).all()
  assert damaged.params == arm.parameters and abs(damaged.flops / kept.flops - 1) < 0.05 and damaged.steps == kept.steps


def test_the_damage_is_done(tmp_path):
  """A large weight of the scatter against none, ten steps each: the layer's classes are spread further."""
  config = spec.load(CONFIG, 'smoke').arms['damaged']
  arm = study.build({**config, 'arms': {}, 'claim': None, 'seeds': (1000, 1001)}).arms['main']
  found = [experiment.Aqi(weight=w, layer=1, steps=30).rows(Cell(arm.seeds, arm, tmp_path / str(w), lambda: False))
           for w in (3.0, 0.0)]
  assert (found[0].metrics['xb_ratio'] > 1.2 * found[1].metrics['xb_ratio']).all()
  with pytest.raises(ValueError, match='layer 7 is none of the 4 hidden layers'):
    experiment.Aqi(layer=7).rows(Cell(arm.seeds, arm, tmp_path, lambda: False))


@pytest.mark.parametrize('fields', [dict(weight=-1.0), dict(steps=0), dict(layer=-1)])
def test_a_wrong_field_of_the_procedure_is_told(fields):
  with pytest.raises(ValueError, match='at least 0'):
    experiment.Aqi(**fields)


@pytest.mark.parametrize('scale', ['smoke', 'claim', 'full'])
def test_every_scale_is_a_valid_claim(scale):
  assert spec.load(CONFIG, scale).id == 'aqi/1'
