"""Laws of all stacks: `Module(block, depth)(x, first, mask, positions) -> [B, T, D]`, in every file of the folder."""
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import net
from aspects import plugin
from aspects import sites
from tests import fill

SPECS = plugin.examples('stacks')
B, T, D, DEPTH, FIRST = 2, 4, 8, 4, 3
LOOPS = [spec for spec in SPECS
         if 'scan' in plugin.fields(plugin.component('stacks', spec['name'])) and not spec.get('scan')]
each = pytest.mark.parametrize('case', range(len(SPECS)), ids=str)
SLOTS = ('resid_pre', 'mixer_out', 'resid_mid', 'channel_out', 'resid_post')
MASK = np.array([[1, 1, 0, 1], [1, 1, 1, 1]], np.float32)


def block(dtype='float32'):
  """A block whose output depends on its layer (depth-scaled norm) and on the mask (attention)."""
  return net.BlockSpec((('mixer', {'name': 'attention', 'heads': 2}), ('channel', {'name': 'mlp', 'ratio': 1.0}),
                        ('norm', {'name': 'depth_scaled'}), ('placement', {'name': 'pre'}), ('branch', None),
                        ('depth', DEPTH), ('dtype', dtype)))


def stream(seed=1):
  return fill.normal(seed, B, T, D)


@functools.cache
def one_block():
  """(its parameters' shapes, compiled apply(params, x, layer, mask))."""
  module = block().make('block')
  shapes = jax.eval_shape(module.init, jax.random.key(0), stream(), jnp.asarray(0), MASK, jnp.arange(T))['params']
  return shapes, jax.jit(lambda p, x, layer, mask: module.apply({'params': p}, x, layer, mask, jnp.arange(T)))


@functools.cache
def stack(case, depth=DEPTH):
  """(module, variables, {site: value})."""
  module = plugin.build('stacks', SPECS[case], block=block(), depth=depth)
  call = dict(first=FIRST, mask=MASK, positions=jnp.arange(T))
  variables = fill.variables(module, stream(), **call)
  out, acts = sites.forward(module, variables, stream(), **call, record=('*',))
  return module, variables, {**acts, 'output': out}


def block_params(params, layer):
  """The parameters of the block applied as `layer`, in whichever of the three layouts `params` has."""
  if f'block_{layer}' in params:
    return params[f'block_{layer}']
  scanned = jax.tree.map(lambda p, s: p.ndim > s.ndim, params['block'], one_block()[0])
  return jax.tree.map(lambda p, stacked: p[layer] if stacked else p, params['block'], scanned)


@each
def test_depth_one_is_the_block(case):
  _, variables, acts = stack(case, 1)
  expected = one_block()[1](block_params(variables['params'], 0), stream(), jnp.asarray(FIRST), MASK)
  np.testing.assert_allclose(acts['output'], expected, atol=1e-6)


@each
def test_parameters_are_those_of_the_distinct_blocks(case):
  module, variables, _ = stack(case)
  assert 1 <= module.distinct <= DEPTH
  count = lambda tree: sum(p.size for p in jax.tree.leaves(tree))
  assert count(variables) == module.distinct * count(one_block()[0])


@each
def test_every_application_has_its_sites(case):
  _, _, acts = stack(case)
  for slot in SLOTS:
    assert [n for n in acts if n.startswith(f'{slot}.')] == [f'{slot}.{layer}' for layer in range(DEPTH)]
  order = [n for n in acts if n.split('.')[0] in SLOTS]
  assert order == [f'{slot}.{layer}' for layer, slot in itertools.product(range(DEPTH), SLOTS)]


@each
def test_every_application_is_the_block_at_its_layer(case):
  _, variables, acts = stack(case)
  for layer in range(DEPTH):
    expected = one_block()[1](block_params(variables['params'], layer), acts[f'resid_pre.{layer}'],
                              jnp.asarray(FIRST + layer), MASK)
    np.testing.assert_allclose(acts[f'resid_post.{layer}'], expected, atol=2e-6)
  np.testing.assert_array_equal(acts['resid_pre.0'], stream())


@pytest.mark.parametrize('spec', LOOPS, ids=str)
def test_scanned_is_unrolled(spec):
  results = []
  for scan in (False, True):
    plain, module = (plugin.build('stacks', {**spec, 'scan': s}, block=block(), depth=DEPTH) for s in (False, scan))
    params = fill.variables(plain, stream())['params']
    params = net.to_scanned({'stage_0': params})['stage_0'] if scan else params
    run = lambda p: sites.record_sites(module, {'params': p}, (stream(),), ('*',), {}, dict(mask=MASK, first=FIRST))
    loss = lambda p: jnp.sum(run(p)[0] ** 2)
    (out, acts), gradient = jax.jit(lambda p: (run(p), jax.grad(loss)(p)))(params)
    gradient = gradient if scan else net.to_scanned({'stage_0': gradient})['stage_0']
    results.append((list(acts.items()), out, gradient))
  assert [n for n, _ in results[0][0]] == [n for n, _ in results[1][0]]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), results[0][1:], results[1][1:])
  for (name, a), (_, b) in zip(*(r[0] for r in results)):
    np.testing.assert_allclose(a, b, atol=2e-6, err_msg=name)


@each
def test_low_precision_and_finite_gradients(case):
  _, variables, acts = stack(case)
  low = plugin.build('stacks', SPECS[case], block=block('bfloat16'), depth=DEPTH)
  def loss(v):
    y = low.apply(v, stream().astype(jnp.bfloat16), mask=MASK, first=FIRST)
    return jnp.sum(jnp.square(y.astype(jnp.float32))), y
  gradients, y = jax.jit(jax.grad(loss, has_aux=True))(variables)
  assert y.dtype == jnp.bfloat16 and np.abs(y.astype(jnp.float32) - acts['output']).max() < 0.3
  assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in jax.tree.leaves(gradients))
