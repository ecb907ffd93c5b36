"""Devices: placement, sharding rules, and pmap's calling form."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import mesh as mesh_lib


def test_there_are_four_devices():
  assert jax.device_count() == 4


@pytest.mark.parametrize('devices', [1, 2, 4])
def test_a_batch_is_split_over_its_axis(devices):
  mesh = mesh_lib.make(devices)
  batch = {'input': np.arange(24.0).reshape(8, 3), 'weight': np.ones(8)}
  placed = mesh_lib.place_batch(mesh, batch)
  np.testing.assert_array_equal(placed['input'], batch['input'])
  assert placed['input'].sharding.shard_shape((8, 3)) == (8 // devices, 3)
  seeded = mesh_lib.place_batch(mesh, {'input': np.zeros((3, 8, 2))}, axis=1)
  assert seeded['input'].sharding.shard_shape((3, 8, 2)) == (3, 8 // devices, 2)


def test_a_batch_that_does_not_divide_is_replicated():
  placed = mesh_lib.place_batch(mesh_lib.make(4), {'input': np.arange(6.0)})
  assert placed['input'].sharding.is_fully_replicated
  np.testing.assert_array_equal(placed['input'], np.arange(6.0))


def test_rules_of_parameters():
  mesh, tree = mesh_lib.make(4), {'kernel': jnp.zeros((6, 16)), 'bias': jnp.zeros(3)}
  assert all(s.is_fully_replicated for s in jax.tree.leaves(mesh_lib.shardings(mesh, tree)))
  fsdp = mesh_lib.shardings(mesh, tree, 'fsdp')
  assert fsdp['kernel'].shard_shape((6, 16)) == (6, 4) and fsdp['bias'].is_fully_replicated
  with pytest.raises(ValueError, match="'fsdb' is not one of replicated, fsdp"):
    mesh_lib.shardings(mesh, tree, 'fsdb')


@pytest.mark.parametrize('devices', [0, 5])
def test_too_many_devices_are_refused(devices):
  with pytest.raises(ValueError, match=f'{devices} devices were asked for and there are 4'):
    mesh_lib.make(devices)


def test_per_device_equals_the_jitted_form():
  x, w = jax.random.normal(jax.random.key(0), (4, 5, 3)), jax.random.normal(jax.random.key(1), (4, 3, 2))
  def step(x, w):
    return {'y': jnp.tanh(x @ w), 'norm': jnp.linalg.norm(w)}
  mapped, jitted = mesh_lib.per_device(step)(x, w), jax.jit(jax.vmap(step))(x, w)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), mapped, jitted)
  assert mapped['y'].sharding.shard_shape((4, 5, 2)) == (1, 5, 2)
  with pytest.raises(ValueError, match='leading axis of 4 devices'):
    mesh_lib.per_device(step)(x[:3], w[:3])


def test_product_over_a_sharded_axis_needs_no_annotation():
  """Explicit axis types would refuse this; Auto ones insert the all-reduce."""
  x = mesh_lib.place_batch(mesh_lib.make(4), np.arange(32.0, dtype=np.float32).reshape(16, 2))
  np.testing.assert_allclose(jax.jit(lambda x: x.T @ x)(x), np.asarray(x).T @ np.asarray(x), rtol=1e-6)
