"""Attention against loops of numpy: groups, windows, caps, scales of layers, and the shapes of keys and values."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import sites
from aspects.nn.attention import MultiHead
from tests import fill

B, T, D = 2, 6, 12
CASES = {'plain': dict(heads=4), 'grouped': dict(heads=4, kv_heads=2), 'one key': dict(heads=3, kv_heads=1),
         'wide heads, no biases': dict(heads=2, head_size=8, bias=False, out_bias=False),
         'window': dict(heads=2, causal=True, window=3), 'cap and scale': dict(heads=2, soft_cap=0.4, scale=1.5),
         'by layer': dict(heads=2, causal=True, window=(0, 2), scale=(0.1, 0.9)),
         'norms of heads': dict(heads=4, kv_heads=2, qk_norm=dict(name='rms', epsilon=1e-3))}
each = pytest.mark.parametrize('case', CASES)
MASK = np.array([[1] * T, [1] * 4 + [0] * 2], bool)


@functools.cache
def run(case, layer=1):
  net, x = MultiHead(**CASES[case]), fill.normal(3, B, T, D)
  given = (x, None, jnp.asarray(MASK, jnp.float32), None, jnp.asarray(layer))
  variables = fill.variables(net, *given)
  out, acts = sites.record_sites(net, variables, given, ('*',), {}, {})
  return jax.device_get((variables['params'], x, out, acts))


def by_hand(case, params, x, layer=1):
  """One query of one head at a time, in float64."""
  fields = CASES[case]
  heads, kept = fields['heads'], fields.get('kv_heads') or fields['heads']
  size = fields.get('head_size') or D // heads
  pick = lambda name, usual: fields[name][layer] if isinstance(fields.get(name), tuple) else fields.get(name, usual)
  scale, window, cap = pick('scale', size ** -0.5), pick('window', 0), fields.get('soft_cap')
  def heads_of(name, norm):
    y = np.einsum('btd,dhs->bths', x.astype(np.float64), params[name]['kernel']) + params[name].get('bias', 0)
    if 'qk_norm' in fields and norm:
      y = y / np.sqrt((y ** 2).mean(-1, keepdims=True) + 1e-3) * params[norm]['affine']['scale']
    return y
  q, k, v = heads_of('query', 'query_norm'), heads_of('key', 'key_norm'), heads_of('value', None)
  z, probs = np.zeros((B, T, heads, size)), np.zeros((B, heads, T, T))
  for b in range(B):
    for h in range(heads):
      for t in range(T):
        g = h // (heads // kept)
        may = [s for s in range(T) if MASK[b, s] and not (fields.get('causal') and s > t)
               and not (window and t - s >= window)]
        if not may:
          continue
        scores = np.array([scale * q[b, t, h] @ k[b, s, g] for s in may])
        scores = cap * np.tanh(scores / cap) if cap else scores
        p = np.exp(scores - scores.max())
        probs[b, h, t, may] = p / p.sum()
        z[b, t, h] = probs[b, h, t] @ v[b, :, g]
  out = np.einsum('bths,hsd->btd', z, params['out']['kernel']) + params['out'].get('bias', 0)
  return probs, z, out


@each
def test_it_is_attention_by_hand(case):
  params, x, out, acts = run(case)
  x = np.where(MASK[..., None], x, 0)                # masked tokens enter as zeros
  probs, z, expected = by_hand(case, params, x)
  np.testing.assert_allclose(acts['attn_probs'][MASK.nonzero()[0], :, MASK.nonzero()[1]],
                             probs[MASK.nonzero()[0], :, MASK.nonzero()[1]], atol=1e-6)
  np.testing.assert_allclose(acts['z'][MASK], z[MASK], atol=1e-5)
  np.testing.assert_allclose(out[MASK], expected[MASK], atol=2e-5)


@each
def test_shapes_of_keys_and_values(case):
  """Keys and values have kv_heads heads, queries and z have all; nothing is repeated."""
  fields, (params, _, _, acts) = CASES[case], run(case)
  heads, kept = fields['heads'], fields.get('kv_heads') or fields['heads']
  size = fields.get('head_size') or D // heads
  for slot, count in (('q', heads), ('k', kept), ('v', kept), ('z', heads)):
    assert acts[slot].shape == (B, T, count, size), slot
  assert acts['attn_probs'].shape == acts['attn_scores'].shape == (B, heads, T, T)
  assert params['key']['kernel'].shape == params['value']['kernel'].shape == (D, kept, size)
  if 'qk_norm' in fields:
    assert acts['q_rot'].shape == acts['q'].shape and acts['k_rot'].shape == acts['k'].shape
    assert np.abs(acts['q_rot'] - acts['q']).max() > 0.1
  else:
    assert 'q_rot' not in acts and 'k_rot' not in acts


def test_groups_are_plain_attention_with_keys_repeated():
  params, x, out, acts = run('grouped')
  whole = {n: {k: np.repeat(v, 2, -2) for k, v in params[n].items()} if n in ('key', 'value') else params[n]
           for n in params}
  again = MultiHead(heads=4).apply({'params': whole}, x, None, jnp.asarray(MASK, jnp.float32))
  np.testing.assert_allclose(again, out, atol=1e-5)
  z = np.einsum('bhqk,bkhd->bqhd', acts['attn_probs'], acts['v'].repeat(2, 2))
  np.testing.assert_allclose(z, acts['z'], atol=1e-6)


@pytest.mark.parametrize('kept', [4, 2, 1])
def test_a_cache_keeps_keys_and_values_of_the_groups_alone(kept):
  """[B, S, kv_heads, d] each; token by token the outputs are those of one causal pass."""
  net = MultiHead(heads=4, kv_heads=kept, causal=True, rotary=dict(base=50.0), window=4)
  x, whole = fill.normal(5, B, T, D), jnp.ones((B, T + 1))
  variables = fill.variables(net, x)
  expected, state = net.apply(variables, x), {}
  step = jax.jit(lambda state, x: net.apply({**variables, **state}, x, None, whole, mutable=['cache']))
  outs = []
  for t in range(T):
    out, state = step(state, x[:, t:t + 1])
    outs.append(out)
  assert {k: v.shape for k, v in state['cache'].items()} == {
      'keys': (B, T + 1, kept, 3), 'values': (B, T + 1, kept, 3), 'filled': ()}
  assert state['cache']['filled'] == T
  np.testing.assert_array_equal(state['cache']['keys'][:, T], 0)
  np.testing.assert_allclose(np.concatenate(outs, 1), expected, atol=1e-5)


@pytest.mark.parametrize('fields, message', [
    (dict(heads=4, kv_heads=3), 'not a multiple of kv_heads 3'), (dict(heads=5), 'not a multiple of heads 5'),
    (dict(heads=2, rotary=({'share': 1.0}, {'share': 0.5})), 'different shares')])
def test_what_does_not_fit_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(MultiHead(**fields).init, jax.random.key(0), jnp.zeros((B, T, D)))
