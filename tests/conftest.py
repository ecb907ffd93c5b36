"""Settings of all tests: four CPU devices, full precision, strict rank promotion; warnings are errors (pyproject.toml)."""
import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=4'

import jax  # noqa: E402  (after the flags)
import pytest  # noqa: E402

jax.config.update('jax_default_matmul_precision', 'highest')
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(autouse=True)
def no_float64_left_on():
  """A test that turns x64 on must turn it off."""
  yield
  assert not jax.config.jax_enable_x64
