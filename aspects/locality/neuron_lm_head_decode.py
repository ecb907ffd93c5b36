"""Decoding specialised feature neurons in LLMs with the final projection layer (Davies 2025, arXiv:2501.02688).

What neuron i of an MLP reads is a direction of the stream: row w_i of its up-projection (of a gated unit the linear
branch, `channel_gate`; else `channel_pre`). Pushed through the head of the network, softmax(W_head w_i) says which
outputs that direction stands for: the token of the neuron, its probability (how specialised the neuron is), and the
entropy. Without data: the weights are read off the network where it runs on the first batch, as derivatives, so that
heads that are tied, pooled or scaled are read alike.

`fold_norm`: the head is the final norm's gain and centring and the map, as for a stream of unit variance; without it
the map alone. The paper does not say which; both are reported, the folded one as the main.
Differs from the paper: all layers at once, entropies, and networks of any kind that have such sites.
"""
import dataclasses
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import xarray as xr

from aspects import stats
from aspects.nn import frozen_end
from aspects.sites import select

Array = jax.Array
READ = ('channel_gate', 'channel_pre')               # the linear branch where there is one


class Maps(NamedTuple):
  """Weights of a network: the head [D, V] with the final norm folded in and without, and what neurons read [D, F]."""
  seen: Any             # whether a batch has come
  folded: Any
  plain: Any
  rows: Any             # {site of the neurons: [D, F]}


@dataclasses.dataclass(frozen=True)
class ReadWeights:
  """Reads the weights of head and up-projections off the first batch: Maps.

  The network runs from the sites in question on, on basis vectors, an example each. `neurons` {site} read `inputs`,
  the site in front of each. Where a head pools, all examples of the first batch need a token that is not masked.
  """
  inputs: tuple[str, ...]
  neurons: tuple[str, ...]
  final: str

  reruns = True

  @property
  def sites(self):
    return tuple(dict.fromkeys((*self.inputs, *self.neurons, self.final, 'final_norm', 'logits')))

  def init(self, specs):
    width, outputs = specs[self.final].shape[-1], specs['logits'].shape[-1]
    rows = {n: jnp.zeros((specs[i].shape[-1], specs[n].shape[-1])) for i, n in zip(self.inputs, self.neurons)}
    return Maps(jnp.zeros((), bool), jnp.zeros((width, outputs)), jnp.zeros((width, outputs)), rows)

  def update(self, state, acts, batch, rerun):
    return jax.lax.cond(state.seen, lambda: state, lambda: self.read(acts, rerun))

  def read(self, acts, rerun) -> Maps:
    """The weights, whatever the batch holds."""
    each = derivative(rerun, {n: acts[n] for n in (*self.inputs, 'final_norm')}, (*self.neurons, 'logits'))
    norm = derivative(rerun, {self.final: acts[self.final]}, ('final_norm',))['final_norm']
    # What the norm multiplies its linear map by at a stream of unit variance.
    unit = unit_stream(len(norm))
    of = lambda x: frozen_end.replaced(rerun, (self.final,), ('final_norm',))(
        {self.final: jnp.broadcast_to(x, acts[self.final].shape)})['final_norm'][0, 0]
    factor = frozen_end.scale(of(unit), frozen_end.Linear(of(0 * unit), unit @ norm, None))
    plain = each['logits']
    return Maps(jnp.ones((), bool), stats.product((norm * factor).T, plain), plain, {n: each[n] for n in self.neurons})

  def merge(self, a, b):
    return jax.tree.map(lambda x, y: jnp.where(a.seen, x, y), a, b)

  def finish(self, state):
    if not state.seen:
      raise ValueError('weights are read where the network runs, and no batch came')
    found = stats.float64(state)
    return found._replace(rows={n: found.rows[n] for n in self.neurons})


def derivative(rerun, at: dict[str, Array], record: tuple[str, ...]) -> dict[str, Array]:
  """{site: [D, units]}: the derivative of sites, at zero, by those of `at` [B, T, D], each of which meets one of them.

  Tokens of an example get the same vector; examples get one basis vector after another.
  """
  function, width = frozen_end.replaced(rerun, tuple(at), record), next(iter(at.values())).shape[-1]
  count = len(next(iter(at.values())))
  zeros = {n: jnp.zeros_like(x) for n, x in at.items()}
  def part(first):
    basis = jax.nn.one_hot(first + jnp.arange(count), width)                # zeros behind the last
    tangent = {n: jnp.broadcast_to(basis[:, None], x.shape).astype(x.dtype) for n, x in at.items()}
    out = jax.jvp(function, (zeros,), (tangent,))[1]
    return {n: out[n][:, 0] if out[n].ndim == 3 else out[n] for n in record}
  parts = jax.lax.map(part, jnp.arange(0, width, count))
  return {n: x.reshape(-1, x.shape[-1])[:width] for n, x in parts.items()}


def unit_stream(width: int) -> Array:
  """A vector [D] of mean 0 and mean square 1: +1, -1, +1, ..., and a 0 at the end of an odd one."""
  sign = jnp.where(jnp.arange(width) % 2 == 0, 1., -1.)
  return sign if width % 2 == 0 else sign.at[-1].set(0) * jnp.sqrt(width / max(width - 1, 1))


def decode_neurons(rows: np.ndarray, head: np.ndarray) -> np.ndarray:
  """log softmax of what each neuron reads through the head: [D, F], [D, V] -> [F, V]."""
  return scipy.special.log_softmax(rows.T @ head, -1)


@dataclasses.dataclass(frozen=True)
class NeuronLmHeadDecode:
  """The outputs that neurons stand for: probability and entropy [site, unit], tokens and theirs [site, unit, place].

  Args:
    sites: what the neurons read, `channel_gate` of gated units or `channel_pre`; () is the one that each layer has.
    k: how many tokens are named, the likeliest first.
    final: the last stream.
  """
  sites: tuple[str, ...] = ()
  k: int = 4
  final: str = 'resid_post.-1'

  invariant = {}

  def __post_init__(self):
    if self.k < 1:
      raise ValueError(f'k is {self.k}; at least one token is named')

  def needs(self, specs):
    final, = select((self.final,), specs)
    for site in ('final_norm', 'logits'):
      if site not in specs:
        raise ValueError(f'neurons are decoded by norm and head, and this network has no site {site!r}')
    if specs['logits'].shape[-1] < self.k:
      raise ValueError(f'k is {self.k} and the network has {specs["logits"].shape[-1]} outputs; name fewer')
    names = select(self.sites, specs) if self.sites else linear_branches(specs)
    return {'maps': ReadWeights(tuple(f'channel_in.{n.partition(".")[2]}' for n in names), names, final)}

  def compute(self, maps: Maps) -> xr.Dataset:
    most = max(rows.shape[1] for rows in maps.rows.values())
    pad = lambda x: np.pad(x, ((0, most - len(x)), *((0, 0),) * (x.ndim - 1)), constant_values=np.nan)
    values = {}
    for suffix, head in (('', maps.folded), ('_plain', maps.plain)):
      found = [summary(decode_neurons(rows, head), self.k) for rows in maps.rows.values()]
      names = tuple(f'{name}{suffix}' for name in ('probability', 'entropy', 'token', 'token_probability'))
      values |= {name: np.stack([pad(x) for x in column]) for name, column in zip(names, zip(*found))}
    dims = ('site', 'unit', 'place')
    out = xr.Dataset({n: (dims[:x.ndim], x) for n, x in values.items()}, {
        'site': list(maps.rows), 'unit': np.arange(most), 'place': np.arange(1, self.k + 1)}, attrs=dict(
            aspect='locality', title='Neurons decoded by the head',
            question='Which outputs does each neuron stand for?', source='Davies 2025, arXiv:2501.02688',
            outputs=maps.plain.shape[1], headline='probability'))
    texts = {'probability': ('probability of the likeliest output', '1'), 'entropy': ('entropy of the outputs', 'nats'),
             'token': ('the likeliest outputs', 'number of the output'),
             'token_probability': ('probabilities of the likeliest outputs', '1')}
    for name in out:
      text, units = texts[name.removesuffix('_plain')]
      out[name].attrs = dict(long_name=text + (', without the final norm' if name.endswith('_plain') else ''),
                             units=units, figure='spectrum' if name in ('probability', 'entropy') else 'none')
    out['probability'].attrs |= dict(limits=[0, 1])
    return out


def summary(log_p: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
  """(largest probability [F], entropy [F], the k likeliest outputs [F, k], their probabilities [F, k]) of [F, V]."""
  p = np.exp(log_p)
  order = np.argsort(-log_p, axis=1, kind='stable')[:, :k]
  return p.max(1), -(p * log_p).sum(1), order.astype(np.float64), np.take_along_axis(p, order, 1)


def linear_branches(specs) -> tuple[str, ...]:
  """The site of what neurons read in each layer that has them: of gated units the linear branch."""
  layers = dict.fromkeys(m[1] for s in specs if (m := re.fullmatch(r'channel_pre\.(\d+)', s)))
  names = [next(f'{slot}.{layer}' for slot in READ if f'{slot}.{layer}' in specs) for layer in layers]
  if not names:
    raise ValueError('no layer has neurons, channel_pre; give the sites of what they read')
  return tuple(names)
