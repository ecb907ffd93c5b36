"""Group Normalization: over the tokens and the units of a group within one example (Wu & He 2018, arXiv:1803.08494)."""
from flax import linen as nn


class Group(nn.Module):
  groups: int = 8
  epsilon: float = 1e-5
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, layer):
    if x.shape[-1] % self.groups:
      raise ValueError(f'width {x.shape[-1]} is not a multiple of groups {self.groups}')
    return nn.GroupNorm(num_groups=self.groups, epsilon=self.epsilon, dtype=self.dtype, name='affine')(x)
