"""Talking heads on induction: the head before writes, the induction head reads (Merullo et al. 2024, arXiv:2406.09519).

A network of two layers of attention, nothing else, learns to go on with random sequences that repeat. On the test split
the head of the first layer that attends most to the token before is the writer, the head of the second that attends
most to the place behind an earlier occurrence of the token is the reader (Olsson et al. 2022, arXiv:2209.11895).
Metrics:
  margin         largest K-composition score of a direction of the writer with the reader, less the largest of any other
                 pair of heads of the two layers
  margin_whole   the same of whole circuits: the baseline
  z              how many standard deviations the former lies above random bases with the same singular values
  removed        induction accuracy that is lost if the `components` directions of the writer that score highest with
                 the reader are removed from what it writes
  removed_random the mean loss over `removals` draws of as many of its other directions
  removed_gap    removed less removed_random
  previous, induction   attention of writer and reader to where it should go
  accuracy       share of tokens right, of those that the sequence before them tells

Differs from the paper: no language model; heads are told by what they attend to, which the scores do not know.
"""
import dataclasses

import jax
import numpy as np

from aspects import forward
from aspects import study
from aspects.claims import training
from aspects.claims.rows import Cell, Rows
from aspects.correlations import talking_heads
from aspects.nn import head_weights
from aspects.tasks.repeated_sequences import repeats

METRICS = ('margin', 'margin_whole', 'z', 'removed', 'removed_random', 'removed_gap', 'previous', 'induction',
           'accuracy')


@dataclasses.dataclass(frozen=True)
class TalkingHeads:
  """See the head of this file; `draws` random bases make the null, `examples` of the test split all that is run."""
  draws: int = 200
  components: int = 4
  removals: int = 10
  examples: int = 256

  def rows(self, cell: Cell) -> Rows:
    arm = cell.arm
    done = study.run_arm(arm, cell.workdir, cell.preempted, cell.progress, check=lambda state: None)
    bad, variables = np.asarray(done.state.bad) >= 0, study.variables(arm, done.state)
    found = []
    for i, seed in enumerate(arm.seeds):
      one = jax.tree.map(lambda x: x[i], variables)
      rows = dataclasses.replace(arm.task, split_seed=seed).source('test')[np.arange(self.examples)]
      found.append(dict.fromkeys(METRICS, np.nan) if bad[i] else
                   self.measured(arm.net, one, rows['input'], rows['label'], seed))
    metrics = {name: np.array([each[name] for each in found]) for name in METRICS}
    operations = training.operations(arm) * arm.steps
    return Rows(metrics, bad, arm.parameters, operations, arm.steps,
                training.curves(done.measures, {'nll': dict(source='training', variable='test_nll')}))

  def measured(self, net, variables, tokens, labels, seed: int) -> dict[str, float]:
    """The metrics of one network on tokens and labels [B, T]."""
    logits, acts = forward(net, variables, tokens, record=('attn_probs.*',))
    previous, induction = to_previous(acts['attn_probs.0']), to_induction(acts['attn_probs.1'], tokens)
    writer, reader = int(previous.argmax()), int(induction.argmax())
    pairs = talking_heads.TalkingHeads(('k',), self.draws, seed).of(net, variables).sel(kind='k')
    out = {'margin': ahead(pairs.largest, writer, reader), 'margin_whole': ahead(pairs.score, writer, reader),
           'z': float(pairs.z.sel(writer=f'0.{writer}', reader=f'1.{reader}')),
           'previous': previous[writer], 'induction': induction[reader],
           'accuracy': induction_accuracy(logits, tokens, labels)}
    scores = pairs.component.sel(writer=f'0.{writer}', reader=f'1.{reader}').values
    order = np.argsort(-scores[np.isfinite(scores)])
    heads = head_weights.layers(net, variables['params'])[0]
    directions = talking_heads.output_directions(heads.value[writer], heads.out[writer])[1]
    rng = np.random.default_rng(seed)
    chosen = [order[:self.components]] + [rng.permutation(order[self.components:])[:self.components]
                                          for _ in range(self.removals)]
    lost = []
    for which in chosen:
      edit = {'z.0': talking_heads.subspace(heads, writer, directions[which])}
      lost.append(out['accuracy'] - induction_accuracy(forward(net, variables, tokens, edits=edit)[0], tokens, labels))
    out |= {'removed': lost[0], 'removed_random': np.mean(lost[1:])}
    return {k: float(v) for k, v in {**out, 'removed_gap': out['removed'] - out['removed_random']}.items()}


def ahead(scores, writer: int, reader: int) -> float:
  """A pair's score [writer, reader] less the largest of the other pairs."""
  values = scores.values.copy()
  here = list(scores.writer.values).index(f'0.{writer}'), list(scores.reader.values).index(f'1.{reader}')
  own, values[here] = values[here], np.nan
  return float(own - np.nanmax(values))


def to_previous(probs) -> np.ndarray:
  """Mean attention [H] of probs [B, H, T, T] to the token before, from the second token on."""
  probs = np.asarray(probs, np.float64)
  at = np.arange(1, probs.shape[2])
  return probs[:, :, at, at - 1].mean((0, 2))


def to_induction(probs, tokens) -> np.ndarray:
  """Mean attention [H] to places behind earlier occurrences of the same token, where there are any."""
  tokens, probs = np.asarray(tokens), np.asarray(probs, np.float64)
  earlier = (tokens[:, :, None] == tokens[:, None]) & np.tril(np.ones((tokens.shape[1],) * 2, bool), -1)
  behind = np.zeros_like(earlier)
  behind[:, :, 1:] = earlier[:, :, :-1]
  share = np.einsum('bhqk,bqk->bqh', probs, behind.astype(np.float64))
  return share[repeats(tokens)].mean(0)


def induction_accuracy(logits, tokens, labels) -> float:
  """Share of right answers among the tokens that stand in the sequence before."""
  return float((np.asarray(logits).argmax(-1) == np.asarray(labels))[repeats(tokens)].mean())
