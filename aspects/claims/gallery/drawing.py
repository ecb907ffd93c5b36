"""SVG in parts: elements, scales, ticks, axes.

Places across are percent of the width and places down are pixels, so that a figure fills its column while letters keep
their size. Lines live in a box that is stretched, 1000 wide, with strokes that are not. Labels of the vertical axis
hang over the left edge; the page leaves room for them."""
import math
from typing import NamedTuple

from markupsafe import Markup, escape
import numpy as np

MINUS, WIDE = '\N{MINUS SIGN}', 1000
RAISED = str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹')
FOOT, ROW = 40, 14        # pixels: below an axis, of a second row of its labels
LETTERS = 26              # that fit below an axis on a phone
LOG_FROM = 50             # a positive curve that spans so many times its smallest value gets a log scale


class Scale(NamedTuple):
  """Maps numbers to shares of a length, 0 at `low` and 1 at `high`."""
  low: float
  high: float
  log: bool = False

  def at(self, x):
    low, high, x = (np.log10(v) if self.log else v for v in (self.low, self.high, np.asarray(x, float)))
    return (x - low) / (high - low)


def scale(values, *, log=False, pad=0.05) -> Scale:
  """A scale that holds the finite `values` (of a log scale: the positive ones), with room at the ends."""
  x = np.asarray(values, float).ravel()
  x = x[np.isfinite(x) & ((x > 0) | (not log))]
  low, high = (x.min(), x.max()) if x.size else (1., 10.) if log else (0., 1.)
  if log:
    room = max(pad * np.log10(high / low), 0.15)
    return Scale(float(low / 10 ** room), float(high * 10 ** room), True)
  room = pad * (high - low) or abs(low) * 0.1 or 1.
  return Scale(float(low - room), float(high + room))


def ticks(s: Scale, most=5, whole=False) -> list[float]:
  """Round numbers inside the scale, about `most`; of a log scale powers of ten; `whole`: integers only."""
  low, high = (np.log10([s.low, s.high]) if s.log else (s.low, s.high))
  raw = (high - low) / most
  size = 10. ** np.floor(np.log10(raw))
  steps = [k * size for k in (1, 2, 2.5, 5, 10, 20) if k * size >= raw and not ((s.log or whole) and (k * size) % 1)]
  step = steps[0] if steps else 1.
  found = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
  if s.log and len(found) < 2:
    return [s.low, s.high]
  return [float(10 ** x if s.log else x) for x in found[:most + 1]]


def tick_label(x, log=False) -> str:
  if log and x > 0 and abs(np.log10(x) - round(np.log10(x))) < 1e-9:
    return '10' + str(round(np.log10(x))).translate(RAISED)
  return f'{0. if abs(x) < 1e-300 else round(x, 12):g}'.replace('-', MINUS)


def element(name, *inside, **attributes) -> Markup:
  """An element; names of attributes get hyphens for underscores, so `class_` is `class`. All text is escaped."""
  text = ''.join(f' {k.rstrip("_").replace("_", "-")}="{v if isinstance(v, (int, float)) else escape(v)}"'
                 for k, v in attributes.items() if v is not None)
  return Markup(f'<{name}{text}>{"".join(map(escape, inside))}</{name}>' if inside else f'<{name}{text}/>')


def percent(share) -> str:
  return f'{100 * float(share):.2f}%'


def picture(height, label, *inside, **attributes) -> Markup:
  """The figure itself: as wide as its place, `height` pixels high, said in words by `label`."""
  return element('svg', *inside, class_='draw', role='img', aria_label=label, width='100%', height=height, **attributes)


def stretched(height, *inside) -> Markup:
  """A box of 1000 by `height` for paths, stretched to the width of the figure."""
  return element('svg', *inside, viewBox=f'0 0 {WIDE} {height}', preserveAspectRatio='none', width='100%',
                 height=height, aria_hidden='true')


def line(x, y, class_) -> Markup:
  """A line from one (x, y) to another, x as shares and y in pixels."""
  return element('line', x1=percent(x[0]), x2=percent(x[1]), y1=f'{y[0]:.1f}', y2=f'{y[1]:.1f}', class_=class_)


def label(x, y, text, class_='tick', anchor='middle', **attributes) -> Markup:
  return element('text', text, x=percent(x), y=f'{y:.1f}', class_=class_, text_anchor=anchor, **attributes)


def dot(x, y, title, class_='dot', size=3.5) -> Markup:
  """A circle that says `title` under the pointer."""
  return element('circle', element('title', title), cx=percent(x), cy=f'{y:.1f}', r=size, class_=class_)


def route(x, y) -> str:
  """The path through shares `x` and pixels `y`, broken where either is NaN."""
  out, pen = [], 'M'
  for a, b in zip((np.asarray(x, float) * WIDE).tolist(), np.asarray(y, float).tolist()):
    good = math.isfinite(a) and math.isfinite(b)
    out += [f'{pen}{a:.1f} {b:.1f}'] if good else []
    pen = 'L' if good else 'M'
  return ''.join(out)


def path(d, class_) -> Markup:
  return element('path', d=d, class_=class_) if d else Markup()


def area(x, low, high, class_) -> Markup:
  """The band between `low` and `high`, broken where either is NaN."""
  good = np.isfinite(low) & np.isfinite(high)
  edges = np.flatnonzero(np.diff(np.concatenate([[0], good.astype(int), [0]])))
  parts = [slice(a, b) for a, b in zip(edges[::2], edges[1::2]) if b - a > 1]
  d = ''.join('M' + route(np.r_[x[p], x[p][::-1]], np.r_[low[p], high[p][::-1]])[1:] + 'Z' for p in parts)
  return path(d, class_)


def x_axis(s: Scale, y, text, labels=None, at=None, whole=False) -> Markup:
  """The axis below, at `y`: ticks, and `text` under them; `labels` at the places `at` instead of numbers."""
  places = ticks(s, whole=whole) if labels is None else at
  names = [tick_label(t, s.log) for t in places] if labels is None else labels
  out = [line((0, 1), (y, y), 'axis')]
  low = foot(labels) - FOOT
  for k, (share, name) in enumerate(zip(s.at(places), names)):
    drop = low * (k % 2)
    out += [line((share, share), (y, y + 4 + drop), 'axis'), label(share, y + 17 + drop, name)]
  return Markup().join([*out, label(0.5, y + 35 + low, text, 'title')])


def foot(labels) -> int:
  """Pixels below an axis with these labels (None: numbers); those that would touch stand in two rows."""
  return FOOT + ROW * bool(labels and len(labels) > 1 and sum(map(len, labels)) + len(labels) > LETTERS)


def y_axis(s: Scale, height, text) -> Markup:
  """Grid lines with their numbers left of the figure, and `text` above it."""
  out = []
  for t in ticks(s, 6):
    y = height * (1 - float(s.at(t)))
    out += [line((0, 1), (y, y), 'grid'), label(0, y + 4, tick_label(t, s.log), anchor='end', dx='-8')]
  return Markup().join([*out, label(0, -12, text, 'title', 'start', dx='-46')])


def thinned(labels, most) -> list[int]:
  """Positions of at most about `most` labels, the first and the last among them."""
  n = len(labels)
  every = max(1, int(np.ceil(n / most)))
  return [i for i in range(n) if i == n - 1 or (i % every == 0 and n - 1 - i >= every)]


def log_scale(values) -> bool:
  """Whether the finite `values` are positive and span so much that a log scale shows them better."""
  x = np.asarray(values, float).ravel()
  x = x[np.isfinite(x)]
  return bool(x.size and x.min() > 0 and x.max() > LOG_FROM * x.min())
