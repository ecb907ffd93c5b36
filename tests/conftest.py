"""Settings of all tests: four CPU devices, full precision, strict rank promotion; warnings are errors."""
import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Compiled programs are shared by the workers and by the processes that tests start.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(pathlib.Path(__file__).parent.parent / '.pytest_cache' / 'jax'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=4'

import jax  # noqa: E402  (after the flags)
import pytest  # noqa: E402

jax.config.update('jax_default_matmul_precision', 'highest')
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(autouse=True, scope='module')
def room_for_programs():
  """Compiled programs are dropped when they hold many memory maps: at 65,530 of them a process dies."""
  yield
  maps = pathlib.Path('/proc/self/maps')
  if maps.exists() and maps.read_bytes().count(b'\n') > 12_000:
    jax.clear_caches()


@pytest.fixture(autouse=True)
def no_float64_left_on():
  """A test that turns x64 on must turn it off."""
  yield
  assert not jax.config.jax_enable_x64
