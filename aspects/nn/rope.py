"""RoFormer: positions as rotations of queries and keys (Su et al. 2021, arXiv:2104.09864), with the usual stretchings.

The pairs that turn are unit i and unit i + size / 2 (the layout of NeoX and Llama checkpoints)."""
import dataclasses
import math
from typing import Any, Mapping

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
SCALINGS = {'linear': ('factor',), 'llama3': ('factor', 'low', 'high', 'length')}


@dataclasses.dataclass(frozen=True)
class Rotary:
  """Rotations by position / base ** (2 i / size) of the first `share` of a head's units.

  `scaling` stretches positions: dict(name='linear', factor=8.0) (Chen et al. 2023, arXiv:2306.15595), or
  dict(name='llama3', factor=8.0, low=1.0, high=4.0, length=8192), which leaves fast frequencies as they are and blends
  between (Dubey et al. 2024, arXiv:2407.21783).
  """
  base: float = 10000.0
  share: float = 1.0
  scaling: Mapping[str, Any] | None = None

  def __post_init__(self):
    if not 0 < self.share <= 1 or self.base <= 0:
      raise ValueError(f'rotary base {self.base} must be above 0 and share {self.share} in (0, 1]')
    if self.scaling is not None:
      name = dict(self.scaling)['name'] if 'name' in self.scaling else None
      if name not in SCALINGS or set(self.scaling) != {'name', *SCALINGS[name]}:
        raise ValueError(f'rotary scaling {dict(self.scaling)} is not one of '
                         + ', '.join(f'dict(name={k!r}, {", ".join(f"{f}=" for f in v)})' for k, v in SCALINGS.items()))

  def frequencies(self, size: int) -> np.ndarray:
    """Radians per position of the pairs that turn, float64 [turned / 2], for heads of `size` units."""
    turned = 2 * (int(size * self.share) // 2)
    f = self.base ** (-np.arange(0, turned, 2, dtype=np.float64) / turned)
    if self.scaling is not None and self.scaling['name'] == 'linear':
      f = f / self.scaling['factor']
    elif self.scaling is not None:
      s = self.scaling
      turns = s['length'] * f / (2 * math.pi)                 # how often a pair turns within the original length
      keep = np.clip((turns - s['low']) / (s['high'] - s['low']), 0, 1)
      f = f * (keep + (1 - keep) / s['factor'])
    return f

  def turned(self, size: int) -> int:
    """How many units of a head turn."""
    return 2 * (int(size * self.share) // 2)


def angles(frequencies: Array, positions: Array) -> tuple[Array, Array]:
  """(cos, sin) [..., T, size / 2] of positions [..., T] in float32 or better."""
  turn = positions[..., None].astype(jnp.promote_types(frequencies.dtype, jnp.float32)) * jnp.broadcast_to(
      frequencies, (*positions.shape, frequencies.shape[-1]))
  return jnp.cos(turn), jnp.sin(turn)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
  """x [B, T, H, d] with its first 2 * size(cos) units turned; cos, sin [B or 1, T, size / 2]."""
  half = cos.shape[-1]
  a, b, rest = x[..., :half], x[..., half:2 * half], x[..., 2 * half:]
  cos, sin = (jnp.broadcast_to(c[:, :, None], a.shape).astype(jnp.promote_types(x.dtype, jnp.float32))
              for c in (cos, sin))
  return jnp.concatenate([(a * cos - b * sin).astype(x.dtype), (b * cos + a * sin).astype(x.dtype), rest], -1)
