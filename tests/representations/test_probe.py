"""Ridge probes against scikit-learn's Ridge, and the guarantees about the choice of the penalty."""
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from aspects import measure
from aspects.representations.probe import Probe, scores
from tests.brute import mix

PENALTIES = (1e-1, 1e1, 1e3, 1e5, 1e7)


def oracle(acts, labels, penalties=PENALTIES, classes=4, null=False):
  """{variable: value} by one fit of scikit-learn a site and penalty, float64; example i has index i."""
  index = np.arange(len(labels))
  labels = mix(index, 0, 77) % classes if null else labels
  held, half = mix(index, 5) % 5 == 0, mix(index, 7) % 2
  hot = np.eye(classes)[labels]
  out = {k: [] for k in ('accuracy', 'r2', 'accuracy_best', 'r2_best')}
  for x in acts.values():
    x = np.asarray(x, np.float64)
    fits = [Ridge(alpha=a).fit(x[~held], hot[~held]).predict(x[held]) for a in penalties]
    right = np.array([f.argmax(1) == labels[held] for f in fits])
    error = np.array([((f - hot[held]) ** 2).sum(1) for f in fits])
    spread = ((hot[held] - hot[held].mean(0)) ** 2).sum()
    hits, errors = 0, 0
    for h in (0, 1):
      on, other = half[held] == h, half[held] != h
      accurate = [r[other].mean() for r in right]
      best = max(k for k, a in enumerate(accurate) if a == max(accurate))
      hits, errors = hits + right[best, on].sum(), errors + error[best, on].sum()
    for k, v in dict(accuracy=right.mean(1), r2=1 - error.sum(1) / spread, accuracy_best=hits / held.sum(),
                     r2_best=1 - errors / spread).items():
      out[k].append(v)
  return {k: np.stack(v, -1) for k, v in out.items()}


def examples(n=600, d=12, classes=4, seed=0, offset=0.):
  rng = np.random.default_rng(seed)
  labels = rng.choice(classes, n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
  acts = {}
  for layer, signal in enumerate((0., 0.3, 1.)):
    spread = rng.normal(size=(d, d))
    x = rng.normal(size=(n, d)) @ spread + signal * rng.normal(size=(classes, d))[labels] * 3
    acts[f'resid_post.{layer}'] = (x + offset * rng.normal(size=d)).astype(np.float32)
  return acts, labels


def test_equals_scikit_learn():
  (acts, labels), (far, _) = examples(), examples(offset=1e3)
  acts = acts | {f'{s}, far': x for s, x in far.items()}
  found = measure.measure_arrays(Probe(('*',), PENALTIES, classes=4), acts, labels, batch_size=128)
  expected, null = oracle(acts, labels), oracle(acts, labels, null=True)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12 if name.startswith('accuracy') else 2e-5,
                               err_msg=name)
  np.testing.assert_allclose(found.null_random, null['accuracy_best'], rtol=0, atol=1e-12)
  assert (found.null_chance == np.maximum(found.null_random, found.majority)).all()


def test_dead_duplicated_and_constant_units():
  """Copying the units k times is dividing the penalty by k; a constant layer says the commonest class."""
  acts, labels = examples(n=300, d=40)
  x = acts['resid_post.2']
  sites = {'wide': np.concatenate([x] * 8 + [np.zeros_like(x)], 1),          # 360 units, rank 40, 240 rows to fit
           'constant': np.full((300, 5), 7., np.float32)}
  found = measure.measure_arrays(Probe(tuple(sites), PENALTIES, classes=4), sites, labels)
  narrow = oracle({'a': x}, labels, penalties=[p / 8 for p in PENALTIES])
  np.testing.assert_allclose(found.r2.sel(site='wide'), narrow['r2'][:, 0], rtol=0, atol=2e-4)
  held = mix(np.arange(300), 5) % 5 == 0
  common = (labels[held] == np.bincount(labels[~held]).argmax()).mean()
  np.testing.assert_allclose(found.accuracy_best.sel(site='constant'), common, rtol=1e-12)
  np.testing.assert_allclose(found.majority, common, rtol=1e-12)


def test_penalty_is_not_chosen_on_the_rows_it_is_scored_on():
  """Guesses that know nothing of the labels: the best of 40 on all rows beats chance, the crossed choice does not."""
  rng = np.random.default_rng(0)
  naive, ours = [], []
  for _ in range(400):
    labels, half = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    right = rng.normal(size=(40, 200, 2)).argmax(-1) == labels
    accuracy, _, best, _, _ = scores(right, np.zeros((40, 200)), labels, half)
    naive.append(accuracy.max())
    ours.append(best)
  error = 3 * np.std(ours) / np.sqrt(400)
  assert abs(np.mean(ours) - .5) < error
  assert np.mean(naive) - .5 > 5 * error


def test_tokens_with_a_label_each():
  rng = np.random.default_rng(1)
  x = rng.normal(size=(120, 7, 6)).astype(np.float32)
  labels = x[..., :3].argmax(-1)
  found = measure.measure_arrays(Probe(('x',), (1., 1e2), classes=3, pool='tokens', size=5000), {'x': x}, labels)
  index = np.repeat(np.arange(120), 7)
  held = mix(index, 5) % 5 == 0
  flat, hot = x.reshape(-1, 6).astype(np.float64), np.eye(3)[labels.reshape(-1)]
  for k, a in enumerate((1., 1e2)):
    guess = Ridge(alpha=a).fit(flat[~held], hot[~held]).predict(flat[held]).argmax(1)
    np.testing.assert_allclose(found.accuracy[k, 0], (guess == labels.reshape(-1)[held]).mean(), rtol=1e-12)
  assert found.attrs['rows'] == (~held).sum() and found.attrs['rows_held'] == held.sum()


def test_bounded_sample_is_a_subset_of_the_held_fold():
  acts, labels = examples()
  found = measure.measure_arrays(Probe(classes=4, size=50), acts, labels)
  assert found.attrs['rows_held'] == 50
  assert found.attrs['rows'] == (mix(np.arange(600), 5) % 5 != 0).sum()
  np.testing.assert_array_equal(found.accuracy * 50, np.round(found.accuracy * 50))


TRANSFORMS = {
    'permutation': lambda x, rng: x[:, rng.permutation(x.shape[1])],
    'rotation': lambda x, rng: x @ np.linalg.qr(rng.normal(size=(x.shape[1],) * 2))[0],
    'translation': lambda x, rng: x + 3 * rng.normal(size=(1, x.shape[1])),
    'scale': lambda x, rng: x * 7.,
    'linear': lambda x, rng: x @ rng.normal(size=(x.shape[1],) * 2)}


def test_invariances_both_ways():
  acts, labels = examples()
  x = acts['resid_post.1'].astype(np.float64)
  moved = {n: move(x, np.random.default_rng(3)).astype(np.float32) for n, move in TRANSFORMS.items()}
  r2 = measure.measure_arrays(Probe(('*',), classes=4), {'as it is': x.astype(np.float32), **moved}, labels).r2
  for name in TRANSFORMS:
    gap = abs(r2.sel(site=name) - r2.sel(site='as it is')).max()
    assert (gap < 1e-5) == (name in Probe.invariant['r2']), name


@pytest.mark.parametrize('fields, n, message', [
    (dict(penalties=(0., 1.), classes=4), 600, 'above 0'),
    (dict(classes=4), 6, 'use more examples'),
    (dict(), 600, "no site 'logits'")])
def test_errors_say_the_way_out(fields, n, message):
  acts, labels = examples()
  with pytest.raises(ValueError, match=message):
    measure.measure_arrays(Probe(**fields), {s: x[:n] for s, x in acts.items()}, labels[:n])
