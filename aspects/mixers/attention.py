"""Attention Is All You Need: every token reads every token, or, `causal`, those up to itself (Vaswani et al. 2017, arXiv:1706.03762).

The fields that published networks add, grouped keys, rotary positions, windows, caps, are those of `nn.attention`."""
from typing import Any, Mapping

from flax import linen as nn

from aspects.nn.attention import MultiHead


class Attention(nn.Module):
  """`window` w, causal only: each token reads the w up to itself; 0 for all. See `MultiHead` for the other fields."""
  heads: int = 4
  causal: bool = False
  kv_heads: int | None = None
  head_size: int | None = None
  bias: bool = True
  out_bias: bool = True
  rotary: Any = None
  qk_norm: Mapping[str, Any] | None = None
  scale: Any = None
  soft_cap: float | None = None
  window: Any = 0
  dtype: str = 'float32'
  by_layer = True                                    # its call takes the layer
  examples = ({}, {'causal': True}, {'causal': True, 'kv_heads': 2, 'window': 3, 'bias': False},
              {'causal': True, 'head_size': 6, 'qk_norm': {'name': 'rms'}, 'soft_cap': 5.0, 'scale': (0.3, 0.4),
               'rotary': ({'base': 100.0}, {'scaling': {'name': 'linear', 'factor': 2.0}}), 'window': (0, 2)})

  @property
  def symmetries(self):
    windows = self.window if isinstance(self.window, tuple) else (self.window,)
    near = ('local', 'shift') if all(windows) else ()
    return ('causal', *near) if self.causal else ('permutation',)

  @nn.compact
  def __call__(self, x, *, mask=None, positions=None, layer=None):
    if self.window != 0 and not self.causal:
      raise ValueError(f'window {self.window} needs causal=True; a window to both sides is the mixer `window`')
    inner = MultiHead(self.heads, self.dtype, self.kv_heads, self.head_size, self.bias, self.out_bias, self.rotary,
                      self.qk_norm, self.scale, self.soft_cap, self.window, self.causal, name='heads')
    return inner(x, None, mask, positions, layer)
