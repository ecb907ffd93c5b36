"""The information plane against counting, its limits on all patterns, the phases of the gradient, the bottleneck."""
import collections
import itertools

import jax
import numpy as np
import pytest

from aspects import measure
from aspects import plugin
from aspects import study
from aspects import train
from aspects.claims import running
from aspects.claims import spec
from aspects.claims.rows import Cell
from aspects.depth.information_plane import InformationPlane, bottleneck_beta, gradient_snr, plane
from aspects.tasks.boolean import labels as published
from experiments import information_plane as experiment

CONFIG = 'configs/depth/information_plane.py'
BITS = np.array(list(itertools.product((-1., 1.), repeat=8)), np.float32)


def oracle(acts, labels, bins=30, span=(-1., 1.)):
  """{variable: [site]} by counting tuples of bins, each bin found by comparison with the edges."""
  edges = np.linspace(*span, bins + 1)[1:-1]
  def bits(items):
    items = list(items)
    return -sum(c / len(items) * np.log2(c / len(items)) for c in collections.Counter(items).values())
  out = {'ixt': [], 'ity': []}
  for x in acts.values():
    rows = [tuple(sum(value >= edge for edge in edges) for value in row) for row in x.astype(np.float64)]
    out['ixt'].append(bits(rows))
    out['ity'].append(bits(rows) - sum((labels == y).mean() * bits(r for r, own in zip(rows, labels) if own == y)
                                       for y in np.unique(labels)))
  return out


def of(acts, labels=None, **fields):
  labels = np.zeros(len(next(iter(acts.values()))), np.int32) if labels is None else labels
  return measure.measure_arrays(InformationPlane(('*',), classes=4, **fields), acts, labels, batch_size=64)


@pytest.mark.parametrize('bins,span', [(30, (-1., 1.)), (3, (-.5, 2.))])
def test_equals_counting(bins, span):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 4, 150).astype(np.int32)
  acts = {f'resid_post.{i}': np.tanh(rng.normal(size=(150, d)) + labels[:, None]).astype(np.float32)
          for i, d in enumerate((3, 2, 1))}
  found = of(acts, labels, bins=bins, span=span)
  for name, value in oracle(acts, labels, bins, span).items():
    np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


def test_values_beyond_the_span_are_in_the_outer_bins():
  x = np.array([[-9.], [-1.], [-.7], [.7], [1.], [9.]])
  assert plane(x, np.zeros(6, int), bins=3).ixt == 1                # two bins of three, half each


def test_a_layer_that_tells_all_inputs_apart_has_all_of_their_bits():
  label = (BITS[:, 0] > 0).astype(np.int32)
  found = of({'copy': .5 * BITS, 'two': BITS[:, :2], 'none': 0 * BITS}, label)
  np.testing.assert_allclose(found.ixt, [8, 2, 0], atol=1e-12)
  np.testing.assert_allclose(found.ity, [1, 1, 0], atol=1e-12)


def test_a_chain_of_binned_layers_loses_and_never_gains():
  """With 2^k bins on nested edges a coarser layer is a function of the finer one."""
  rng = np.random.default_rng(1)
  x, label = np.tanh(rng.normal(size=(300, 3))), rng.integers(0, 2, 300)
  found = [plane(x, label, bins) for bins in (16, 8, 4, 2, 1)]
  assert all(a.ixt >= b.ixt and a.ity >= b.ity - 1e-12 for a, b in zip(found, found[1:]))
  assert found[0].ixt <= np.log2(300) and found[-1] == (0, 0)


def test_each_site_may_have_a_span_of_its_own():
  rng = np.random.default_rng(2)
  x = rng.uniform(-1, 1, (100, 2)).astype(np.float32)
  found = of({'a': x, 'b': 10 * x}, bins=4, span=((-1., 1.), (-10., 10.)))
  np.testing.assert_allclose(found.ixt[1], found.ixt[0], rtol=1e-12)
  assert abs(of({'a': x, 'b': 10 * x}, bins=4).ixt.diff('site')) > .1


def test_fewer_rows_than_there_are_is_a_fixed_sample_and_says_so():
  rng = np.random.default_rng(3)
  x = np.tanh(rng.normal(size=(200, 2))).astype(np.float32)
  found = of({'x': x}, size=50)
  assert found.rows == 50 and 'sample' in found.attrs
  assert found.ixt[0] <= np.log2(50) < of({'x': x}).ixt[0]


def test_values_that_are_not_finite_are_named():
  with pytest.warns(UserWarning, match=r"\['bad'\]"):
    found = of({'bad': np.full((8, 2), np.inf, np.float32), 'fine': BITS[:8]})
  np.testing.assert_array_equal(np.isnan(found.ixt), [True, False])


@pytest.mark.parametrize('fields,words', [(dict(span=(1., -1.)), 'low < high'), (dict(bins=0), 'counts from 1'),
                                          (dict(span=((0., 1.), (2., 1.))), 'low < high')])
def test_a_wrong_field_is_told(fields, words):
  with pytest.raises(ValueError, match=words):
    InformationPlane(**fields)


def test_no_rows_and_a_wrong_number_of_spans_are_told():
  with pytest.raises(ValueError, match='needs rows, got 0'):
    measure.measure_arrays(InformationPlane(('*',), classes=2), {'x': np.ones((4, 2), np.float32)},
                           np.zeros(4, np.int32), weight=np.zeros(4, np.float32))
  with pytest.raises(ValueError, match='2 ranges for 1 sites'):
    of({'x': BITS}, span=((0., 1.), (0., 2.)))


# --- phases of the gradient -----------------------------------------------------------------------------------------

def test_planted_drift_and_diffusion_are_found():
  """Gradients m + s e with e of unit variance: |m| / |W|, s sqrt(size) / |W|, and their ratio."""
  rng = np.random.default_rng(0)
  m, w = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
  e = rng.normal(size=(64, 6, 5))
  e = (e - e.mean(0)) / e.std(0)
  for s in (.1, 1., 10.):
    found, expected = gradient_snr(m + s * e, w), np.array([np.linalg.norm(m), s * np.sqrt(30)]) / np.linalg.norm(w)
    np.testing.assert_allclose(found, [*expected, expected[0] / expected[1]], rtol=1e-12)
  np.testing.assert_allclose(gradient_snr(7 * (m + e), 2 * w).snr, gradient_snr(m + e, w).snr, rtol=1e-12)


def test_gradients_that_agree_or_vanish():
  assert gradient_snr(np.ones((3, 4)), np.ones(4)) == (1, 0, np.inf)
  assert gradient_snr(np.zeros((3, 4)), np.ones(4)) == (0, 0, 0)
  with pytest.raises(ValueError, match='at least 2 batches, got 1'):
    gradient_snr(np.ones((1, 4)), np.ones(4))


# --- the bottleneck's equation --------------------------------------------------------------------------------------

def self_consistent(labels, beta, states, steps=3000):
  """An encoder that solves the equation at `beta`, by iterating it from a random one (Tishby et al. 1999)."""
  encoder = np.random.default_rng(0).dirichlet(np.ones(states), len(labels))
  for _ in range(steps):
    p_t = encoder.mean(0)
    p_y = encoder.T @ labels / (len(labels) * p_t[:, None])
    far = (labels[:, None] * np.log(labels[:, None] / p_y[None])).sum(2)
    encoder = p_t * np.exp(-beta * far)
    encoder /= encoder.sum(1, keepdims=True)
  return encoder


@pytest.mark.parametrize('beta', [6., 12.])
def test_a_solution_of_the_equation_has_the_beta_it_was_solved_at(beta):
  p = np.linspace(.05, .95, 16)
  labels = np.stack([p, 1 - p], 1)
  encoder = self_consistent(labels, beta, 3)
  assert np.ptp(encoder, axis=0).max() > .1                         # not the trivial solution
  np.testing.assert_allclose(bottleneck_beta(encoder, labels), beta, rtol=1e-3)


def test_labels_that_are_a_function_of_the_input_have_beta_one():
  """q(t|x) is p(t|y) at beta = 1, the best that depends on x through y alone."""
  rng = np.random.default_rng(1)
  labels = np.eye(2)[rng.integers(0, 2, 60)]
  for encoder in (np.eye(5)[rng.integers(0, 5, 60)], rng.dirichlet(np.ones(4), 60)):
    np.testing.assert_allclose(bottleneck_beta(encoder, labels), 1, atol=1e-6)


def test_states_that_say_the_same_of_the_label_have_no_beta():
  labels = np.tile([[.3, .7]], (8, 1))
  assert np.isnan(bottleneck_beta(np.eye(2)[np.arange(8) % 2], labels))


def test_a_hard_encoder_of_soft_labels_is_best_at_the_largest_beta():
  labels = np.array([[.9, .1]] * 4 + [[.1, .9]] * 4)
  hard = np.eye(2)[[0] * 4 + [1] * 4]
  assert bottleneck_beta(hard, labels, most=50.) == 50


# --- the experiment -------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def built():
  """The claim's tanh arm for two seeds, four steps of training, measured at both ends."""
  config = running.bare(spec.load(CONFIG, 'smoke'), 'tanh', (1000, 1001))
  change = dict(steps=4, analysis=dict(when=(0.0, 1.0)))
  return study.build(plugin.overlay(config, change, 'smoke')).arms['main']


def test_every_seed_is_measured_on_all_patterns_and_trained_on_its_own_part(built):
  batch = experiment.on_all_inputs(built).probe.batch(0)
  assert len({row.tobytes() for row in batch['input']}) == 4096 and batch['weight'].sum() == 4096
  np.testing.assert_array_equal(batch['label'], published(batch['input'].astype(int)))
  seen = [{row.tobytes() for row in s.source[np.arange(len(s.source))]['input']} for s in built.streams.streams]
  assert [len(rows) for rows in seen] == [3482, 3482] and seen[0] != seen[1]


def test_metrics_of_a_run_are_those_of_its_networks(built, tmp_path):
  """The whole procedure against a forward pass by numpy and counting, before and after training."""
  kept, whole = {}, study.run_arm
  def spy(*args, **kwargs):
    kept['start'] = jax.tree.map(np.array, kwargs['start'])
    kept['done'] = whole(*args, **kwargs)
    return kept['done']
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(study, 'run_arm', spy)
    found = experiment.InformationPlane(layers=2, batches=3).rows(
        Cell(built.seeds, built, tmp_path, lambda: False)).metrics
  bits = (np.arange(4096)[:, None] >> np.arange(12) & 1).astype(np.float64)
  for s in (0, 1):
    curves = []
    for state in (kept['start'], kept['done'].state):
      h, acts = bits, {}
      for i in range(5):
        layer = jax.tree.map(lambda w, s=s: np.float64(w[s]), state.params[f'layer_{i}'])
        h = acts[i] = np.tanh(h @ layer['kernel'] + layer['bias'])
      curves.append(oracle({i: acts[i] for i in (0, 3, 4)}, published(bits.astype(int)))['ixt'])
    first, *last = [(max(pair) - pair[1]) / max(pair) for pair in zip(*curves)]
    measured = [found[f'plane_{name}'][s] for name in ('first_drop', 'drop', 'least_drop')]
    np.testing.assert_allclose(measured, [first, np.mean(last), min(last)], atol=2e-4)      # float32 at a bin's edge
    assert found['plane_peak'][s] == float(any(before < after for before, after in list(zip(*curves))[1:]))
  assert (found['snr_start'] != found['snr_end']).all() and np.isfinite(found['snr_end']).all()


def test_gradients_of_batches_are_those_of_one_batch_at_a_time(built):
  state = train.init(built.net, built.rule, built.seeds, built.probe.example())
  variables = study.variables(built, state)
  found = experiment.gradients(built, variables, 3)
  batch = jax.tree.map(lambda x: x[1], built.streams.batch(2))
  def loss(params):
    log_p = jax.nn.log_softmax(built.net.apply({'params': params}, batch['input']))
    return -log_p[np.arange(256), batch['label']].mean()
  one = jax.grad(loss)(jax.tree.map(lambda w: w[1], variables['params']))
  for layer in one:
    np.testing.assert_allclose(found[layer, 'kernel'][1, 2], one[layer]['kernel'], atol=1e-6)


def test_summary_of_planted_curves():
  ixt = np.array([[[4., 4., 4.], [1., 5., 4.], [2., 8., 2.]]])                             # one seed, three sites
  found = experiment.summary('plane', ixt, np.array([0., .25, 1.]), 2)
  assert {k: float(v[0]) for k, v in found.items()} == pytest.approx(
      {'plane_drop': (.2 + .75) / 2, 'plane_least_drop': .2, 'plane_peak': .25, 'plane_first_drop': 0.})


def test_more_layers_than_there_are_is_told(built, tmp_path):
  with pytest.raises(ValueError, match='layers is 9, and plane has 5 sites'):
    experiment.InformationPlane(layers=9, batches=2).rows(Cell(built.seeds, built, tmp_path, lambda: False))
  with pytest.raises(ValueError, match='batches 1'):
    experiment.InformationPlane(batches=1)


def test_edges_of_the_other_arm_differ_and_nothing_else_but_its_nonlinearity():
  claim = spec.load(CONFIG)
  tanh, relu = claim.arm('tanh'), claim.arm('relu')
  assert len(relu['measures']['plane']['span']) == len(relu['net']['widths']) == 5
  same = {**relu, 'net': {**relu['net'], 'act': 'tanh'}, 'measures': tanh['measures']}
  assert same == tanh and spec.load(CONFIG, 'full').arms['tanh']['steps'] == 112000
