"""Laws of all heads: `Module(x [B, T, D], mask) -> logits`, [B, outputs] or [B, T, outputs], in float32; every file."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import plugin
from aspects import sites
from tests import fill

SPECS = plugin.examples('heads')
B, T, D, OUTPUTS = 3, 6, 8, 5
each = pytest.mark.parametrize('case', range(len(SPECS)), ids=str)
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 0]], np.float32)


def stream(seed):
  return fill.normal(seed, B, T, D)


@functools.cache
def head(case):
  module = plugin.build('heads', SPECS[case], outputs=OUTPUTS)
  variables = fill.variables(module, stream(1), MASK)
  return variables, jax.jit(lambda v, x, mask: sites.record_sites(module, v, (x, mask), ('*',), {}, {}))


@each
def test_shape_dtype_and_site(case):
  variables, apply = head(case)
  logits, acts = apply(variables, stream(1), MASK)
  # A head that gives what was pooled, without a map, is as wide as the stream and has no logits.
  size, site = (OUTPUTS, 'logits') if 'logits' in acts else (logits.shape[-1], 'embedding')
  assert size in (OUTPUTS, D) and logits.shape in ((B, size), (B, T, size)) and logits.dtype == jnp.float32
  np.testing.assert_array_equal(acts[site], logits)
  low = plugin.build('heads', SPECS[case], outputs=OUTPUTS, dtype='bfloat16')
  y = low.apply(variables, stream(1).astype(jnp.bfloat16), MASK)
  assert y.shape == logits.shape and y.dtype == jnp.float32
  np.testing.assert_allclose(y, logits, atol=0.1)


@each
@pytest.mark.parametrize('poison', (1e4, np.nan))
def test_masked_tokens_have_no_influence_on_real_ones(case, poison):
  variables, apply = head(case)
  real = MASK[..., None] > 0
  clean, poisoned = (apply(variables, jnp.where(real, stream(1), p), MASK)[0] for p in (0.0, poison))
  if clean.ndim == 3:
    clean, poisoned = np.where(real, clean, 0), np.where(real, poisoned, 0)
  np.testing.assert_array_equal(clean, poisoned)


@each
def test_a_full_mask_is_no_mask(case):
  variables, apply = head(case)
  np.testing.assert_array_equal(apply(variables, stream(1), np.ones((B, T), np.float32))[0],
                                apply(variables, stream(1), None)[0])


@each
def test_the_logits_are_a_linear_map_of_what_is_pooled(case):
  variables, apply = head(case)
  logits, acts = apply(variables, stream(1), MASK)
  read = np.float64(acts.get('pooled', stream(1)))
  params = variables['params']
  maps = [params[name] for name in ('logits_map', 'distilled_map') if name in params]
  tokens = [read] if len(maps) == 1 else [read[:, i] for i in range(len(maps))]     # each map reads one of its own
  of = [x @ np.float64(m['kernel']) + np.float64(m.get('bias', 0)) for x, m in zip(tokens, maps, strict=True)]
  np.testing.assert_allclose(np.mean(of, 0), logits, atol=1e-5)
