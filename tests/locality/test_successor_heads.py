"""Successor scores and probes against loops, a head made by hand, planted digits; the experiment."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import Net
from aspects.locality.successor_heads import embeddings
from aspects.locality.successor_heads import mod_probe
from aspects.locality.successor_heads import SuccessorHeads
from aspects.nn import head_weights
from configs.locality.successor_heads import get_config
from experiments import successor_heads as experiment
from tests import fill

FAMILIES = ((0, 1, 2, 3), (5, 7, 6))


def oracle(effective, ov, unembedding, families, cycles=()):
  """Both scores by loops over heads and elements; `effective` are the rows of the elements in order."""
  out = {name: np.zeros(ov.shape[:2]) for name in ('successor_score', 'vocabulary_score')}
  for l, h in np.ndindex(*ov.shape[:2]):
    found, row = {name: [] for name in out}, 0
    for k, family in enumerate(families):
      for i in range(len(family)):
        logits = effective[row] @ ov[l, h] @ unembedding
        row += 1
        if i == len(family) - 1 and not (cycles and cycles[k]):
          continue
        following = family[(i + 1) % len(family)]
        found['successor_score'].append(max(family, key=lambda t: logits[t]) == following)
        found['vocabulary_score'].append(np.argmax(logits) == following)
    for name in out:
      out[name][l, h] = np.mean(found[name])
  return out


@pytest.mark.parametrize('cycles', ((), (True, False), (True, True)))
def test_scores_by_loops(cycles):
  rng = np.random.default_rng(0)
  effective, ov, unembedding = rng.normal(size=(7, 6)), rng.normal(size=(2, 3, 6, 6)), rng.normal(size=(6, 9))
  found = SuccessorHeads(FAMILIES, cycles).scores(effective, ov, unembedding)
  for name, value in oracle(effective, ov, unembedding, FAMILIES, cycles).items():
    np.testing.assert_allclose(found[name], value, atol=1e-12)
  assert 0 < found.successor_score.mean() < 1


def test_a_head_made_by_hand():
  """Tokens are unit vectors: a shift is a successor head, the identity a copy, and half a shift half of one."""
  shift = np.eye(6)[[1, 2, 3, 4, 5, 0]]
  half = np.where(np.arange(6)[:, None] < 3, shift, np.eye(6))
  family = ((0, 1, 2, 3, 4, 5),)
  found = SuccessorHeads(family, (True,)).scores(np.eye(6), np.stack([shift, np.eye(6), half])[None], np.eye(6))
  np.testing.assert_array_equal(found.successor_score, [[1, 0, 0.5]])
  # a token outside the family beats all of them
  wide = np.concatenate([np.eye(6), np.full((6, 1), 2.0)], 1)
  found = SuccessorHeads(family).scores(np.eye(6), shift[None, None], wide)
  assert found.successor_score == 1 and found.vocabulary_score == 0


def network(**fields):
  net = Net(outputs=9, embed=dict(name='tokens', vocab=9, length=4), head=dict(name='unembed'), depth=2, width=8,
            mixer=dict(name='attention', heads=2, causal=True), channel=dict(name='mlp', act='gelu'), **fields)
  return net, fill.variables(net, jnp.zeros((1, 4), jnp.int32))


def test_effective_embedding_by_hand():
  """W_E t + MLP(N(W_E t)) in numpy, and the scores of a network are those of its own weights."""
  net, variables = network()
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables['params'])
  raw, effective = embeddings(net, variables, np.array([3, 7]))
  table, block = params['embedder']['token']['embedding'], params['stage_0']['block_0']
  np.testing.assert_allclose(raw, table[[3, 7]], rtol=1e-6)
  x = table[[3, 7]]
  gain = block['residual']['channel_norm']['affine']
  h = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * gain['scale'] + gain['bias']
  h = np.asarray(jax.nn.gelu(h @ block['channel']['in']['kernel'] + block['channel']['in']['bias'], approximate=False))
  np.testing.assert_allclose(effective, x + h @ block['channel']['out']['kernel'] + block['channel']['out']['bias'],
                             rtol=1e-3, atol=1e-4)
  found = SuccessorHeads(FAMILIES).of(net, variables)
  rows = embeddings(net, variables, np.array([t for f in FAMILIES for t in f]))[1]
  ov = np.stack([heads.value @ heads.out for heads in head_weights.layers(net, variables['params'])])
  expected = oracle(rows, ov, head_weights.unembedding(net, variables['params']), FAMILIES)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, atol=1e-12)


def test_planted_digits_are_found_and_tens_are_not():
  """Rows that hold the digit in ten directions of their own, or the tens only."""
  rng = np.random.default_rng(0)
  value = np.arange(100)
  rotation = np.linalg.qr(rng.normal(size=(30, 30)))[0]
  noise = 0.05 * rng.normal(size=(100, 30))
  digit = np.eye(30)[value % 10] @ rotation + noise
  assert mod_probe(digit, value).accuracy == 1
  tens = np.eye(30)[value // 10] @ rotation + noise
  assert mod_probe(tens, value).accuracy < 0.25
  directions = mod_probe(digit, value).directions
  centred = (np.eye(10) - 1 / 10) / np.sqrt(0.9)
  np.testing.assert_allclose(np.abs((directions @ rotation.T)[:, :10] - centred).max(), 0, atol=0.1)


def test_rows_without_a_value_are_at_chance_or_below():
  """Held-out digits are rarer in the fitted part, so that noise does a little worse than 1 in 10."""
  rng = np.random.default_rng(1)
  found = [mod_probe(rng.normal(size=(100, 20)), np.arange(100), seed=s).accuracy for s in range(5)]
  assert 0.04 < np.mean(found) < 0.13


def test_what_is_refused():
  for fields, message in ((dict(families=((1,),)), 'two token ids or more'),
                          (dict(families=FAMILIES, cycles=(True,)), '1 cycles for 2 families'),
                          (dict(families=((1, 2), (2, 3))), 'stands twice')):
    with pytest.raises(ValueError, match=message):
      SuccessorHeads(**fields)
  with pytest.raises(ValueError, match=r'of\(net, variables\)'):
    SuccessorHeads(FAMILIES).needs({})
  net, variables = network()
  with pytest.raises(ValueError, match='token 12 of families is outside the vocabulary of 9'):
    SuccessorHeads(((3, 12),)).of(net, variables)
  with pytest.raises(ValueError, match='do not allow to fit'):
    mod_probe(np.ones((12, 3)), np.arange(12))


# --- the experiment -------------------------------------------------------------------------------------------------

def test_metrics_of_a_network_made_by_hand():
  """Second layer: head 0 turns the true cycle of numbers on, head 1 does nothing; tokens are unit vectors."""
  net = Net(outputs=200, embed=dict(name='tokens', vocab=200, length=4), head=dict(name='unembed'), depth=2, width=400,
            mixer=dict(name='attention', heads=2, head_size=200, causal=True), channel=dict(name='mlp', size=1),
            norm=dict(name='rms'), placement=dict(name='parallel'))
  shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32)))
  params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)['params']
  for norm in ('norm', 'stage_0/block_0/residual/mixer_norm', 'stage_0/block_1/residual/mixer_norm'):
    at = params
    for key in norm.split('/'):
      at = at[key]
    at['affine']['scale'] += 1
  params['embedder']['token']['embedding'][:, :200] = np.eye(200)
  params['head']['logits_map']['kernel'][200:] = np.eye(200)
  heads = params['stage_0']['block_1']['mixer']['heads']
  following = experiment.true_successors()
  heads['value']['kernel'][:200, 0] = np.eye(200)
  heads['out']['kernel'][0, :145, 200:] = np.eye(200)[following]
  found = experiment.measured(net, {'params': params})
  assert found['best'] == 1 and found['vocabulary'] == 1
  # the other heads give zeros, where the first of a family is taken: it follows one element of each family
  other = 4 / 145
  np.testing.assert_allclose(found['best_over_median'], 1 - 2 * other)
  assert max(found['probe'], found['probe_embedding']) < 0.2                      # unit vectors have no digits


def test_the_config_names_what_is_measured():
  assert set(get_config().claim.metrics) == set(experiment.METRICS)
