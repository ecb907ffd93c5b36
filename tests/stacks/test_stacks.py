"""How each stack joins its blocks: the stream between applications."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import net
from aspects import plugin
from aspects import sites
from tests import fill

B, T, D, DEPTH = 2, 3, 8, 4
BLOCK = net.BlockSpec((('mixer', None), ('channel', {'name': 'mlp', 'ratio': 1.0}), ('norm', {'name': 'rms'}),
                       ('placement', {'name': 'pre'}), ('branch', None), ('depth', DEPTH), ('dtype', 'float32')))
X = fill.normal(1, B, T, D)


def run(**spec):
  """(variables, output, {site: value}) of a stack of `DEPTH` blocks."""
  module = plugin.build('stacks', spec, block=BLOCK, depth=DEPTH)
  variables = fill.variables(module, X)
  out, acts = sites.forward(module, variables, X, record=('resid_*', 'channel_out.*'))
  return variables, out, acts


def test_plain_blocks_follow_one_another():
  _, out, acts = run(name='plain')
  for layer in range(DEPTH - 1):
    np.testing.assert_array_equal(acts[f'resid_post.{layer}'], acts[f'resid_pre.{layer + 1}'])
  np.testing.assert_array_equal(acts[f'resid_post.{DEPTH - 1}'], out)


def test_recomputed_blocks_keep_their_values_and_drop_their_activations():
  sizes = {}
  for remat in (False, True):
    module = plugin.build('stacks', dict(name='plain', remat=remat), block=BLOCK, depth=DEPTH)
    _, pullback = jax.vjp(lambda v: module.apply(v, X), fill.variables(module, X))
    sizes[remat] = sum(x.size for x in jax.tree.leaves(pullback))
  np.testing.assert_allclose(run(name='plain')[1], run(name='plain', remat=True)[1], atol=1e-6)
  assert sizes[True] < sizes[False]


def test_parallel_blocks_read_one_stream_and_add_up():
  _, out, acts = run(name='parallel')
  for layer in range(DEPTH):
    np.testing.assert_array_equal(acts[f'resid_pre.{layer}'], X)
  np.testing.assert_allclose(out, X + sum(acts[f'channel_out.{layer}'] for layer in range(DEPTH)), atol=1e-5)


def test_groups_of_parallel_blocks_follow_one_another():
  _, out, acts = run(name='parallel', groups=2)
  middle = X + acts['channel_out.0'] + acts['channel_out.1']
  for layer, stream in enumerate((X, X, middle, middle)):
    np.testing.assert_allclose(acts[f'resid_pre.{layer}'], stream, atol=1e-5)
  np.testing.assert_allclose(out, middle + acts['channel_out.2'] + acts['channel_out.3'], atol=1e-5)


def test_as_many_groups_as_blocks_are_the_plain_stack():
  np.testing.assert_array_equal(run(name='parallel', groups=DEPTH)[1], run(name='plain')[1])


def test_groups_that_do_not_divide_the_depth_are_refused():
  with pytest.raises(ValueError, match='depth 4 is not a multiple of groups 3'):
    run(name='parallel', groups=3)


def test_a_shared_block_is_a_plain_stack_of_equal_blocks():
  variables, out, acts = run(name='shared')
  equal = {'params': {f'block_{i}': variables['params']['block'] for i in range(DEPTH)}}
  plain = plugin.build('stacks', dict(name='plain'), block=BLOCK, depth=DEPTH)
  expected, sited = sites.forward(plain, equal, X, record=('resid_*', 'channel_out.*'))
  np.testing.assert_allclose(out, expected, atol=1e-6)
  assert list(acts) == list(sited)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), acts, sited)


def test_the_gradient_of_a_shared_block_is_the_sum_over_its_applications():
  variables, _, _ = run(name='shared')
  stacks = {name: plugin.build('stacks', dict(name=name), block=BLOCK, depth=DEPTH) for name in ('shared', 'plain')}
  equal = {'params': {f'block_{i}': variables['params']['block'] for i in range(DEPTH)}}
  loss = lambda v, name: jnp.sum(jnp.sin(stacks[name].apply(v, X)))
  shared, plain = jax.grad(loss)(variables, 'shared'), jax.grad(loss)(equal, 'plain')
  total = jax.tree.map(lambda *g: sum(g), *plain['params'].values())
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), shared['params']['block'], total)
