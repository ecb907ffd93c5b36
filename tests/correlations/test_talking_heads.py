"""Composition scores against full matrices, a planted channel, nulls, edits of z and of weights; the metrics."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import Net
from aspects import forward
from aspects.correlations.talking_heads import component_scores
from aspects.correlations.talking_heads import largest_of_random
from aspects.correlations.talking_heads import output_directions
from aspects.correlations.talking_heads import subspace
from aspects.correlations.talking_heads import TalkingHeads
from aspects.correlations.talking_heads import without
from aspects.nn import head_weights
from configs.correlations.talking_heads import get_config
from experiments import talking_heads as experiment
from tests import fill

TOKENS = jnp.asarray([[3, 1, 4, 1, 5, 8, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])


def made(**fields):
  fields = dict(depth=2, width=12, norm=dict(name='layer'),
                mixer=dict(name='attention', heads=4, kv_heads=2, causal=True)) | fields
  net = Net(outputs=9, embed=dict(name='tokens', vocab=9, length=8), head=dict(name='unembed'), **fields)
  return net, fill.variables(net, TOKENS)


def oracle(net, params, kind, writer, reader):
  """(score of the whole, scores of components) by full matrices of numpy, folding by explicit projections."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params['stage_0'])
  d = net.width
  centre = np.eye(d) - 1 / d
  def read(layer, which, h):
    block = p[f'block_{layer}']
    gain = np.diag(block['residual']['mixer_norm']['affine']['scale'])
    kernel = block['mixer']['heads'][which]['kernel']
    return centre @ gain @ kernel[:, h * kernel.shape[1] // net.mixer['heads']]
  def out(layer, h):
    return p[f'block_{layer}']['mixer']['heads']['out']['kernel'][h] @ centre
  (a, i), (b, j) = writer, reader
  written = read(a, 'value', i) @ out(a, i)
  reads = {'k': lambda: read(b, 'key', j) @ read(b, 'query', j).T,
           'q': lambda: read(b, 'query', j) @ read(b, 'key', j).T,
           'v': lambda: read(b, 'value', j) @ out(b, j)}[kind]()
  norm = np.linalg.norm
  u, s, vt = np.linalg.svd(written)
  parts = [s[k] * np.outer(u[:, k], vt[k]) for k in range(net.width // net.mixer['heads'])]
  return (norm(written @ reads) / norm(written) / norm(reads),
          [norm(part @ reads) / norm(part) / norm(reads) for part in parts])


def test_scores_of_full_matrices():
  net, variables = made()
  found = TalkingHeads(draws=2).of(net, variables)
  for kind in ('k', 'q', 'v'):
    for i, j in np.ndindex(4, 4):
      whole, parts = oracle(net, variables['params'], kind, (0, i), (1, j))
      at = found.sel(kind=kind, writer=f'0.{i}', reader=f'1.{j}')
      np.testing.assert_allclose(at.score, whole, rtol=1e-6)
      np.testing.assert_allclose(at.component, parts, rtol=1e-6)
      np.testing.assert_allclose(at.largest, max(parts), rtol=1e-6)
  later = found.largest.sel(kind='k')
  assert np.isnan(later.sel(writer='1.0')).all() and np.isnan(later.sel(reader='0.0')).all()


def test_directions_are_those_of_the_full_decomposition():
  rng = np.random.default_rng(0)
  value, out = rng.normal(size=(10, 3)), rng.normal(size=(3, 10))
  s, v = output_directions(value, out)
  _, expected, vt = np.linalg.svd(value @ out)
  np.testing.assert_allclose(s, expected[:3], rtol=1e-10)
  np.testing.assert_allclose(np.abs((v * vt[:3]).sum(1)), 1, rtol=1e-10)


def test_a_planted_channel_stands_out_in_one_direction_and_not_in_the_whole():
  """Head 0 writes strongly at random, and weakly along the one direction that the reader's keys live on."""
  rng = np.random.default_rng(1)
  d, size = 64, 8
  basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
  channel, others = basis[:, 0], basis[:, 1:size]
  value = np.linalg.qr(rng.normal(size=(d, size)))[0]
  out = np.concatenate([5 * others.T, 0.5 * channel[None]])
  reads = 20 * np.outer(channel, basis[:, 20]) + 0.3 * rng.normal(size=(d, d))
  s, v = output_directions(value, out)
  each = component_scores(v, reads)
  null = largest_of_random(reads, size, 100, 0, centred=False)
  assert each.argmax() == size - 1 and (each.max() - null.mean()) / null.std() > 5
  whole = np.sqrt((s ** 2 * each ** 2).sum() / (s ** 2).sum())
  assert whole < null.mean()


def test_random_directions():
  """Mean of |v M|^2 / |M|^2 is 1 / D over all directions, 1 / (D - 1) where the mean is taken off both."""
  rng = np.random.default_rng(2)
  matrix = rng.normal(size=(20, 20))
  one = largest_of_random(matrix, 1, 4000, 0, centred=False)
  np.testing.assert_allclose((one ** 2).mean(), 1 / 20, rtol=0.02)
  centred = matrix - matrix.mean(0)
  one = largest_of_random(centred, 1, 4000, 0, centred=True)
  np.testing.assert_allclose((one ** 2).mean(), 1 / 19, rtol=0.02)
  # the largest over a whole basis is at least the root mean square
  assert (largest_of_random(matrix, 20, 50, 0, centred=False) > 20 ** -0.5).all()


@pytest.mark.parametrize('norm', ({'name': 'layer'}, {'name': 'rms'}))
@pytest.mark.parametrize('coefficient', (0.0, 2.5))
def test_an_edit_of_z_is_an_edit_of_the_weights(norm, coefficient):
  net, variables = made(norm=norm)
  heads = head_weights.layers(net, variables['params'])[0]
  directions = output_directions(heads.value[2], heads.out[2])[1][:2]
  edit = subspace(heads, 2, directions, coefficient)
  here, acts = forward(net, variables, TOKENS, edits={'z.0': edit}, record=('z.0', 'mixer_out.0'))
  there = net.apply(without(net, variables, 0, 2, directions, coefficient), TOKENS)
  np.testing.assert_allclose(here, there, rtol=2e-3, atol=2e-3)
  plain, before = forward(net, variables, TOKENS, record=('z.0', 'mixer_out.0'))
  assert np.abs(np.asarray(here) - np.asarray(plain)).max() > 0.05
  # other heads hold what they held; along the directions this head writes `coefficient` times as much
  np.testing.assert_array_equal(acts['z.0'][:, :, :2], before['z.0'][:, :, :2])
  along = lambda a: np.asarray(a['z.0'][:, :, 2], np.float64) @ heads.out[2] @ directions.T
  np.testing.assert_allclose(along(acts), coefficient * along(before), atol=1e-4)


def test_the_identity_changes_nothing():
  net, variables = made()
  heads = head_weights.layers(net, variables['params'])[0]
  directions = output_directions(heads.value[0], heads.out[0])[1]
  same = forward(net, variables, TOKENS, edits={'z.0': subspace(heads, 0, directions, 1.0)})[0]
  np.testing.assert_allclose(same, forward(net, variables, TOKENS)[0], rtol=1e-5, atol=1e-5)


def test_what_is_refused():
  net, variables = made()
  heads = head_weights.layers(net, variables['params'])[0]
  with pytest.raises(ValueError, match='does not write along'):
    subspace(heads, 0, np.eye(12)[:1])
  with pytest.raises(ValueError, match=r"kinds \('k', 'o'\)"):
    TalkingHeads(kinds=('k', 'o'))
  with pytest.raises(ValueError, match=r'of\(net, variables\)'):
    TalkingHeads().needs({})
  shallow, few = made(depth=1)
  with pytest.raises(ValueError, match='this network has 1'):
    TalkingHeads().of(shallow, few)


# --- the experiment -------------------------------------------------------------------------------------------------

def test_attention_to_where_it_should_go():
  """Attention made by hand: head 0 to the token before, head 1 to behind the earlier occurrence."""
  tokens = np.array([[5, 6, 7, 5, 6, 7]])
  before, behind = np.zeros((6, 6)), np.zeros((6, 6))
  before[0, 0] = behind[0, 0] = behind[1, 1] = behind[2, 2] = 1
  before[np.arange(1, 6), np.arange(5)] = 1
  behind[np.arange(3, 6), [1, 2, 3]] = 1
  probs = np.stack([before, behind])[None]
  np.testing.assert_allclose(experiment.to_previous(probs), [1, 0])
  # head 0 finds the third place right at the last token, which is the one before it
  np.testing.assert_allclose(experiment.to_induction(probs, tokens), [0, 1])


def test_accuracy_counts_what_can_be_known():
  tokens, labels = np.array([[1, 2, 1, 2]]), np.array([[2, 1, 2, 0]])
  logits = np.eye(3)[np.array([[0, 0, 2, 1]])]
  assert experiment.induction_accuracy(logits, tokens, labels) == 0.5


def test_the_config_names_what_is_measured():
  assert set(get_config().claim.metrics) == set(experiment.METRICS)


def test_metrics_of_an_untrained_network():
  net, variables = made(mixer=dict(name='attention', heads=4, causal=True))
  found = experiment.TalkingHeads(draws=20, components=1, removals=3).measured(net, variables, TOKENS, TOKENS, 0)
  assert set(found) == set(experiment.METRICS) and all(np.isfinite(v) for v in found.values())
  pairs = TalkingHeads(kinds=('k',), draws=20).of(net, variables).largest.values[0, :4, 4:]
  assert found['margin'] <= 0 or np.isclose(found['margin'], np.diff(np.sort(pairs.ravel())[-2:]))
