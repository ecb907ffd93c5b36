"""Figures of a result: one function per shape of array, each returns a matplotlib `Figure`.

`figure_for` picks by the variable's attribute `figure` and its dims, so that a measure written later gets a figure
for free. What lacks a value in any seed is not drawn: lines break there and maps are hatched. Lines are named in the
figure. No pyplot, no global state."""
from matplotlib.ticker import MaxNLocator
import numpy as np

from aspects.report import values
from aspects.report.drawing import (
    GREY, HEIGHT, INK, LEFT, LETTER, PALE, TOP, WIDTH, Line, axis_names, box, canvas, colours, draw, end_labels, heat,
    label_depth, limits_of, named_heat, null_lines, set_ticks, short, slot_panels, step_lines, styled, value_axis)

STRIP = 5          # small maps under a large one
POINTS = 300       # drawn of a long line


def figure_for(da, dataset):
  """The figure of variable `da` of `dataset`, with its null and, on a map, the test that its attribute `test` names."""
  kind = values.plan(da)[0]
  test = dict(test=dataset[da.attrs['test']]) if kind == 'map' and 'test' in da.attrs else {}
  return FIGURES[kind](da, null=values.null_of(da, dataset), **test)


@styled
def curve(da, null=None):
  """A value along one axis, mostly depth: a line per step, the last with its t-interval or quantile band.

  Args: da [seed, step, axis], perhaps with `quantile`; null over that axis, or a level without it."""
  axis = values.plan(da)[1][0]
  labels, lines = step_lines(da, axis, null)
  panels = slot_panels(labels)
  names = [axis_names([labels[i] for i in at], axis) for _, at in panels]
  width = WIDTH - LEFT - 0.25 - LETTER * max(len(line.name) for line in lines)
  width = (width - 0.12 * (len(panels) - 1)) / len(panels)
  bottom = 0.25 + max(label_depth(ticks, width) for ticks, _ in names)
  fig, height, axs = canvas(), HEIGHT - bottom - TOP, []
  for (slot, at), (ticks, title) in zip(panels, names):
    left = LEFT + len(axs) * (width + 0.12)
    ax = box(fig, left, bottom, width, height, sharey=axs[0] if axs else None)
    for line in lines:
      draw(ax, line._replace(y=line.y[at], band=line.band and [bound[at] for bound in line.band]), range(len(at)))
      for i in np.flatnonzero(line.final & ~np.isfinite(line.y[at])):
        ax.axvspan(i - 0.5, i + 0.5, facecolor='none', edgecolor=PALE, hatch='////', lw=0, zorder=0)
    ax.set(xlim=(-0.35, len(at) - 0.65), xlabel='layer' if slot else title)
    ax.set_title(slot, color=GREY)
    ax.tick_params(labelleft=not axs)
    set_ticks(ax.xaxis, ticks, width)
    axs.append(ax)
  value_axis(axs[0], da)
  end_labels(axs[-1], [line._replace(y=line.y[panels[-1][1]]) for line in lines], height)
  return fig


@styled
def trajectory(da, null=None):
  """A value over training: the mean over seeds with its t-interval. da [seed, step]; null: a level."""
  v = values.canonical(values.median(da), [])
  kept = np.flatnonzero(np.isfinite(v.array).all(0))            # evaluated at some steps only
  kept = kept[np.unique(np.linspace(0, kept.size - 1, min(kept.size, POINTS)).astype(int))]
  fig = canvas()
  ax = box(fig, LEFT, 0.5, WIDTH - LEFT - 0.3, HEIGHT - 0.5 - TOP)
  mean, *band = values.over_seeds(v.array[:, kept])
  draw(ax, Line(mean, '', colours(1)[0], band=band, final=kept.size <= 30), np.array(v.steps)[kept])
  for line in null_lines(da, null, []):
    ax.axhline(float(line.y), color=GREY, ls=':')
  ax.set_xlabel('training step' if kept.size else 'training step: no finite value')
  value_axis(ax, da)
  return fig


@styled
def layer_map(da, null=None, test=None):
  """A value over two axes as a heat map of the last step, mean over seeds, first row at the bottom.

  Below it, on the same scale, steps before and the null. Cells whose `test`, a p or q, is above 5 % in any seed have a
  cross: chance may do as well. da and test [seed, step, rows, columns]."""
  axes = values.plan(da)[1]
  v = values.canonical(values.median(da), axes)
  mean = values.over_seeds(v.array).estimate
  before = np.linspace(0, len(mean) - 2, min(STRIP - (null is not None), len(mean) - 1)).astype(int)
  small = [(values.step_name(v.steps, k), mean[k]) for k in before]
  small += [(short(line.name, 10 if small else 30), line.y) for line in null_lines(da, null, axes)]
  names = [axis_names(n, d) for n, d in zip(v.labels, axes)]
  room = 0.5 + LETTER * max(map(len, names[0][0]))
  size = min(2.75, WIDTH - room - 1.1)
  bottom = 1.2 * bool(small) + 0.3 + label_depth(names[1][0], size)
  fig, limits = canvas(bottom + size + 0.12), limits_of(da, mean)
  named_heat(fig, ((WIDTH - 0.8 + room - size) / 2, bottom, size, size), mean[-1], limits, names, da)
  if test is not None:
    with np.errstate(invalid='ignore'):
      y, x = np.nonzero((values.canonical(test, axes).array[:, -1] > values.LEVEL).any(0))
    fig.axes[0].plot(x, y, 'x', color=INK, mec='white', ms=min(7, 40 * size / max(mean.shape[1:])), mew=1.2, ls='none')
  for i, (title, array) in enumerate(small):
    ax = box(fig, (WIDTH - 0.92 * len(small) + 0.12) / 2 + 0.92 * i, 0.1, 0.8, 0.8)
    heat(ax, array, limits)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=8.5, pad=3)
  return fig


@styled
def step_map(da):
  """Training step by depth as a heat map over the range of the values, mean over seeds, first step at the bottom.

  Args: da [seed, step, axis]."""
  axis = values.plan(da)[1][0]
  v = values.canonical(values.median(da), [axis])
  mean, steps = values.over_seeds(v.array).estimate, [f'{s:,}' for s in v.steps]
  names = [(steps, 'training step'), axis_names(v.labels[0], axis)]
  left = 0.45 + LETTER * max(map(len, steps))
  width = WIDTH - left - 1.1
  bottom = 0.3 + label_depth(names[1][0], width)
  fig, limits = canvas(), limits_of(da.drop_attrs(), mean)
  named_heat(fig, (left, bottom, width, HEIGHT - bottom - 0.12), mean, limits, names, da)
  return fig


@styled
def heads(da, null=None):
  """A value per head along depth: a dot per head and seed at the last step, rings for the untrained network.

  Heads of different seeds do not correspond, so that only their mean has an interval: the bar.
  Args: da [seed, step, site, head]; null: a dotted line per site."""
  site, head = values.plan(da)[1]
  v = values.canonical(values.median(da), [site, head])
  mean, low, high = values.over_seeds(values.canonical(values.median(da), [site]).array[:, -1])
  (ticks, title), width, centre = axis_names(v.labels[0], site), WIDTH - LEFT - 0.3, np.arange(len(mean))
  bottom = 0.25 + label_depth(ticks, width)
  fig = canvas()
  ax = box(fig, LEFT, bottom, width, HEIGHT - bottom - TOP)
  spread = np.linspace(-0.1, 0.1, v.array.shape[-1])
  x = np.broadcast_to(centre[:, None] + spread, v.array[:, -1].shape).ravel()
  if values.is_untrained(v.steps, 0):
    ax.plot(x - 0.22, v.array[:, 0].ravel(), 'o', mfc='none', mec=GREY, ms=3, mew=0.7, label='untrained')
  ax.plot(x + 0.1, v.array[:, -1].ravel(), 'o', color=colours(1)[0], ms=3.2, alpha=0.6, mew=0,
          label=values.step_name(v.steps, -1))
  ax.errorbar(centre + 0.34, mean, np.nan_to_num([mean - low, high - mean]), fmt='_', color=INK, ms=7, label='mean')
  for line in null_lines(da, null, [site]):
    ax.hlines(line.y, centre - 0.4, centre + 0.44, color=GREY, ls=':', label=line.name)
  ax.set(xlim=(-0.6, len(mean) - 0.4), xlabel=title)
  set_ticks(ax.xaxis, ticks, width)
  value_axis(ax, da)
  ax.legend(loc='lower right', bbox_to_anchor=(1.02, 0.99), ncols=4, columnspacing=1, handletextpad=0.3,
            borderpad=0.2)
  return fig


@styled
def spectrum(da, null=None):
  """Values by rank at the last step, a line per site, light to dark; y is logarithmic from two decades on.

  Axis `rank` keeps its order; others (units, classes) are sorted within each seed, largest first. The null and the
  untrained network are shown for the last site. da [seed, step, site, rank]; null likewise."""
  site, rank = values.plan(da)[1]
  v = values.canonical(values.median(da), [site, rank])
  order = (lambda x: x) if rank == 'rank' else (lambda x: -np.sort(-x, axis=-1))
  mean = values.over_seeds(order(v.array)).estimate
  some = np.unique(np.geomspace(1, mean.shape[-1], POINTS).round().astype(int)) - 1
  above = mean[-1][mean[-1] > 0]
  logs = above.size and above.max() > 100 * above.min() and not (mean[-1] < 0).any()
  shades = colours(len(mean[-1]))
  lines = [Line(y, short(name), shades[i], named=i in (0, len(shades) - 1))
           for i, (y, name) in enumerate(zip(mean[-1], v.labels[0]))]
  if values.is_untrained(v.steps, 0):
    lines.append(Line(mean[0, -1], 'untrained', GREY, '--'))
  lines += [line._replace(y=order(line.y[-1])) for line in null_lines(da, null, [site, rank])]
  fig, height = canvas(), HEIGHT - 0.5 - TOP
  width = WIDTH - LEFT - 0.25 - LETTER * max(len(line.name) for line in lines if line.named)
  ax = box(fig, LEFT, 0.5, width, height)
  lines = [line._replace(y=np.where(line.y > 0, line.y, np.nan)[some] if logs else line.y[some]) for line in lines]
  for line in lines:
    draw(ax, line, some + 1)
  ax.set(yscale='log' if logs else 'linear', xlabel=rank if rank == 'rank' else f'{rank}, largest first')
  ax.set_xscale('log' if rank == 'rank' else 'linear')
  if rank != 'rank':
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
  value_axis(ax, da)
  end_labels(ax, lines, height)
  return fig


FIGURES = {'trajectory': trajectory, 'curve': curve, 'map': layer_map, 'heads': heads, 'spectrum': spectrum}
