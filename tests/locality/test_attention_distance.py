"""Attention distance and entropy against loops over queries and keys, and against patterns with known values."""
import itertools

import jax
import numpy as np
import pytest

from aspects import measure
from aspects.locality.attention_distance import AttentionDistance


def run(one, acts, weight=None, mask=None, size=4):
  """A measure over batches of `size`, with a mask."""
  n, count = len(next(iter(acts.values()))), next(iter(acts.values())).shape[-1]
  fields = {'weight': np.ones(n, np.float32) if weight is None else weight, 'index': np.arange(n),
            'mask': np.ones((n, count), np.float32) if mask is None else mask}
  specs = {s: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for s, x in acts.items()}
  statistics, wiring = measure.wire({'m': one}, specs)
  states = tuple(s.init(specs) for s in statistics)
  update = jax.jit(lambda states, acts, batch: measure.update_all(statistics, states, acts, batch))
  for k in range(0, n, size):
    states = update(states, {s: x[k:k + size] for s, x in acts.items()}, {f: v[k:k + size] for f, v in fields.items()})
  return one.compute(**{k: statistics[i].finish(states[i]) for k, i in wiring['m'].items()})


def oracle(probs, weight, mask, allowed, grid=None, prefix=0):
  """{quantity: [H]} by loops, float64; `allowed` [B, Q, K] are the keys that a query may read."""
  probs = np.asarray(probs, np.float64)
  uniform = allowed / np.maximum(allowed.sum(-1, keepdims=True), 1)
  out = {}
  for label, each in (('', probs), ('null_', uniform[:, None])):
    totals = dict.fromkeys(('distance', 'mass', 'entropy', 'most', 'prefix', 'first', 'n'), 0.)
    for b, q in itertools.product(range(len(probs)), range(prefix, probs.shape[2])):
      w = float(weight[b] * mask[b, q])
      if not w:
        continue
      totals['n'] += w
      totals['most'] += w * np.log(allowed[b, q].sum())
      for k in range(probs.shape[3]):
        p = w * each[b, :, q, k]
        totals['entropy'] = totals['entropy'] - p * np.log(np.where(p > 0, p / w, 1))
        totals['first'] = totals['first'] + p * (k == 0)
        if k < prefix:
          totals['prefix'] = totals['prefix'] + p
          continue
        a, c = q - prefix, k - prefix
        far = abs(a - c) if grid is None else np.hypot(a // grid[1] - c // grid[1], a % grid[1] - c % grid[1])
        totals['mass'], totals['distance'] = totals['mass'] + p, totals['distance'] + p * far
    out |= {label + 'distance': totals['distance'] / totals['mass'], label + 'entropy': totals['entropy'] / totals['n'],
            label + 'first': totals['first'] / totals['n']}
    if prefix:
      out[label + 'prefix'] = totals['prefix'] / totals['n']
    if not label:
      out['entropy_share'] = totals['entropy'] / totals['most']
  return out


def softmax(scores, allowed):
  scores = np.where(allowed[:, None], scores, -np.inf)
  e = np.exp(scores - scores.max(-1, keepdims=True))
  return (e / e.sum(-1, keepdims=True)).astype(np.float32)


def examples(tokens, causal, n=8, heads=3, seed=0):
  """Attention with padded keys, some examples of weight 0, and NaN where nothing counts."""
  rng = np.random.default_rng(seed)
  weight = np.array([1., 1, .5, 1, 1, 2, 0, 0], np.float32)
  mask = (np.arange(tokens)[None] < rng.integers(3, tokens + 1, (n, 1))).astype(np.float32)
  order = np.tril(np.ones((tokens, tokens), bool)) if causal else np.ones((tokens, tokens), bool)
  allowed = order[None] & (mask > 0)[:, None]
  probs = softmax(3 * rng.normal(size=(n, heads, tokens, tokens)), allowed)
  probs[weight == 0] = np.nan
  return probs, weight, mask, allowed


CASES = [dict(tokens=7, causal=True, fields={}), dict(tokens=7, causal=False, fields=dict(prefix=2)),
         dict(tokens=7, causal=False, fields=dict(grid=(2, 3), prefix=1)),
         dict(tokens=7, causal=True, fields=dict(causal=True)), dict(tokens=7, causal=False, fields=dict(causal=False))]


@pytest.mark.parametrize('case', CASES)
def test_equals_loops_over_queries_and_keys(case):
  probs, weight, mask, allowed = examples(case['tokens'], case['causal'])
  found = run(AttentionDistance(**case['fields']), {'attn_probs.0': probs}, weight, mask)
  fields = {k: v for k, v in case['fields'].items() if k != 'causal'}
  for name, value in oracle(np.where(np.isnan(probs), 0, probs), weight, mask, allowed, **fields).items():
    np.testing.assert_allclose(found[name][0], np.squeeze(value), rtol=2e-6, err_msg=name)


def test_patterns_with_known_values():
  """Identity: distance 0, entropy 0. The token before: 1. Uniform causal: (T - 1) / 4 weighted, entropy log k."""
  t = 9
  causal = np.tril(np.ones((t, t)))
  shifted = np.eye(t, k=-1) + np.eye(t) * (np.arange(t) == 0)
  uniform = causal / causal.sum(1, keepdims=True)
  heads = np.stack([np.eye(t), shifted, uniform]).astype(np.float32)
  found = run(AttentionDistance(), {'attn_probs.0': np.repeat(heads[None], 4, 0)})
  np.testing.assert_allclose(found.distance[0], [0, (t - 1) / t, (t - 1) / 4], rtol=1e-6)
  most = np.log(np.arange(1, t + 1)).mean()
  np.testing.assert_allclose(found.entropy[0], [0, 0, most], rtol=1e-6, atol=1e-9)
  np.testing.assert_allclose(found.entropy_share[0], [0, 0, 1], rtol=1e-6, atol=1e-9)
  np.testing.assert_allclose(found.null_distance, (t - 1) / 4, rtol=1e-6)
  np.testing.assert_allclose(found.null_entropy, most, rtol=1e-6)
  np.testing.assert_allclose(found['first'][0], [1 / t, 2 / t, (1 / np.arange(1, t + 1)).mean()], rtol=1e-6)


def test_class_token_is_no_place():
  """All patches look at the class token but for a tenth, which goes to the opposite corner."""
  probs = np.zeros((4, 1, 5, 5), np.float32)
  probs[:, :, :, 0] = .9
  for patch in range(4):
    probs[:, :, 1 + patch, 1 + 3 - patch] = .1
  probs[:, :, 0] = 1 / 5
  found = run(AttentionDistance(grid=(2, 2), prefix=1), {'attn_probs.0': probs})
  np.testing.assert_allclose(found.distance, np.sqrt(2), rtol=1e-6)
  np.testing.assert_allclose(found.prefix, .9, rtol=1e-6)
  assert found.distance.attrs['units'] == 'patches'


def test_layers_with_fewer_heads_are_filled():
  probs = np.full((4, 3, 6, 6), 1 / 6, np.float32)
  found = run(AttentionDistance(), {'attn_probs.0': probs, 'attn_probs.1': probs[:, :1]})
  assert np.isnan(found.distance.values[1, 1:]).all() and np.isfinite(found.distance.values[1, 0])
  np.testing.assert_allclose(found.distance[:, 0], (36 - 1) / (3 * 6), rtol=1e-6)     # mean |i - j|: (T^2 - 1) / 3T


def test_sharp_attention_needs_to_be_told_what_it_may_read():
  """Scores so far apart that all but one key underflow in every head."""
  probs = np.repeat(np.eye(6, dtype=np.float32)[None, None], 4, 0)
  found, told = (run(AttentionDistance(causal=c), {'attn_probs.0': probs}) for c in (None, False))
  assert found.null_entropy == 0 and np.isnan(found.entropy_share)
  np.testing.assert_allclose(told.null_entropy, np.log(6), rtol=1e-6)


@pytest.mark.parametrize('fields, shape, message', [
    ({}, (4, 3, 6, 7), 'is not attention'), ({}, (4, 6, 7), 'is not attention'),
    ({'grid': (2, 3)}, (4, 3, 7, 7), '7 tokens, which are not prefix 0 and grid'),
    ({'prefix': 7}, (4, 3, 7, 7), 'give the fields grid and prefix')])
def test_errors_say_the_way_out(fields, shape, message):
  with pytest.raises(ValueError, match=message):
    AttentionDistance(**fields).needs({'attn_probs.0': jax.ShapeDtypeStruct(shape, np.float32)})
