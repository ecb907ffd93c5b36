"""Cross-entropy between labels and softmax(outputs), in nats, with label smoothing (Szegedy et al. 2015, arXiv:1512.00567)."""
import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
  """`(outputs [B, C] or [B, T, C], batch, key) -> (loss [B], info)`; info holds `nll` and `accuracy` [B].

  Tokens are averaged within an example, those whose `mask` is 0 left out. The nll is that of the true label.
  """
  smoothing: float = 0.0

  def __call__(self, outputs, batch, key=None):
    label = batch['label']
    if outputs.shape[:-1] != label.shape:
      raise ValueError(f'outputs {outputs.shape} do not match labels {label.shape}: cross-entropy takes one vector of '
                       'logits a label; a head that pools (classify) gives [B, C], another (unembed) [B, T, C]')
    log_p = jax.nn.log_softmax(outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32)))
    nll = -jnp.take_along_axis(log_p, label[..., None], -1)[..., 0]
    loss = (1 - self.smoothing) * nll - self.smoothing * log_p.mean(-1)
    hit = (outputs.argmax(-1) == label).astype(nll.dtype)
    mask = batch['mask'] if label.ndim == 2 and 'mask' in batch else jnp.ones(label.shape, nll.dtype)
    def mean(x):                                      # over the tokens of an example
      if label.ndim == 1:
        return x
      return jnp.where(mask > 0, x, 0).sum(1) / jnp.maximum((mask > 0).sum(1), 1)
    return mean(loss), {'nll': mean(nll), 'accuracy': mean(hit)}
