"""Feature complexity against probes that are refitted for every row left out, and against features of known depth."""
import numpy as np
import pytest

from aspects.features import complexity as complexity_lib
from aspects.features.complexity import Complexity, factorised, first_half
from aspects.measure import measure_arrays
from tests.brute import mix


def ridge(x, z, penalty):
  """(weights, intercept) of the ridge regression of z on x; the intercept is free."""
  centre = x.mean(0)
  x = x - centre
  weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (z - z.mean(0)))
  return weights, z.mean(0) - centre @ weights


def oracle(acts, atoms, iterations, penalties):
  """{variable: value}, float64, by refitting without each row in turn; atoms are those of `factorised`."""
  order = np.argsort(mix(np.arange(len(next(iter(acts.values())))), 0, 0))
  acts = {s: np.asarray(x, np.float64)[order] for s, x in acts.items()}
  half = (len(order) + 1) // 2
  codes = factorised(list(acts.values())[-1], np.arange(len(order)) < half, atoms, iterations).codes
  fit, held = codes[:half], codes[half:]
  r2, information = [], []
  for x in acts.values():
    energy = ((x[:half] - x[:half].mean(0)) ** 2).sum()
    errors = np.zeros((len(penalties), atoms))
    for row in range(half):
      others = np.arange(half) != row
      for k, penalty in enumerate(penalties):
        # the row that is left out still sets the scale of the penalty and the centre of the data
        x_centred, z_centred = x[:half] - x[:half].mean(0), fit - fit.mean(0)
        a = np.concatenate([x_centred, np.ones((half, 1))], 1)[others]
        shrinkage = np.diag([penalty * energy] * x.shape[1] + [0])
        weights = np.linalg.solve(a.T @ a + shrinkage, a.T @ z_centred[others])
        errors[k] += (z_centred[row] - np.append(x_centred[row], 1) @ weights) ** 2
    guess = np.zeros_like(held)
    for atom, k in enumerate(errors.argmin(0)):
      weights, intercept = ridge(x[:half], fit[:, [atom]], penalties[k] * energy)
      guess[:, atom] = (x[half:] @ weights + intercept)[:, 0]
    share = ((held - guess) ** 2).sum(0) / ((held - fit.mean(0)) ** 2).sum(0)
    r2.append(1 - share)
    information.append(-np.log(share) / 2)
  r2, information = np.stack(r2), np.stack(information)
  k = 1 - np.clip(r2, 0, None).mean(0)
  rank = np.argsort(k, kind='stable')
  return {'complexity': k[rank], 'r2': r2[:, rank], 'r2_mean': r2.mean(1), 'information': information[:, rank]}


def planted(rows=1200, seed=0):
  """Four layers; the last one's three features appear at layers 0, 1 and 3, and each stays readable from then on."""
  rng = np.random.default_rng(seed)
  z = rng.exponential(size=(rows, 3))
  turn = lambda d: np.linalg.qr(rng.normal(size=(d, d)))[0]
  noise = lambda d: rng.normal(size=(rows, d))
  return {'layer.0': np.concatenate([z[:, :1], noise(4)], 1) @ turn(5),
          'layer.1': np.concatenate([z[:, :2], noise(4)], 1) @ turn(6),
          'layer.2': np.concatenate([z[:, :2], noise(6)], 1) @ turn(8), 'layer.3': z}


def test_features_of_known_depth():
  """K is the share of layers from which a feature cannot be read: 0, 1/4, 3/4."""
  found = measure_arrays(Complexity(('*',), atoms=3, size=2000), planted())
  np.testing.assert_allclose(found.complexity, [0, .25, .75], atol=0.02)
  readable = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 1, 1]])
  np.testing.assert_allclose(found.r2, readable, atol=0.02)
  np.testing.assert_allclose(found.r2_mean, readable.mean(1), atol=0.02)
  information = found.information.values
  assert (information[readable == 1] > 2).all() and np.abs(information[readable == 0]).max() < 0.02
  assert found.explained > 0.999
  np.testing.assert_allclose(found.null_shuffled, 1, atol=0.01)
  np.testing.assert_allclose(found.null_shuffled_r2, 0, atol=0.01)
  # directions mix the features: all of them are simpler than the most complex feature and not as simple as the simplest
  assert (found.null_random > 0.05).all() and (found.null_random < 0.75).all()


def test_equals_refits_without_each_row():
  rng = np.random.default_rng(1)
  x = rng.normal(size=(90, 6))
  acts = {'a': x, 'noise': rng.normal(size=(90, 30)), 'b': np.maximum(x @ rng.normal(size=(6, 9)) + 100, 0),
          'c': np.maximum(x @ rng.normal(size=(6, 8)), 0)}
  acts = {s: v.astype(np.float32) for s, v in acts.items()}
  fields = dict(atoms=4, iterations=200, penalties=(1e-5, 1e-3, 1e-1))
  found = measure_arrays(Complexity(('*',), **fields), acts, batch_size=32)
  for name, value in oracle(acts, **fields).items():
    np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-7, err_msg=name)
  assert (found.r2 < -0.01).any(), 'held out, worse than the mean: published as it is, counted as 0'


def test_planted_atoms_are_found():
  """Sparse non-negative codes of a non-negative dictionary come back up to scale and order, held-out rows too."""
  rng = np.random.default_rng(2)
  codes = rng.exponential(size=(600, 5)) * (rng.uniform(size=(600, 5)) < 0.4)
  x = codes @ (rng.exponential(size=(5, 20)) * (rng.uniform(size=(5, 20)) < 0.4))
  found, explained, atoms = factorised(x, np.arange(600) % 2 == 0, 5, 2000)
  assert explained > 0.9999
  match = np.abs(np.corrcoef(found.T, codes.T)[:5, 5:])
  assert sorted(match.argmax(1)) == list(range(5)) and match.max(1).min() > 0.99
  np.testing.assert_allclose(found @ atoms, x, atol=0.02 * x.max())


def test_importance_is_gradient_times_input():
  """Of every row by differences: its output when an atom's part is taken away, by hand and for all outputs."""
  rng = np.random.default_rng(9)
  x = rng.normal(size=(80, 6))
  codes, _, atoms = factorised(x, np.arange(80) % 2 == 0, 12, 4000)
  np.testing.assert_allclose(codes @ atoms, x, atol=0.05)                  # signed rows come back from split parts
  weights, chosen = rng.normal(size=(6, 3)), rng.integers(0, 3, 80)
  moved = np.zeros((80, 12, 3))
  for row, atom in np.ndindex(80, 12):
    moved[row, atom] = codes[row] @ atoms @ weights - (codes[row] * (np.arange(12) != atom)) @ atoms @ weights
  every = np.abs(moved).mean((0, 2))
  np.testing.assert_allclose(complexity_lib.importance(codes, atoms, weights), every, rtol=1e-9)
  one = np.abs(moved[np.arange(80), :, chosen]).mean(0)
  np.testing.assert_allclose(complexity_lib.importance(codes, atoms, weights, chosen), one, rtol=1e-9)
  with pytest.raises(ValueError, match='3 atoms: give one column of codes an atom'):
    complexity_lib.importance(codes, atoms[:3], weights)


def test_signed_activations_are_split():
  """A feature of either sign is two atoms: its positive and its negative part."""
  rng = np.random.default_rng(3)
  x = rng.normal(size=(400, 1)) * np.array([[1., -2., 0.5]])
  codes, explained, atoms = factorised(x, np.arange(400) < 200, 2, 500)
  np.testing.assert_allclose(codes @ atoms, x, atol=0.02)
  assert explained > 0.9999 and codes.min() >= 0
  parts = np.maximum(x[:, 0], 0), np.maximum(-x[:, 0], 0)
  match = np.corrcoef(np.concatenate([codes.T, parts]))[:2, 2:]
  np.testing.assert_allclose(np.sort(match.max(1)), 1, atol=1e-4)
  assert measure_arrays(Complexity(('*',), atoms=2), {'x': x}).attrs['activations'] == 'signed, split'


def test_an_example_is_never_in_both_halves():
  index = np.array([7, 3, 7, 9, 3, 1, 7, 2])
  np.testing.assert_array_equal(first_half(index), [1, 1, 1, 1, 1, 0, 1, 0])
  x = np.random.default_rng(4).normal(size=(40, 5, 3)).astype(np.float32)
  seen = []
  def spy(rows, fit, *rest):
    seen.append(fit)
    return factorised(rows, fit, *rest)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(complexity_lib, 'factorised', spy)
    measure_arrays(Complexity(('*',), atoms=3, pool='tokens'), {'x': x})
  assert seen[0].sum() == 100 and len(seen[0]) == 200


def test_layers_may_be_moved_scaled_and_constant():
  """What is linearly readable does not depend on a layer's basis, scale or mean; a constant layer says nothing."""
  rng = np.random.default_rng(5)
  acts = planted(rows=300)
  first = acts['layer.0']
  turned = 1e3 * first @ np.linalg.qr(rng.normal(size=(5, 5)))[0] + 50
  acts = {'a': first, 'b': turned, 'c': 0 * first + 4, 'last': acts['layer.3']}
  found = measure_arrays(Complexity(('*',), atoms=3), acts)
  np.testing.assert_allclose(found.r2[0], found.r2[1], atol=1e-4)
  np.testing.assert_array_equal(found.r2[2], 0)
  np.testing.assert_array_equal(found.information[2], 0)


def test_unfinished_factorisations_are_no_warning():
  rng = np.random.default_rng(6)
  found = measure_arrays(Complexity(('*',), atoms=6, iterations=1), {'x': rng.exponential(size=(100, 12))})
  assert 0 < found.explained < 1


def test_silent_atoms_are_said():
  """One row has all of a direction: it is an atom of one half that the other never shows."""
  x = np.random.default_rng(7).exponential(size=(60, 3))
  x = np.concatenate([x, np.zeros((60, 1))], 1)
  x[mix(np.arange(60), 0, 0).argmin()] = [0, 0, 0, 10]
  with pytest.warns(UserWarning, match="1 of 4 atoms of site 'x' do not vary"):
    found = measure_arrays(Complexity(('*',), atoms=4), {'x': x})
  np.testing.assert_array_equal(np.isnan(found.complexity), [False] * 3 + [True])


def test_errors_say_the_way_out():
  x = np.random.default_rng(8).normal(size=(19, 3))
  with pytest.raises(ValueError, match='19 sampled rows make halves of 10 and 9, too few for 10 atoms; use more'):
    measure_arrays(Complexity(('*',)), {'x': x})
  measure_arrays(Complexity(('*',), atoms=9), {'x': np.abs(np.random.default_rng(8).normal(size=(19, 12)))})
  with pytest.raises(ValueError, match="'x' has activations that are not finite"):
    measure_arrays(Complexity(('*',)), {'x': np.full((40, 3), np.nan)})
  for fields in (dict(atoms=0), dict(penalties=()), dict(penalties=(0., 1.))):
    with pytest.raises(ValueError, match='one atom or more and penalties above 0'):
      Complexity(**fields)
