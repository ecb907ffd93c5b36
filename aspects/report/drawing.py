"""The pieces that the figures of a run are drawn with: settings, places in inches, lines, maps, names, scales."""
import collections
import functools
import re
import textwrap
from typing import NamedTuple

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
import numpy as np

from aspects.report import values

INK, GREY, PALE = '#1f2430', '#6b7280', '#cfd3da'
STYLE = {
    'font.size': 9, 'axes.labelsize': 9, 'axes.titlesize': 9, 'xtick.labelsize': 8.5, 'ytick.labelsize': 8.5,
    'text.color': INK, 'axes.labelcolor': INK, 'xtick.color': INK, 'ytick.color': INK, 'axes.edgecolor': '#9aa0aa',
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.formatter.limits': (-3, 5),
    'axes.formatter.useoffset': False, 'hatch.linewidth': 0.6, 'legend.frameon': False, 'legend.fontsize': 8.5,
    'text.parse_math': False}            # a dollar sign in a user's name is a dollar sign
WIDTH, HEIGHT = 4.8, 3.3                 # inches: most figures
LEFT, TOP = 0.8, 0.3                     # inches: margins of a plot
LETTER, LINE = 0.075, 0.17               # inches: width of a letter, height of a line of text
NAMED = 7                                # lines named at their end
LAYER = r'(\D.*)\.(\d+(?:@\d+)?)'        # slot and layer of a site


class Line(NamedTuple):
  """`y` [points] with an optional `band` (low, high); `final` is drawn strong, `named` at its end."""
  y: np.ndarray
  name: str
  colour: object
  style: str = '-'
  band: list | None = None
  named: bool = True
  final: bool = False


def styled(function):
  """Runs `function` under STYLE."""
  @functools.wraps(function)
  def under(*args, **kwargs):
    with matplotlib.rc_context(STYLE):
      return function(*args, **kwargs)
  return under


def canvas(height=HEIGHT):
  fig = Figure(figsize=(WIDTH, height))
  FigureCanvasAgg(fig)
  return fig


def box(fig, left, bottom, width, height, **kwargs):
  """Axes at a place in inches: without a layout engine, figures side by side align."""
  high = fig.get_figheight()
  return fig.add_axes((left / WIDTH, bottom / high, width / WIDTH, height / high), **kwargs)


def colours(count):
  """`count` colours, light to dark: viridis without its yellow, which is lost on white."""
  return matplotlib.colormaps['viridis'](np.linspace(0.82, 0.12, count) if count > 1 else [0.25])


def step_lines(da, axis, null):
  """The labels of `axis`, and a `Line` per step and for the null.

  The last step and the untrained network have bands; with quantiles only the last step."""
  v = values.canonical(values.median(da), [axis])
  mean, low, high = values.over_seeds(v.array)
  end, quantiles, lines = len(v.steps) - 1, values.quantiles(da), []
  named = np.linspace(0, end, min(NAMED, end + 1)).astype(int)
  if quantiles:
    low, high = (values.over_seeds(values.canonical(da.sel(quantile=q), [axis]).array).estimate
                 for q in (quantiles[0], quantiles[-1]))
  for k, colour in enumerate(colours(end + 1)):
    before = values.is_untrained(v.steps, k)
    band = [low[k], high[k]] if k == end or before and not quantiles else None
    colour, style = (GREY, '--') if before else (colour, '-')
    lines.append(Line(mean[k], values.step_name(v.steps, k), colour, style, band, k in named, k == end))
  return v.labels[0], lines + null_lines(da, null, [axis])


def null_lines(da, null, axes):
  """The null over `axes` of `da` as a `Line`: mean over seeds, last step, constant along an axis that it lacks."""
  if null is None:
    return []
  null, own = values.median(null), [d for d in axes if d in null.dims]
  null = null.reindex({d: da[d] for d in own if d in null.coords and d in da.coords})
  y = values.over_seeds(values.canonical(null, own).array[:, -1]).estimate
  y = np.broadcast_to(y.reshape([da.sizes[d] if d in own else 1 for d in axes]), [da.sizes[d] for d in axes])
  return [Line(y, values.null_label(da, 18), GREY, ':')]


def draw(ax, line, x):
  strong = dict(lw=2, marker='o', ms=3.5, zorder=3) if line.final else dict(lw=1.3, zorder=2)
  ax.plot(x, line.y, line.style, color=line.colour, **strong)
  if line.band and np.isfinite(line.band).any():
    ax.fill_between(x, *line.band, color=line.colour, alpha=0.2, lw=0)


def heat(ax, array, limits):
  """Draws `array` [rows, columns], first row at the bottom; what has no value shows the hatch behind."""
  ax.patch.set(facecolor='#f3f4f6', edgecolor=PALE, hatch='////', lw=0)
  ax.spines[:].set_visible(False)
  ax.tick_params(length=2)
  # Not interpolated: the page carries one pixel per cell, which the browser scales without blur.
  return ax.imshow(np.ma.masked_invalid(array), cmap='viridis', vmin=limits[0], vmax=limits[1], origin='lower',
                   aspect='auto', interpolation='none')


def named_heat(fig, place, array, limits, names, da):
  """A heat map at `place` (inches) with named rows and columns ((labels, title) each) and a colour bar."""
  ax = box(fig, *place)
  bar = fig.colorbar(heat(ax, array, limits), cax=box(fig, sum(place[::2]) + 0.12, place[1], 0.12, place[3]))
  for axis, (labels, title), inches, count in zip((ax.yaxis, ax.xaxis), names, place[:1:-1], array.shape):
    set_ticks(axis, labels, inches)
    axis.set_label_text(title)
    if isinstance(labels, Blocks):
      axis.set_ticks(labels.centres[axis.get_ticklocs().astype(int)], [t.get_text() for t in axis.get_ticklabels()])
      for edge in labels.edges[1:-1]:
        (ax.axhline if axis is ax.yaxis else ax.axvline)(edge, color='white', lw=1.2)
  bar.outline.set_visible(False)
  bar.ax.tick_params(length=2)
  bar.set_label(value_label(da))


def short(name, most=18):
  return name if len(name) <= most else '…' + name[1 - most:]


class Blocks(list):
  """The names of networks whose sites follow one another on an axis, with the `centres` and `edges` of each."""

  def __init__(self, labels):
    owners = [n.split(':')[0] for n in labels]
    super().__init__(short(n) for n in dict.fromkeys(owners))
    self.edges = np.cumsum([0, *collections.Counter(owners).values()]) - 0.5
    self.centres = (self.edges[:-1] + self.edges[1:]) / 2


def axis_names(labels, dim):
  """Tick labels and title of an axis: `resid_post.3` is 3 on 'layer (resid_post)' if one slot has all layers.

  Of several networks, `seed 0:resid_post.3`, only the networks are named, as `Blocks`."""
  if all(':' in n for n in labels):
    slots = list(dict.fromkeys(re.sub(r'\.\d+.*', '', n.split(':', 1)[1]) for n in labels))
    return Blocks(labels), f'network; within: layers ({short(", ".join(slots))})'
  parts = [re.fullmatch(LAYER, n) for n in labels]
  slots = {p[1] for p in parts if p}
  if len(slots) != 1:
    return [short(n) for n in labels], dim
  return [p[2] if p else short(n) for n, p in zip(labels, parts)], f'layer ({slots.pop()})'


def slot_panels(labels):
  """[(slot, positions)]: a panel per slot where two or three have several layers, else one for all.

  A site without layers, such as `embed`, goes with the slot before it."""
  slots = [m[1] if (m := re.fullmatch(LAYER, n)) else '' for n in labels]
  large = [s for s, k in collections.Counter(slots).items() if s and k > 1]
  if not 2 <= len(large) <= 3:
    return [('', list(range(len(labels))))]
  panels, home = {s: [] for s in large}, large[0]
  for i, slot in enumerate(slots):
    home = slot if slot in panels else home
    panels[home].append(i)
  return list(panels.items())


def turned(labels, inches):
  """Whether the labels of a horizontal axis are words that would touch, so that they have to turn."""
  touch = (LETTER * (len(a) + len(b)) / 2 + 0.06 > inches / len(labels) for a, b in zip(labels, labels[1:]))
  return max(map(len, labels)) > 4 and any(touch)


def label_depth(labels, inches):
  """Inches that the labels of a horizontal axis take below it."""
  return 0.1 + (LETTER * 0.72 * max(map(len, labels)) if turned(labels, inches) else LINE)


def set_ticks(axis, labels, inches):
  """Ticks named by `labels`, thinned to keep apart along `inches`; the last is always there."""
  n, longest, horizontal = len(labels), max(map(len, labels)), axis.axis_name == 'x'
  every = int(np.ceil((LETTER * longest + 0.06 if horizontal and longest <= 4 else LINE) * n / inches))
  shown = [i for i in range(n) if i == n - 1 or (i % every == 0 and n - 1 - i >= every)]
  turn = dict(rotation=45, ha='right', rotation_mode='anchor') if horizontal and turned(labels, inches) else {}
  axis.set_ticks(shown, [labels[i] for i in shown], **turn)


def value_label(da):
  units = da.attrs.get('units', '1')
  text = values.long_name(da) + (f' ({units})' if units not in ('', '1') else '')
  return textwrap.fill(text, min(40, len(text) // 2 + 6), max_lines=2, placeholder=' …') if len(text) > 32 else text


def limits_of(da, array):
  """The variable's fixed scale, else the range of the finite values of `array`; never empty."""
  finite = array[np.isfinite(array)]
  low, high = da.attrs.get('limits', (finite.min(), finite.max()) if finite.size else (0, 1))
  return float(low), float(high) if high > low else float(low) + 1


def value_axis(ax, da):
  """Label and scale of y: the variable's `limits`, widened to hold all; without, a log where it spans 50-fold."""
  ax.set_ylabel(value_label(da))
  axs = ax.figure.axes
  low = min((np.nanmin(line.get_ydata(), initial=np.inf) for each in axs for line in each.lines), default=np.inf)
  if 'limits' not in da.attrs and max(each.dataLim.y1 for each in axs) > 50 * low > 0:
    ax.set_yscale('log')
  for axis in (ax.xaxis, ax.yaxis):
    if axis.get_scale() == 'log':        # no mathematics in text, see STYLE
      axis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:g}'))
      axis.set_minor_formatter(NullFormatter())
  if ax.get_yscale() == 'linear':
    ax.yaxis.set_major_locator(MaxNLocator(6))
    if 'limits' in da.attrs:
      (a, b), (low, high) = limits_of(da, np.zeros(0)), ax.get_ylim()
      ax.set_ylim(min(low, a - 0.03 * (b - a)), max(high, b + 0.03 * (b - a)))
  if da.sizes.get('seed', 1) == 1:
    ax.text(0, 1.03, 'one seed: no interval', transform=ax.transAxes, color=GREY, fontsize=8.5)


def end_labels(ax, lines, height):
  """Names lines at the right of `ax`, which is `height` inches high, apart from each other."""
  low, high = ax.get_ylim()
  warp = np.log if ax.get_yscale() == 'log' else np.asarray
  ends = [(line, line.y[np.isfinite(line.y)]) for line in lines if line.named]
  ends = [(line, (warp(y[-1]) - warp(low)) / (warp(high) - warp(low))) for line, y in ends if y.size]
  ends.sort(key=lambda end: end[1])
  place, gap = np.array([at for _, at in ends]), LINE * 0.9 / height
  for _ in range(100):                   # two that overlap push each other apart
    for i in range(len(place) - 1):
      push = max(0, gap - (place[i + 1] - place[i])) / 2
      place[i:i + 2] += (-push, push)
  for (line, at), y in zip(ends, place):
    ax.annotate(line.name, (1.005, at), (1.05, y), 'axes fraction', color=line.colour, va='center', fontsize=8.5,
                annotation_clip=False, arrowprops=dict(arrowstyle='-', color=PALE, lw=0.7, shrinkA=0, shrinkB=0))
