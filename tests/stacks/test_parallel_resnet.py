"""Blocks side by side against their sum, and the claim's networks: equal parameters, equal at one block."""
import jax
import jax.numpy as jnp
import numpy as np

from aspects import net as net_lib
from aspects import sites
from aspects.claims import spec
from aspects.net import Net

X = jax.random.normal(jax.random.key(0), (5, 8, 8, 1))


def network(arm, **change):
  return Net(outputs=10, **{**spec.load('configs/stacks/parallel_resnet.py').arms[arm]['net'], **change})


def test_the_sum_of_what_each_block_adds_to_the_same_input():
  """With the parameters of the sequential network: x + sum over blocks of (block(x) - x), one block at a time."""
  sequential, parallel = network('sequential', depth=4, width=16), network('parallel', depth=4, width=16)
  variables = sequential.init(jax.random.key(1), X)
  unrolled = {'params': net_lib.to_unrolled(variables['params'])}
  start = sites.forward(parallel, unrolled, X, record=('embed',))[1]['embed']
  total = start
  for i in range(4):
    alone = network('parallel', depth=1, width=16, branch=dict(name='depth_power', power=0.0))
    part = {'params': {**unrolled['params'], 'stage_0': {'block_0': unrolled['params']['stage_0'][f'block_{i}']}}}
    out = sites.forward(alone, part, X, record=('resid_post.0',))[1]['resid_post.0']
    total = total + (out - start) / jnp.sqrt(4.)        # the claim scales every branch by depth**-1/2
  got = sites.forward(parallel, unrolled, X, record=('final_norm',))[1]['final_norm']
  mean = total - total.mean(-1, keepdims=True)
  np.testing.assert_allclose(got, mean / jnp.sqrt(mean.var(-1, keepdims=True) + 1e-6), atol=2e-5)


def test_arms_have_equal_parameters_and_are_one_network_at_depth_one():
  size = lambda net: sum(x.size for x in jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0), X)['params']))
  for a, b in (('sequential', 'parallel'), ('sequential_4', 'parallel_4')):
    assert size(network(a)) == size(network(b))
  one, other = network('sequential', depth=1), network('parallel', depth=1)
  variables = one.init(jax.random.key(1), X)
  unrolled = {'params': net_lib.to_unrolled(variables['params'])}
  np.testing.assert_allclose(one.apply(variables, X), other.apply(unrolled, X), atol=1e-6)
