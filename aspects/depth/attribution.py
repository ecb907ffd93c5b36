"""Direct attribution of the logits to what was added to the stream (Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; nostalgebraist 2020).

The last stream of a pre-norm network is the sum of the embedding and of what every sublayer added. With the scale of
the final norm held at its actual value, all behind it is linear, so that a logit is the sum of what each part of the
stream adds to it, and a constant from the biases of norm and head:
  component  the embedding, mixer_out.l, channel_out.l; `constant`
  head       of mixer_out.l: z_h W_O of each head; the bias of W_O is what the heads lack of their layer
  neuron     of channel_out.l: each unit of channel_act times its row of W_out; the bias likewise
The attributed number is the logit of the label, less the mean logit (the default, what matters to a softmax), less
that of another output, or as it is. Means over rows (tokens, if each has logits) of the contributions and of their
absolute values; `error` is the mean of |sum - logit|, and says if a head is not linear: a soft cap, a hidden layer.

Norms and maps are read off the network, see `aspects.nn.frozen_end`; a norm of the sublayer's output (`peri`) has its
scale held, too. What a part does through later layers does not count: that is `depth/skip`.
"""
import dataclasses
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from aspects import stats
from aspects.nn import frozen_end
from aspects.sites import select

Array = jax.Array
PARTS = {'head': ('z', 'mixer'), 'neuron': ('channel_act', 'channel')}      # their site, and their sublayer
DIMS = {'head': ('site', 'head'), 'neuron': ('channel', 'unit')}
KINDS = ('contribution', 'magnitude')


class Shares(NamedTuple):
  """Of every row [R] (an example, or a token if each has logits): what parts of the stream add to `logit`."""
  logit: Any            # [R]
  components: Any       # {component: [R]}, `constant` among them
  parts: Any            # {site of z or channel_act: [R, heads or neurons]}
  constants: Any        # {the same: what the parts lack of their sublayer, [R]}


class Sums(NamedTuple):
  """Sums over rows while data pass, then means; [..., 0] as they are and [..., 1] absolute."""
  names: Any            # of the components but the constant, when finished
  rows: Any
  logit: Any            # the mean logit and the mean error: [2]
  components: Any       # [components, 2]
  parts: Any            # {site: [units, 2]}


@dataclasses.dataclass(frozen=True)
class Attributions:
  """Means over rows of `shares`: Sums. The end of the network runs again, forward and backward, once each."""
  components: tuple[str, ...]
  parts: tuple[str, ...]
  final: str
  against: str | int | None = 'mean'

  reruns = True

  @property
  def sites(self):
    ends = (end for name in self.parts for end in ends_of(name))
    return tuple(dict.fromkeys((*self.components, *self.parts, *ends, self.final, 'final_norm', 'logits')))

  def init(self, specs):
    zeros = stats.Sum.zeros
    return Sums((), zeros(()), zeros((2,)), zeros((len(self.components) + 1, 2)),
                {s: zeros((specs[s].shape[2], 2)) for s in self.parts})

  def update(self, state, acts, batch, rerun):
    found = shares(self, acts, batch, rerun)
    weight = stats.rows(acts['logits'], batch, 'tokens')[1].astype(jnp.float32)
    # Rows of weight 0 may hold anything, NaN included.
    def total(x):
      each = jnp.broadcast_to(weight.reshape(-1, *[1] * (x.ndim - 1)), x.shape)
      return jnp.where(each > 0, each * x, 0).sum(0)
    both = lambda x: jnp.stack([total(x), total(jnp.abs(x))], -1)
    every = jnp.stack([found.components[c] for c in (*self.components, 'constant')], -1)
    error = jnp.abs(every.sum(-1) - found.logit)
    new = Sums((), weight.sum(), jnp.stack([total(found.logit), total(error)]), both(every),
               {s: both(x) for s, x in found.parts.items()})
    return self.merge(state, jax.tree.map(lambda x: stats.Sum(x, jnp.zeros_like(x)), new))

  def merge(self, a, b):
    return jax.tree.map(lambda x, y: x.plus(y), a, b, is_leaf=lambda x: isinstance(x, stats.Sum))

  def finish(self, state):
    sums = stats.float64(state)
    if not sums.rows:
      raise ValueError('attribution needs a row of data; every example has weight 0 or is masked')
    mean = lambda x: x / sums.rows
    parts = {s: mean(sums.parts[s]) for s in self.parts}
    return Sums(self.components, sums.rows, mean(sums.logit), mean(sums.components), parts)


def shares(plan: Attributions, acts, batch, rerun) -> Shares:
  """What each part of the stream adds to the logit of the label, row by row."""
  target = chosen(acts['logits'], batch, plan.against)
  norm, logits = frozen_end.logits_at_zero(rerun, acts[plan.final], plan.final)
  factor = frozen_end.scale(acts['final_norm'], norm)                                                  # [B, T]
  direction = logits.pull(target) * jnp.broadcast_to(factor[..., None], acts[plan.final].shape)
  # A row is an example, to which all its tokens add, or a token.
  row = lambda x: x.reshape(-1) if target.ndim == 3 else x.sum(1)
  components = {c: row((acts[c] * direction).sum(-1)) for c in plan.components}
  components['constant'] = (target * logits.constant).sum(-1).reshape(-1)
  parts, constants = {}, {}
  for name, value in within(plan, acts, rerun, direction).items():
    parts[name] = value.reshape(-1, value.shape[-1]) if target.ndim == 3 else value.sum(1)
    whole = row((acts[ends_of(name)[1]] * direction).sum(-1))
    constants[name] = whole - parts[name].sum(-1)
  return Shares((target * acts['logits']).sum(-1).reshape(-1), components, parts, constants)


def within(plan: Attributions, acts, rerun, direction: Array) -> dict[str, Array]:
  """{z or channel_act: what each head or neuron adds [B, T, units]}, for a stream that is read along `direction`."""
  if not plan.parts:
    return {}
  ends = {name: ends_of(name) for name in plan.parts}
  raws, outs = zip(*ends.values())
  # From a sublayer's output to what is added: a norm or a scale in between is held as it is.
  added = frozen_end.at_zero(frozen_end.replaced(rerun, raws, outs), {r: acts[r] for r in raws})
  held = {}
  for raw, out in ends.values():
    factor = frozen_end.scale(acts[out], frozen_end.Linear(added.constant[out], added.along[out], None))
    held[out] = direction * jnp.broadcast_to(factor[..., None], direction.shape)
  output = frozen_end.replaced(rerun, plan.parts, raws)
  _, pull = jax.vjp(output, {n: acts[n] for n in plan.parts})
  gradient, = pull(added.pull(held))
  return {n: (acts[n] * gradient[n]).sum(-1) if acts[n].ndim == 4 else acts[n] * gradient[n] for n in plan.parts}


def ends_of(name: str) -> tuple[str, str]:
  """What the sublayer of z or channel_act gives, and what is added: z.3 -> mixer_raw.3, mixer_out.3."""
  slot, _, layer = name.partition('.')
  return tuple(f'{dict(PARTS.values())[slot]}_{end}.{layer}' for end in ('raw', 'out'))


def chosen(logits: Array, batch, against: str | int | None) -> Array:
  """The weights [..., V] of the logits in the number that is attributed."""
  if 'label' not in batch or not jnp.issubdtype(batch['label'].dtype, jnp.integer):
    raise ValueError('attribution is of the logit of the label, and these batches have no integer labels')
  if batch['label'].shape != logits.shape[:-1]:
    raise ValueError(f"labels {batch['label'].shape} do not match logits {logits.shape}; a row of logits has a label")
  weight = jax.nn.one_hot(batch['label'], logits.shape[-1])
  if against == 'mean':
    return weight - 1 / logits.shape[-1]
  if against is None:
    return weight
  other = jax.nn.one_hot(against, logits.shape[-1])
  return weight - jnp.broadcast_to(other, weight.shape)


@dataclasses.dataclass(frozen=True)
class Attribution:
  """What each part of the stream adds to the logit of the label: [component], [site, head], [channel, unit].

  Args:
    against: 'mean', the logit less the mean over outputs; an output's number, less that; None, the logit itself.
    parts: what is looked at within sublayers, of 'head' and 'neuron'.
    final: the last stream.
  """
  against: str | int | None = 'mean'
  parts: tuple[str, ...] = ('head', 'neuron')
  final: str = 'resid_post.-1'
  examples = ({}, {'against': None, 'parts': ()}, {'against': 1, 'parts': ('head',)})

  sites = ('resid_post.*',)
  invariant = {}

  def __post_init__(self):
    if odd := [p for p in self.parts if p not in PARTS]:
      raise ValueError(f'there are no parts {odd[0]!r} of a sublayer; {", ".join(PARTS)}')
    if not (self.against in ('mean', None) or isinstance(self.against, int)):
      raise ValueError(f"against is {self.against!r}; give 'mean', None or the number of an output")

  def needs(self, specs):
    final, = select((self.final,), specs)
    for site in ('embed', 'final_norm', 'logits'):
      if site not in specs:
        raise ValueError(f'attribution needs the site {site!r}, which this network has not')
    if sums := [s for s in specs if re.fullmatch(r'(mixer|channel)_sum\.\d+', s)]:
      raise ValueError(f'the stream of a post-norm network is no sum: {sums[0]!r} is normalised after the addition')
    outs = [s for s in specs if re.fullmatch(r'(mixer|channel)_out\.\d+', s)]
    if odd := [s for s in ('embed', *outs) if specs[s].shape != specs[final].shape]:
      raise ValueError(f'{odd[0]!r} {specs[odd[0]].shape} is not added to {final!r} {specs[final].shape}')
    if isinstance(self.against, int) and not 0 <= self.against < specs['logits'].shape[-1]:
      raise ValueError(f'against is {self.against}; this network has outputs 0 to {specs["logits"].shape[-1] - 1}')
    slots = [PARTS[p][0] for p in self.parts]
    parts = [s for s in specs if re.fullmatch(rf'({"|".join(slots)})\.\d+', s)] if slots else []
    return {'sums': Attributions(('embed', *outs), tuple(parts), final, self.against)}

  def compute(self, sums: Sums) -> xr.Dataset:
    less = {'mean': ' less the mean', None: ''}
    number = f"label's logit{less[self.against] if self.against in less else f' less that of output {self.against}'}"
    names, values = [*sums.names, 'constant'], {}
    for k, kind in enumerate(KINDS):
      values[kind] = ('component', sums.components[:, k])
    coords = {'component': names}
    for part, (slot, out) in PARTS.items():
      table = {s: x for s, x in sums.parts.items() if s.startswith(f'{slot}.')}
      if not table:
        continue
      dims = DIMS[part]
      most = max(len(x) for x in table.values())
      padded = np.stack([np.pad(x, ((0, most - len(x)), (0, 0)), constant_values=np.nan) for x in table.values()])
      coords |= {dims[0]: [s.replace(slot, f'{out}_out') for s in table], dims[1]: np.arange(most)}
      for k, kind in enumerate(KINDS):
        values[f'{part}_{kind}'] = (dims, padded[..., k])
    values |= {'logit': ((), sums.logit[0]), 'error': ((), sums.logit[1])}
    out = xr.Dataset(values, coords, attrs=dict(
        aspect='depth', title='Direct attribution', question='Which part of the stream makes the answer?',
        source='Elhage et al. 2021; nostalgebraist 2020', rows=float(sums.rows), headline='contribution'))
    for name in out:
      part, _, kind = name.rpartition('_')
      whose = {'head': 'of a head ', 'neuron': 'of a neuron '}[part] if part else ''
      text = {'contribution': f'mean contribution {whose}to the {number}',
              'magnitude': f'mean absolute contribution {whose}to the {number}', 'logit': f'mean {number}',
              'error': 'mean |sum of the contributions - logit|'}[kind]
      figure = {'head': 'heads', 'neuron': 'spectrum', '': 'curve' if kind in KINDS else 'none'}[part]
      out[name].attrs = dict(long_name=text, units='logits', figure=figure)
    return out
