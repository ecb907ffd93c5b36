"""A variational autoencoder of perceptrons, and its loss (Kingma & Welling 2013; Higgins et al. 2017)."""
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aspects.nn.activations import activation
from aspects.sites import tag

Array = jax.Array


class Autoencoder(nn.Module):
  """[B, ...] -> [B, P + 2 latents]: logits or means of the P input values, and mean and log variance of the latents.

  The encoder has hidden layers of `widths` units, the decoder the same in reverse. What is decoded is the mean plus
  deviation times noise where there is a key for `dropout`, as in training, else the mean. Sites: latent_mean and
  latent_variance [B, latents].
  """
  latents: int = 10
  widths: tuple[int, ...] = (128,)
  act: str = 'relu'

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    h = x = inputs.reshape(inputs.shape[0], -1).astype(jnp.float32)
    for i, width in enumerate(self.widths):
      h = activation(self.act)(nn.Dense(width, name=f'encoder_{i}')(h))
    mean = tag(self, 'latent_mean', nn.Dense(self.latents, name='mean')(h))
    log_variance = nn.Dense(self.latents, name='log_variance')(h)
    variance = tag(self, 'latent_variance', jnp.exp(log_variance))
    z = mean
    if self.has_rng('dropout'):
      z = mean + jnp.sqrt(variance) * jax.random.normal(self.make_rng('dropout'), mean.shape)
    for i, width in enumerate(self.widths[::-1]):
      z = activation(self.act)(nn.Dense(width, name=f'decoder_{i}')(z))
    return jnp.concatenate([nn.Dense(x.shape[1], name='pixels')(z), mean, log_variance], 1)


@dataclasses.dataclass(frozen=True)
class Elbo:
  """`(outputs [B, P + 2K], batch, key) -> (loss [B], info)` of `Autoencoder`: nll + beta kl, in nats an example.

  nll is summed over values: of inputs in 0..1 under independent Bernoulli variables whose logits are the outputs, or,
  with a `deviation`, under normal ones about the outputs, without the constant that does not depend on them. kl is that
  of the latents from a standard normal, summed over them. Info holds both and `elbo`, nll + kl.
  """
  beta: float = 1.0
  deviation: float | None = None

  def __post_init__(self):
    if self.beta < 0:
      raise ValueError(f'beta {self.beta} weighs a divergence; it must be at least 0')
    if self.deviation is not None and self.deviation <= 0:
      raise ValueError(f'deviation {self.deviation} must be above 0; None is for Bernoulli variables')

  def __call__(self, outputs, batch, key=None):
    y = batch['input'].reshape(outputs.shape[0], -1)
    count = int(np.prod(y.shape[1:]))
    latents = (outputs.shape[1] - count) // 2
    if outputs.shape[1] != count + 2 * latents or latents < 1:
      raise ValueError(f'outputs {outputs.shape} are not of {count} inputs with the mean and log variance of '
                       'latents behind them; use the network aspects.nn.autoencoder:Autoencoder')
    pixels, mean, log_variance = jnp.split(outputs, [count, count + latents], 1)
    if self.deviation is None:
      nll = (jax.nn.softplus(pixels) - y * pixels).sum(1)
    else:
      nll = ((y - pixels) ** 2).sum(1) / (2 * self.deviation ** 2)
    kl = 0.5 * (mean ** 2 + jnp.exp(log_variance) - 1 - log_variance).sum(1)
    return nll + self.beta * kl, {'nll': nll, 'kl': kl, 'elbo': nll + kl}
