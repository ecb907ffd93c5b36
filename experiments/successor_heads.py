"""Successor heads in a decoder that learns to count (Gould et al. 2023, arXiv:2312.09230).

Each arm trains a decoder of two layers with four heads each on `tasks/counting`, and its weights are read. Metrics:
  best              the largest successor score of all heads, with respect to the true order (next number, letter, day,
                    month), among the tokens of the family
  best_over_median  best less twice the median of all heads, of both layers
  vocabulary        the largest score among the whole vocabulary
  own               best with respect to the successors of the arm's own data, which `shuffled` has in another order
  probe             accuracy of the value modulo 10 of numbers left out of the fit, at the output of the first MLP
  probe_embedding   the same at the embedding
  probe_gain        probe less probe_embedding
  accuracy          share of elements on the test split that the largest logit among elements gets right, once one has
                    been seen

Differs from the paper: a small decoder, trained here. Its layers are parallel (attention beside the MLP, as in
Pythia), and its first layer's attention reads no other token. In pilots an MLP behind the move learned the table of
successors instead: with sublayers one after the other no head scored above 0.07, in parallel layers that both move
tokens the best scored 0.2 to 0.5. Here no MLP reads what the second layer's heads move: as far as other tokens go,
this layer is attention alone.
"""
import dataclasses

import jax
import numpy as np

from aspects import study
from aspects.claims import training
from aspects.claims.rows import Cell, Rows
from aspects.locality.successor_heads import embeddings
from aspects.locality.successor_heads import mod_probe
from aspects.locality.successor_heads import SuccessorHeads as Measure
from aspects.tasks.counting import Counting, ELEMENTS, FAMILIES, STARTS

METRICS = ('best', 'best_over_median', 'vocabulary', 'own', 'probe', 'probe_embedding', 'probe_gain', 'accuracy')
BATCH = 256


@dataclasses.dataclass(frozen=True)
class SuccessorHeads:
  """See the head of this file; `examples` of the test split tell the accuracy."""
  examples: int = 512

  def rows(self, cell: Cell) -> Rows:
    arm = cell.arm
    done = study.run_arm(arm, cell.workdir, cell.preempted, cell.progress, check=lambda state: None)
    bad, variables = np.asarray(done.state.bad) >= 0, study.variables(arm, done.state)
    found = []
    for i, seed in enumerate(arm.seeds):
      one = jax.tree.map(lambda x: x[i], variables)
      task = dataclasses.replace(arm.task, split_seed=seed)
      each = dict.fromkeys(METRICS, np.nan) if bad[i] else measured(arm.net, one, task.successors())
      found.append({**each, 'accuracy': accuracy(arm.net, one, task.source('test')[np.arange(self.examples)])})
    metrics = {name: np.array([each[name] for each in found]) for name in METRICS}
    operations = training.operations(arm) * arm.steps
    return Rows(metrics, bad, arm.parameters, operations, arm.steps,
                training.curves(done.measures, {'nll': dict(source='training', variable='test_nll')}))


def true_successors() -> np.ndarray:
  """[ELEMENTS]: the next number, letter, day and month; the first behind the last."""
  return Counting().successors()


def measured(net, variables, own: np.ndarray | None = None) -> dict[str, float]:
  """The metrics of one network but for its accuracy; `own` [ELEMENTS] are the successors of its data."""
  scores = scored(net, variables, true_successors())
  best, median = float(scores.successor_score.max()), float(scores.successor_score.median())
  numbers = np.arange(FAMILIES['numbers'])
  raw, effective = embeddings(net, variables, numbers)
  probe, at_embedding = (mod_probe(x, numbers).accuracy for x in (effective - raw, raw))
  return {'best': best, 'best_over_median': best - 2 * median, 'vocabulary': float(scores.vocabulary_score.max()),
          'own': best if own is None else float(scored(net, variables, own).successor_score.max()),
          'probe': probe, 'probe_embedding': at_embedding, 'probe_gain': probe - at_embedding}


def scored(net, variables, successors: np.ndarray):
  """Successor scores of all heads with respect to these cycles."""
  families = []
  for start, size in zip(STARTS.values(), FAMILIES.values()):
    family = [start]
    while len(family) < size:
      family.append(int(successors[family[-1]]))
    families.append(tuple(family))
  return Measure(tuple(families), (True,) * len(families)).of(net, variables)


def accuracy(net, variables, rows) -> float:
  """Share of the elements to come, once one has been seen, that have the largest logit of all elements."""
  inputs, labels = rows['input'], rows['label']
  run = jax.jit(lambda x: net.apply(variables, x)[..., :ELEMENTS].argmax(-1))
  said = np.concatenate([np.asarray(run(inputs[k:k + BATCH])) for k in range(0, len(inputs), BATCH)])
  asked = (labels < ELEMENTS) & (np.cumsum(inputs < ELEMENTS, 1) > 0)
  return float((said == labels)[asked].mean())
