"""Rotary positions: the rotation as a product of complex numbers, stretchings against transformers."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects.nn.rope import angles, rotate, Rotary
from tests import fill

B, T, H, D = 2, 5, 3, 8
LLAMA3 = dict(name='llama3', factor=8.0, low=1.0, high=4.0, length=64)


def turned(rotary, x, positions):
  cos, sin = angles(jnp.asarray(rotary.frequencies(x.shape[-1]), jnp.float32), jnp.asarray(positions))
  return np.asarray(rotate(x, cos[None], sin[None]))


def test_units_i_and_i_plus_half_are_the_two_parts_of_a_complex_number_that_turns():
  x, positions = fill.normal(1, B, T, H, D), np.array([0, 1, 2, 7, 100])
  z = np.asarray(x, np.float64)[..., :4] + 1j * np.asarray(x, np.float64)[..., 4:]
  z = z * np.exp(1j * positions[:, None, None] * 100.0 ** (-np.arange(0, 8, 2) / 8))
  np.testing.assert_allclose(turned(Rotary(base=100.0), x, positions), np.concatenate([z.real, z.imag], -1), atol=2e-5)


def test_products_depend_on_the_distance_alone():
  q, k = (fill.normal(seed, 1, 1, 1, D) for seed in (1, 2))
  rotary = Rotary()
  dot = lambda m, n: (turned(rotary, q, [m]) * turned(rotary, k, [n])).sum()
  for shift in (0, 3, 40):
    np.testing.assert_allclose(dot(9 + shift, 4 + shift), dot(9, 4), rtol=1e-4)
  assert abs(dot(9, 4) - dot(4, 9)) > 1e-3


def test_the_first_position_does_not_turn_and_lengths_stay():
  x = fill.normal(1, B, T, H, D)
  y = turned(Rotary(), x, np.arange(T))
  np.testing.assert_array_equal(y[:, 0], x[:, 0])
  np.testing.assert_allclose((y ** 2).sum(-1), (np.asarray(x) ** 2).sum(-1), rtol=1e-5)


def test_a_share_turns_the_first_units_as_a_smaller_head_would():
  x = fill.normal(1, B, T, H, D)
  y = turned(Rotary(share=0.5), x, np.arange(T))
  np.testing.assert_array_equal(y[..., 4:], x[..., 4:])
  np.testing.assert_array_equal(y[..., :4], turned(Rotary(), x[..., :4], np.arange(T)))
  assert Rotary(share=0.5).turned(D) == 4 and Rotary(share=0.45).turned(D) == 2


def test_linear_scaling_is_a_slower_walk():
  x = fill.normal(1, B, T, H, D)
  slow = turned(Rotary(scaling=dict(name='linear', factor=4.0)), x, 4 * np.arange(T))
  np.testing.assert_allclose(slow, turned(Rotary(), x, np.arange(T)), atol=1e-6)


def test_llama3_keeps_fast_pairs_and_slows_slow_ones():
  """Pairs that turn more than `high` times within the original length stay, below `low` times they are slowed."""
  plain, scaled = Rotary().frequencies(64), Rotary(scaling=LLAMA3).frequencies(64)
  turns = 64 * plain / (2 * np.pi)
  fast, slow = turns > 4, turns < 1
  assert fast.any() and slow.any() and (~fast & ~slow).any()
  np.testing.assert_array_equal(scaled[fast], plain[fast])
  np.testing.assert_allclose(scaled[slow], plain[slow] / 8, rtol=1e-15)
  ratio = (scaled / plain)[~fast & ~slow]
  assert ((ratio > 1 / 8) & (ratio < 1)).all() and (np.diff(scaled) < 0).all()


@pytest.mark.parametrize('base', [10000.0, 500000.0])
@pytest.mark.parametrize('share', [1.0, 0.5])
@pytest.mark.parametrize('ours, theirs', [
    (None, {}), (dict(name='linear', factor=3.0), dict(rope_type='linear', factor=3.0)),
    (LLAMA3, dict(rope_type='llama3', factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=64))])
def test_frequencies_are_those_of_transformers(base, share, ours, theirs):
  from tests.pretrained.reference import transformers
  from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
  parameters = {'rope_type': 'default', **theirs, 'rope_theta': base, 'partial_rotary_factor': share}
  config = transformers.GPTNeoXConfig(hidden_size=256, num_attention_heads=4, max_position_embeddings=128,
                                      rope_parameters=parameters)
  make = ROPE_INIT_FUNCTIONS[theirs['rope_type']] if theirs else (
      transformers.models.gpt_neox.modeling_gpt_neox.GPTNeoXRotaryEmbedding.compute_default_rope_parameters)
  expected, factor = make(config, 'cpu')
  assert factor == 1
  np.testing.assert_allclose(Rotary(base, share, ours).frequencies(64), expected.numpy(), rtol=2e-6)


def test_angles_are_computed_in_float32_at_least():
  frequencies = jnp.asarray(Rotary().frequencies(D), jnp.bfloat16)
  cos, _ = angles(frequencies, jnp.arange(T))
  assert cos.dtype == jnp.float32
  x = fill.normal(1, B, T, H, D)
  cos, sin = angles(jnp.asarray(Rotary().frequencies(D), jnp.float32), jnp.arange(T))
  low = rotate(x.astype(jnp.bfloat16), cos[None], sin[None])
  assert low.dtype == jnp.bfloat16
  np.testing.assert_allclose(low.astype(jnp.float32), rotate(x, cos[None], sin[None]), atol=0.03)
  with jax.enable_x64(True):
    far = np.array([10 ** 7])
    cos, _ = angles(jnp.asarray(Rotary().frequencies(D)), jnp.asarray(far))
    np.testing.assert_allclose(cos[0], np.cos(far * Rotary().frequencies(D)), atol=1e-8)


def test_positions_of_texts_of_their_own():
  x, positions = fill.normal(1, B, T, H, D), np.array([[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]])
  cos, sin = angles(jnp.asarray(Rotary().frequencies(D), jnp.float32), jnp.asarray(positions))
  y = rotate(x, cos, sin)
  for b in range(B):
    np.testing.assert_allclose(y[b], turned(Rotary(), x[b:b + 1], positions[b])[0], atol=1e-6)


@pytest.mark.parametrize('fields, message', [
    (dict(base=0.0), 'base 0.0'), (dict(share=0.0), 'share 0.0'), (dict(share=1.5), 'share 1.5'),
    (dict(scaling=dict(name='yarn', factor=2.0)), 'yarn'), (dict(scaling=dict(name='linear')), 'linear'),
    (dict(scaling=dict(factor=2.0)), 'scaling')])
def test_what_is_not_known_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    Rotary(**fields)
