"""Residual Networks Behave Like Ensembles of Relatively Shallow Networks: what is lost when a layer is skipped (Veit, Wilber & Belongie 2016, arXiv:1605.06431).

A layer is skipped by setting to zero what its sublayers add to the stream. All skips run as one compiled program, a
sweep over edits, on the batches that pass by. With logits z, and z' when a layer is skipped, means over rows (tokens,
if each has logits):
  kl             KL(softmax z || softmax z') in nats
  logit_change   |z' - z| / |z|
  flipped        share of rows whose largest logit is another
  loss_increase, accuracy_drop   of the cross-entropy in nats and of the accuracy, if the batches have integer labels
and for the stream x behind every layer, as Csordas et al. (2025, arXiv:2505.13898) but for their maximum over tokens:
  stream_change  [skipped, site] |x' - x| / |x|, exactly 0 behind the layers before the one that is skipped
Rows are weighted by `weight` and `mask`.
"""
import dataclasses
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from aspects import edits as edits_lib
from aspects import stats
from aspects.sites import select

Array = jax.Array
OUTPUTS = {'kl': ('KL divergence of the outputs', 'nats'),
           'logit_change': ('relative change of the logits', '1'), 'flipped': ('share of predictions that change', '1')}
SCORES = {'loss_increase': ('increase of the cross-entropy', 'nats'), 'accuracy_drop': ('drop of the accuracy', '1')}


class Effects(NamedTuple):
  """Of K groups: sums over rows while data pass; then means, {site: [K]} and {quantity: [K]}, empty if not known."""
  groups: Any           # the names, when finished
  rows: Any             # [M]
  streams: Any          # [K, M]
  output_rows: Any      # those with logits, and those with labels: [2]
  outputs: Any          # [K, 3]
  scores: Any           # [K, 2]


@dataclasses.dataclass(frozen=True)
class SkipEffects:
  """What setting each of `groups` of sites to zero does to `streams` and `logits`: Effects.

  The network runs once more for each group, up to `batch_size` of them side by side; memory grows with that only.
  """
  groups: tuple[tuple[str, tuple[str, ...]], ...]      # name, sites
  streams: tuple[str, ...]
  logits: str | None = 'logits'
  batch_size: int = 4

  reruns = True

  @property
  def sites(self):
    return self.streams + ((self.logits,) if self.logits else ())

  def init(self, specs):
    k, m = len(self.groups), len(self.streams)
    shapes = (m,), (k, m), (2,), (k, len(OUTPUTS)), (k, len(SCORES))
    return Effects((), *(stats.Sum.zeros(shape) for shape in shapes))

  def update(self, state, acts, batch, rerun):
    def effect(edits):
      skipped = rerun(edits, self.sites)[1]
      streams = [change(acts[s], skipped[s], batch).sum() for s in self.streams]
      outputs, scores = self._outputs(acts, skipped, batch)
      return jnp.stack(streams), outputs, scores
    # A divisor, so that no remainder is compiled apart.
    side_by_side = max(d for d in range(1, self.batch_size + 1) if len(self.groups) % d == 0)
    swept = edits_lib.sweep(effect, edits_lib.skip_each([sites for _, sites in self.groups]), side_by_side)
    counts = jnp.stack([stats.rows(acts[s], batch, 'tokens')[1].astype(jnp.float32).sum() for s in self.sites])
    outputs = counts[len(self.streams):].sum()
    output_rows = jnp.stack([outputs, outputs * float(labelled(batch))])
    new = Effects((), counts[:len(self.streams)], swept[0], output_rows, *swept[1:])
    return self.merge(state, jax.tree.map(lambda x: stats.Sum(x, jnp.zeros_like(x)), new))

  def _outputs(self, acts, skipped, batch) -> tuple[Array, Array]:
    """Sums over rows of OUTPUTS [3] and SCORES [2]; zeros for what is not known."""
    nothing = jnp.zeros(len(OUTPUTS)), jnp.zeros(len(SCORES))
    if not self.logits:
      return nothing
    (z, weight), (other, _) = (stats.rows(a[self.logits], batch, 'tokens') for a in (acts, skipped))
    z, other, weight = (x.astype(jnp.float32) for x in (z, other, weight))
    before, after = jax.nn.log_softmax(z), jax.nn.log_softmax(other)
    total = lambda x: jnp.where(weight > 0, weight * x, 0).sum()
    kl = (jnp.exp(before) * (before - after)).sum(-1)
    flipped = (z.argmax(-1) != other.argmax(-1)).astype(jnp.float32)
    outputs = jnp.stack([total(kl), change(acts[self.logits], skipped[self.logits], batch).sum(), total(flipped)])
    if not labelled(batch):
      return outputs, nothing[1]
    label = labels_of(acts[self.logits], batch)
    of_label = lambda log_p: jnp.take_along_axis(log_p, label[:, None], -1, mode='clip')[:, 0]
    right = lambda x: (x.argmax(-1) == label).astype(jnp.float32)
    return outputs, jnp.stack([total(of_label(before) - of_label(after)), total(right(z) - right(other))])

  def merge(self, a, b):
    return Effects((), *(x.plus(y) for x, y in zip(a[1:], b[1:])))

  def finish(self, state):
    sums = stats.float64(state)
    if not sums.rows.all():
      raise ValueError('skip effects need a row of data; every example has weight 0 or is masked')
    streams = {s: sums.streams[:, i] / sums.rows[i] for i, s in enumerate(self.streams)}
    outputs, scores = ({k: column / n for k, column in zip(names, table.T)} if n else {} for names, table, n in zip(
        (OUTPUTS, SCORES), (sums.outputs, sums.scores), sums.output_rows))
    return Effects(tuple(name for name, _ in self.groups), sums.rows, streams, sums.output_rows, outputs, scores)


def change(before: Array, after: Array, batch) -> Array:
  """weight * |after - before| / |before| of every row: [N]; 0 / 0 is 0."""
  (x, weight), (y, _) = (stats.rows(v, batch, 'tokens') for v in (before, after))
  x, y, weight = (v.astype(jnp.float32) for v in (x, y, weight))
  relative = jnp.linalg.norm(y - x, axis=-1) / jnp.maximum(jnp.linalg.norm(x, axis=-1), jnp.finfo(jnp.float32).tiny)
  return jnp.where(weight > 0, weight * relative, 0)


def labelled(batch) -> bool:
  """Whether the examples have classes; labels that are not integers are another kind of target."""
  return 'label' in batch and jnp.issubdtype(batch['label'].dtype, jnp.integer)


def labels_of(logits: Array, batch) -> Array:
  """The label of each row of logits: int [N]."""
  if batch['label'].shape != logits.shape[:-1]:
    raise ValueError(f"labels {batch['label'].shape} do not match logits {logits.shape}; a row of logits has a label")
  return batch['label'].reshape(-1)


@dataclasses.dataclass(frozen=True)
class Skip:
  """Effect of skipping each layer on the outputs [skipped] and on every stream [skipped, site].

  Args:
    sites: the streams that are compared.
    groups: layers that are skipped together, ((0, 1), (2, 3)); () is every layer by itself.
    slots: what a skipped layer does not add, of those it has; ('mixer_out',) skips its mixer only.
    batch_size: how many skips run side by side, at most.
  """
  sites: tuple[str, ...] = ('resid_post.*',)
  groups: tuple[tuple[int, ...], ...] = ()
  slots: tuple[str, ...] = ('mixer_out', 'channel_out')
  batch_size: int = 4

  invariant = {}

  def needs(self, specs):
    layers: dict[int, list[str]] = {}
    for name in specs:
      found = re.fullmatch(r'(\w+)\.(\d+)', name)
      if found and found[1] in self.slots:
        layers.setdefault(int(found[2]), []).append(name)
    if not layers:
      raise ValueError(f'no layer has {" or ".join(self.slots)}; give the slots of what the layers add to the stream')
    groups = self.groups or tuple((layer,) for layer in sorted(layers))
    for layer in (layer for group in groups for layer in group):
      if layer not in layers:
        raise ValueError(f'layer {layer} of groups cannot be skipped; those that can: {sorted(layers)}')
    named = tuple(('+'.join(map(str, g)), tuple(s for layer in g for s in layers[layer])) for g in groups)
    logits = 'logits' if 'logits' in specs else None
    return {'effects': SkipEffects(named, select(self.sites, specs), logits, self.batch_size)}

  def compute(self, effects: Effects) -> xr.Dataset:
    values = {k: ('skipped', v) for k, v in (effects.outputs | effects.scores).items()}
    values['stream_change'] = (('skipped', 'site'), np.stack(list(effects.streams.values()), 1))
    out = xr.Dataset(values, {'skipped': list(effects.groups), 'site': list(effects.streams)}, attrs=dict(
        aspect='depth', title='Skipped layers', question='Which layers can the network do without?',
        source='Veit, Wilber & Belongie 2016, arXiv:1605.06431', slots=list(self.slots), rows=float(effects.rows[0]),
        headline='kl' if effects.outputs else 'stream_change'))
    texts = OUTPUTS | SCORES | {'stream_change': ('relative change of the stream', '1')}
    for name in out:
      out[name].attrs = dict(long_name=texts[name][0], units=texts[name][1],
                             figure='map' if name == 'stream_change' else 'curve')
    out['skipped'].attrs = dict(long_name='skipped layer')
    return out
