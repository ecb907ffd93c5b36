"""Sigmoid cross-entropy: every output is a yes-or-no question of its own, in nats (Wightman et al. 2021, arXiv:2110.00476).

  nll = sum over k of  y_k softplus(-z_k) + (1 - y_k) softplus(z_k),     p_k = sigmoid(z_k)

the negative log-likelihood of K independent labels. A class number stands for its one-hot vector: one against the rest,
as in the paper, whose targets are mixed with those of other images; here they are 0 or 1."""
import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Binary:
  """`(outputs [B, K] or [B, T, K], batch, key) -> (loss [B], info)`; the loss is the nll, a sum over labels.

  Labels are 0 or 1, of the shape of the outputs, or classes below K, without their last axis. `info` holds `nll` and
  `accuracy` [B]: the share of the K labels that are right; with labels of the outputs' shape also `accuracy_0`,
  `accuracy_1`, ..., of each; with classes the share of rows whose largest output is the class. Tokens are averaged
  within an example, those whose `mask` is 0 left out.
  """

  def __call__(self, outputs, batch, key=None):
    label = batch['label']
    several = label.shape == outputs.shape
    if not several and label.shape != outputs.shape[:-1]:
      raise ValueError(f'outputs {outputs.shape} do not match labels {label.shape}: sigmoid cross-entropy takes labels '
                       'of 0 and 1 in the shape of the outputs, or class numbers without the last axis')
    z = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
    y = label.astype(z.dtype) if several else jax.nn.one_hot(label, z.shape[-1], dtype=z.dtype)
    nll = (jax.nn.softplus(z) - y * z).sum(-1)
    mask = batch['mask'] if outputs.ndim == 3 and 'mask' in batch else jnp.ones(nll.shape, z.dtype)
    def mean(x):                                      # over the tokens of an example
      if outputs.ndim == 2:
        return x
      return jnp.where(mask > 0, x, 0).sum(1) / jnp.maximum((mask > 0).sum(1), 1)
    if not several:
      hit = (z.argmax(-1) == label).astype(z.dtype)
      return mean(nll), {'nll': mean(nll), 'accuracy': mean(hit)}
    hit = ((z > 0) == (y > 0)).astype(z.dtype)
    each = {f'accuracy_{k}': mean(hit[..., k]) for k in range(z.shape[-1])}
    return mean(nll), {'nll': mean(nll), 'accuracy': mean(hit.mean(-1)), **each}
