"""Statistical depth of texts: calibrated, and able to see a shift? (Seegmiller & Preum 2023, arXiv:2310.15010).

Texts are the docstrings of the Python standard library that is installed here, read from its source, of 40 characters
or more and no two alike but for blanks and case. Each seed draws `texts` of them; 2 * `half` of these are drawn and
halved at random `splits` times, and the halves compared by the rank sum of their depths. Metrics: `rejected`, the share
of these true nulls with p < 0.05 when a reference text leaves itself out of its depth, and `rejected_in_sample` when it
does not; `separation`, the median over `draws` of -log10 p for `half` texts of each of two `packages`, both ways, with
twice the smaller p (Bonferroni).

Differs from the paper: no pretrained encoder. `embedding` is 'latent', latent semantic analysis of the texts themselves
(words weighted by frequency, Deerwester et al. 1990, of `words` words in `dimensions`), or 'trained', the hidden states
at `site` of the byte-level language model that the arm trains on the library's source, mean over the bytes of a text.
Nothing here says how well the test does on embeddings of a large encoder.
"""
import ast
import dataclasses
import functools
import pathlib
import re
import sysconfig
import warnings

import jax
import numpy as np

from aspects import sites as sites_lib
from aspects import study
from aspects.claims import training
from aspects.claims.rows import Cell, Rows
from aspects.plugin import nearest
from aspects.representations.tte_depth import LEAST, depth_rank_sum
from aspects.tasks import stdlib_text

EMBEDDINGS = ('latent', 'trained')
SHORTEST = 40
BATCH = 64
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclasses.dataclass(frozen=True)
class TteDepth:
  """See the head of this file; `length` is how many bytes of a text the trained model reads."""
  embedding: str = 'latent'
  texts: int = 600
  splits: int = 300
  half: int = 60
  packages: tuple[str, str] = ('email', 'tkinter')
  draws: int = 20
  words: int = 2000
  dimensions: int = 64
  length: int = 128
  site: str = 'final_norm'

  def __post_init__(self):
    if self.embedding not in EMBEDDINGS:
      raise ValueError(f'there is no embedding {self.embedding!r}; {nearest(self.embedding, EMBEDDINGS)}')
    if self.half < LEAST or self.texts < 2 * self.half or self.splits < 1 or self.draws < 1:
      raise ValueError(f'half {self.half} is at least {LEAST}, texts {self.texts} at least two halves, splits '
                       f'{self.splits} and draws {self.draws} at least 1')

  def rows(self, cell: Cell) -> Rows:
    corpus = docstrings()
    for package in self.packages:
      count = sum(p == package for p, _ in corpus)
      if count < self.half:
        raise ValueError(f'{package!r} has {count} docstrings in this Python, fewer than half {self.half}')
    if self.embedding == 'latent':
      every = latent(self.words, self.dimensions)
      return Rows(self._metrics([self.found(lambda ids: every[ids], corpus, seed) for seed in cell.seeds]))
    arm = cell.arm
    done = study.run_arm(arm, cell.workdir, cell.preempted, cell.progress, check=lambda state: None)
    embed = self.encoder(arm, done.state, corpus)
    metrics = self._metrics([self.found(functools.partial(embed, s), corpus, seed)
                             for s, seed in enumerate(cell.seeds)])
    operations = training.operations(arm) * arm.steps
    return Rows(metrics, np.asarray(done.state.bad) >= 0, arm.parameters, operations, arm.steps)

  @staticmethod
  def _metrics(found) -> dict[str, np.ndarray]:
    return {name: np.array([each[name] for each in found]) for name in found[0]}

  def encoder(self, arm, state, corpus):
    """(seed, ids [N]) -> embeddings [N, D] of texts by the network of that seed."""
    variables = study.variables(arm, state)
    run = jax.jit(lambda v, x: sites_lib.record_sites(arm.net, v, (x,), (self.site,), {}, {})[1][self.site])
    def embed(seed: int, ids: np.ndarray) -> np.ndarray:
      one = jax.tree.map(lambda x: x[seed], variables)
      tokens, real = encoded([corpus[i][1] for i in ids], self.length, BATCH)
      states = [np.asarray(run(one, tokens[k:k + BATCH]), np.float64) for k in range(0, len(tokens), BATCH)]
      total = np.einsum('ntd,nt->nd', np.concatenate(states), real)
      return (total / np.maximum(real.sum(1, keepdims=True), 1))[:len(ids)]
    return embed

  def found(self, embed, corpus, seed: int) -> dict[str, float]:
    """The metrics of one seed; `embed` maps numbers of texts to rows."""
    rng = np.random.default_rng(seed)
    rows = embed(rng.permutation(len(corpus))[:self.texts])
    p = np.array([self.split(rows, rng) for _ in range(self.splits)])
    members = [np.flatnonzero([name == package for name, _ in corpus]) for package in self.packages]
    # as many as the texts of the null: a package may be far larger
    chosen = [rng.permutation(ids)[:self.texts] for ids in members]
    both = [embed(ids) for ids in chosen]
    apart = [self.shift([x[rng.permutation(len(x))[:self.half]] for x in both]) for _ in range(self.draws)]
    return {'rejected': (p[:, 0] < 0.05).mean(), 'rejected_in_sample': (p[:, 1] < 0.05).mean(),
            'separation': np.median(apart)}

  def split(self, rows: np.ndarray, rng) -> tuple[float, float]:
    """p of two random halves of `rows` [N, D], leaving reference rows out of their own depth and not."""
    drawn = rows[rng.permutation(len(rows))[:2 * self.half]]
    return tuple(depth_rank_sum(drawn[:self.half], drawn[self.half:], out).p for out in (True, False))

  @staticmethod
  def shift(pair) -> float:
    """-log10 p of two samples, the smaller of both ways, doubled."""
    f, g = pair
    p = 2 * min(depth_rank_sum(f, g).p, depth_rank_sum(g, f).p)
    return -np.log10(np.clip(p, 1e-300, 1))


@functools.cache
def docstrings() -> tuple[tuple[str, str], ...]:
  """(package, text) of the docstrings of the standard library, without repetitions; nothing is executed."""
  found = {}
  for name, path in sorted(stdlib_text.files(pathlib.Path(sysconfig.get_paths()['stdlib'])).items()):
    package = name.split('/')[0].removesuffix('.py')
    for text in read(path.read_bytes()):
      found.setdefault(plain(text), (package, text))
  return tuple(both for key, both in found.items() if len(key) >= SHORTEST)


def read(source: bytes) -> list[str]:
  """The docstrings in a file, none where it is no Python of this version."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')                      # old escapes and comparisons in other people's source
    try:
      tree = ast.parse(source)
    except (SyntaxError, ValueError):
      return []
  texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, DEFINITIONS)]
  return [text for text in texts if text]


def plain(text: str) -> str:
  """What two texts have in common that differ in blanks and case."""
  return ' '.join(text.split()).lower()


@functools.lru_cache(maxsize=2)
def latent(words: int, dimensions: int) -> np.ndarray:
  """Rows [N, dimensions] of all docstrings: (1 + log count) log(N / texts with the word), length 1, leading directions.

  The words are the `words` that stand in most texts, ties in the order of the alphabet."""
  texts = [re.findall('[a-z]{2,}', plain(text)) for _, text in docstrings()]
  each = [np.unique(found, return_counts=True) for found in texts]
  names, spread = np.unique(np.concatenate([found for found, _ in each]), return_counts=True)
  kept = np.lexsort((names, -spread))[:words]
  place = {names[i]: k for k, i in enumerate(kept)}
  rarity = np.log(len(texts) / spread[kept])
  out = np.zeros((len(texts), len(kept)))
  for row, (found, count) in zip(out, each):
    inside = [(place[w], c) for w, c in zip(found, count) if w in place]
    for k, c in inside:
      row[k] = (1 + np.log(c)) * rarity[k]
  length = np.linalg.norm(out, axis=1, keepdims=True)
  out /= np.where(length > 0, length, 1)
  return out @ np.linalg.eigh(out.T @ out)[1][:, -dimensions:]


def encoded(texts, length: int, multiple: int) -> tuple[np.ndarray, np.ndarray]:
  """(bytes int32 [N', T], 1 where a byte is of the text [N', T]); N' is N filled up to a `multiple` by empty texts."""
  size = -(-len(texts) // multiple) * multiple
  tokens, real = np.zeros((size, length), np.int32), np.zeros((size, length))
  for row, mask, text in zip(tokens, real, texts):
    data = np.frombuffer(text.encode()[:length], np.uint8)
    row[:len(data)], mask[:len(data)] = data, 1
  return tokens, real
