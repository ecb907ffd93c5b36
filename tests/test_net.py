"""Networks as data: the zoo and its three invariants, scanned and unrolled; conversion, precision, masks, errors."""
import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from aspects import edits
from aspects import net
from aspects import sites
from tests import fill

IMAGES = fill.normal(1, 2, 4, 4, 3)
TEXT = jnp.asarray(np.random.default_rng(1).integers(0, 11, (2, 6)))
LM = dict(outputs=11, embed=dict(name='tokens', vocab=11, length=8), mixer=dict(name='attention', heads=2, causal=True),
          channel=dict(name='mlp', ratio=1.5), head=dict(name='unembed'), depth=3, width=8)
VIT = dict(outputs=5, embed=dict(name='patches', size=2), mixer=dict(name='attention', heads=2),
           channel=dict(name='gated_mlp', ratio=1.0), head=dict(name='classify', pool='first'), depth=3, width=8)
MLP = dict(outputs=5, embed=dict(name='vector'), channel=dict(name='mlp', act='relu', ratio=2.0),
           head=dict(name='classify'), depth=3, width=8)
RESNET = dict(outputs=5, embed=dict(name='pixels'), mixer=dict(name='convolutions', norm=dict(name='group', groups=2)),
              norm=dict(name='group', groups=2), head=dict(name='classify'), transition=dict(name='strided'),
              stages=((2, 4), (2, 8)))
ZOO = {'lm': (LM, TEXT), 'vit': (VIT, IMAGES), 'mlp': (MLP, IMAGES), 'resnet': (RESNET, IMAGES)}
each = pytest.mark.parametrize('name', ZOO)
each_layout = pytest.mark.parametrize('scan', (False, True), ids=('unrolled', 'scanned'))


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


@functools.cache
def run(name, scan=False):
  """(network, params, inputs, outputs, {site: value}); the scanned network has the unrolled one's parameters."""
  spec, inputs = ZOO[name]
  network = net.Net(**spec, stack=dict(name='plain', scan=scan))
  params = fill.variables(net.Net(**spec), inputs)['params']
  params = net.to_scanned(params) if scan else params
  return network, params, inputs, *sites.forward(network, {'params': params}, inputs, record=('*',))


def layers(acts, slot):
  return sum(n.startswith(f'{slot}.') for n in acts)


# --- the three invariants -------------------------------------------------------------------------------------------

@each
@each_layout
def test_resid_pre_and_what_is_added_are_resid_post(name, scan):
  *_, acts = run(name, scan)
  depth = layers(acts, 'resid_post')
  assert depth == (4 if name == 'resnet' else 3)
  for layer in range(depth):
    parts = [acts[f'{slot}.{layer}'] for slot in ('resid_pre', 'mixer_out', 'channel_out') if f'{slot}.{layer}' in acts]
    np.testing.assert_array_equal(sum(parts[1:], parts[0]), acts[f'resid_post.{layer}'])


@pytest.mark.parametrize('name', [n for n in ZOO if ZOO[n][0].get('mixer', {}).get('name') == 'attention'])
@each_layout
def test_attention_reads_its_values(name, scan):
  *_, acts = run(name, scan)
  for layer in range(layers(acts, 'z')):
    probs, v, z = (np.float64(acts[f'{slot}.{layer}']) for slot in ('attn_probs', 'v', 'z'))
    np.testing.assert_allclose(np.einsum('bhqk,bkhd->bqhd', probs, v), z, atol=2e-6)
    np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-6)
    with pytest.raises(AssertionError):              # another order of the heads is another tensor
      np.testing.assert_allclose(np.einsum('bhqk,bkhd->bqhd', probs[:, ::-1], v), z, atol=2e-6)
    q, k, scores = (np.float64(acts[f'{slot}.{layer}']) for slot in ('q', 'k', 'attn_scores'))
    read = scores > -1e30
    products = np.einsum('bqhd,bkhd->bhqk', q, k) / np.sqrt(q.shape[-1])
    np.testing.assert_allclose(products[read], scores[read], atol=1e-5)


@pytest.mark.parametrize('name', [n for n in ZOO if ZOO[n][0].get('channel')])
@each_layout
def test_the_neurons_write_the_channel(name, scan):
  _, params, _, _, acts = run(name, scan)
  blocks = net.to_unrolled(params)['stage_0'] if scan else params['stage_0']
  for layer in range(layers(acts, 'channel_raw')):
    out = blocks[f'block_{layer}']['channel']['out']
    written = np.float64(acts[f'channel_act.{layer}']) @ np.float64(out['kernel']) + np.float64(out.get('bias', 0))
    np.testing.assert_allclose(written, acts[f'channel_raw.{layer}'], atol=2e-5)
    other = blocks[f'block_{(layer + 1) % 3}']['channel']['out']['kernel']
    assert np.abs(np.float64(acts[f'channel_act.{layer}']) @ np.float64(other) - written).max() > 1e-2


@each
@each_layout
def test_the_ends_of_the_stream(name, scan):
  _, params, _, out, acts = run(name, scan)
  last = layers(acts, 'resid_post') - 1
  np.testing.assert_array_equal(acts['embed'], acts['resid_pre.0'])
  np.testing.assert_array_equal(acts['logits'], out)
  final = net.plugin.build('norms', ZOO[name][0].get('norm', dict(name='layer')))
  np.testing.assert_allclose(final.apply({'params': params['norm']}, acts[f'resid_post.{last}'], None),
                             acts['final_norm'], atol=1e-6)


# --- layouts --------------------------------------------------------------------------------------------------------

@each
def test_scanned_is_unrolled(name):
  (*_, out, acts), (*_, scanned_out, scanned) = run(name), run(name, True)
  assert list(acts) == list(scanned)
  for site in acts:
    np.testing.assert_allclose(acts[site], scanned[site], rtol=1e-5, atol=1e-5, err_msg=site)
  np.testing.assert_allclose(out, scanned_out, atol=1e-5)


@each
def test_conversion_goes_both_ways(name):
  _, params, inputs, _, _ = run(name)
  scanned, *_ = run(name, True)
  expected = jax.eval_shape(scanned.init, jax.random.key(0), inputs)['params']
  there = net.to_scanned(params)
  assert jax.tree.map(jnp.shape, there) == jax.tree.map(lambda s: s.shape, expected)
  jax.tree.map(np.testing.assert_array_equal, net.to_unrolled(there), params)


def test_conversion_refuses_what_it_cannot_convert():
  params = run('vit')[1]
  with pytest.raises(ValueError, match="no stage of these parameters has a 'block'; they have"):
    net.to_unrolled(params)
  with pytest.raises(ValueError, match="no stage of these parameters has a 'block_0'"):
    net.to_scanned(net.to_scanned(params))
  uneven = {**params, 'stage_0': {**params['stage_0'], 'block_1': {'channel': params['stage_0']['block_1']['channel']}}}
  with pytest.raises(ValueError, match="the blocks of 'stage_0' differ"):
    net.to_scanned(uneven)
  shared = fill.variables(net.Net(**VIT, stack=dict(name='shared')), IMAGES)['params']
  with pytest.raises(ValueError, match='not scanned but shared'):
    net.to_unrolled(shared)


def test_layers_count_on_over_stages():
  network = net.Net(**{**RESNET, 'norm': dict(name='depth_scaled', norm=dict(name='rms'))})
  variables = jax.tree.map(jnp.ones_like, fill.variables(network, IMAGES))
  _, acts = sites.forward(network, variables, IMAGES, record=('resid_pre.*', 'mixer_in.*'))
  for layer in range(4):
    x = np.float64(acts[f'resid_pre.{layer}'])
    expected = x / np.sqrt((x ** 2).mean(-1, keepdims=True) + 1e-6) / np.sqrt(layer + 1)
    np.testing.assert_allclose(acts[f'mixer_in.{layer}'], expected, atol=1e-5)


def test_parameters_are_counted_by_hand():
  width, hidden, vocab, length, depth = 8, 12, 11, 8, 3
  attention = 4 * (width * width + width)
  channel = width * hidden + hidden + hidden * width + width
  norm = 2 * width
  assert count(run('lm')[1]) == (vocab * width + length * width + depth * (attention + channel + 2 * norm) + norm
                                 + width * vocab)
  assert count(run('lm', True)[1]) == count(run('lm')[1])
  shared = jax.eval_shape(net.Net(**LM, stack=dict(name='shared')).init, jax.random.key(0), TEXT)
  assert count(run('lm')[1]) - count(shared) == 2 * (attention + channel + 2 * norm)


@each
def test_every_site_is_read_further_on(name):
  """What an edit changes is what the network goes on with: units scaled by other factors change the output."""
  spec, inputs = ZOO[name]
  network = net.Net(**{**spec, 'depth': 1})
  variables = fill.variables(network, inputs)
  specs, rng = sites.sites(network, variables, inputs), np.random.default_rng(0)
  planted = {site: edits.Scale(factor=rng.uniform(0.5, 1.5, (len(specs), s.shape[-1])), on=np.arange(len(specs)) == i)
             for i, (site, s) in enumerate(specs.items())}
  forward = lambda e: sites.forward(network, variables, inputs, edits=e)[0]
  swept = jax.jit(lambda e: edits.sweep(forward, e, batch_size=8))(planted)
  change = np.abs(swept - forward({})[None]).max(tuple(range(1, swept.ndim)))
  assert not [site for site, size in zip(specs, change) if not 1e-5 < size < np.inf]


# --- what a network is ----------------------------------------------------------------------------------------------

def test_networks_compare_and_hash_by_value():
  first, second = net.Net(**VIT), net.Net(**{**VIT, 'embed': {'size': 2, 'name': 'patches'}})
  assert first == second and hash(first) == hash(second)
  assert hash(net.Net(**{**RESNET, 'stages': [[2, 4], [2, 8]]})) == hash(net.Net(**RESNET))
  assert first != net.Net(**{**VIT, 'depth': 4})
  assert first == net.Net(**ml_collections.ConfigDict(VIT)) == first.clone()


def test_a_fresh_network_is_finite_and_its_seeds_differ():
  network = net.Net(**{**VIT, 'depth': 1})
  init = jax.jit(network.init)
  first, again, other = (init(jax.random.key(seed), IMAGES) for seed in (0, 0, 1))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  logits = [sites.forward(network, v, IMAGES)[0] for v in (first, other)]
  assert np.isfinite(logits[0]).all() and np.abs(logits[0] - logits[1]).max() > 1e-2
  assert set(first) == {'params'}


@each
def test_low_precision(name):
  spec, inputs = ZOO[name]
  _, params, _, out, _ = run(name)
  low = net.Net(**spec, dtype='bfloat16')
  specs = sites.sites(low, {'params': params}, inputs)
  kinds = {site: str(s.dtype) for site, s in specs.items()}
  assert kinds.pop('logits') == 'float32' and set(kinds.values()) == {'bfloat16'}
  y = sites.forward(low, {'params': params}, inputs)[0]
  assert np.abs(y - out).max() < 0.15 * np.abs(out).max()


@pytest.mark.parametrize('change', (dict(), dict(norm=dict(name='rms')), dict(placement=dict(name='post')),
                                    dict(stack=dict(name='shared')), dict(mixer=dict(name='window', size=1, heads=2))))
def test_masked_tokens_have_no_influence(change):
  network = net.Net(**{**LM, **change, 'depth': 2, 'head': dict(name='classify', pool='mean'),
                       'mixer': change.get('mixer', dict(name='attention', heads=2))})
  mask = np.array([[1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], np.float32)
  variables = fill.variables(network, TEXT, mask)
  run = lambda text, mask: sites.forward(network, variables, text, mask=mask)[0]
  other = jnp.where(mask > 0, TEXT, (TEXT + 5) % 11)
  np.testing.assert_array_equal(run(TEXT, mask), run(other, mask))
  assert np.abs(run(TEXT, np.ones_like(mask)) - run(other, np.ones_like(mask)))[0].max() > 1e-3


def test_the_future_does_not_reach_the_past():
  network, params, *_ = run('lm')
  later = TEXT.at[:, 4:].set((TEXT[:, 4:] + 1) % 11)
  a, b = (sites.forward(network, {'params': params}, text)[0] for text in (TEXT, later))
  np.testing.assert_array_equal(a[:, :4], b[:, :4])
  assert np.abs(a[:, 4:] - b[:, 4:]).max() > 1e-3


def test_pooling():
  acts = {}
  mask = np.array([[1, 1, 0, 0, 1, 0], [1, 1, 1, 1, 1, 1]], np.float32)
  for pool in ('mean', 'first', 'last'):
    network = net.Net(**{**LM, 'depth': 1, 'head': dict(name='classify', pool=pool)})
    variables = fill.variables(network, TEXT, mask)
    acts[pool] = sites.forward(network, variables, TEXT, mask=mask, record=('pooled', 'final_norm'))[1]
  stream = np.asarray(acts['mean']['final_norm'])
  np.testing.assert_allclose(acts['mean']['pooled'][0], stream[0, [0, 1, 4]].mean(0), atol=1e-6)
  np.testing.assert_allclose(acts['mean']['pooled'][1], stream[1].mean(0), atol=1e-6)
  np.testing.assert_array_equal(acts['first']['pooled'], acts['first']['final_norm'][:, 0])
  np.testing.assert_array_equal(acts['last']['pooled'][0], acts['last']['final_norm'][0, 4])
  np.testing.assert_array_equal(acts['last']['pooled'][1], acts['last']['final_norm'][1, 5])


# --- errors ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('change, message', [
    (dict(mixer=dict(name='atention')), r"net.mixer: .* has no component 'atention'; did you mean 'attention'"),
    (dict(mixer=dict(name='window')), r"net.mixer: 'window' needs the field 'size'"),
    (dict(channel=dict(name='mlp', ration=2)), r"net.channel: 'mlp' has no field 'ration'; did you mean 'ratio'"),
    (dict(norm=dict(name='depth_scaled', norm=dict(name='layr'))), r"net.norm.norm: .* 'layr'; did you mean 'layer'"),
    (dict(placement=dict(name='prepre')), r"net.placement: .* 'prepre'; did you mean 'pre'"),
    (dict(stack=dict(name='plain', scam=True)), r"net.stack: 'plain' has no field 'scam'; did you mean 'scan'"),
    (dict(head=dict(name='classify', poll='mean')), r"net.head: 'classify' has no field 'poll'; did you mean 'pool'"),
    (dict(dept=3), r"net has no field 'dept'; did you mean 'depth'"),
    (dict(embed=None), r"net needs the field 'embed'"),
    (dict(stages=((1, 8), (1, 16))), r"net.stages has 2 stages and net.transition is not given; .*'strided'"),
    (dict(mixer='attention'), r"net.mixer: a component is given as dict\(name=\.\.\., field=\.\.\.\), got 'attention'"),
])
def test_a_wrong_spec_is_refused_before_anything_is_made(change, message):
  net.check(VIT)
  with pytest.raises(ValueError, match=message):
    net.check({**VIT, **change})


@pytest.mark.parametrize('change, inputs, message', [
    (dict(mixer=dict(name='attention', heads=3)), IMAGES, 'width 8 is not a multiple of heads 3; nearest: 2'),
    (dict(embed=dict(name='patches', size=3)), IMAGES, r'multiples of the patch size 3, got \(2, 4, 4, 3\)'),
    (dict(mixer=dict(name='convolutions')), IMAGES, '5 tokens are not a square grid; .* without a class token'),
    (dict(norm=dict(name='group', groups=3)), IMAGES, 'width 8 is not a multiple of groups 3'),
    (dict(channel=dict(name='mlp', act='rely')), IMAGES, "there is no activation 'rely'; did you mean 'relu'"),
    (dict(head=dict(name='classify', pool='max')), IMAGES, "pool 'max' is not one of mean, first, last"),
    (dict(embed=dict(name='tokens', length=4)), TEXT, '6 positions exceed the length 4'),
    (dict(embed=dict(name='tokens')), IMAGES, r'tokens are integers \[B, T\], got float32'),
    (dict(stages=((1, 8), (1, 8)), transition=dict(name='strided')), IMAGES, '5 tokens are not a square grid'),
])
def test_parts_that_do_not_fit_are_refused_when_the_network_is_shaped(change, inputs, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(net.Net(**{**VIT, **change}).init, jax.random.key(0), inputs)
