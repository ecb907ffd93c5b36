"""The page of a run: one HTML file that holds its summary, its figures and what made it, and fetches nothing.

This module gathers numbers and figures, `page.html` has the words. All numbers of the summary are `<data value=...>`,
at full precision for whoever parses the page."""
import io
import json
import pathlib
import re
import warnings

import jinja2
from markupsafe import Markup
import matplotlib
import numpy as np

from aspects import files
from aspects.report import figures, values
from aspects.report.drawing import null_lines


def render(tree, path):
  """Writes the page of `tree` to `path`, complete or not at all.

  Args: tree: a DataTree /<variant>/<measure>, as `study.run` returns it. Shown are the root's attributes `title` and
    `provenance` (its `command` first), all of a variant, and all of a Dataset; `aspect` names its chapter, `headline`
    the variable that speaks for it.

  Raises:
    ValueError: a variable names a null that its Dataset lacks."""
  environment = jinja2.Environment(loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent), autoescape=True,
                                   undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
  environment.filters |= {'number': values.number, 'pretty': lambda x: json.dumps(x, indent=1, default=str)}
  html = environment.get_template('page.html').render(attrs=tree.attrs, variants=tree.children, measures=gather(tree),
                                                      finding=finding, last=last, shown=shown)
  files.write(path, html.encode())


def gather(tree):
  """Every measure once: its name, aspect, Datasets by variant, and rows of pictures, a picture per variant."""
  found, measures = {}, []
  for variant, node in tree.children.items():
    for name, child in node.children.items():
      found.setdefault(name, {})[variant] = child.to_dataset()
  for name, sets in found.items():
    rows, attrs = [], next(iter(sets.values())).attrs
    keys = dict.fromkeys(k for ds in sets.values() for k in shown(ds))
    for key in sorted(keys, key=lambda k: all(k != headline(ds) for ds in sets.values())):
      for chosen in (shown, over_training):
        row = [picture(ds, key, variant, chosen is over_training, f'f{len(measures)}-{len(rows)}-{i}-')
               for i, (variant, ds) in enumerate(sets.items()) if key in chosen(ds)]
        rows += [row] if row else []
    aspect = 'training' if name == 'training' else str(attrs.get('aspect', 'other'))
    measures.append(dict(name=name, id=f'm{len(measures)}', aspect=aspect, attrs=attrs, sets=sets, rows=rows))
  return measures


def shown(ds):
  """Names of the variables that get a figure: numbers that are neither marked 'none' nor the null of another."""
  nulls = {da.attrs.get('null') for da in ds.data_vars.values()}
  return [k for k, da in ds.data_vars.items()
          if da.dtype.kind in 'biuf' and da.attrs.get('figure') != 'none' and k not in nulls]


def headline(ds):
  """The variable that speaks for a Dataset: as it says, else its first curve, else its first; None if it has none."""
  curves = [k for k in shown(ds) if values.plan(ds[k])[0] == 'curve']
  return ds.attrs['headline'] if ds.attrs.get('headline') in ds else next(iter(curves + shown(ds)), None)


def over_training(ds):
  """Names of the variables that get a map of training step by depth too: the headline, where it is such a curve."""
  key = headline(ds)
  return [key] if key and values.plan(ds[key])[0] == 'curve' and ds[key].sizes.get('step', 1) > 2 else []


def picture(ds, key, variant, steps, prefix):
  """An inline figure of variable `key` (of it over training `steps`) and what its caption has to say."""
  da, (kind, axes) = ds[key], values.plan(ds[key])
  figure = figures.step_map(da) if steps else figures.figure_for(da, ds)
  return dict(
      variant=variant, name=values.long_name(da), svg=svg(figure, prefix), kind='steps' if steps else kind, axes=axes,
      seeds=da.sizes.get('seed', 1), steps=da.sizes.get('step', 1), quantiles=values.quantiles(da), size=da.size,
      null=values.null_label(da) if 'null' in da.attrs else '',
      test=values.long_name(ds[da.attrs['test']]) if 'test' in da.attrs and kind == 'map' else '',
      missing=int((~np.isfinite(da.values)).sum()),
      averaged=[d for d in da.dims if d not in ('seed', 'step', 'quantile', *axes)], attrs=ds.attrs)


def svg(fig, prefix):
  """`fig` as inline SVG: text stays text, ids start with `prefix` so that figures do not share clip paths."""
  out = io.StringIO()
  with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'aspects'}), warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'Glyph .* missing', UserWarning)      # the browser has the letter
    fig.savefig(out, format='svg', metadata={'Date': None})
  text = out.getvalue()
  text = re.sub(r'<metadata>.*?</metadata>|<style .*?</style>|<!--.*?-->', '', text[text.index('<svg '):], flags=re.S)
  text = re.sub(r' (width|height)="[\d.]+pt"', '', text, count=2)
  used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
  text = re.sub(r' id="([^"]*)"(?=[^<>]*>)', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else '', text)
  return Markup(re.sub(r'(url\(#|href="#)(?=[^<>]*>)', rf'\g<1>{prefix}', text))


def last(da):
  """Mean and interval of a training curve at its last step that has a value; NaN if none has."""
  found = values.over_seeds(values.canonical(values.median(da), []).array)
  k = max(np.flatnonzero(np.isfinite(found.estimate)), default=-1)
  return [float(x[k]) for x in found]


def finding(ds):
  """What the headline of a Dataset says at the last step: its extreme, where that is, and references for it.

  A similarity of all pairs of sites is summarised by its lowest pair and its mean, other variables by their highest
  place, the first and the last. None if there is nothing to say."""
  if (key := headline(ds)) is None:
    return None
  da, (kind, axes) = ds[key], values.plan(ds[key])
  axes = axes if kind == 'map' else [d for d in axes if d == 'site'] or axes[:1]
  v = values.canonical(values.median(da), axes)
  pairs = kind == 'map' and v.labels[0] == v.labels[1]
  kept = ~np.eye(*v.array.shape[2:], dtype=bool) if pairs else np.ones(v.array.shape[2:], bool)
  found = values.over_seeds(v.array[:, -1][:, kept])
  order = np.where(np.isfinite(found.estimate), found.estimate * (-1 if pairs else 1), -np.inf)
  top, places = int(order.argmax()), [[v.labels[d][i] for d, i in enumerate(at)] for at in np.argwhere(kept)]
  beside = [(values.null_label(da), line.y[kept][top]) for line in null_lines(da, values.null_of(da, ds), axes)]
  if values.is_untrained(v.steps, 0):
    beside.insert(0, ('untrained', values.over_seeds(v.array[:, 0][:, kept]).estimate[top]))
  return dict(name=values.long_name(da), units=da.attrs.get('units', '1'), axes=axes, pairs=pairs, beside=beside,
              top=[x[top] for x in found], place=places[top], at=top + 1, of=len(places), mean=found.estimate.mean(),
              first=(places[0], found.estimate[0]), last=(places[-1], found.estimate[-1]))
