"""The autoencoder and its loss against numpy in float64 and against samples of the integrals."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from aspects import sites
from aspects.nn.autoencoder import Autoencoder, Elbo
from tests import fill

X = jax.nn.sigmoid(fill.normal(1, 6, 2, 2))
NET = Autoencoder(latents=3, widths=(7, 5))


def test_outputs_are_pixels_means_and_variances():
  v = fill.variables(NET, X)
  out, acts = sites.forward(NET, v, X, record=('*',))
  assert list(acts) == ['latent_mean', 'latent_variance'] and out.shape == (6, 4 + 6)
  p = jax.tree.map(np.float64, v['params'])
  dense = lambda name, h: h @ p[name]['kernel'] + p[name]['bias']
  h = np.float64(X).reshape(6, 4)
  for name in ('encoder_0', 'encoder_1'):
    h = np.maximum(dense(name, h), 0)
  mean, log_variance = dense('mean', h), dense('log_variance', h)
  h = mean                                             # without a key the mean is decoded
  for name in ('decoder_0', 'decoder_1'):
    h = np.maximum(dense(name, h), 0)
  np.testing.assert_allclose(out, np.concatenate([dense('pixels', h), mean, log_variance], 1), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(acts['latent_mean'], mean, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(acts['latent_variance'], np.exp(log_variance), rtol=1e-4)


def test_with_a_key_the_decoder_sees_noise_of_the_variance():
  """Decoded by the identity: over many keys the pixels have the mean and the variance of the posterior."""
  net = Autoencoder(latents=4, widths=())
  v = {'params': {'mean': {'kernel': jnp.eye(4), 'bias': jnp.zeros(4)},
                  'log_variance': {'kernel': jnp.zeros((4, 4)), 'bias': jnp.log(jnp.array([.1, .5, 1., 4.]))},
                  'pixels': {'kernel': jnp.eye(4), 'bias': jnp.zeros(4)}}}
  run = jax.vmap(lambda key: net.apply(v, X[:1], rngs={'dropout': key})[0, :4])
  z = np.asarray(run(jax.random.split(jax.random.key(0), 20000)))
  np.testing.assert_allclose(z.mean(0), X[0].reshape(-1), atol=0.06)
  np.testing.assert_allclose(z.var(0), [.1, .5, 1., 4.], rtol=0.05)


def test_the_loss_is_likelihood_and_divergence():
  rng = np.random.default_rng(0)
  outputs = rng.normal(size=(6, 4 + 4)).astype(np.float32)
  logits, mean, log_variance = np.float64(outputs[:, :4]), np.float64(outputs[:, 4:6]), np.float64(outputs[:, 6:])
  p, y = 1 / (1 + np.exp(-logits)), np.float64(X).reshape(6, 4)
  nll = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(1)
  loss, info = Elbo(beta=3.)(outputs, {'input': X})
  np.testing.assert_allclose(info['nll'], nll, rtol=1e-5)
  # the divergence as the integral of log q - log p over samples of q
  eps = rng.normal(size=(200000, 1, 2))
  z = mean + np.exp(log_variance / 2) * eps
  kl = (-log_variance / 2 - eps ** 2 / 2 + z ** 2 / 2).sum(2).mean(0)
  np.testing.assert_allclose(info['kl'], kl, atol=0.03)
  np.testing.assert_allclose(loss, info['nll'] + 3 * info['kl'], rtol=1e-6)
  np.testing.assert_allclose(info['elbo'], info['nll'] + info['kl'], rtol=1e-6)
  prior = np.concatenate([outputs[:, :4], np.zeros((6, 4), np.float32)], 1)
  np.testing.assert_array_equal(Elbo()(prior, {'input': X})[1]['kl'], 0)


def test_a_normal_likelihood_without_its_constant():
  rng = np.random.default_rng(1)
  outputs = rng.normal(size=(6, 4 + 2)).astype(np.float32)
  found = Elbo(deviation=0.5)(outputs, {'input': X})[1]['nll']
  exact = -stats.norm.logpdf(np.float64(X).reshape(6, 4), outputs[:, :4], 0.5).sum(1)
  np.testing.assert_allclose(found - found[0], exact - exact[0], rtol=1e-5)
  np.testing.assert_allclose(exact - found, 2 * np.log(2 * np.pi * 0.25), rtol=1e-5)


def test_errors_say_the_way_out():
  with pytest.raises(ValueError, match='beta -1.0 .* at least 0'):
    Elbo(beta=-1.)
  with pytest.raises(ValueError, match='deviation 0.0 must be above 0'):
    Elbo(deviation=0.)
  with pytest.raises(ValueError, match='are not of 4 inputs with the mean'):
    Elbo()(np.zeros((6, 7), np.float32), {'input': X})
