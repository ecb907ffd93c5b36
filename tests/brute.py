"""What the streaming statistics are, written down once more with numpy in float64, from all rows at once."""
import zlib

import numpy as np

from aspects.statistics.class_covariance import ClassMoments
from aspects.statistics.covariance import Moments
from aspects.statistics.cross_covariance import CrossCovariance, CrossMoments
from aspects.statistics.density import Extremes
from aspects.statistics.histogram import Histograms
from aspects.statistics.projected_covariance import project
from aspects.statistics.sample import Rows
from aspects.statistics.shift_covariance import ShiftMoments
from aspects.statistics.top_examples import Top


def mix(*words):
  """MurmurHash3's finaliser over words, in Python integers: [N] uint32."""
  out = []
  for each in np.broadcast(*words):
    h = 0x9E3779B9
    for word in each:
      h ^= int(word) * 0xCC9E2D51 % 2 ** 32
      h = (h ^ h >> 16) * 0x85EBCA6B % 2 ** 32
      h = (h ^ h >> 13) * 0xC2B2AE35 % 2 ** 32
      h ^= h >> 16
    out.append(h)
  return np.array(out, np.uint32)


def brute(statistic, acts, batch):
  """What `finish` should return, from all rows at once in float64."""
  index = batch['index']
  held = mix(index, 5) % 5 == 0
  fold = getattr(statistic, 'fold', 'all')
  kept = {'all': held | True, 'held': held, 'fit': ~held}[fold]
  x = {s: np.asarray(v, np.float64)[kept] for s, v in acts.items()}
  label, index = batch['label'][kept], index[kept]
  return BRUTE[type(statistic).__name__](statistic, x, label, index)


def covariance(statistic, x, label, index):
  return {s: Moments(len(v), v.mean(0), (v - v.mean(0)).T @ (v - v.mean(0)))
          for s, v in x.items() if s in statistic.sites}


def class_covariance(statistic, x, label, index):
  if statistic.labels == 'random':
    label = mix(index, 0, 77) % statistic.classes
  out = {}
  for s, m in covariance(statistic, x, label, index).items():
    members = [x[s][label == c] for c in range(statistic.classes)]
    means = np.stack([v.mean(0) if len(v) else m.mean for v in members])
    out[s] = ClassMoments(*m, np.array([len(v) for v in members]), means)
  return out


def cross_covariance(statistic, x, label, index):
  u = {s: x[s] - x[s].mean(0) for s in statistic.sites}
  length = {s: (v ** 2).sum(1) for s, v in u.items()}
  pairs = [(a, b) for i, a in enumerate(statistic.sites) for b in statistic.sites[i:]]
  quartic = np.array([[length[a] @ length[b] for b in statistic.sites] for a in statistic.sites])
  return CrossMoments(len(index), {s: x[s].mean(0) for s in statistic.sites},
                      {(a, b): u[a].T @ u[b] for a, b in pairs}, quartic)


def projected_covariance(statistic, x, label, index):
  rows = {}
  for s in statistic.sites:
    for g in range(statistic.groups):
      seed = zlib.crc32(f'{s} {g} {statistic.seed}'.encode())
      matrix = np.asarray(project(np.eye(x[s].shape[1], dtype=np.float32), statistic.width, seed), np.float64)
      rows[s, g] = x[s] @ matrix
  return cross_covariance(CrossCovariance(tuple(rows)), rows, label, index)


def shift_covariance(statistic, x, label, index):
  cross = cross_covariance(statistic, x, label, index)           # rows are maps of one position
  return ShiftMoments(cross.n, cross.mean, {pair: c[None, None] for pair, c in cross.scatter.items()})


def density(statistic, x, label, index):
  return {s: Extremes(len(index), (x[s] > statistic.threshold).sum(0), x[s].min(0), x[s].max(0))
          for s in statistic.sites}


def scalars(statistic, x):
  norm = lambda v: np.sqrt((v ** 2).sum(1))
  forms = {'value': lambda v: v.reshape(-1), 'norm': norm, 'ratio': lambda v, w: norm(v) / norm(w),
           'cosine': lambda v, w: (v * w).sum(1) / norm(v) / norm(w)}
  return [forms[kind](*(x[s] for s in sites)) for kind, *sites in statistic.quantities]


def histogram(statistic, x, label, index):
  values = scalars(statistic, x)
  counts = np.stack([np.histogram(v, statistic.edges())[0] for v in values])
  each = lambda f: np.array([f(v) for v in values], np.float64)
  return Histograms(statistic.edges(), counts, each(len), each(np.mean), each(np.min), each(np.max))


def top_examples(statistic, x, label, index):
  out = {}
  for s in statistic.sites:
    order = np.stack([np.lexsort((index, -unit))[:statistic.k] for unit in x[s].T])
    out[s] = Top(np.take_along_axis(x[s].T, order, 1), index[order], np.zeros_like(order))
  return out


def sample(statistic, x, label, index):
  order = np.lexsort((index, mix(index, 0, statistic.seed)))[:statistic.size]
  kept = label[order] if statistic.classes else np.zeros(len(order))
  return Rows({s: x[s][order] for s in statistic.sites}, kept, index[order], np.zeros(len(order)))


BRUTE = {'Covariance': covariance, 'ClassCovariance': class_covariance, 'CrossCovariance': cross_covariance,
         'ProjectedCovariance': projected_covariance,
         'Density': density, 'Histogram': histogram, 'TopExamples': top_examples, 'Sample': sample,
         'ShiftCovariance': shift_covariance}


def same(found, expected, message='', rtol=1e-6, skip=()):
  """Equal structures whose arrays agree to `rtol` of each array's largest entry."""
  if hasattr(found, '_fields'):
    found, expected = ({f: getattr(t, f) for f in t._fields if f not in skip} for t in (found, expected))
  if isinstance(found, dict):
    assert list(found) == list(expected), message
    for key in found:
      same(found[key], expected[key], f'{message}/{key}', rtol, skip)
    return
  scale = np.abs(np.asarray(expected, np.float64)).max(initial=0)
  np.testing.assert_allclose(np.asarray(found, np.float64), np.asarray(expected, np.float64), rtol=0, atol=rtol * scale,
                             err_msg=message)
