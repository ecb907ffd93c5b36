"""The figures of a claim: strip, interval, paired lines, errors of an identity, curves; drawn of what `view` finds."""
from markupsafe import Markup
import numpy as np

from aspects.claims.gallery import view
from aspects.claims.gallery.drawing import (
    FOOT, Scale, area, dot, element, foot, label, line, log_scale, path, percent, picture, route, scale, stretched,
    thinned, tick_label, x_axis, y_axis)
from aspects.report import values

STRIP, LANE = 26, 38               # pixels: height of a strip, of a row of errors
PLOT = 220                         # pixels: height of a curve
SWARM = 0.026                      # dots closer than this share of the width stand above each other
OUTSIDE = 100                      # the control of an identity has to miss the bound by this factor
TAU, EPS = 'τ', 'ε'


def marks(assertion, region) -> list[tuple[float, str]]:
  """The thresholds of an assertion and their names, from low to high."""
  low, high, fails_below, fails_above = region
  names = {'superior': [(low, TAU), (fails_below, f'{TAU} + {EPS}')], 'noninferior': [(low, f'−{EPS}')],
           'equivalent': [(low, f'−{EPS}'), (high, EPS)], 'band': [(low, 'a'), (high, 'b')],
           'identity': [(low, 'bound')]}
  kind = 'superior' if assertion['kind'] == 'trend' else assertion['kind']
  return [(x, name) for x, name in names[kind] if np.isfinite(x)]


def said(assertion, evidence) -> str:
  """The figure of an assertion in words, for those who do not see it."""
  estimate, low, high = evidence.interval
  text = f'{assertion["name"]}: {assertion["verdict"]}. {np.isfinite(evidence.values).sum()} seeds'
  if np.isfinite(estimate):
    text += f', estimate {estimate:.3g}' + (f', interval {low:.3g} to {high:.3g}' if np.isfinite(low) else '')
  return text + ''.join(f', {name} {x:.3g}' for x, name in marks(assertion, evidence.region)) + '.'


def strip(assertion, evidence) -> Markup:
  """One lane of the index: no letters; zero, or the middle of a band, is in the middle of every lane."""
  low, high, *_ = evidence.region
  estimate, *ends = evidence.interval
  thresholds = [x for x, _ in marks(assertion, evidence.region)]
  middle = np.mean([low, high]) if assertion['kind'] == 'band' and np.isfinite(low) else 0.
  finite = evidence.values[np.isfinite(evidence.values)]
  reach = np.abs(np.array([*thresholds, *ends, estimate, *(np.quantile(finite, [.1, .9]) if finite.size else [])])
                 - middle)
  half = 1.12 * max(reach[np.isfinite(reach)], default=0.) or 1.
  s, mid = Scale(middle - half, middle + half), STRIP / 2
  def place(x):
    return np.clip(s.at(x), 0.012, 0.988)
  parts = []
  if np.isfinite(low):
    a, b = (float(np.clip(s.at(x), 0, 1)) for x in (low, high))
    parts.append(element('rect', x=f'{1000 * a:.1f}', width=f'{1000 * (b - a):.1f}', y=0, height=STRIP,
                         class_='region'))
  parts.append(path(f'M500 0V{STRIP}', 'zero'))
  parts.append(path(''.join(f'M{1000 * place(x):.1f} 0v6m0 {STRIP - 12}v6' for x in thresholds), 'threshold'))
  if np.isfinite(ends).all():
    parts.append(path(route(place(ends), [mid, mid]), f'bar {assertion["verdict"]}'))
  for chosen, class_ in ((evidence.used, 'dots'), (~evidence.used, 'dots later')):
    x = evidence.values[chosen & ~np.isnan(evidence.values)]
    parts.append(path(''.join(f'M{1000 * p:.1f} {mid:.0f}h0' for p in place(x)), class_))
  if np.isfinite(estimate):
    parts.append(path(f'M{1000 * place(estimate):.1f} {mid - 8:.0f}v16', f'estimate {assertion["verdict"]}'))
  return element('svg', *parts, class_='strip', role='img', aria_label=said(assertion, evidence),
                 viewBox=f'0 0 1000 {STRIP}', preserveAspectRatio='none')


def swarm(shares) -> np.ndarray:
  """Rows 0, 1, -1, 2, ... that keep dots at `shares` apart."""
  rows, taken = np.zeros(len(shares)), {}
  for i in np.argsort(shares, kind='stable'):
    k = 0
    while shares[i] - taken.get(k, -1) < SWARM:
      k += 1
    taken[k] = shares[i]
    rows[i] = (k + 1) // 2 * (1 if k % 2 else -1)
  return rows


def seed_class(evidence, i) -> str:
  return 'dot' + ' diverged' * bool(evidence.diverged[i]) + ' later' * (not evidence.used[i])


def interval(assertion, evidence, text) -> Markup:
  """Seeds, interval and thresholds of an assertion over an axis in its own units, named `text`."""
  low, high, *_ = evidence.region
  estimate, *ends = evidence.interval
  finite = np.isfinite(evidence.values)
  zero = [] if assertion['kind'] == 'band' else [0.]
  s = scale([*evidence.values, *ends, estimate, *zero, *(x for x, _ in marks(assertion, evidence.region))])
  parts, floor = [], 88
  if np.isfinite(low):
    a, b = (float(np.clip(s.at(x), 0, 1)) for x in (low, high))
    parts.append(element('rect', x=percent(a), width=percent(b - a), y=20, height=floor - 20, class_='region'))
  if 0 > s.low and 0 < s.high:
    parts.append(line((s.at(0), s.at(0)), (20, floor), 'zero'))
  parts.append(thresholds(assertion, evidence.region, s, floor))
  shares = s.at(evidence.values)
  for i, row in zip(np.flatnonzero(finite), swarm(shares[finite])):
    title = f'seed {evidence.seeds[i]}: {evidence.values[i]:.4g}' + ', diverged' * bool(evidence.diverged[i])
    parts.append(dot(shares[i], 42 + 6 * np.clip(row, -3, 3), title, seed_class(evidence, i)))
  if np.isfinite(ends).all():
    parts += [line(s.at(ends), (72, 72), f'bar {assertion["verdict"]}')]
    parts += [line((s.at(x), s.at(x)), (67, 77), f'cap {assertion["verdict"]}') for x in ends]
  if np.isfinite(estimate):
    parts.append(dot(s.at(estimate), 72, f'estimate {estimate:.4g}', f'estimate {assertion["verdict"]}', 5.5))
  elif not finite.any():
    parts.append(label(0.5, 54, 'no seed has a value', 'none'))
  return picture(floor + FOOT, said(assertion, evidence), *parts, x_axis(s, floor, text))


def thresholds(assertion, region, s, floor) -> Markup:
  """Dashed lines with their names on top; of two neighbours the left name reaches left, the right one right."""
  found = marks(assertion, region)
  anchors = ['end', 'start'] if len(found) == 2 else ['middle']
  return Markup().join(
      line((s.at(x), s.at(x)), (20, floor), 'threshold')
      + label(s.at(x), 13, name, 'mark', anchor, dx={'end': -2, 'start': 2, 'middle': 0}[anchor])
      for (x, name), anchor in zip(found, anchors))


def paired(assertion, runs, text) -> Markup:
  """A line per seed from the baseline to ours (of a trend: over its arms in order), and the mean of each arm."""
  trend = assertion['kind'] == 'trend'
  arms = assertion['arms'] if trend else assertion['arms'][::-1]
  seeds, v = view.table(runs, {**assertion, 'arms': arms})
  log = log_scale(v)
  s, sign = scale(v, log=log), -1 if assertion.get('better') == 'lower' else 1
  places = (np.arange(len(arms)) + 0.5) / len(arms)
  with np.errstate(invalid='ignore'):
    y, better = PLOT * (1 - s.at(v)), sign * (v[:, -1] - v[:, 0]) > 0
  parts = [y_axis(s, PLOT, text)]
  for chosen, class_ in ((better, 'seed better'), (~better, 'seed worse')):
    parts.append(stretched(PLOT, path(''.join(route(places, row) for row in y[chosen]), class_)))
  diverged = {(r['arm'], r['seed']) for r in runs if r['status'] == 'diverged'}
  for (i, k), value in np.ndenumerate(v):
    if np.isfinite(value):
      gone = (arms[k], seeds[i]) in diverged
      parts.append(dot(places[k], y[i, k], f'{arms[k]}, seed {seeds[i]}: {value:.4g}' + ', diverged' * gone,
                       'dot' + ' diverged' * gone, 3))
  for k, column in enumerate(v.T):
    if np.isfinite(column).any():
      mean = np.nanmean(column)
      h = PLOT * (1 - float(s.at(mean)))
      reach = 0.3 / len(arms)
      parts.append(line((places[k] - reach, places[k] + reach), (h, h), 'mean'))
  if not np.isfinite(v).any():
    parts.append(label(0.5, PLOT / 2, 'no seed has a value', 'none'))
  words = f'{text} by arm, a line per seed. ' + ' '.join(
      f'{arm}: mean {np.nanmean(c):.3g}.' if np.isfinite(c).any() else f'{arm}: no value.' for arm, c in zip(arms, v.T))
  names = [short(a, 56 // len(arms)) for a in arms]
  axis = x_axis(Scale(0., 1.), PLOT, 'arm', names, places)
  return picture(PLOT + foot(names), words, *parts, axis)


def short(name, most) -> str:
  """`name` in about `most` letters, its beginning and its end."""
  kept = max(most - 1, 4)
  return name if len(name) <= most else f'{name[:kept - kept // 2]}…{name[-(kept // 2):]}'


def identity(assertion, found) -> Markup:
  """A row per arm and precision: errors of all seeds in units of machine epsilon, on a log axis with the bound."""
  c = view.real(assertion.get('c'))
  bounds = [c, OUTSIDE * c] if any(not e.own for e in found) else [c]
  every = [*np.concatenate([e.values for e in found]), *bounds] if found else bounds
  s = scale(every, log=True)
  floor = 24 + LANE * max(len(found), 1)
  parts = []
  if np.isfinite(c):
    parts.append(element('rect', x=0, width=percent(s.at(c)), y=20, height=floor - 20, class_='region'))
    for x, name in zip(bounds, ('bound c', f'{OUTSIDE} c')):
      parts += [line((s.at(x), s.at(x)), (20, floor), 'threshold'), label(s.at(x), 13, name, 'mark')]
  for row, e in enumerate(found):
    y = 24 + LANE * (row + 0.72)
    parts += [line((0, 1), (y, y), 'grid'), label(0, y - 10, f'{short(e.arm, 30)}, {e.dtype}', 'row', 'start', dx=4)]
    for seed, value in zip(e.seeds, e.values):
      share = 0. if value <= s.low else 1. if value == np.inf else s.at(value)
      if not np.isnan(value):
        parts.append(dot(share, y, f'{e.arm}, {e.dtype}, seed {seed}: {value:.3g}', 'dot' + ' control' * (not e.own)))
  if not found:
    parts.append(label(0.5, floor / 2 + 10, 'no run has an error', 'none'))
  words = f'{assertion["name"]}: {assertion["verdict"]}. Bound {c:g}. ' + ' '.join(
      f'{e.arm}, {e.dtype}: largest {np.nanmax(e.values):.3g}.' for e in found)
  return picture(floor + FOOT, words, *parts, x_axis(s, floor, 'error / (machine epsilon × scale)'))


def curve(panel, colours) -> Markup:
  """The mean of each arm over a panel's axis with its 95 % t-interval; every seed as a thin line."""
  bands = {arm: values.over_seeds(np.where(np.isfinite(y), y, np.nan)) for arm, y in panel.lines.items()}
  every = np.concatenate([np.ravel(y) for y in panel.lines.values()])
  log = log_scale(every)
  held = [x for b in bands.values() for x in (b.low, b.high)]
  inside = [x[(x > 0) | (not log)] for x in held]
  s = scale(np.concatenate([every, *inside]) if not log else every, log=log, pad=0.03)
  across = scale(panel.x, pad=0.02)
  x, grid, parts = across.at(panel.x), y_axis(s, PLOT, short(panel.name, 40)), []
  def down(v):
    with np.errstate(invalid='ignore', divide='ignore'):
      return PLOT * (1 - np.clip(s.at(np.where((v > 0) | (not log), v, s.low)), 0, 1))
  drawn, words = [], []
  for arm, y in reversed(panel.lines.items()):           # what comes first lies on top
    mean, low, high = bands[arm]
    name = f'arm-{colours[arm]}'
    good = np.where(np.isfinite(y), y, np.nan)
    drawn.append(area(x, gap(down(low), low), gap(down(high), high), f'band {name}'))
    drawn.append(path(''.join(route(x, gap(down(row), row)) for row in good), f'thin {name}'))
    drawn.append(path(route(x, gap(down(mean), mean)), f'line {name}'))
    last = np.flatnonzero(np.isfinite(mean))
    ends = f'{mean[last[0]]:.3g} at first, {mean[last[-1]]:.3g} at last' if last.size else 'not defined'
    words.append(f'{arm}: {ends}.')
    parts += [dot(a, b, f'{arm} at {c}: {m:.4g}', f'point {name}', 2.5)
              for a, b, c, m in zip(x, down(mean), panel.labels or map(tick_label, panel.x), mean) if np.isfinite(m)]
  shown = thinned(panel.labels, 4) if panel.labels else None
  names = shown and [short(panel.labels[i], 14) for i in shown]
  axis = x_axis(across, PLOT, short(panel.axis, 40), names, shown and panel.x[shown], whole=not (panel.x % 1).any())
  text = f'{panel.name} over {panel.axis}. ' + ' '.join(words[::-1])
  return picture(PLOT + foot(names), text, grid, stretched(PLOT, *drawn), *parts, axis)


def gap(places, numbers) -> np.ndarray:
  """`places`, NaN where `numbers` are."""
  return np.where(np.isfinite(numbers), places, np.nan)


def swatch(colour) -> Markup:
  """The line of an arm as the legend shows it."""
  return element('svg', path('M0 6H26', f'line arm-{colour}'), class_='swatch', width=26, height=12, aria_hidden='true')
