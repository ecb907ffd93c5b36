"""Folded weights of heads against the network itself: scores, what is written, logits, with grouped keys and scans."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import Net
from aspects import forward
from aspects.net import to_scanned
from aspects.nn import head_weights
from tests import fill

TOKENS = jnp.asarray([[3, 1, 4, 1, 5, 8, 2, 6]])


def made(**fields):
  fields = dict(embed=dict(name='tokens', vocab=9, length=8), head=dict(name='unembed'), depth=2, width=12,
                mixer=dict(name='attention', heads=4, kv_heads=2, causal=True, bias=False), channel=None) | fields
  net = Net(outputs=9, **fields)
  return net, fill.variables(net, TOKENS)


def without_bias(variables):
  """No bias of norms: what folding leaves out."""
  zero = lambda path, x: jnp.zeros_like(x) if path[-1].key == 'bias' else x
  return jax.tree_util.tree_map_with_path(zero, variables)


@pytest.mark.parametrize('norm', ({'name': 'layer'}, {'name': 'rms'}, {'name': 'rms', 'offset': 1.0}))
def test_scores_writes_and_logits_of_the_network(norm):
  """score = x QK y' / sqrt(d) and head output = sum p x OV for x the stream over its scale."""
  net, variables = made(norm=norm)
  variables = without_bias(variables)
  logits, acts = forward(net, variables, TOKENS, record=('*',))
  for layer, heads in enumerate(head_weights.layers(net, variables['params'])):
    x = np.asarray(acts[f'resid_pre.{layer}'][0], np.float64)
    centred = x - x.mean(1, keepdims=True) if norm['name'] == 'layer' else x
    x = x / np.sqrt((centred ** 2).mean(1, keepdims=True))
    scores = np.asarray(acts[f'attn_scores.{layer}'][0])
    past = np.tril(np.ones((8, 8), bool))
    for h in range(4):
      np.testing.assert_allclose((x @ heads.qk[h] @ x.T / 3 ** 0.5)[past], scores[h][past], rtol=2e-3, atol=2e-4)
    probs = np.asarray(acts[f'attn_probs.{layer}'][0])
    written = sum(probs[h] @ x @ heads.ov[h] for h in range(4))
    expected = np.asarray(acts[f'mixer_out.{layer}'][0])
    if norm['name'] == 'layer':
      expected = expected - expected.mean(1, keepdims=True)
    np.testing.assert_allclose(written, expected, rtol=2e-3, atol=2e-4)
  x = np.asarray(acts['resid_post.1'][0], np.float64)
  centred = x - x.mean(1, keepdims=True) if norm['name'] == 'layer' else x
  x = x / np.sqrt((centred ** 2).mean(1, keepdims=True))
  np.testing.assert_allclose(x @ head_weights.unembedding(net, variables['params']), logits[0], rtol=2e-3, atol=2e-4)


def test_a_constant_added_to_the_stream_is_not_read_and_none_is_written():
  net, variables = made()
  for heads in head_weights.layers(net, variables['params']):
    for read in (heads.query, heads.key, heads.value):
      np.testing.assert_allclose(read.sum(1), 0, atol=1e-12)
    np.testing.assert_allclose(heads.out.sum(2), 0, atol=1e-12)
  np.testing.assert_allclose(head_weights.unembedding(net, variables['params']).sum(0), 0, atol=1e-12)


def test_grouped_heads_have_the_key_of_their_group():
  net, variables = made()
  heads = head_weights.layers(net, variables['params'])[1]
  assert heads.key.shape == heads.query.shape == (4, 12, 3)
  for which in (heads.key, heads.value):
    np.testing.assert_array_equal(which[0], which[1])
    np.testing.assert_array_equal(which[2], which[3])
    assert np.abs(which[1] - which[2]).max() > 0.01


def test_scanned_and_tied_are_the_same():
  net, variables = made(head=dict(name='unembed', tied=True), embed=dict(name='tokens', vocab=9, length=8))
  scanned = net.clone(stack=dict(name='plain', scan=True))
  stacked = to_scanned(variables['params'])
  for a, b in zip(head_weights.layers(net, variables['params']), head_weights.layers(scanned, stacked)):
    for x, y in zip(a, b):
      np.testing.assert_array_equal(x, y)
  gain = np.asarray(variables['params']['norm']['affine']['scale'], np.float64)
  table = np.asarray(variables['params']['embedder']['token']['embedding'], np.float64)
  expected = (table * gain).T
  found = head_weights.unembedding(net, variables['params'])
  np.testing.assert_allclose(found, expected - expected.mean(0), atol=1e-12)


@pytest.mark.parametrize('fields, message', [
    (dict(placement=dict(name='post')), "placement 'post'"), (dict(norm=dict(name='group', groups=4)), "norm 'group'"),
    (dict(mixer=None, channel=dict(name='mlp')), 'stage_0/block_0 has no attention'),
    (dict(stack=dict(name='shared')), "read from the stack 'plain'")])
def test_what_cannot_be_folded(fields, message):
  net, variables = made(**fields)
  with pytest.raises(ValueError, match=message):
    head_weights.layers(net, variables['params'])


def test_a_head_of_classes_is_no_unembedding():
  net, variables = made(head=dict(name='classify'))
  with pytest.raises(ValueError, match='does not map the stream to logits'):
    head_weights.unembedding(net, variables['params'])
