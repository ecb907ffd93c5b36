"""Layer identification: counted by hand, and against Gram matrices and eigenproblems of the same activations."""
import pathlib
import warnings

import numpy as np
import pytest
import scipy.linalg

from aspects import measure
from aspects import study
from aspects.claims import spec
from aspects.claims.rows import Cell
from aspects.correlations.cca import Cca
from aspects.correlations.cka import Cka
from experiments import layer_identification as experiment
from experiments.layer_identification import LayerIdentification

CONFIG = pathlib.Path(__file__).parents[2] / 'configs' / 'correlations' / 'layer_identification.py'


def oracle(acts):
  """{index: [S, L, S, L]} of acts [S][L] [N, D] by pairs: CKA by Gram matrices, PWCCA as a generalised eigenproblem."""
  size, layers = len(acts), len(acts[0])
  out = {name: np.zeros((size, layers, size, layers)) for name in ('cka_gretton', 'pwcca')}
  for a, i, b, j in np.ndindex(size, layers, size, layers):
    x, y = (np.asarray(v, np.float64) for v in (acts[a][i], acts[b][j]))
    x, y = x - x.mean(0), y - y.mean(0)
    k, m = x @ x.T, y @ y.T
    out['cka_gretton'][a, i, b, j] = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())
    # Squared correlations are the ratio of what y explains of x's variance, direction by direction.
    explained = x.T @ y @ np.linalg.solve(y.T @ y, y.T @ x)
    square, direction = scipy.linalg.eigh((explained + explained.T) / 2, x.T @ x)
    weight = np.abs((x @ direction).T @ x).sum(1)
    out['pwcca'][a, i, b, j] = weight @ np.sqrt(np.clip(square, 0, None)) / weight.sum()
  return out


def counted(similarity):
  """The share identified [L] of similarity [S, L, S, L], one look-up after another."""
  size, layers = similarity.shape[:2]
  hits = [[max(range(layers), key=lambda j: similarity[a, i, b, j]) == i
           for a in range(size) for b in range(size) if a != b] for i in range(layers)]
  return np.array(hits, float).mean(1)


def test_counted_by_hand():
  """Two networks of two layers: from the first both layers are found, from the second one of two."""
  similarity = np.array([[1, 0, .9, .1], [0, 1, .2, .3], [.8, .7, 1, 0], [.6, .5, 0, 1.]])
  np.testing.assert_array_equal(experiment.identified(similarity, 2), [1., .5])
  similarity[:2, 2:] = np.nan
  np.testing.assert_array_equal(experiment.identified(similarity, 2), [.5, 0.])


def test_counts_as_a_loop_does():
  similarity = np.random.default_rng(0).normal(size=(4, 3, 4, 3))
  np.testing.assert_allclose(experiment.identified(similarity.reshape(12, 12), 4), counted(similarity))


def group(size, layers, width, rows=40, seed=0):
  rng = np.random.default_rng(seed)
  return {f'layer.{i}': rng.normal(size=(size, rows, width)) @ np.diag(rng.uniform(.2, 2, width)) + 5
          for i in range(layers)}


def test_moments_are_those_of_the_stream():
  acts = {(k, s): x.astype(np.float32) for s, v in group(2, 2, 3).items() for k, x in enumerate(v)}
  cross, named = experiment.moments(acts), {f'{a}/{b}': x for (a, b), x in acts.items()}
  for part in (Cka(('*',)), Cca(('*',))):
    streamed, here = measure.measure_arrays(part, named), part.compute(cross=cross)
    for variable in streamed:
      np.testing.assert_allclose(here[variable], streamed[variable], rtol=1e-4, atol=1e-5, err_msg=variable)


def test_rotated_spectra_are_found_by_cka_and_not_by_cca():
  """Layers that are invertible maps of one another have canonical correlations of 1: only CKA tells them apart."""
  rng = np.random.default_rng(1)
  base, size = rng.normal(size=(60, 4)), 3
  turn = lambda: np.linalg.qr(rng.normal(size=(4, 4)))[0]
  spectra = [np.geomspace(1, 1.5 ** -k, 4)[::(-1) ** k] for k in range(1, 4)]
  acts = {f'layer.{i}': np.stack([base @ np.diag(s) @ turn() for _ in range(size)]) for i, s in enumerate(spectra)}
  procedure = LayerIdentification(networks=size)
  found = procedure.found(acts, seed=0)
  np.testing.assert_array_equal(found['cka'], 1)
  np.testing.assert_array_equal(found['cka_gretton'], 1)
  cross = Cca().compute(cross=experiment.moments({(k, s): x for s, v in acts.items() for k, x in enumerate(v)}))
  np.testing.assert_allclose(cross['pwcca'], 1, atol=1e-6)
  np.testing.assert_allclose(cross['cca_mean_squared'], 1, atol=1e-6)
  assert found['cka_shuffled'].mean() < 0.8


def test_shuffled_examples_are_identified_by_chance():
  """Layers of one spectrum: the share is 1 / L with a standard error of about .03 over the pairs of networks."""
  base = np.random.default_rng(2).normal(size=(200, 6))
  acts = {f'layer.{i}': np.stack([base ** (i + 1) for _ in range(10)]) for i in range(4)}
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    found = [LayerIdentification().found(acts, seed=s) for s in range(4)]
  np.testing.assert_array_equal(found[0]['cka'], 1)
  assert abs(np.mean([f['cka_shuffled'] for f in found]) - 1 / 4) < 0.15


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
  claim = spec.load(CONFIG, 'smoke')
  out = {}
  for name, config in claim.arms.items():
    arm = study.build({**config, 'arms': {}, 'claim': None, 'seeds': (1000, 1001)}).arms['main']
    procedure = LayerIdentification(**{k: v for k, v in config['procedure'].items() if k != 'name'})
    seen = []
    record = procedure.record
    object.__setattr__(procedure, 'record', lambda *a, record=record, seen=seen: seen.append(record(*a)) or seen[-1])
    cell = Cell(arm.seeds, arm, tmp_path_factory.mktemp(name), lambda: False)
    out[name] = procedure.rows(cell), seen[0], arm
  return claim, out


def test_metrics_are_those_of_the_activations_of_all_networks(smoke):
  claim, arms = smoke
  for rows, acts, arm in arms.values():
    assert set(rows.metrics) == set(claim.metrics) and not rows.diverged.any()
    assert rows.params == 3 * arm.parameters
    assert {site: x.shape for site, x in acts.items()} == {f'resid_post.{i}': (6, 360, 12) for i in range(3)}
    for k in range(2):
      every = oracle([[acts[f'resid_post.{i}'][3 * k + a] for i in range(3)] for a in range(3)])
      for name in every:
        np.testing.assert_allclose(rows.metrics[name][k], counted(every[name]).mean(), atol=1e-12, err_msg=name)
    np.testing.assert_allclose(rows.metrics['advantage'], rows.metrics['cka'] - rows.metrics['pwcca'])


def test_groups_differ_in_their_start_and_arms_share_it(smoke):
  _, arms = smoke
  (_, trained, _), (_, untrained, _) = arms['trained'], arms['untrained']
  first = untrained['resid_post.0']
  assert len({x.tobytes() for x in first}) == 6
  # ten steps of Adam move every weight by at most some hundredths
  assert 0 < np.abs(trained['resid_post.0'] - first).max() < 0.3


def test_one_network_is_refused():
  with pytest.raises(ValueError, match='networks 1 make no pair'):
    LayerIdentification(networks=1)


@pytest.mark.parametrize('scale', ['smoke', 'claim', 'full'])
def test_every_scale_is_a_valid_claim(scale):
  claim = spec.load(CONFIG, scale)
  assert claim.id == 'layer-identification/1' and {'ours', 'control'} <= set(claim.roles.values())
