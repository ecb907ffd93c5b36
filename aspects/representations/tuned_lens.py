"""Eliciting Latent Predictions from Transformers with the Tuned Lens: an affine map of each stream before it is read (Belrose et al. 2023, arXiv:2303.08112).

The logit lens reads a stream as if it were the last; the tuned lens first maps it there, x + x W_l + b_l, with W and b
of each layer trained from zero, on the examples of fold `fit`, to lessen KL(softmax z* || softmax z) from the
network's own logits z*. Judged on fold `held`. With W = 0 and b = 0 it is the logit lens.

    maps = train_translators(net, variables, stream, steps=500)
    lens.save(maps, 'maps.npz')
    measure_network(net, variables, stream, TunedLens(maps.sites, 'maps.npz'))

A measure sees its data once, so that training is a function of its own and the measure judges what it left. All layers
are trained as one program, an axis over layers.

Differs from the paper: Adam with a linear decay in place of Nesterov momentum; the last layer may have a map too, whose
best value is zero.
"""
import dataclasses
import functools
from typing import Iterable

import jax
import jax.numpy as jnp
import optax
import xarray as xr

from aspects import sites as sites_lib
from aspects.measure import network_inputs
from aspects.statistics import lens
from aspects.statistics.lens import Lens, Readings, Translators

TEXTS = {'kl': ('KL divergence from the outputs of the network', 'nats'),
         'nll': ('cross-entropy of the label', 'nats'),
         'accuracy': ('accuracy', '1'),
         'agreement': ('share of rows with the same largest output as the network', '1'),
         'entropy': ('entropy of what is read', 'nats'),
         'rank': ('mean rank of the largest output of the network', '1')}
UNTUNED = ('kl', 'nll')


@dataclasses.dataclass(frozen=True)
class TunedLens:
  """What the end of the network reads in mapped streams: kl, nll, accuracy, agreement, entropy and rank, all [site].

  Beside them kl and nll of the streams as they are, the logit lens.

  Args:
    sites: streams, of the shape of `final`; those that the translators are for.
    translators: a file of maps from `lens.save`; without one every map is the identity.
    final: the stream that the end of the network reads.
    fold: the examples that count, see `aspects.stats`; the translators have not seen `held`.
    batch_size: how many streams are read side by side; memory grows with that only.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  translators: str = ''
  final: str = 'resid_post.-1'
  fold: str = 'held'
  batch_size: int = 1

  invariant = {}

  def needs(self, specs):
    final, = sites_lib.select((self.final,), specs)
    if 'logits' not in specs:
      raise ValueError("a lens reads the logits of the network, and it has no site 'logits'")
    plain = Lens(sites_lib.select(self.sites, specs), final, fold=self.fold, batch_size=self.batch_size)
    return {'tuned': dataclasses.replace(plain, translators=self.translators), 'plain': plain}

  def compute(self, tuned: Readings, plain: Readings) -> xr.Dataset:
    values = {name: ('site', tuned.values[name]) for name in TEXTS if name in tuned.values}
    values |= {f'{name}_untuned': ('site', plain.values[name]) for name in UNTUNED if name in plain.values}
    out = xr.Dataset(values, {'site': list(tuned.streams)}, attrs=dict(
        aspect='representations', title='Tuned lens', question='What can be read off a layer about the final answer?',
        source='Belrose et al. 2023, arXiv:2303.08112', fold=self.fold, trained=bool(self.translators),
        rows=float(tuned.rows[0]), headline='kl'))
    for name in out:
      text, units = TEXTS[name.removesuffix('_untuned')]
      beside = name.endswith('_untuned')
      out[name].attrs = dict(long_name=text + (', logit lens' if beside else ''), units=units,
                             figure='none' if beside else 'curve')
      if name in ('accuracy', 'agreement'):
        out[name].attrs |= dict(limits=[0, 1])
      if name in UNTUNED:
        out[name].attrs |= dict(null=f'{name}_untuned', null_label='logit lens')
    return out


def train_translators(net, variables, stream, sites: Iterable[str] = ('resid_post.*',), final: str = 'resid_post.-1', *,
                      steps: int = 500, learning_rate: float = 1e-3, clip: float = 1.0, batch_size: int = 1,
                      fold: str = 'fit', **call) -> Translators:
  """The maps x + x W + b of each of `sites` that lessen the mean KL over the rows of `fold`: [L, D, D], [L, D].

  `stream` has `batch(step)` and a length, and is passed again and again for `steps` batches. Adam, a rate that falls
  linearly to 0, gradients of each layer clipped to a norm of `clip`; layers do not touch one another. Each batch runs
  the network once and its end once for each layer, `batch_size` of them side by side. Further keywords go to
  `net.apply`.

  Raises:
    ValueError: no site matches, a site has another shape than `final`, or a KL is not finite.
  """
  batch = stream.batch(0)
  inputs, kwargs = network_inputs(net, batch)
  specs = sites_lib.sites(net, variables, *inputs, **kwargs, **call)
  chosen, (final,) = sites_lib.select(sites, specs), sites_lib.select((final,), specs)
  Lens(chosen, final).init(specs)                    # refuses streams of other shapes
  count, width = len(chosen), specs[final].shape[-1]
  maps = Translators(chosen, jnp.zeros((count, width, width)), jnp.zeros((count, width)))
  # With a larger eps the rounding of a gradient of zero, that of the last layer, is no step of full length.
  adam = optax.adam(optax.linear_schedule(learning_rate, 0., steps), eps=1e-6)
  optimizer = optax.chain(optax.clip_by_global_norm(clip), adam)
  state = jax.vmap(optimizer.init)(maps[1:])
  step = functools.partial(_step, net, chosen, final, optimizer, fold, batch_size, tuple(sorted(call.items())))
  step, weights = jax.jit(step, donate_argnums=(0, 1)), maps[1:]
  for k in range(steps):
    weights, state, kl = step(weights, state, variables, stream.batch(k % len(stream)))
  if steps and not jnp.isfinite(kl).all():
    raise ValueError(f'the divergence of {chosen} is {kl} after {steps} steps; lower learning_rate {learning_rate}')
  return Translators(chosen, *weights)


def _step(net, sites, final, optimizer, fold, batch_size, call, weights, state, variables, batch):
  """(maps, state of the optimizer, kl [L]) after one batch; each layer by itself."""
  inputs, kwargs = network_inputs(net, batch)
  run = lambda edits, record: sites_lib.record_sites(net, variables, inputs, record, edits, {**kwargs, **dict(call)})
  acts = run({}, (*sites, 'logits'))[1]
  expected = acts['logits']
  weight = lens.weights(expected, batch, fold)
  def kl(maps, stream):
    logits = lens.read(run, lens.translated(stream, *maps), final)
    each = lens.divergence(logits, expected).reshape(-1)
    return jnp.where(weight > 0, weight * each, 0).sum() / jnp.maximum(weight.sum(), 1)
  def layer(x):
    maps, state, stream = x
    value, gradient = jax.value_and_grad(kl)(maps, stream)
    change, state = optimizer.update(gradient, state, maps)
    return optax.apply_updates(maps, change), state, value
  streams = jnp.stack([acts[s] for s in sites])
  return jax.lax.map(layer, (weights, state, streams), batch_size=min(batch_size, len(sites)))
