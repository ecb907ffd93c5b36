"""The page of a run and its figures: known numbers come back out, nothing is fetched, and a browser shows it."""
import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import urllib.request

import matplotlib
from matplotlib.collections import PolyCollection
import numpy as np
import pytest
import scipy.stats
import xarray as xr

from aspects import report
from aspects.report import drawing, figures, page, values

SITES = ['embed', *(f'resid_post.{i}' for i in range(5))]
STEPS = [0, 20, 100]
SIZES = {'seed': 3, 'step': 3, 'site': 6, 'other': 6, 'head': 4, 'rank': 40, 'unit': 12, 'atom': 5, 'class': 3,
         'skipped': 5, 'quantile': 3, 'penalty': 4, 'draw': 2}
CHROMIUM = ('--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
            '--disable-component-update --disable-sync').split()


def variable(*dims, seed=0, name='value', **attrs):
  """A random variable with the dims; `seed` and `step` lead."""
  dims = ('seed', 'step', *dims)
  data = np.random.default_rng(seed).uniform(0.1, 1, [SIZES[d] for d in dims])
  coords = {'seed': [0, 1, 2], 'step': STEPS, 'site': SITES, 'other': SITES, 'quantile': [0.1, 0.5, 0.9],
            'penalty': [1e-2, 1., 1e2, 1e4]}
  attrs = {'long_name': 'a quantity', 'units': 'nats'} | attrs
  return xr.DataArray(data, {d: coords[d] for d in dims if d in coords}, dims, name, attrs)


def dataset(aspect, title, headline=None, **variables):
  out = xr.Dataset({k: v.rename(k) for k, v in variables.items()},
                   attrs=dict(aspect=aspect, title=title, question=f'What of {title}?', source='Someone 2020'))
  out.attrs |= dict(pool='mean', rows=1234.) | ({'headline': headline} if headline else {})
  return out


def variant(seed):
  change = variable('skipped', 'site', seed=seed, figure='map')
  null = variable('site', seed=seed + 1, figure='none')
  return {
      'spectrum': dataset('features', 'Spectrum', ratio=variable('site', seed=seed, figure='curve'),
                          values=variable('site', 'rank', seed=seed, figure='spectrum')),
      'cka': dataset('correlations', 'CKA', cka=variable('site', 'other', seed=seed, figure='map', limits=[0, 1])),
      'probe': dataset('representations', 'Probe', 'best', null=null,
                       grid=variable('penalty', 'site', seed=seed, figure='map'),
                       best=variable('site', seed=seed + 2, figure='curve', null='null', null_label='random labels')),
      'skip': dataset('depth', 'Skip', kl=variable('skipped', seed=seed, figure='curve'),
                      change=change.where(change > 0.3)),
      'distance': dataset('locality', 'Distance', distance=variable('site', 'head', seed=seed, figure='heads')),
      'training': xr.Dataset({'loss': variable(seed=seed, long_name='training loss')})}


MORE = 5           # curves that only one of the networks has, so many that the page folds some


def tour():
  tree = xr.DataTree.from_dict({f'/{v}/{name}': ds for v, seed in (('vit', 0), ('lm', 10))
                                for name, ds in variant(seed).items()})
  more = {f'curve{i}': variable('site', seed=i, name=f'curve{i}') for i in range(MORE)}
  tree['lm/spectrum'] = xr.DataTree(tree['lm/spectrum'].to_dataset().assign(more))
  tree.attrs |= {'title': 'Two networks', 'provenance': {
      'command': 'python -m experiments.run --config=configs/tour.py', 'versions': {'jax': '0.10.2'},
      'seeds': [0, 1, 2], 'config': {'net': {'depth': 5}}}}
  for name in ('vit', 'lm'):
    tree[name].attrs |= {'task': 'digits', 'net': 'depth 5', 'parameters': 98765}
  return tree


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  path = tmp_path_factory.mktemp('report') / 'report.html'
  report.render(tour(), path)
  return path


class Parser(html.parser.HTMLParser):
  """Text and values of the page by element id, and whether its tags are balanced."""

  void = ('meta', 'link', 'br', 'img')

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.numbers, self.labels, self.text = [], [], [], [], ''
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self.void:
      self.open.append(tag)
    if tag == 'data':
      self.numbers.append(float(dict(attrs)['value']))
    if dict(attrs).get('role') == 'img':
      self.labels.append(dict(attrs)['aria-label'])

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


def test_the_summary_says_the_numbers_of_the_data(path):
  tree, found = tour(), Parser(path.read_text())
  for name in ('vit', 'lm'):
    best, null = tree[name]['probe']['best'].values, tree[name]['probe']['null'].values      # [seed, step, site]
    mean = best[:, -1].mean(0)
    top = mean.argmax()
    low, high = scipy.stats.t.interval(0.95, 2, mean[top], scipy.stats.sem(best[:, -1, top]))
    expected = [mean[top], low, high, best[:, 0, top].mean(), null[:, -1, top].mean(), mean[0], mean[-1]]
    at = int(np.argmin(np.abs(np.array(found.numbers) - expected[0])))
    np.testing.assert_allclose(found.numbers[at:at + 7], expected, rtol=1e-12)
    pairs = tree[name]['cka']['cka'].values[:, -1].mean(0)[~np.eye(6, dtype=bool)]
    at = int(np.argmin(np.abs(np.array(found.numbers) - pairs.mean())))
    np.testing.assert_allclose(found.numbers[at:at + 2], [pairs.mean(), pairs.min()], rtol=1e-12)
    loss = tree[name]['training']['loss'].values[:, -1]
    ends = scipy.stats.t.interval(0.95, 2, loss.mean(), scipy.stats.sem(loss))
    at = int(np.argmin(np.abs(np.array(found.numbers) - loss.mean())))
    np.testing.assert_allclose(found.numbers[at:at + 3], [loss.mean(), *ends], rtol=1e-12)
  assert found.numbers.count(98765.) == 2


@pytest.mark.parametrize('value, text', [(0.12345, '0.123'), (0.97, '0.970'), (-2.5, '−2.50'), (123.4, '123'),
                                         (1234567, '1,234,567'), (np.nan, 'not defined'), (0., '0.00'), (80, '80')])
def test_numbers_have_three_digits(value, text):
  shown = str(values.number(value))
  assert shown.split('>')[1].split('<')[0] == text
  np.testing.assert_equal(float(re.search('value="(.*?)"', shown)[1]), value)


def test_every_variable_with_a_figure_has_one_and_nulls_have_none(path):
  labels = Parser(path.read_text()).labels
  tree = tour()
  figured = [(v, k) for v in tree.children for m in tree[v].children.values() for k in m.data_vars if k != 'null']
  maps = [(v, k) for v in tree.children for k in ('ratio', 'best', 'kl')]
  assert len(labels) == len(figured) + len(maps) == 2 * 9 + 2 * 3 + MORE
  assert sum('mean of 3 seeds' in label for label in labels) == len(labels)
  assert sum('t-interval' in label for label in labels) == 2 * 5 + MORE
  assert sum('Null: random labels' in label for label in labels) == 2
  assert sum('1,234 rows' in label for label in labels) == len(labels) - 2


def test_the_page_fetches_nothing_and_its_tags_and_ids_are_sound(path):
  text = path.read_text()
  found = Parser(text)
  assert not found.open
  for tag, attrs in found.tags:
    for name in ('src', 'href', 'xlink:href', 'srcset', 'action', 'data'):
      assert name not in attrs or attrs[name].startswith(('#', 'data:')), (tag, attrs)
  assert all(target.startswith('#') for target in re.findall(r'url\(([^)]*)\)', text))
  assert '@import' not in text
  ids = [attrs['id'] for _, attrs in found.tags if 'id' in attrs]
  assert len(ids) == len(set(ids))
  targets = re.findall(r'(?:url\(|href=")#([^")]+)', text)
  assert len(targets) > 100 and set(targets) <= set(ids)


def test_the_page_is_the_same_twice_and_complete_or_untouched(path, tmp_path):
  again = tmp_path / 'report.html'
  report.render(tour(), again)
  assert again.read_bytes() == path.read_bytes()
  broken = tour()
  broken['vit/probe/best'].attrs['null'] = 'nul'
  with pytest.raises(ValueError, match="'best' names 'nul' as its null; its Dataset has .*'null'"):
    report.render(broken, again)
  assert again.read_bytes() == path.read_bytes()
  assert [p.name for p in tmp_path.iterdir()] == ['report.html']


def test_a_curve_is_the_mean_with_its_t_interval_and_its_null_in_order():
  da = variable('site', long_name='accuracy', units='%')
  null = xr.DataArray(np.arange(6.), {'site': SITES}, 'site')[::-1]
  ax = figures.curve(da, null=null).axes[0]
  lines = [line.get_ydata() for line in ax.lines]
  np.testing.assert_allclose(lines[:3], da.values.mean(0), rtol=1e-12)
  np.testing.assert_array_equal(lines[3], np.arange(6.))
  untrained, last = [c for c in ax.collections if isinstance(c, PolyCollection)]
  for band, k in ((untrained, 0), (last, 2)):
    low, high = scipy.stats.t.interval(0.95, 2, da.values[:, k].mean(0), scipy.stats.sem(da.values[:, k]))
    vertices = band.get_paths()[0].vertices
    for i in range(6):
      y = vertices[vertices[:, 0] == i, 1]
      np.testing.assert_allclose([y.min(), y.max()], [low[i], high[i]], rtol=1e-12)
  assert {t.get_text() for t in ax.texts} == {'step 100', 'step 20', 'untrained', 'null'}
  assert [t.get_text() for t in ax.get_xticklabels()] == ['embed', '0', '1', '2', '3', '4']
  assert ax.get_xlabel() == 'layer (resid_post)' and ax.get_ylabel() == 'accuracy (%)'


def test_quantiles_are_bands_around_the_median():
  da = variable('site', 'quantile')
  ax = figures.curve(da).axes[0]
  np.testing.assert_allclose(ax.lines[2].get_ydata(), da.values[:, 2, :, 1].mean(0), rtol=1e-12)
  band, = ax.collections
  y = band.get_paths()[0].vertices
  ends = da.values[:, 2, :, [0, 2]].mean(1)                             # [2, site]
  for i in range(6):
    np.testing.assert_allclose(sorted({y[y[:, 0] == i, 1].min(), y[y[:, 0] == i, 1].max()}), sorted(ends[:, i]))


def test_sublayers_get_a_panel_each_on_one_scale():
  sites = ['embed', *(f'{s}_out.{i}' for i in range(3) for s in ('mixer', 'channel'))]
  data = np.random.default_rng(0).random((2, 2, 7))
  da = xr.DataArray(data, {'step': [0, 9], 'site': sites}, ('seed', 'step', 'site'), 'x')
  fig = figures.curve(da)
  assert [ax.get_title() for ax in fig.axes] == ['mixer_out', 'channel_out']
  assert fig.axes[0].get_ylim() == fig.axes[1].get_ylim()
  np.testing.assert_allclose(fig.axes[0].lines[1].get_ydata(), da.values[:, 1, [0, 1, 3, 5]].mean(0), rtol=1e-12)
  np.testing.assert_allclose(fig.axes[1].lines[1].get_ydata(), da.values[:, 1, [2, 4, 6]].mean(0), rtol=1e-12)


def test_a_curve_over_decades_is_logarithmic_unless_its_scale_is_fixed():
  da = variable('site') * xr.DataArray(10. ** np.arange(6), dims='site')
  assert figures.curve(da).axes[0].get_yscale() == 'log'
  spread = variable('site', 'quantile').assign_attrs(long_name='x')
  spread[..., 2] = 1000
  assert figures.curve(spread).axes[0].get_yscale() == 'log'
  assert figures.curve(da.assign_attrs(limits=[0, 1])).axes[0].get_yscale() == 'linear'
  assert figures.curve(-da).axes[0].get_yscale() == figures.curve(variable('site')).axes[0].get_yscale() == 'linear'


def test_a_map_shows_the_last_step_from_below_on_its_fixed_scale():
  da = variable('site', 'other', limits=[-1, 2])
  fig = figures.layer_map(da)
  large, *small = [ax.images[0] for ax in fig.axes if ax.images]
  np.testing.assert_allclose(large.get_array(), da.values[:, 2].mean(0), rtol=1e-12)
  assert large.origin == 'lower' and large.get_clim() == (-1, 2)
  assert [ax.get_title() for ax in fig.axes[2:]] == ['untrained', 'step 20']
  for k, image in enumerate(small):
    np.testing.assert_allclose(image.get_array(), da.values[:, k].mean(0), rtol=1e-12)
    assert image.get_clim() == (-1, 2)


def test_a_map_of_several_networks_names_them_and_parts_them():
  names = [f'{n}:resid_post.{k}' for n in ('seed 0', 'seed 1', 'wide') for k in range(4 if n == 'wide' else 2)]
  x = np.random.default_rng(0).uniform(size=(8, 8))
  da = xr.DataArray(x, {'site': names, 'other': names}, ('site', 'other'), 'cka', dict(limits=[0, 1], figure='map'))
  ax = figures.layer_map(da).axes[0]
  for axis in (ax.xaxis, ax.yaxis):
    assert [t.get_text() for t in axis.get_ticklabels()] == ['seed 0', 'seed 1', 'wide']
    np.testing.assert_allclose(axis.get_ticklocs(), [0.5, 2.5, 5.5])
    assert axis.label.get_text() == 'network; within: layers (resid_post)'
  edges = {(tuple(line.get_xdata()), tuple(line.get_ydata())) for line in ax.lines}
  assert edges == {((0, 1), (e, e)) for e in (1.5, 3.5)} | {((e, e), (0, 1)) for e in (1.5, 3.5)}
  np.testing.assert_array_equal(ax.images[0].get_array(), x)


def test_a_map_crosses_out_what_chance_may_give(tmp_path):
  da, q = variable('site', 'other', name='score', figure='map', test='q'), variable('site', 'other', name='q')
  q = q.assign_attrs(figure='none', long_name='false discovery rate') * 0 + 0.01
  q.attrs = dict(figure='none', long_name='false discovery rate', units='1')
  q[0, -1, 1, 2] = 0.2                               # one seed is enough
  q[:, 0] = 1                                        # steps before do not count
  q[:, -1, 0, 0] = np.nan
  ds = dataset('correlations', 'T', score=da, q=q)
  marks = figures.figure_for(ds.score, ds).axes[0].lines[0]
  assert (list(marks.get_xdata()), list(marks.get_ydata())) == ([2], [1])
  report.render(xr.DataTree.from_dict({'/a/m': ds}), tmp_path / 'r.html')
  assert 'Crosses: false discovery rate above 0.05' in Parser((tmp_path / 'r.html').read_text()).text


def test_a_step_map_has_a_row_per_step():
  da = variable('site', limits=[-5, 5])
  image = figures.step_map(da).axes[0].images[0]
  mean = da.values.mean(0)
  np.testing.assert_allclose(image.get_array(), mean, rtol=1e-12)
  np.testing.assert_allclose(image.get_clim(), [mean.min(), mean.max()], rtol=1e-12)


def test_heads_are_dots_of_every_seed():
  da = variable('site', 'head')
  ax = figures.heads(da).axes[0]
  rings, dots = ax.lines[:2]
  np.testing.assert_array_equal(rings.get_ydata(), da.values[:, 0].ravel())
  np.testing.assert_array_equal(dots.get_ydata(), da.values[:, 2].ravel())
  low, high = scipy.stats.t.interval(0.95, 2, da.values[:, 2].mean((0, 2)), scipy.stats.sem(da.values[:, 2].mean(2)))
  bars = np.array([s[:, 1] for s in ax.collections[0].get_segments()])
  np.testing.assert_allclose(bars, np.stack([low, high], 1), rtol=1e-12)


def test_a_spectrum_keeps_ranks_and_sorts_units():
  ranks, units = variable('site', 'rank'), variable('site', 'unit')
  ax = figures.spectrum(ranks * 10. ** -xr.DataArray(np.arange(40), dims='rank')).axes[0]
  assert ax.get_xscale() == ax.get_yscale() == 'log'
  np.testing.assert_allclose(ax.lines[5].get_ydata() * 10. ** np.arange(40), ranks.values[:, 2, 5].mean(0), rtol=1e-9)
  ax = figures.spectrum(units).axes[0]
  assert ax.get_xscale() == ax.get_yscale() == 'linear'
  np.testing.assert_allclose(ax.lines[5].get_ydata(), -np.sort(-units.values[:, 2, 5], -1).mean(0), rtol=1e-12)


KINDS = {(): 'trajectory', ('site',): 'curve', ('atom',): 'curve', ('site', 'quantile'): 'curve',
         ('site', 'other'): 'map', ('skipped', 'site'): 'map', ('penalty', 'site'): 'map', ('other', 'draw'): 'map',
         ('site', 'head'): 'heads', ('site', 'head', 'quantile'): 'heads', ('site', 'head', 'draw'): 'heads',
         ('site', 'rank'): 'spectrum', ('site', 'unit'): 'spectrum', ('site', 'atom'): 'spectrum',
         ('site', 'class'): 'spectrum', ('draw', 'penalty', 'site', 'atom'): 'spectrum'}


@pytest.mark.parametrize('dims', KINDS)
@pytest.mark.parametrize('spoil', ['none', 'part', 'all', 'no step', 'no seed', 'one of each'])
def test_any_known_dims_give_a_figure_with_named_axes(dims, spoil):
  da = variable(*dims)
  if spoil == 'part':
    da = da.where(da < 0.9)
    da[..., -1] = np.inf
  cut = {'all': da * np.nan, 'no step': da.isel(step=-1, drop=True), 'no seed': da.isel(seed=0, drop=True),
         'one of each': da.isel(seed=[0], step=[2])}
  da = cut.get(spoil, da).assign_attrs(da.attrs)
  assert values.plan(da)[0] == KINDS[dims]
  fig = figures.figure_for(da, da.to_dataset(name='value'))
  text = page.svg(fig, 'x')
  assert fig.axes[0].get_xlabel() and fig.axes[0].get_ylabel()
  assert 'a quantity' in text
  one = spoil in ('no seed', 'one of each') and KINDS[dims] != 'map'
  assert ('one seed: no interval' in text) == one
  if KINDS[dims] == 'curve' and spoil != 'part':        # bands: of the last step and, without quantiles, of the first
    bands = 1 if 'quantile' in dims or spoil == 'no step' else 2
    assert len(fig.axes[0].collections) == (0 if spoil == 'all' or (one and 'quantile' not in dims) else bands)


def test_the_attribute_decides_where_the_dims_allow_it():
  assert values.plan(variable('site', 'head', figure='map')) == ('map', ['site', 'head'])
  assert values.plan(variable('penalty', 'site', figure='heads')) == ('heads', ['site', 'penalty'])
  assert values.plan(variable('site', 'other', figure='curve')) == ('map', ['site', 'other'])
  assert values.plan(variable('site', figure='map')) == ('curve', ['site'])
  assert values.plan(variable('site', figure='of a later release')) == ('curve', ['site'])


def test_a_value_that_one_seed_lacks_is_missing_and_said_to_be():
  da = variable('site')
  da[1, 2, 3] = np.nan
  ax = figures.curve(da).axes[0]
  assert np.flatnonzero(np.isnan(ax.lines[2].get_ydata())).tolist() == [3]
  assert [p.get_hatch() for p in ax.patches] == ['////'] and ax.patches[0].get_x() == 2.5
  square = variable('site', 'other')
  square[0, 2, 4, 1] = -np.inf
  assert np.argwhere(figures.layer_map(square).axes[0].images[0].get_array().mask).tolist() == [[4, 1]]


def test_missing_values_and_one_seed_are_said_in_the_page(tmp_path):
  da = variable('site', name='x').isel(seed=[0])
  da[0, 2, 3] = np.nan
  tree = xr.DataTree.from_dict({'/a/m': dataset('depth', 'M', x=da),
                                '/a/empty': xr.Dataset(attrs={'aspect': 'depth'}),
                                '/a/void': dataset('none of the five', 'V', y=variable('site') * np.nan)})
  report.render(tree, tmp_path / 'r.html')
  found = Parser((tmp_path / 'r.html').read_text())
  assert '1 of 18 values are not defined (NaN)' in found.labels[0] and 'one seed, so no interval' in found.labels[0]
  assert 'none of the five' in found.text and 'not defined' in found.text
  mean = da.values[0, 2]
  assert found.numbers[:2] == [np.nanmax(mean), da.values[0, 0, np.nanargmax(mean)]]


def test_nothing_is_left_behind_in_matplotlib():
  before = dict(matplotlib.rcParams)
  page.svg(figures.curve(variable('site')), 'x')
  assert dict(matplotlib.rcParams) == before


def test_labels_at_line_ends_keep_apart():
  steps = xr.DataArray(np.arange(7) * 100, dims='step')
  da = (variable('site').isel(step=[0] * 7) * 0 + 0.5).assign_coords(step=steps)
  ax = figures.curve(da).axes[0]
  places = np.sort([text.xyann[1] for text in ax.texts])
  height = ax.get_position().height * drawing.HEIGHT
  assert len(places) == 7 and np.diff(places).min() * height > 0.9 * 8.5 / 72


@pytest.mark.parametrize('count', [3, 12, 48, 200])
@pytest.mark.parametrize('name', ['resid_post.{}', 'block_{}/Dense_0', '{}'])
def test_ticks_do_not_overlap_however_many(count, name):
  da = xr.DataArray(np.random.default_rng(0).random((2, 2, count)), {'site': [name.format(i) for i in range(count)]},
                    ('seed', 'step', 'site'), 'x').assign_coords(step=[0, 1])
  fig = figures.curve(da)
  fig.canvas.draw()
  ticks = fig.axes[0].get_xticklabels()
  assert len(ticks) >= 3 and str(count - 1) in ticks[-1].get_text()
  if ticks[0].get_rotation():                         # turned: lines of text, side by side
    gaps = np.diff([t.get_window_extent().x1 for t in ticks])
    assert gaps.min() >= 8.5 / 72 * fig.dpi
    assert min(t.get_window_extent().y0 for t in ticks) > 0
  else:
    boxes = [t.get_window_extent() for t in ticks]
    assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:]))


HOSTILE = '<script>document.title = "hit"</script> & "quoted" $\\frac$ </svg> id="a" 中'


def hostile():
  da = variable('site', 'other', name='x', long_name=HOSTILE, units=HOSTILE).isel(site=[0, 1], other=[0, 1])
  names = [HOSTILE + '.0', HOSTILE + '.1']
  da = da.assign_coords(site=names, other=names).assign_attrs(da.attrs, null='null', null_label=HOSTILE)
  line = da.isel(other=0, drop=True).assign_attrs(da.attrs)
  ds = dataset(HOSTILE, HOSTILE, map=da, line=line, null=variable('site').isel(site=0, step=0, drop=True))
  tree = xr.DataTree.from_dict({'/x/m': ds.assign_attrs(ds.attrs, source=HOSTILE, pool=HOSTILE)})
  tree = xr.DataTree(children={HOSTILE.replace('/', '|'): tree['x']})
  tree.attrs |= {'title': HOSTILE, 'provenance': {HOSTILE: HOSTILE, 'command': HOSTILE, 'config': HOSTILE,
                                                  'n': {HOSTILE: [HOSTILE]}}}
  tree.children[HOSTILE.replace('/', '|')].attrs['task'] = HOSTILE
  return tree


def test_names_are_text_whatever_they_hold(tmp_path):
  report.render(hostile(), tmp_path / 'r.html')
  text = (tmp_path / 'r.html').read_text()
  found = Parser(text)
  assert text.count('<script') == 1 and found.text.count(HOSTILE) > 10
  ids = [attrs['id'] for _, attrs in found.tags if 'id' in attrs]
  assert len(ids) == len(set(ids)) and 'a' not in ids


OVERLAPS = '''return [...document.querySelectorAll('figure')].flatMap(f => {
  const words = [...f.querySelectorAll('svg text')].map(e => [e.textContent, e.getBoundingClientRect()]);
  return words.flatMap(([a, p], i) => words.slice(i + 1).filter(([b, q]) =>
    Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1 &&
    Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 4
  ).map(([b]) => [f.textContent.slice(-200), a, b]));
})'''
OVERFLOW = 'return document.documentElement.scrollWidth > document.documentElement.clientWidth'


class Browser:
  """Headless Chromium, spoken to over the WebDriver protocol with the standard library."""

  def __init__(self, profile):
    for name in ('chromedriver', 'chromium'):
      assert shutil.which(name), f'{name} is missing; the page has to be seen: apt-get install chromium chromium-driver'
    self.driver = subprocess.Popen(['chromedriver', '--port=0'], stdout=subprocess.PIPE, text=True)
    started = (re.search(r'started successfully on port (\d+)', line) for line in self.driver.stdout)
    self.url = f'http://127.0.0.1:{next(m[1] for m in started if m)}/session'
    options = {'args': [*CHROMIUM, f'--user-data-dir={profile}'], 'binary': shutil.which('chromium')}
    self.url += '/' + self.ask('', capabilities={'alwaysMatch': {
        'goog:chromeOptions': options, 'goog:loggingPrefs': {'browser': 'ALL'}}})['sessionId']

  def ask(self, command, method='POST', **body):
    request = urllib.request.Request(self.url + command, json.dumps(body).encode() if method == 'POST' else None,
                                     {'Content-Type': 'application/json'}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=120) as answer:
      return json.load(answer)['value']

  def open(self, path, width, height=900):
    self.ask('/goog/cdp/execute', cmd='Emulation.setDeviceMetricsOverride',
             params=dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 600))
    self.ask('/url', url=pathlib.Path(path).as_uri())

  def run(self, script):
    return self.ask('/execute/sync', script=script, args=[])

  def close(self):
    self.ask('', 'DELETE')
    self.driver.terminate()
    self.driver.wait()
    self.driver.stdout.close()


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  browser = Browser(tmp_path_factory.mktemp('profile'))
  yield browser
  browser.close()


@pytest.mark.browser
@pytest.mark.parametrize('width', [1280, 390])
def test_a_browser_draws_every_figure_and_nothing_errs(path, browser, width):
  browser.open(path, width)
  labels = Parser(path.read_text()).labels
  assert browser.run('return document.querySelectorAll("details figure").length') == MORE - 1
  browser.run('document.querySelectorAll("details").forEach(d => d.open = true)')
  figures_drawn = browser.run('''return [...document.querySelectorAll('figure')].map(f => {
    const box = f.querySelector('svg').getBoundingClientRect(), card = f.getBoundingClientRect();
    const marks = [...f.querySelectorAll('svg path, svg image, svg use')];
    const parts = marks.filter(e => e.getBoundingClientRect().width > 0);
    const words = [...f.querySelectorAll('svg text')].map(e => e.getBoundingClientRect());
    return {label: f.querySelector('[role=img]').getAttribute('aria-label'), width: box.width, height: box.height,
            parts: parts.length, words: words.length, text: Math.min(...words.map(w => Math.min(w.width, w.height))),
            inside: words.every(w => w.left >= card.left && w.right <= card.right && w.top >= card.top &&
                                     w.bottom <= card.bottom)};
  })''')
  assert [f['label'] for f in figures_drawn] == labels
  assert browser.run(OVERLAPS) == []
  for figure in figures_drawn:
    assert figure['width'] > 300 and figure['height'] > 200 and figure['parts'] > 5, figure
    assert figure['words'] > 5 and figure['text'] > 3 and figure['inside'], figure
  assert browser.run('return document.compatMode') == 'CSS1Compat' and browser.run('return innerWidth') == width
  assert not browser.run(OVERFLOW)
  assert browser.run('return performance.getEntriesByType("resource").map(e => e.name)') == []
  assert browser.ask('/se/log', type='browser') == []
  links = '[...document.querySelectorAll("a")]'
  assert browser.run(f'return {links}.length') > 10
  assert browser.run(f'return {links}.filter(a => !document.querySelector(a.hash)).length') == 0


@pytest.mark.browser
def test_a_browser_shows_hostile_names_as_text(tmp_path, browser):
  report.render(hostile(), tmp_path / 'r.html')
  browser.open(tmp_path / 'r.html', 390)
  assert browser.run('return document.title') == ' '.join(HOSTILE.split())
  assert browser.run('return document.querySelectorAll("script").length') == 1
  assert not browser.run(OVERFLOW)
  assert browser.ask('/se/log', type='browser') == []
