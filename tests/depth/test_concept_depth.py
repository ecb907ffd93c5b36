"""Concept depth against scikit-learn's regression, the paper's points by hand, and layers of planted difficulty."""
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from aspects import stats
from aspects.depth.concept_depth import ConceptDepth
from aspects.depth.concept_depth import depths
from aspects.depth.concept_depth import logistic_regression
from aspects.measure import measure_arrays
from configs.depth.concept_depth import get_config
from experiments import concept_depth as experiment


def oracle(acts, labels, strength=1.0):
  """accuracy and nll [site] by scikit-learn, on the folds of a hash of the index."""
  held = np.asarray(stats.mix(jnp.arange(len(labels)), 5)) % 5 == 0
  out = {'accuracy': [], 'nll': []}
  for x in acts.values():
    x = np.asarray(x, np.float64)
    x = (x - x[~held].mean(0)) / np.sqrt(x[~held].var(0).mean())
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      probe = LogisticRegression(C=strength, tol=1e-9, max_iter=5000).fit(x[~held], labels[~held])
    out['accuracy'].append(probe.score(x[held], labels[held]))
    out['nll'].append(-probe.predict_log_proba(x[held])[np.arange(held.sum()), labels[held]].mean())
  return out


def layers(n=300, classes=2, noise=(9., 1., 1., .05)):
  """Labels, and rows whose first unit tells them ever better: {site: [N, 6]}."""
  rng = np.random.default_rng(0)
  label = rng.integers(0, classes, n).astype(np.int32)
  signal = np.eye(6)[0] * label[:, None]
  return {f'resid_post.{i}': (signal + rng.normal(size=(n, 6)) * s).astype(np.float32)
          for i, s in enumerate(noise)}, label


@pytest.mark.parametrize('classes, strength', [(2, 1.0), (2, 0.01), (4, 1.0)])
def test_probes_are_those_of_scikit_learn(classes, strength):
  acts, label = layers(classes=classes)
  found = measure_arrays(ConceptDepth(classes=classes, strength=strength), acts, label)
  for name, value in oracle(acts, label, strength).items():
    np.testing.assert_allclose(found[name], value, rtol=2e-5, err_msg=name)


def test_weights_are_those_of_scikit_learn():
  acts, label = layers(n=80, classes=3)
  x = np.float64(acts['resid_post.1'])
  weight, bias = logistic_regression(x, label, 2.0)
  probe = LogisticRegression(C=2.0, tol=1e-10, max_iter=5000).fit(x, label)
  np.testing.assert_allclose(weight.T, probe.coef_, atol=2e-4)
  np.testing.assert_allclose(bias - bias.mean(), probe.intercept_ - probe.intercept_.mean(), atol=2e-4)


def test_points_by_hand():
  """Accuracies .50 .50 .60 .80 .81 .81 .81: up by a tenth and more at 3/7, flat behind 4/7."""
  accuracy = np.array([.50, .50, .60, .80, .81, .81, .81])
  nll = np.array([.7, .7, .6, .4, .3, .2, .2])
  found = depths(accuracy, nll, .5, .7)
  assert found == pytest.approx({'jump': 3 / 7, 'converge': 4 / 7, 'half': 4 / 7})
  # a fall counts as a change, a jump is upward
  assert depths(accuracy[::-1], nll, .5, .7) == pytest.approx({'jump': np.nan, 'converge': 6 / 7, 'half': 4 / 7},
                                                              nan_ok=True)
  assert depths(accuracy, nll, .5, .7, jump=1.3, tolerance=.01) == pytest.approx(
      {'jump': 4 / 7, 'converge': 5 / 7, 'half': 4 / 7})
  # at the ceiling from the first layer on there is neither; what nobody reads has no depth
  flat = depths(np.full(4, .99), np.full(4, .1), .5, .7)
  assert np.isnan(flat['jump']) and np.isnan(flat['converge']) and flat['half'] == 1 / 4
  assert np.isnan(list(depths(np.full(4, .51), np.full(4, .69), .5, .7).values())).all()


def test_layers_of_planted_difficulty():
  """Noise of 9, 1, 1 and 0.05 around two classes: a jump into the second layer, the last change into the fourth."""
  acts, label = layers(n=2000)
  found = measure_arrays(ConceptDepth(classes=2), acts, label)
  assert found.jump == 0.5 and found.converge == 1 and found.half == 1
  np.testing.assert_allclose(found.accuracy, [.52, .69, .69, 1], atol=.06)     # Phi(1 / (2 noise))
  np.testing.assert_allclose(found.rate[1:], found.accuracy.values[1:] / found.accuracy.values[:-1])
  assert found.accuracy.attrs['null'] == 'null_accuracy' and abs(found.null_accuracy[0] - .5) < .06


def test_what_is_refused():
  acts, label = layers(n=40)
  with pytest.raises(ValueError, match='a concept needs two classes in fold fit and rows in fold held, got 1'):
    measure_arrays(ConceptDepth(classes=2), acts, 0 * label)
  with pytest.raises(ValueError, match='jump 1.0 above 1'):
    ConceptDepth(jump=1.0)


# --- the experiment -------------------------------------------------------------------------------------------------

def test_strings_and_comments_of_a_file():
  source = 'x = "é#" + f(1)  # why\n\'\'\'two\nlines\'\'\'\n'.encode()
  kept = bytes(b for b, within in zip(source, experiment.inside(source)) if within)
  assert kept.decode() == '"é#"# why\'\'\'two\nlines\'\'\''
  assert experiment.inside(b'def (:\n') is None or not experiment.inside(b'def (:\n').any()
  assert experiment.inside(b'x = "\xff"') is None and experiment.inside(b'x = """open') is None


def test_lines_change_places():
  window = np.frombuffer(b'end\nab\nc\nstart', np.uint8)
  assert experiment.swapped(window, np.random.default_rng(0)).tobytes() == b'end\nc\nab\nstart'
  for text in (b'end\nab\nstart', b'end\nab\nab\nstart'):
    assert experiment.swapped(np.frombuffer(text, np.uint8), np.random.default_rng(0)) is None


def test_snippets_are_of_the_files_and_their_classes_have_equal_shares():
  text, where, _ = experiment.corpus()
  whole = text.tobytes()
  for concept in experiment.CONCEPTS:
    tokens, label = experiment.snippets(concept, 40, 80, ord('('), np.random.default_rng(3))
    assert tokens.shape == (40, 80) and label.sum() == 20
    if concept == 'character':
      np.testing.assert_array_equal([b'(' in row.tobytes() for row in tokens], label)
    if concept == 'order':
      assert all(row.tobytes() in whole for row in tokens[label == 0])
      assert sum(row.tobytes() in whole for row in tokens[label == 1]) <= 1          # a pair may stand in both orders
    if concept == 'syntax':
      states = {row.tobytes(): set() for row in tokens}
      for row in states:
        at = whole.find(row)
        while at >= 0:
          states[row].add(bool(where[at + 79]))
          at = whole.find(row, at + 1)
      assert all(bool(y) in states[row.tobytes()] for row, y in zip(tokens, label))


def test_profiles_of_planted_layers():
  """Noise falls in the last of four layers only: it converges, is best and half read there."""
  acts, label = layers(n=1200, noise=(1., 1., 1., .05))
  part = experiment.ConceptDepth(snippets=1200)
  accuracy, found = part.profile({s: np.float64(x) for s, x in acts.items()}, label)
  assert found['converge'] == found['best'] == found['half'] == 1 and found['accuracy'] == accuracy[-1] == 1
  flat = part.profile({s: np.float64(acts['resid_post.3']) for s in acts}, label)[1]
  assert flat['converge'] == flat['best'] == flat['half'] == 1 / 4


def test_gaps_of_concepts():
  each = {f'{n}{c}_{k}': v for n, d in (('', 0.), ('noisy_', .25)) for k in ('converge', 'best', 'half')
          for c, v in (('character', .25 + d), ('syntax', .5 + d), ('order', 1. - d))}
  found = experiment.compared(each)
  assert found == pytest.approx(dict(syntax_later=.25, order_later=.5, best_gap=.75, half_gap=.75, character_shift=.25,
                                     syntax_shift=.25, order_shift=-.25))
  metrics = {*found, 'nll', *(f'{c}_accuracy' for c in experiment.CONCEPTS)}
  assert set(get_config().claim.metrics) <= metrics
  with pytest.raises(ValueError, match='prefix 70 leaves less than 32 of 96'):
    experiment.ConceptDepth(prefix=70)
