"""Concept depth: simple concepts are read in shallow layers, complex ones deeper (Jin et al. 2024, arXiv:2404.07066).

Snippets are windows of the standard library's source, each with the byte that comes last; the probes read the stream
at that byte. Three labels of increasing abstraction, each in equal shares:
  character  whether the snippet contains the byte `character`
  syntax     whether its last byte lies inside a string or comment, or in code: Python's own tokenizer on the file
  order      whether two lines that follow each other in it, neither the first nor the last, have changed places
A prefix of 16 random letters is put in front of each snippet (which has as many bytes less) for the perturbed depths.
Of each concept, from `aspects.depth.concept_depth` on the half of the snippets that fitted no probe: the depth behind
which its accuracy is flat (that of the first layer, if it never changes), the layer of highest accuracy and that
accuracy. Metrics are differences of depths between concepts, and of each concept with and without the prefix.

Differs from the paper: a byte-level language model trained here in the place of pretrained ones, concepts that exist in
its text, no quantisation.
"""
import dataclasses
import functools
import io
import tokenize

import jax
import numpy as np

from aspects import sites as sites_lib
from aspects import stats
from aspects import study
from aspects.claims import training
from aspects.claims.rows import Cell, Rows
from aspects.depth.concept_depth import depths, majority, scored
from aspects.tasks.stdlib_text import StdlibText

CONCEPTS = ('character', 'syntax', 'order')
LETTERS = np.frombuffer(b'abcdefghijklmnopqrstuvwxyz', np.uint8)
BATCH = 250
QUIET = ('STRING', 'COMMENT', 'FSTRING_START', 'FSTRING_MIDDLE', 'FSTRING_END')   # Python 3.12 has the last three


@dataclasses.dataclass(frozen=True)
class ConceptDepth:
  """See the head of this file; `snippets` of each concept, half of them to fit, `length` bytes each."""
  snippets: int = 1600
  length: int = 96
  prefix: int = 16
  character: str = '('
  sites: tuple[str, ...] = ('resid_post.*',)
  strength: float = 1.0

  def __post_init__(self):
    if self.snippets % 2:
      raise ValueError(f'snippets is {self.snippets}; it must be even, so that both classes have equal shares')
    if not 0 <= self.prefix < self.length - 32:
      raise ValueError(f'prefix {self.prefix} leaves less than 32 of {self.length} bytes')

  def rows(self, cell: Cell) -> Rows:
    arm = cell.arm
    done = study.run_arm(arm, cell.workdir, cell.preempted, cell.progress, check=lambda state: None)
    variables = study.variables(arm, done.state)
    found = [self.found(self.reader(arm, jax.tree.map(lambda x: x[s], variables)), seed)
             for s, seed in enumerate(cell.seeds)]
    metrics = {name: np.array([each[name] for each, _ in found]) for name in found[0][0]}
    metrics['nll'] = done.measures['training'][f'{arm.config["evaluation"]["split"]}_nll'].values[:, -1]
    curves = {f'{c}@layer': (np.arange(1, len(found[0][1][c]) + 1), np.stack([a[c] for _, a in found]))
              for c in (CONCEPTS[0], CONCEPTS[-1])}
    return Rows(metrics, np.asarray(done.state.bad) >= 0, arm.parameters, training.operations(arm) * arm.steps,
                arm.steps, curves)

  def reader(self, arm, variables):
    """bytes [N, T] -> {site: the stream at the last byte [N, D]}, by one network."""
    @jax.jit
    def run(variables, tokens):
      acts = sites_lib.record_sites(arm.net, variables, (tokens,), self.sites, {}, {})[1]
      return {s: x[:, -1] for s, x in acts.items()}
    def read(tokens):
      padded = np.pad(tokens.astype(np.int32), ((0, -len(tokens) % BATCH), (0, 0)))
      parts = [run(variables, padded[k:k + BATCH]) for k in range(0, len(padded), BATCH)]
      return {s: np.concatenate([np.float64(p[s]) for p in parts])[:len(tokens)] for s in parts[0]}
    return read

  def found(self, read, seed: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """(metrics, {concept: accuracy of each layer}) of one network."""
    rng = np.random.default_rng(seed)
    metrics, curves = {}, {}
    for concept in CONCEPTS:
      for noisy in (False, True):
        prefix = self.prefix if noisy else 0
        tokens, label = snippets(concept, self.snippets, self.length - prefix, self.character.encode()[0], rng)
        front = LETTERS[rng.integers(0, len(LETTERS), (len(tokens), prefix))]
        name = f'{"noisy_" * noisy}{concept}'
        accuracy, values = self.profile(read(np.concatenate([front, tokens], 1)), label)
        metrics |= {f'{name}_{k}': v for k, v in values.items()}
        if not noisy:
          curves[concept] = accuracy
    return {**metrics, **compared(metrics)}, curves

  def profile(self, streams, label) -> tuple[np.ndarray, dict[str, float]]:
    """(accuracy [L], the depths and the accuracy of the best layer) of streams {site: [N, D]}."""
    fit = len(label) // 2
    score = lambda x: scored(x[:fit], label[:fit], x[fit:], label[fit:], self.strength)
    accuracy, nll = np.array(stats.side_by_side(score, streams.values())).T
    at = depths(accuracy, nll, *majority(label[:fit], label[fit:]), least=-1.0)
    at = {'converge': at['converge'] if np.isfinite(at['converge']) else 1 / len(accuracy), 'half': at['half']}
    best = accuracy.argmax()
    return accuracy, {**at, 'best': (best + 1) / len(accuracy), 'accuracy': accuracy[best]}


def compared(metrics) -> dict[str, float]:
  """How much deeper one concept is than another, and each with the prefix than without."""
  def gap(kind, a, b):
    return metrics[f'{b}_{kind}'] - metrics[f'{a}_{kind}']
  out = {'syntax_later': gap('converge', 'character', 'syntax'), 'order_later': gap('converge', 'syntax', 'order'),
         'best_gap': gap('best', 'character', 'order'), 'half_gap': gap('half', 'character', 'order')}
  return out | {f'{c}_shift': gap('converge', c, f'noisy_{c}') for c in CONCEPTS}


@functools.cache
def corpus() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(bytes [N], whether each is in a string or comment [N], number of its file [N]) of the files of the test split."""
  parts = []
  for k, path in enumerate(StdlibText().paths('test').values()):
    data = path.read_bytes()
    where = inside(data)
    if where is not None:
      parts.append((np.frombuffer(data, np.uint8), where, np.full(len(data), k)))
  return tuple(np.concatenate(column) for column in zip(*parts))


def inside(data: bytes) -> np.ndarray | None:
  """bool [N]: which bytes of a Python file lie in strings or comments; None if it is no Python of this version."""
  try:
    text = data.decode('utf-8')
    found = list(tokenize.generate_tokens(io.StringIO(text, newline='').readline))
  except (SyntaxError, UnicodeDecodeError, tokenize.TokenError):
    return None
  lines = text.splitlines(keepends=True)
  starts = np.cumsum([0, *(len(line.encode()) for line in lines)])
  out = np.zeros(len(data), bool)
  for token in found:
    if tokenize.tok_name[token.type] in QUIET:
      (first, from_), (last, to) = token.start, token.end
      out[starts[first - 1] + len(lines[first - 1][:from_].encode()):
          starts[last - 1] + len(lines[last - 1][:to].encode())] = True
  return out


def snippets(concept: str, count: int, length: int, character: int, rng) -> tuple[np.ndarray, np.ndarray]:
  """(uint8 [count, length], label [count]) in random order, half of each class, from one file each."""
  text, where, file = corpus()
  kept = {0: [], 1: []}
  while min(map(len, kept.values())) < count // 2:
    start = int(rng.integers(0, len(text) - length))
    window = text[start:start + length]
    if file[start] != file[start + length - 1]:
      continue
    if concept == 'character':
      label = int((window == character).any())
    elif concept == 'syntax':
      label = int(where[start + length - 1])
    else:
      label, changed = int(len(kept[1]) < len(kept[0])), swapped(window, rng)
      if changed is None:
        continue
      window = changed if label else window
    if len(kept[label]) < count // 2:
      kept[label].append(window)
  order = rng.permutation(count)
  return np.stack(kept[0] + kept[1])[order], np.repeat([0, 1], count // 2)[order]


def swapped(window: np.ndarray, rng) -> np.ndarray | None:
  """The window with two lines that follow each other exchanged, neither its first nor its last; None if it has none."""
  ends = np.flatnonzero(window == 10) + 1
  pairs = [(a, b, c) for a, b, c in zip(ends, ends[1:], ends[2:]) if not np.array_equal(window[a:b], window[b:c])]
  if not pairs:
    return None
  a, b, c = pairs[rng.integers(len(pairs))]
  return np.concatenate([window[:a], window[b:c], window[a:b], window[c:]])
