"""Temperature against scores divided by hand, gains against numpy's, cosines by pairs; the experiment."""
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from aspects import Net
from aspects import data
from aspects import forward
from aspects import measure_network
from aspects.representations.tempscale import high_over_mean
from aspects.representations.tempscale import lowpass_gain
from aspects.representations.tempscale import queries
from aspects.representations.tempscale import Tempscale
from aspects.representations.tempscale import temperature
from aspects.sites import sites
from configs.representations.tempscale import get_config
from experiments import tempscale as experiment
from tests import fill

LENGTHS = np.array([3, 3, 4, 6, 6, 5, 2, 6])
WEIGHT = np.array([1, 1, 1, 1, 1, 1, 1, 0], np.float32)


def made(**mixer):
  net = Net(outputs=9, embed=dict(name='tokens', vocab=9, length=6), head=dict(name='embedding'), depth=2, width=8,
            mixer=dict(name='attention', heads=2, **mixer), channel=dict(name='mlp', ratio=1.0))
  tokens = np.random.default_rng(0).integers(0, 9, (8, 6)).astype(np.int32)
  mask = (np.arange(6)[None] < LENGTHS[:, None]).astype(np.float32)
  return net, fill.variables(net, tokens, mask), tokens, mask


def oracle(probs, streams, embedding, lengths, weight, edges):
  """{quantity: [bin, ...]} by loops over examples and pairs, float64, on each example's own tokens alone."""
  out = {'sigma': [], 'high': [], 'cosine': []}
  for low, high in zip((0, *edges), edges):
    rows = [b for b in range(len(lengths)) if low < lengths[b] <= high and weight[b]]
    sigma = [[np.mean([np.linalg.norm(a - a.mean(0), 2) for a in np.asarray(p[b], np.float64)[:, :n, :n]])
              for p in probs] for b in rows for n in [lengths[b]]]
    ratio = []
    for b in rows:
      xs = [np.asarray(s[b], np.float64)[:lengths[b]] for s in streams]
      ratio.append([np.linalg.norm(x - x.mean(0)) / np.linalg.norm(np.ones((len(x), 1)) * x.mean(0)) for x in xs])
    means = [np.asarray(embedding[b], np.float64)[:lengths[b]].mean(0) for b in rows]
    cosine = [u @ v / np.linalg.norm(u) / np.linalg.norm(v) for u, v in itertools.combinations(means, 2)]
    out['sigma'].append(np.mean(sigma, 0))
    out['high'].append(np.mean(ratio, 0))
    out['cosine'].append(np.mean(cosine))
  return {k: np.array(v) for k, v in out.items()}


def test_all_quantities_by_loops():
  net, variables, tokens, mask = made()
  source = data.ArraySource(input=tokens[:7], mask=mask[:7])
  measure = Tempscale(taus=(1.0, 0.5), edges=(3, 6))
  found = measure_network(net, variables, data.Stream(source, 4), measure)
  names = queries(sites(net, variables, tokens, mask))
  for tau in (1.0, 0.5):
    acts = forward(net, variables, tokens, mask, record=('*',), edits=temperature(tau, names))[1]
    expected = oracle([acts[f'attn_probs.{i}'] for i in (0, 1)], [acts[f'resid_post.{i}'] for i in (0, 1)],
                      acts['final_norm'], LENGTHS, WEIGHT, (3, 6))
    for name, value in expected.items():
      np.testing.assert_allclose(found[name].sel(tau=tau), value, rtol=2e-4, err_msg=name)
  np.testing.assert_array_equal(found.examples, [3, 4])


@pytest.mark.parametrize('mixer', ({}, dict(qk_norm=dict(name='rms'), rotary={})))
def test_temperature_divides_the_scores(mixer):
  net, variables, tokens, mask = made(**mixer)
  names = queries(sites(net, variables, tokens, mask))
  assert names == (('q_rot.0', 'q_rot.1') if mixer else ('q.0', 'q.1'))
  plain = forward(net, variables, tokens, mask, record=('*',))[1]
  cold = forward(net, variables, tokens, mask, record=('*',), edits=temperature(0.8, names))[1]
  before, after = (np.asarray(a['attn_scores.0'], np.float64) for a in (plain, cold))
  real = np.broadcast_to(mask[:, None, None] > 0, before.shape)
  np.testing.assert_allclose(after[real], before[real] / 0.8, rtol=1e-4, atol=1e-6)
  expected = special.softmax(np.where(real, before / 0.8, -np.inf), -1)
  np.testing.assert_allclose(cold['attn_probs.0'], expected, atol=1e-6)


def test_gains_with_known_values():
  """Uniform rows let nothing through, the identity all, a permutation too; padding does not count."""
  n = 5
  uniform, identity, turned = np.full((n, n), 1 / n), np.eye(n), np.eye(n)[[1, 2, 3, 4, 0]]
  probs = np.zeros((1, 3, 8, 8), np.float32)
  probs[0, :, :n, :n] = [uniform, identity, turned]
  probs[0, :, n:, :2] = 0.5                         # what masked tokens read is not asked
  real = jnp.arange(8)[None] < n
  np.testing.assert_allclose(lowpass_gain(jnp.asarray(probs), real), [[0, 1, 1]], atol=1e-6)


def test_a_longer_random_row_is_flatter():
  """Logits of variance s^2: entries of variance (exp(s^2) - 1) / n^2, and sigma_a is 2 sqrt(n) of their deviations."""
  rng = np.random.default_rng(0)
  for n in (64, 256):
    probs = special.softmax(0.3 * rng.normal(size=(2, 2, n, n)), -1).astype(np.float32)
    found = float(lowpass_gain(jnp.asarray(probs), jnp.ones((2, n), bool)).mean())
    np.testing.assert_allclose(found, 2 * np.sqrt(np.expm1(0.09) / n), rtol=0.06)


def test_tokens_about_their_mean_by_hand():
  x = jnp.asarray([[[3., 0], [1, 0], [7, 7]]])
  real = jnp.asarray([[True, True, False]])
  np.testing.assert_allclose(high_over_mean(x, real), [np.sqrt(2) / np.sqrt(8)], rtol=1e-6)


def test_what_is_refused():
  for fields, message in ((dict(taus=(0.0,)), 'must be above 0'), (dict(edges=(4, 3)), 'must ascend')):
    with pytest.raises(ValueError, match=message):
      Tempscale(**fields)
  net, variables, tokens, mask = made()
  specs = sites(net, variables, tokens, mask)
  with pytest.raises(ValueError, match='is no stream'):
    Tempscale(sites=('attn_probs.*',)).needs(specs)
  with pytest.raises(ValueError, match='no queries'):
    queries({'resid_post.0': None})


# --- the experiment -------------------------------------------------------------------------------------------------

def test_pieces_have_their_lengths_and_are_of_different_texts():
  rows = [np.arange(100 * k, 100 * k + 60, dtype=np.int32) for k in range(1, 9)]
  found = experiment.pieces(rows, 12, 6, (1, 2), np.random.default_rng(0))
  assert found.shape == (6, 12) and (found[:, 0] == 1).all() and (found[:, -1] == 2).all()
  inside = found[:, 1:-1]
  assert (np.diff(inside) == 1).all() and len(set(inside[:, 0] // 100)) == 6


def test_sentences_fill_the_length_and_come_from_different_texts():
  sentences = [(k % 20, np.full(4 + k % 5, k, np.int32)) for k in range(200)]
  whole, parts = experiment.unrelated(sentences, 30, 5, (1000, 1001), np.random.default_rng(0))
  assert whole.shape == (5, 30)
  for row, used in zip(whole, parts):
    texts = [sentences[k][0] for k in used]
    assert len(set(texts)) == len(texts)
    body = np.concatenate([sentences[k][1] for k in used])[:28]
    np.testing.assert_array_equal(row, [1000, *body, 1001])


def test_mean_cosine_by_pairs():
  x = np.random.default_rng(0).normal(size=(6, 4))
  expected = np.mean([u @ v / np.linalg.norm(u) / np.linalg.norm(v) for u, v in itertools.combinations(x, 2)])
  np.testing.assert_allclose(experiment.mean_cosine(x), expected)


def test_the_config_names_what_is_measured():
  assert set(get_config().claim.metrics) == set(experiment.METRICS)
