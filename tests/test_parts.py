"""What each part of a network computes, written out in numpy float64."""
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import plugin
from tests import fill

B, T, D = 2, 9, 8
X = fill.normal(1, B, T, D)
erf = np.vectorize(math.erf)


def run(family, spec, *inputs, **kwargs):
  """(parameters in float64, output) of a part with random parameters."""
  given = {k: kwargs.pop(k) for k in ('width', 'outputs', 'depth') if k in kwargs}
  module = plugin.build(family, spec, **given)
  variables = fill.variables(module, *inputs, **kwargs)
  return jax.tree.map(np.float64, variables.get('params', {})), module.apply(variables, *inputs, **kwargs)


def dense(p, x):
  return x @ p['kernel'] + p.get('bias', 0)


def gelu(x):
  return x * (1 + erf(x / math.sqrt(2))) / 2


def close(actual, expected, atol=1e-5):
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=atol)


# --- mixers ---------------------------------------------------------------------------------------------------------

def attention(p, x, readable):
  """Token by token and head by head; `readable(query, key)` says who reads whom."""
  out = np.zeros(x.shape)
  q, k, v = (np.einsum('btd,dhe->bthe', x, p[n]['kernel']) + p[n]['bias'] for n in ('query', 'key', 'value'))
  for b, t, h in np.ndindex(*q.shape[:3]):
    read = [s for s in range(x.shape[1]) if readable(b, t, s)]
    weight = np.exp([q[b, t, h] @ k[b, s, h] / math.sqrt(q.shape[-1]) for s in read])
    out[b, t] += (weight @ v[b, read, h] / weight.sum()) @ p['out']['kernel'][h]
  return out + p['out']['bias']


@pytest.mark.parametrize('spec, readable', [
    (dict(name='attention', heads=2), lambda t, s: True),
    (dict(name='attention', heads=4, causal=True), lambda t, s: s <= t),
    (dict(name='window', heads=2, size=2), lambda t, s: abs(t - s) <= 2),
    (dict(name='window', heads=1, size=3, causal=True), lambda t, s: 0 <= t - s <= 3),
])
def test_attention(spec, readable):
  mask = np.ones((B, T))
  mask[0, [1, 4]] = 0
  for given in (None, mask):
    p, y = run('mixers', spec, X, mask=given)
    seen = lambda b, t, s: readable(t, s) and (given is None or given[b, s] > 0)
    real = mask > 0                                  # what a masked token itself gives is nobody's business
    close(y[real], attention(p['heads'], np.float64(X), seen)[real])


def test_token_mlp():
  p, y = run('mixers', dict(name='token_mlp', hidden=5), X)
  tanh_gelu = lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))) / 2
  expected = [[dense(p['out'], tanh_gelu(dense(p['in'], np.float64(X[b, :, d])))) for d in range(D)] for b in range(B)]
  close(y, np.swapaxes(expected, 1, 2))


def conv(kernel, x, stride=1):
  """`x` [H, W, D] under a kernel [h, w, D, E], padded with zeros to keep its sides, or striding over blocks."""
  size = kernel.shape[0]
  pad = (size - 1) // 2 if stride == 1 else 0
  x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
  rows = [(x.shape[a] - size) // stride + 1 for a in (0, 1)]
  out = np.zeros((*rows, kernel.shape[-1]))
  for i, j in np.ndindex(*rows):
    out[i, j] = np.einsum('hwd,hwde->e', x[i * stride:i * stride + size, j * stride:j * stride + size], kernel)
  return out


def group_norm(p, x, groups, epsilon=1e-5):
  """`x` [T, D] with one mean and variance for a group of units over all tokens."""
  parts = [(part - part.mean()) / np.sqrt(part.var() + epsilon) for part in np.split(x, groups, -1)]
  return np.concatenate(parts, -1) * p['scale'] + p['bias']


def test_convolutions():
  p, y = run('mixers', dict(name='convolutions', norm=dict(name='group', groups=2)), X)
  for b in range(B):
    h = conv(p['conv_1']['kernel'], np.maximum(np.float64(X[b]), 0).reshape(3, 3, D)).reshape(T, D)
    h = group_norm(p['norm']['affine'], h, 2)
    close(y[b], conv(p['conv_2']['kernel'], np.maximum(h, 0).reshape(3, 3, D)).reshape(T, D))


# --- channels -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('act, f', [
    ('gelu', gelu), ('relu', lambda x: np.maximum(x, 0)), ('tanh', np.tanh), ('identity', lambda x: x),
    ('silu', lambda x: x / (1 + np.exp(-x))), ('sigmoid', lambda x: 1 / (1 + np.exp(-x))),
    ('gelu_tanh', lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))) / 2)])
def test_channels(act, f):
  p, y = run('channels', dict(name='mlp', act=act, ratio=1.5), X)
  assert p['in']['kernel'].shape == (D, 12)
  close(y, dense(p['out'], f(dense(p['in'], np.float64(X)))))
  p, y = run('channels', dict(name='gated_mlp', act=act), X)
  assert p['pre']['kernel'].shape == (D, 21)         # 8/3 of the width, rounded down
  close(y, dense(p['out'], f(dense(p['pre'], np.float64(X))) * dense(p['gate'], np.float64(X))))


# --- norms and branches ---------------------------------------------------------------------------------------------

def test_norms():
  x = np.float64(X)
  p, y = run('norms', dict(name='layer', epsilon=0.1), X, None)
  centred = x - x.mean(-1, keepdims=True)
  layer = centred / np.sqrt((centred ** 2).mean(-1, keepdims=True) + 0.1)
  close(y, layer * p['affine']['scale'] + p['affine']['bias'])
  p, y = run('norms', dict(name='rms', epsilon=0.1), X, None)
  close(y, x / np.sqrt((x ** 2).mean(-1, keepdims=True) + 0.1) * p['affine']['scale'])
  p, y = run('norms', dict(name='group', groups=4, epsilon=0.1), X, None)
  close(y, np.stack([group_norm(p['affine'], x[b], 4, 0.1) for b in range(B)]))


@pytest.mark.parametrize('layer, factor', [(None, 1), (0, 1), (1, 1 / math.sqrt(2)), (8, 1 / 3)])
def test_a_depth_scaled_norm_is_divided_by_the_root_of_its_layer_counted_from_one(layer, factor):
  at = None if layer is None else jnp.asarray(layer)
  spec = dict(name='rms', epsilon=0.1)
  p, y = run('norms', dict(name='depth_scaled', norm=spec), X, at)
  inner = plugin.build('norms', spec).apply({'params': jax.tree.map(jnp.float32, p['norm'])}, X, None)
  close(y, np.float64(inner) * factor)


def test_branches():
  close(run('branches', dict(name='depth_power'), X, None, depth=16)[1], np.float64(X) / 4)
  close(run('branches', dict(name='depth_power', power=1.0), X, None, depth=16)[1], np.float64(X) / 16)
  p, y = run('branches', dict(name='layer_scale'), X, None)
  close(y, np.float64(X) * p['gain'])
  fresh = plugin.build('branches', dict(name='layer_scale', start=0.25)).init(jax.random.key(0), X, None)
  np.testing.assert_array_equal(fresh['params']['gain'], 0.25)


# --- the ends of a network ------------------------------------------------------------------------------------------

def test_patches():
  images = fill.normal(2, B, 4, 6, 3)
  p, y = run('embeds', dict(name='patches', size=2), images, width=D)
  cut = lambda b, i, j: np.float64(images[b, 2 * i:2 * i + 2, 2 * j:2 * j + 2]).ravel()
  flat = lambda b, i, j: cut(b, i, j) @ p['patch']['kernel'].reshape(-1, D)
  for b in range(B):
    tokens = [p['class_token'][0, 0], *(flat(b, i, j) + p['patch']['bias'] for i in range(2) for j in range(3))]
    close(y[b], np.stack(tokens) + p['position'][0])
  assert run('embeds', dict(name='patches', size=2, class_token=False), images, width=D)[1].shape == (B, 6, D)


def test_pixels():
  images = fill.normal(2, B, 4, 5, 3)
  p, y = run('embeds', dict(name='pixels'), images, width=D)
  for b in range(B):
    close(y[b], (conv(p['stem']['kernel'], np.float64(images[b])) + p['stem']['bias']).reshape(20, D))


def test_tokens():
  text = np.array([[3, 0, 3], [2, 1, 0]])
  p, y = run('embeds', dict(name='tokens', vocab=4, length=5), jnp.asarray(text), width=D)
  close(y, p['token']['embedding'][text] + p['position'][:3])


def test_vector():
  x = fill.normal(2, B, 2, 3)
  p, y = run('embeds', dict(name='vector'), x, width=D)
  close(y, dense(p['in'], np.float64(x).reshape(B, 1, 6)))


def test_heads():
  p, y = run('heads', dict(name='unembed'), X, None, outputs=3)
  close(y, np.float64(X) @ p['logits_map']['kernel'])
  for pool, pooled in (('mean', np.float64(X).mean(1)), ('first', np.float64(X)[:, 0]), ('last', np.float64(X)[:, -1])):
    p, y = run('heads', dict(name='classify', pool=pool), X, None, outputs=3)
    close(y, dense(p['logits_map'], pooled))


def test_the_mean_of_many_tokens_is_exact_in_low_precision():
  x = jnp.ones((1, 1000, D), jnp.bfloat16).at[:, 500:].set(3)
  head = plugin.build('heads', dict(name='classify'), outputs=D, dtype='bfloat16')
  variables = {'params': {'logits_map': {'kernel': jnp.eye(D), 'bias': jnp.zeros(D)}}}
  np.testing.assert_array_equal(head.apply(variables, x, None), 2)
  last = plugin.build('heads', dict(name='classify', pool='last'), outputs=D, dtype='bfloat16')
  marked = x.at[:, 998].set(7)
  mask = np.ones((1, 1000)).astype(np.float32)
  mask[:, 999] = 0
  np.testing.assert_array_equal(last.apply(variables, marked, mask), 7)


def test_strided():
  x = fill.normal(2, B, 16, D)
  p, y = run('transitions', dict(name='strided'), x, width=5)
  for b in range(B):
    expected = conv(p['conv']['kernel'], np.float64(x[b]).reshape(4, 4, D), stride=2) + p['conv']['bias']
    close(y[b], expected.reshape(4, 5))
