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
  full, none = (np.asarray(apply(variables, stream(1), mask)[0]) for mask in (np.ones((B, T), np.float32), None))
  np.testing.assert_allclose(full, none, rtol=0, atol=1e-6 * np.abs(none).max())     # two programs, two orders of sums


def test_the_output_is_a_linear_map_of_what_is_pooled_where_there_is_no_more():
  """Heads with maps to the outputs alone, or without any parameter; a layer between, after pooling, is not linear."""
  seen = []
  for case in range(len(SPECS)):
    variables, apply = head(case)
    params = variables.get('params', {})
    maps = [params[name] for name in ('logits_map', 'distilled_map', 'projection') if name in params]
    if set(params) - {'pooled_norm'} - {'logits_map', 'distilled_map', 'projection', 'hidden_map'} or (
        'hidden_map' in params and 'hidden_norm' in params) or not maps:
      continue
    y, acts = apply(variables, stream(1), MASK)
    if 'soft_cap' in SPECS[case]:
      y = SPECS[case]['soft_cap'] * np.arctanh(np.float64(y) / SPECS[case]['soft_cap'])
    read = np.float64(acts.get('pooled', stream(1)))
    tokens = [read] if len(maps) == 1 else [read[:, i] for i in range(len(maps))]     # each map reads one of its own
    of = [x @ np.float64(m['kernel']) + np.float64(m.get('bias', 0)) for x, m in zip(tokens, maps, strict=True)]
    np.testing.assert_allclose(np.mean(of, 0), y, atol=1e-5)
    seen.append(case)
  assert len(seen) > len(SPECS) / 2
