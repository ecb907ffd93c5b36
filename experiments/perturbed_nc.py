"""Perturbation Analysis of Neural Collapse: the flow on the central path (Tirer et al. 2023, arXiv:2210.16658).

K classes of n features h in R^d, one-hot targets Y, and the loss of unconstrained features
  L(W, H) = |W H - Y|^2 / (2 K n) + lam_w |W|^2 / (2 K) + lam_h |H|^2 / (2 K n).
The paper ties H to the features H_0 of an earlier layer by beta |H - H_0|^2 / (2 K n); for large beta its
minimiser is a short step, of length t = 1 / beta, along the flow on the central path, where W is always the
best for the present H:
  dH/dt = -K n grad_H L(W*(H), H) = -(W' (W H - Y) + lam_h H),  W*(H) = Y H' (H H' + n lam_w I)^-1.
Its theorem 3.1: along the flow NC1 = tr S_W / tr S_B only falls, S_W being the mean over all features of the
scatter about their class mean and S_B the scatter of the K class means about *their mean* (`centred`).

All features of a class meet one affine map, so the flow closes on the class means M [K, d] and on S_W [d, d]:
  W = M (K S_W + M'M + lam_w I)^-1,  A = W'W + lam_h I,  dM/dt = W - M A,  dS_W/dt = -(A S_W + S_W A).
Hence d tr S_W / dt = -2 tr(W S_W W') - 2 lam_h tr S_W, and, with B = W M' symmetric and 0 <= B <= I and P the
projection that takes the mean off, d tr S_B / dt = 2 tr(P (B - B^2) P) / K - 2 lam_h tr S_B; without P for S_B
about zero (`uncentred`), where it equals 2 tr(W S_W W') + 2 lam_w |W|^2 / K - 2 lam_h tr S_B. Both ratios fall.

Here H_0 are random ReLU features of real digits, and the flow is integrated by Euler steps, which act on (M, S_W)
exactly as on H, at `dt` and at `dt` / 2. Two controls keep W fixed, plain gradient descent on H, for which nothing is
promised: `classifier` 'frozen' at a random matrix of the norm of W*(H_0), under which the ratio first rises for a third
(centred) to a half (uncentred) of the matrices, and 'shifted' at W*(H_0) of each class taken for the next one. Their
whole fall may well be larger. Differs from the paper: no network is trained, and nothing is read off its depth.
"""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from aspects import plugin
from aspects import train
from aspects.claims.rows import Cell, Rows
from aspects.plugin import nearest

CLASSIFIERS = ('best', 'frozen', 'shifted')
POINTS = 12


@functools.cache
def images(count: int, data_dir: str | None = None) -> np.ndarray:
  """The first `count` digits of each class, in the order of the data set: [10, count, 64] in 0..1."""
  task = plugin.build('tasks', dict(name='digits', data_dir=data_dir))
  parts = [task.source(split) for split in task.splits]
  parts = [part[np.arange(len(part))] for part in parts]
  label = np.concatenate([part['label'] for part in parts])
  image = np.concatenate([part['input'] for part in parts])
  fewest = int(np.bincount(label).min())
  if not 2 <= count <= fewest:
    raise ValueError(f'per_class {count} is not in 2..{fewest}, the size of the smallest class of the digits')
  return np.stack([image[label == c][:count].reshape(count, -1) for c in range(task.outputs)])


def moments(features):
  """[K, n, d] -> class means M [K, d] and the within-class scatter S_W [d, d], a mean over all features."""
  means = features.mean(1)
  rows = (features - means[:, None]).reshape(-1, features.shape[-1])
  return means, rows.T @ rows / len(rows)


def best(means, within, lam_w: float):
  """W*(H) [K, d], the ridge solution of the one-hot targets on balanced classes with these moments."""
  gram = len(means) * within + means.T @ means + lam_w * jnp.eye(len(within), dtype=within.dtype)
  return jnp.linalg.solve(gram, means.T).T


def velocity(means, within, w, lam_h: float):
  """dM/dt [K, d] and the matrix A [d, d] with dS_W/dt = -(A S_W + S_W A), at classifier `w`."""
  a = w.T @ w + lam_h * jnp.eye(len(within), dtype=within.dtype)
  return w - means @ a, a


def ratios(means, within):
  """tr S_W / tr S_B with S_B about the mean of the class means, and with S_B about zero."""
  about = lambda m: (m ** 2).sum() / len(m)
  return jnp.trace(within) / jnp.stack([about(means - means.mean(0, keepdims=True)), about(means)])


def flow(means, within, fixed, lam_w: float, lam_h: float, dt: float, steps: int):
  """Ratios (centred, uncentred) [steps + 1, 2] along the flow; `fixed` [K, d] is W, or None for W*(H)."""
  def step(state, _):
    means, within = state
    speed, a = velocity(means, within, best(means, within, lam_w) if fixed is None else fixed, lam_h)
    shrink = jnp.eye(len(within), dtype=within.dtype) - dt * a
    state = means + dt * speed, shrink @ within @ shrink
    return state, ratios(*state)

  _, path = jax.lax.scan(step, (means, within), None, steps)
  return jnp.concatenate([ratios(means, within)[None], path])


@dataclasses.dataclass(frozen=True)
class PerturbedNc:
  """See the head of this file. Metrics, for S_B centred and uncentred:

    rise_*       the largest change of the ratio over one step, over the whole fall from start to end, at `dt` or at
                 `dt` / 2, whichever is larger; negative where the ratio falls at every step of both
    fall_*       log(ratio at the start / ratio at the end) at `dt`
    start        the centred ratio of H_0
    integration  |log of the centred ratio at the end, at `dt` over at `dt` / 2|
  """
  width: int = 40
  per_class: int = 170
  lam_w: float = 1e-2
  lam_h: float = 0.0
  dt: float = 0.05
  steps: int = 400
  classifier: str = 'best'
  data_dir: str | None = None

  def __post_init__(self):
    if self.classifier not in CLASSIFIERS:
      raise ValueError(f'there is no classifier {self.classifier!r}; {nearest(self.classifier, CLASSIFIERS)}')
    if self.lam_w <= 0 or self.lam_h < 0:
      raise ValueError(f'lam_w {self.lam_w} must be above 0 and lam_h {self.lam_h} not below: the theorem asks for it')
    if self.dt <= 0 or self.steps < 1 or self.width < 2:
      raise ValueError(f'dt {self.dt}, steps {self.steps} and width {self.width}: above 0, 1 or more, 2 or more')

  def _seed(self, seed, pictures):
    """Ratios at dt [steps + 1, 2] and at dt / 2 [2 steps + 1, 2] of one seed."""
    keys = train.keys(jax.random.key(seed), 0, 'features', 'classifier')
    pixels = pictures.shape[-1]
    project = jax.random.normal(keys['features'], (pixels, self.width), 'float32') * (2 / pixels) ** 0.5
    means, within = moments(jax.nn.relu(pictures @ project.astype(pictures.dtype)))
    fixed, first = None, best(means, within, self.lam_w)
    if self.classifier == 'shifted':
      fixed = jnp.roll(first, 1, axis=0)
    if self.classifier == 'frozen':
      w = jax.random.normal(keys['classifier'], means.shape, 'float32').astype(means.dtype)
      fixed = w * jnp.linalg.norm(first) / jnp.linalg.norm(w)
    run = lambda dt, steps: flow(means, within, fixed, self.lam_w, self.lam_h, dt, steps)
    return run(self.dt, self.steps), run(self.dt / 2, 2 * self.steps)

  def rows(self, cell: Cell) -> Rows:
    pictures = images(self.per_class, self.data_dir)
    with jax.default_matmul_precision('highest'), jax.enable_x64(True):
      paths = _paths(self, np.asarray(cell.seeds, np.uint32), pictures.astype('float64'))
      whole, half = (np.asarray(path) for path in paths)
    metrics = dict(start=whole[:, 0, 0], integration=np.abs(np.log(whole[:, -1, 0] / half[:, -1, 0])))
    for i, name in enumerate(('centred', 'uncentred')):
      metrics[f'fall_{name}'] = np.log(whole[:, 0, i] / whole[:, -1, i])
      metrics[f'rise_{name}'] = np.maximum(*(np.diff(path[:, :, i]).max(1) / np.abs(path[:, 0, i] - path[:, -1, i])
                                             for path in (whole, half)))
    at = np.unique(np.linspace(0, self.steps, POINTS).round().astype(int))
    classes = len(pictures)
    return Rows(
        metrics=metrics, diverged=~np.isfinite(whole).all((1, 2)), steps=self.steps, params=classes * self.width,
        curves={f'{name}@time': (at * self.dt, whole[:, at, i]) for i, name in enumerate(('centred', 'uncentred'))})


@functools.partial(jax.jit, static_argnums=0)
def _paths(procedure, seeds, pictures):
  return jax.vmap(lambda seed: procedure._seed(seed, pictures))(seeds)
