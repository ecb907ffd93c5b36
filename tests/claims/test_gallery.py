"""The gallery: numbers come back out of every page, figures are where the rows say, a browser shows it offline."""
import json
import math
import pathlib
import re
import types

import jsonschema
import numpy as np
import pytest
import scipy.stats

from aspects import claims
from aspects import inference
from aspects.claims import gallery
from aspects.claims import judge
from aspects.claims.gallery import drawing, figures, pages, site, view
from tests import test_report
from tests.claims import fabricated

HOSTILE = '<script>document.title = "hit"</script> & "quoted" \'single\' </svg> {{ 7 * 6 }} 中'
CALIBRATION = {'null_audit': {'claims': 200, 'holds': 5, 'share': 0.025},
               'planted': [{'effect': 0.5, 'holds': 0.21}, {'effect': 2.0, 'holds': 1.0}]}
HISTORY = [dict(time='2026-03-01T10:00:00Z', id='lns/1', verdict='fails', reason='decided', previous=None,
                code_hash='a' * 64, commit='b' * 40),
           dict(time='2026-03-02T10:00:00Z', id='lns/1', verdict='holds', reason='decided', previous='fails',
                code_hash='c' * 64, commit='d' * 40)]
SCHEMA = json.loads((pathlib.Path(claims.__file__).parent / 'record.schema.json').read_text())
UNSHOWN = {'/schema'}
ESTIMATES = ('estimate', 'ci/0', 'ci/1')


class Parser(test_report.Parser):
  """Also knows which element's `data-at` a number stands under, and what is shown where."""

  void = (*test_report.Parser.void, 'input')

  def __init__(self, text):
    self.places, self.shown = [], {}
    super().__init__(text)

  def handle_starttag(self, tag, attrs):
    super().handle_starttag(tag, attrs)
    if tag not in self.void:
      self.places.append(dict(attrs).get('data-at', self.places[-1] if self.places else None))
    if tag == 'data' and self.places[-1]:
      self.shown.setdefault(self.places[-1], set()).add(self.numbers[-1])

  def handle_endtag(self, tag):
    super().handle_endtag(tag)
    self.places.pop()


def numbers(value, where=''):
  """{JSON pointer: number} of everything in `value` that is a number."""
  if isinstance(value, dict):
    return {k: x for key, v in value.items()
            for k, x in numbers(v, f'{where}/{key.replace("~", "~0").replace("/", "~1")}').items()}
  if isinstance(value, list):
    return {k: x for i, v in enumerate(value) for k, x in numbers(v, f'{where}/{i}').items()}
  return {where: float(value)} if isinstance(value, (int, float)) and not isinstance(value, bool) else {}


def full_scale():
  other = fabricated.record('lns/1', more=('noninferior',), seed=5)
  other['registered']['stage'] = 'full'
  return other


def build(out, records=None, **given):
  given = dict(history=HISTORY, specs={'lns/1': '{"a": "<b>"}'}, sources={'lns/1': 'x = 1\nif x < 2:\n  y = "&"\n'},
               stale={'metaformer/1': 'aspects/mixers/pool.py changed'}, calibration=CALIBRATION,
               small={'lns/1': full_scale()}) | given
  return gallery.build(fabricated.ledger() if records is None else records, out, **given)


@pytest.fixture(scope='module')
def out(tmp_path_factory):
  out = tmp_path_factory.mktemp('gallery') / 'site'
  build(out)
  return out


@pytest.fixture(scope='module')
def parsed(out):
  return {path.name: Parser(path.read_text()) for path in out.glob('*.html')}


def page_of(id):
  return id.replace('/', '-') + '.html'


# --- numbers --------------------------------------------------------------------------------------------------------

def test_fabricated_records_have_the_form_and_the_verdict_that_they_should():
  form = jsonschema.Draft202012Validator(SCHEMA)
  for kind in fabricated.KINDS:
    for verdict in inference.VERDICTS:
      for seeds in (8, 32):
        record = fabricated.record(kind=kind, verdict=verdict, seeds=seeds, curves=False)
        assert record['verdict']['value'] == verdict
      form.validate(record | {'runs': record['runs'][::16]})
  form.validate(fabricated.record(seeds=2))


def test_the_page_of_a_claim_has_every_number_of_its_record(parsed):
  for record in fabricated.ledger():
    found = parsed[page_of(record['id'])].shown
    expected = numbers(record)
    assert {k for k in found if k.startswith('/')} <= set(expected)
    for where, value in expected.items():
      if where in UNSHOWN or re.fullmatch(r'/assertions/\d+/level', where) and record['assertions'][0]['ci'] is None:
        continue
      assert found[where] == {value}, (record['id'], where)


def test_the_index_has_every_claim_with_its_numbers_and_counts(parsed):
  found, records = parsed['index.html'].shown, fabricated.ledger()
  for record in records:
    assert found.get(f'{record["id"]}#/verdict/q', {None}) == {record['verdict']['q']}
    for i, a in enumerate(record['assertions']):
      expected = numbers(a)
      for part in ESTIMATES:
        assert found.get(f'{record["id"]}#/assertions/{i}/{part}') == (
            None if a['control'] or f'/{part}' not in expected else {expected[f'/{part}']})
  for verdict in inference.VERDICTS:
    named = [r for r in records if r['verdict']['value'] == verdict]
    assert found[f'count/{verdict}'] == {len(named)} and named
    for family in {r['family'] for r in records}:
      assert found[f'matrix/{family}/{verdict}'] == {sum(r['family'] == family for r in named)}
  rows = [attrs for tag, attrs in parsed['index.html'].tags if tag == 'tr' and 'data-verdict' in attrs]
  assert len(rows) == len(records) == 12
  assert {k: v for k, v in found.items() if k.startswith('calibration')} == {
      f'calibration{k}': {v} for k, v in numbers(CALIBRATION).items()}


def test_two_scales_stand_side_by_side(parsed):
  found = parsed['lns-1.html'].shown
  for i, a in enumerate(full_scale()['assertions']):
    assert [found[f'other/assertions/{i}/{k}'] for k in ESTIMATES] == [{a['estimate']}, {a['ci'][0]}, {a['ci'][1]}]
  assert 'full scale' in parsed['lns-1.html'].text and 'full scale' not in parsed['ifm-1.html'].text


def test_the_page_says_verdict_reason_paper_command_history_and_source(parsed):
  text = parsed['metaformer-1.html'].text
  for part in ('inconclusive', 'budget mismatch', 'aspects/mixers/pool.py changed', 'do not compare', 'not passed',
               '82.1 % with pooling', 'python -m experiments.claims run metaformer/1', 'superior', 'control'):
    assert part in text, part
  text = parsed['lns-1.html'].text
  for part in ('{"a": "<b>"}', 'if x < 2:', '2026-03-02 10:00', 'b' * 10, 'first verdict', 'Detectable, 80 % power'):
    assert part in text, part
  assert 'scales compare' in parsed['parallel-resnet-1.html'].text
  ids = [attrs.get('id') for _, attrs in parsed['lns-1.html'].tags]
  assert [i for i in ids if i and i.startswith('L')] == ['L1', 'L2', 'L3']


@pytest.mark.parametrize('value, text', [(1.2e-7, '1.20\u200a×\u200a10−7'), (0.5, '0.500'), (None, 'none'),
                                         (True, 'yes'), (1200, '1,200'), (math.nan, 'not defined')])
def test_numbers_read_well(value, text):
  assert re.sub('<.*?>', '', str(site.number(value))) == text


def test_papers_are_linked_and_nothing_else():
  linked = str(site.cite('Sun 2025, arXiv:2502.05795, and doi:10.1371/journal.pcbi.1003553. "x" <b>'))
  assert re.findall('href="(.*?)"', linked) == ['https://arxiv.org/abs/2502.05795',
                                                'https://doi.org/10.1371/journal.pcbi.1003553']
  assert linked.count('rel="noreferrer"') == 2 and '<b>' not in linked


# --- links and form -------------------------------------------------------------------------------------------------

def test_all_links_resolve_and_nothing_is_fetched_from_elsewhere(out, parsed):
  ids = {name: [a['id'] for _, a in p.tags if 'id' in a] for name, p in parsed.items()}
  seen = set()
  for name, page in parsed.items():
    assert not page.open and len(ids[name]) == len(set(ids[name]))
    for tag, attrs in page.tags:
      assert 'style' not in attrs and not any(k.startswith('on') for k in attrs)
      for key in ('src', 'href', 'xlink:href', 'srcset', 'action', 'data', 'poster', 'formaction'):
        target = attrs.get(key, 'data:,')
        if re.match(r'https://(arxiv\.org/abs|doi\.org)/', target):
          assert (tag, key, attrs['rel']) == ('a', 'href', 'noreferrer')
        elif target != 'data:,':
          file, _, anchor = target.partition('#')
          assert (out / (file or name)).is_file(), (name, target)
          assert not anchor or anchor in ids[file or name], (name, target)
          seen.add((name, target))
    policy, = (a['content'] for _, a in page.tags if a.get('http-equiv') == 'Content-Security-Policy')
    assert "default-src 'none'" in policy and 'unsafe' not in policy and 'http' not in policy
  assert len(seen) > 100
  for style in out.glob('*.css'):
    assert not re.search(r'url\(|@import|https?:', style.read_text())
  assert not re.search(r'https?:|fetch|import|eval|innerHTML', (out / 'gallery.js').read_text())


def test_figures_are_named_and_axes_have_titles(parsed):
  for name, page in parsed.items():
    drawn = [a for tag, a in page.tags if tag == 'svg' and a.get('aria-hidden') != 'true']
    assert drawn and all(a['role'] == 'img' and a['aria-label'] for a in drawn), name


def luminance(colour):
  """Relative luminance of #rrggbb (WCAG 2.1)."""
  share = np.array([int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)])
  return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def test_letters_stand_out_from_the_page_light_and_dark(out):
  light, dark = (dict(re.findall(r'--([\w-]+): (#\w+);', block.replace('#fff;', '#ffffff;'))) for block in
                 re.findall(r':root \{(.*?)\}', (out / 'gallery.css').read_text(), re.S)[:2])
  for scheme in (light, light | dark):
    for ink in ('ink', 'soft', 'link', 'holds-ink', 'fails-ink', 'inconclusive-ink'):
      for ground in ('page', 'card'):
        a, b = sorted(luminance(scheme[k]) for k in (ink, ground))
        assert (b + 0.05) / (a + 0.05) >= 4.5, (ink, ground)


# --- figures --------------------------------------------------------------------------------------------------------

def brute(assertion, runs):
  """Differences [S] of an assertion, seed by seed, in plain Python."""
  arms, out = assertion['arms'], []
  for seed in sorted({r['seed'] for r in runs if r['arm'] in arms}):
    x = [next(r['metrics'][assertion['metric']] for r in runs if (r['arm'], r['seed']) == (arm, seed)) for arm in arms]
    value = x[0] if len(x) == 1 else x[0] - x[1] if len(x) == 2 else scipy.stats.spearmanr(x, range(len(x)))[0]
    out.append(-value if assertion['better'] == 'lower' else value)
  return np.array(out)


def attributes(svg, tag, class_):
  """Attributes of all elements `tag` with this class, in order."""
  found = (dict(re.findall(r'([\w-]+)="([^"]*)"', m)) for m in re.findall(f'<{tag}([^>]*)>', str(svg)))
  return [a for a in found if class_ in a.get('class', '').split()]


def axis(svg, across):
  """A function from places to numbers, read off two ticks."""
  ticks = [(float(a[0].rstrip('%')), float(a[1]), a[2]) for a in
           re.findall(r'<text x="([^"]*)" y="([^"]*)" class="tick"[^>]*>([^<]*)</text>', str(svg))]
  side = [(x if across else y - 4, float(t.replace('−', '-'))) for x, y, t in ticks if across or x == 0]
  (a, u), (b, v) = side[0], side[-1]
  return lambda place: u + (np.asarray(place, float) - a) * (v - u) / (b - a)


@pytest.mark.parametrize('kind', [k for k in fabricated.KINDS if k != 'identity'])
@pytest.mark.parametrize('verdict', inference.VERDICTS)
def test_evidence_is_what_the_rows_and_the_judge_say(kind, verdict):
  record = fabricated.record(kind=kind, verdict=verdict)
  for a in record['assertions']:
    found = view.evidence(a, record['runs'])
    np.testing.assert_allclose(found.values, brute(a, record['runs']), rtol=1e-12)
    rows = {(r['arm'], r['seed']): r for r in record['runs']}
    judged = judge.differences(types.SimpleNamespace(metrics={}), a, rows, found.seeds)
    own = np.arctanh(np.clip(found.values, -.9, .9)) if kind == 'trend' else found.values
    np.testing.assert_allclose(own, judged, rtol=1e-12)
    middle = np.tanh(own.mean()) if kind == 'trend' else own.mean()
    np.testing.assert_allclose(found.interval, [middle, *a['ci']], rtol=1e-9, atol=1e-15)
    rule, margins = judge.margins(a)
    bounds = [np.arctanh(x) if np.isfinite(x) else x for x in found.region] if kind == 'trend' else found.region
    np.testing.assert_allclose(bounds, inference.region(rule, **margins), rtol=1e-12)


def test_a_diverged_run_counts_with_the_worst_value_as_the_judge_counts_it():
  for kind in ('superior', 'noninferior'):
    record = fabricated.spoiled('diverged arm', kind)
    a = record['assertions'][0]
    rows = {(r['arm'], r['seed']): r for r in record['runs']}
    for stated in (True, False):
      if not stated:
        del a['worst']
      metrics = {a['metric']: {'worst': a.get('worst')}}
      claim = types.SimpleNamespace(metrics=metrics, assertions={'main': a}, controls={})
      found = view.evidence(a, record['runs'])
      np.testing.assert_allclose(found.values, judge.differences(claim, a, rows, range(8)), rtol=1e-12)
      assert found.diverged.tolist() == [False, True] * 4


def test_seeds_after_the_look_that_decided_are_marked():
  record = fabricated.record(seeds=16)
  record['assertions'][0]['look'] = 8
  found = view.evidence(record['assertions'][0], record['runs'])
  assert found.used.tolist() == [True] * 8 + [False] * 8
  svg = figures.interval(record['assertions'][0], found, 'x')
  assert len(attributes(svg, 'circle', 'later')) == 8


@pytest.mark.parametrize('kind', [k for k in fabricated.KINDS if k != 'identity'])
def test_dots_interval_and_thresholds_are_at_their_numbers(kind):
  record = fabricated.record(kind=kind, verdict='inconclusive')
  a = record['assertions'][0]
  svg = figures.interval(a, view.evidence(a, record['runs']), 'difference')
  number = axis(svg, True)
  def places(tag, class_, key):
    return number([float(x[key].rstrip('%')) for x in attributes(svg, tag, class_)])
  span = number(100) - number(0)
  close = dict(rtol=0, atol=2e-4 * abs(span))            # places have two decimals of a percent
  np.testing.assert_allclose(places('circle', 'dot', 'cx'), brute(a, record['runs']), **close)
  np.testing.assert_allclose(places('circle', 'estimate', 'cx'), [a['estimate']], **close)
  np.testing.assert_allclose(places('line', 'cap', 'x1'), a['ci'], **close)
  expected = {'superior': [0, 0.02], 'trend': [0, 0.3], 'noninferior': [-0.04], 'equivalent': [-0.04, 0.04],
              'band': [0.3, 0.38]}[kind]
  np.testing.assert_allclose(places('line', 'threshold', 'x1'), expected, **close)
  assert svg.count('>difference<') == 1


def test_a_strip_keeps_order_and_shades_where_the_claim_holds():
  for record in fabricated.ledger():
    for a in record['assertions']:
      svg = figures.strip(a, view.evidence(a, record['runs']))
      (dots, *_), (region,) = attributes(svg, 'path', 'dots'), attributes(svg, 'rect', 'region')
      x = np.array([float(m) for m in re.findall(r'M([\d.]+) ', dots['d'])])
      assert len(x) == a['n'] and ((x > 0) & (x < 1000)).all()
      if a['kind'] != 'identity':
        d = brute(a, record['runs'])
        free = (x > 12) & (x < 988)
        fit = np.polyfit(d[free], x[free], 1)
        np.testing.assert_allclose(x[free], np.polyval(fit, d[free]), atol=0.06)
        ends = [float(m) for m in re.findall(r'[ML]([\d.]+) ', attributes(svg, 'path', 'bar')[0]['d'])]
        np.testing.assert_allclose(ends, np.polyval(fit, a['ci']), atol=0.6)
        low, high = float(region['x']), float(region['x']) + float(region['width'])
        assert (low < ends[0] and ends[1] < high) == (a['verdict'] == 'holds')


def test_paired_lines_join_the_baseline_with_ours():
  record = fabricated.record(verdict='inconclusive')
  a = record['assertions'][0]
  svg = figures.paired(a, record['runs'], 'share')
  number = axis(svg, False)
  x = {arm: np.array([r['metrics']['late_share'] for r in record['runs'] if r['arm'] == arm])
       for arm in ('baseline', 'ours')}
  better, worse = (attributes(svg, 'path', c)[0]['d'] for c in ('better', 'worse'))
  drawn = [[float(y) for y in re.findall(r'[ML][\d.]+ ([\d.-]+)', line)] for line in
           re.findall(r'M[^M]+', better) + re.findall(r'M[^M]+', worse)]
  rises = x['ours'] > x['baseline']
  expected = [np.concatenate([v[rises], v[~rises]]) for v in (x['baseline'], x['ours'])]
  np.testing.assert_allclose(number(drawn), np.transpose(expected), atol=2e-3 * np.ptp(expected))
  assert len(re.findall('M', better)) == rises.sum()
  means = number([float(m['y1']) for m in attributes(svg, 'line', 'mean')])
  np.testing.assert_allclose(means, [x['baseline'].mean(), x['ours'].mean()], atol=2e-3 * np.ptp(expected))


def test_errors_of_an_identity_are_in_machine_epsilons_with_their_bound():
  record = fabricated.record(kind='identity')
  a = record['assertions'][0]
  found = view.errors(a, record['runs'])
  assert [(e.arm, e.dtype, e.own) for e in found] == [(arm, d, arm == 'closed_form') for arm in
                                                      ('closed_form', 'wrong_form') for d in ('float32', 'float64')]
  for e in found:
    expected = [r['metrics'][f'merge_error_{e.dtype}'] / 2. ** {'float32': -23, 'float64': -52}[e.dtype]
                for r in record['runs'] if r['arm'] == e.arm]
    np.testing.assert_allclose(e.values, expected, rtol=1e-12)
  svg = figures.identity(a, found)
  bounds = [float(x['x1'].rstrip('%')) for x in attributes(svg, 'line', 'threshold')]
  dots = np.array([float(x['cx'].rstrip('%')) for x in attributes(svg, 'circle', 'dot')])
  assert (dots[:32] < bounds[0]).all() and (dots[32:] > bounds[1]).all()
  decade = (bounds[1] - bounds[0]) / 2                   # the axis is logarithmic: the bounds are 100 apart
  np.testing.assert_allclose((dots - bounds[0]) / decade, np.log10(np.concatenate([e.values for e in found]) / 8),
                             atol=2e-3)


def test_curves_are_means_with_t_intervals_over_seeds():
  record = fabricated.record(seeds=8)
  steps, layers = view.panels(record['runs'])
  assert (steps.name, steps.axis, layers.name, layers.axis) == ('test_nll', 'step', 'late', 'layer')
  rows = [[float(p.split(':')[1]) for p in r['curve'].split('; ')[1].split()[1:]] for r in record['runs']
          if r['arm'] == 'baseline']
  np.testing.assert_array_equal(layers.lines['baseline'], rows)
  svg = figures.curve(layers, {'ours': 0, 'baseline': 1, 'random': 2})
  number = axis(svg, False)
  mean = [float(c['cy']) for c in attributes(svg, 'circle', 'arm-1')]
  np.testing.assert_allclose(number(mean), np.mean(rows, 0), atol=2e-4)
  low, high = scipy.stats.t.interval(0.95, 7, np.mean(rows, 0), scipy.stats.sem(rows))
  band = re.findall(r'[\d.]+ ([\d.]+)', next(p['d'] for p in attributes(svg, 'path', 'arm-1') if 'band' in p['class']))
  np.testing.assert_allclose(number(band), np.concatenate([low, high[::-1]]), atol=1e-3)


def test_curves_of_unlike_points_are_put_together_and_bad_ones_are_named():
  runs = [dict(arm='a', curve='late@site embed:1 resid_post.0@1:2'), dict(arm='b', curve='late@site resid_post.0@1:4'),
          dict(arm='b')]
  panel, = view.panels(runs)
  assert panel.labels == ['embed', 'resid_post.0@1']
  np.testing.assert_array_equal(panel.lines['b'], [[np.nan, 4]])
  with pytest.raises(ValueError, match="curve 'late 1:2' is not 'name@axis x:y x:y ...'"):
    view.split('late 1:2')


@pytest.mark.parametrize('values, log', [([0, 1], False), ([-3e-9, 8e-9], False), ([5, 5], False), ([np.nan], False),
                                         ([1e4, 1.5e4], False), ([1e-7, 3.], True), ([0.9, 1.1], True)])
def test_ticks_are_round_few_and_inside(values, log):
  s = drawing.scale(values, log=log)
  ticks = drawing.ticks(s)
  assert 2 <= len(ticks) <= 7
  assert min(ticks) >= s.low * (1 - 1e-9 * np.sign(s.low)) and max(ticks) <= s.high * (1 + 1e-9)
  finite = np.array(values)[np.isfinite(values)]
  assert ((s.at(finite) > 0) & (s.at(finite) < 1)).all()
  labels = [drawing.tick_label(t, log) for t in ticks]
  assert len(set(labels)) == len(labels) and max(map(len, labels)) <= 10


def test_arms_have_colours_of_their_own_and_roles_theirs():
  roles = ('ours', 'ours', 'baseline', 'control', 'anchor', 'ours')
  runs = [dict(arm=f'arm{i}', role=role) for i, role in enumerate(roles)]
  found = view.colours(runs)
  assert len(set(found.values())) == 6 and list(found)[:4] == ['arm0', 'arm1', 'arm5', 'arm2']
  assert (found['arm0'], found['arm2'], found['arm3'], found['arm4']) == (0, 1, 2, 4)


# --- what goes wrong ------------------------------------------------------------------------------------------------

def test_degenerate_records_are_drawn_and_say_so(tmp_path):
  records = []
  for n, (how, kind) in enumerate((h, k) for h in fabricated.SPOILS for k in fabricated.KINDS):
    records.append(fabricated.spoiled(how, kind))
    records[-1] |= {'id': f'{how.replace(" ", "-")}/{n}', 'claim': f'{how} {kind}'}
  empty = fabricated.spoiled('no runs')
  del empty['paper']
  records.append(empty | {'id': 'no-paper/1', 'history': None})
  build(tmp_path / 'site', records)
  for record in records:
    text = (tmp_path / 'site' / page_of(record['id'])).read_text()
    found = Parser(text)
    expected = numbers(record)
    assert not found.open and not re.search(r'"(nan|inf|-inf)[%"]', text.replace('value="nan"', ''))
    for where, seen in found.shown.items():
      np.testing.assert_equal(seen.pop(), expected[where])
    if not record['runs']:
      assert 'Nothing has run.' in found.text
      assert 'no seed has a value' in found.text or 'no run has an error' in found.text
    if record['id'].startswith('one-seed') and 'identity' not in record['claim']:
      assert 'no interval' in found.text
    if record['id'].startswith('diverged'):
      assert 'diverged' in found.text


def hostile():
  """A record in which every text that can be anything is markup."""
  def spoil(value, key=''):
    kept = ('id', 'kind', 'verdict', 'value', 'reason', 'role', 'status', 'better', 'direction', 'date', 'time',
            'curve', 'versus_paper', 'must', 'metric', 'arms', 'arm')
    if isinstance(value, dict):
      return {k: spoil(v, k) for k, v in value.items()}
    if isinstance(value, list):
      return [spoil(v, key) for v in value]
    return HOSTILE if isinstance(value, str) and key not in kept else value
  record = spoil(fabricated.record())
  rename = {'ours': HOSTILE, 'baseline': HOSTILE + '2', 'random': HOSTILE + '3'}
  for run in record['runs']:
    run |= {'arm': rename[run['arm']], 'metrics': {HOSTILE + '/~': v for v in run['metrics'].values()},
            'curve': run['curve'].replace('test_nll', '<script>"x"</script>').replace('layer', '<b>')}
  for a in record['assertions']:
    a |= {'arms': [rename[x] for x in a['arms']], 'metric': HOSTILE + '/~', 'reason': HOSTILE}
  record['gates'][HOSTILE] = {'pass': False, 'detail': HOSTILE}
  record['provenance'][HOSTILE] = {HOSTILE: [HOSTILE]}
  return record


def build_hostile(out):
  record = hostile()
  id = record['id']
  change = dict.fromkeys(('time', 'verdict', 'reason', 'previous', 'commit', 'code_hash'), HOSTILE) | {'id': id}
  build(out, [record], history=[change, change | {'id': HOSTILE}], specs={id: HOSTILE}, sources={id: HOSTILE},
        stale={id: HOSTILE}, calibration={HOSTILE: [HOSTILE, {HOSTILE: 1.}]}, small={id: hostile()})


def test_text_is_text_whatever_it_holds(tmp_path):
  build_hostile(tmp_path / 'site')
  for name, least in (('index.html', 8), ('lns-1.html', 60)):
    text = (tmp_path / 'site' / name).read_text()
    found = Parser(text)
    assert text.count('<script') == 1 and not found.open and '{{' in text
    assert text.count('&lt;script&gt;') > least
    expected = numbers(hostile())
    assert all(seen == {expected[where]} for where, seen in found.shown.items() if where.startswith('/'))


@pytest.mark.parametrize('id', ['../evil/1', 'lns', 'lns/one', 'Lns/1', 'a/b/1', 'lns/1\n'])
def test_an_id_that_is_no_file_name_is_refused(tmp_path, id):
  with pytest.raises(ValueError, match='is not system/number'):
    build(tmp_path / 'site', [fabricated.record() | {'id': id}])
  assert not list(tmp_path.iterdir())


def test_two_records_of_one_claim_are_refused(tmp_path):
  with pytest.raises(ValueError, match="two records are called 'lns/1'"):
    build(tmp_path / 'site', [fabricated.record(), fabricated.record()])


def contents(folder):
  return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_the_gallery_is_the_same_twice_whatever_the_order(out, tmp_path):
  files = build(tmp_path / 'site', fabricated.ledger()[::-1])
  assert contents(out) == contents(tmp_path / 'site')
  assert files[0] == tmp_path / 'site' / 'index.html'
  assert {p.name for p in files} == set(contents(out)) and len(files) == 12 + 1 + 2


def test_the_gallery_is_replaced_as_a_whole_or_left_as_it_is(tmp_path):
  site_folder = tmp_path / 'deep' / 'site'
  build(site_folder, [fabricated.record('lns/1')])
  before = contents(site_folder)
  broken = fabricated.record('broken/1')
  broken['runs'][3]['curve'] = 'nonsense'
  with pytest.raises(ValueError, match="curve 'nonsense' is not"):
    build(site_folder, [fabricated.record('lns/1'), broken])
  assert contents(site_folder) == before
  build(site_folder, [fabricated.record('ifm/1')])
  assert set(contents(site_folder)) == {'index.html', 'ifm-1.html', 'gallery.css', 'gallery.js'}
  assert [p.name for p in site_folder.parent.iterdir()] == ['site']


def test_a_folder_that_is_no_gallery_is_not_replaced(tmp_path):
  (tmp_path / 'thesis.tex').write_text('years of work')
  with pytest.raises(ValueError, match='is no gallery'):
    build(tmp_path)
  assert contents(tmp_path) == {'thesis.tex': b'years of work'}
  (tmp_path / 'empty').mkdir()
  build(tmp_path / 'empty', [])
  assert (tmp_path / 'empty' / 'index.html').exists()


def test_a_gallery_of_nothing_is_a_page(tmp_path):
  build(tmp_path / 'site', [], history=[], calibration=None, small={})
  assert '0 published results' in (tmp_path / 'site' / 'index.html').read_text()


def test_every_reason_and_kind_of_the_record_has_words():
  schema = SCHEMA['properties']
  verdict = schema['verdict']['properties']
  assert set(pages.REASONS) == set(verdict['reason']['enum']) and set(pages.SAYS) == set(verdict['value']['enum'])
  assert set(pages.VERSUS) == set(verdict['versus_paper']['enum'])
  assert set(schema['assertions']['items']['properties']['kind']['enum']) == set(fabricated.KINDS)


# --- in a browser ---------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  browser = test_report.Browser(tmp_path_factory.mktemp('profile'))
  yield browser
  browser.close()


SHOWN = '''return [...document.querySelectorAll('table.claims tbody tr')].filter(r => r.offsetHeight > 0)
  .map(r => r.querySelector('.what a').textContent)'''
FETCHED = 'return performance.getEntriesByType("resource").map(e => e.name.split("/").pop())'


def unfold(browser):
  browser.run('document.querySelectorAll("details").forEach(d => d.open = true)')


@pytest.mark.browser
@pytest.mark.parametrize('width', [1280, 375, 320])
def test_a_browser_shows_every_page_without_errors_or_overflow(out, browser, width):
  for name in ('index', 'lns-1', 'lazy-neuron-1', 'residual-expansion-2', 'metaformer-1'):
    browser.open(out / f'{name}.html', width)
    unfold(browser)
    assert not browser.run(test_report.OVERFLOW), name
    assert set(browser.run(FETCHED)) <= {'gallery.css', 'gallery.js'}
    assert browser.run('return getComputedStyle(document.querySelector(".card")).borderRadius') != '0px'
    assert browser.run(test_report.OVERLAPS) == []
    small = browser.run('''return [...document.querySelectorAll('svg.draw, svg.strip')]
      .map(s => s.getBoundingClientRect()).filter(b => b.width < 120 || b.height < 20).length''')
    assert small == 0
    cut = browser.run('''return [...document.querySelectorAll('figure')].filter(f => {
      const box = f.getBoundingClientRect();
      return [...f.querySelectorAll('svg text')].some(t => { const b = t.getBoundingClientRect();
        return b.left < 0 || b.right > innerWidth || b.bottom > box.bottom; }); }).map(f => f.textContent)''')
    assert cut == []
    assert browser.ask('/se/log', type='browser') == []


@pytest.mark.browser
def test_dots_of_a_strip_and_lines_of_a_curve_are_drawn(out, browser):
  """Paths of length zero are dots only by their round ends: the browser has to think so, too."""
  browser.open(out / 'ifm-1.html', 1280)
  drawn = browser.run('''return [...document.querySelectorAll('.strip .dots, .draw .line, .draw .seed')].map(p => {
    const style = getComputedStyle(p);
    return [style.stroke, style.vectorEffect, style.strokeLinecap, p.getBoundingClientRect().width]; })''')
  assert len(drawn) > 8
  assert all(stroke != 'none' and effect == 'non-scaling-stroke' and width > 50 for stroke, effect, _, width in drawn)


@pytest.mark.browser
def test_filter_and_sort(out, browser):
  records = {r['id']: r for r in fabricated.ledger()}
  browser.open(out / 'index.html', 1280)
  everything = browser.run(SHOWN)
  assert set(everything) == set(records)
  assert everything == sorted(records, key=lambda id: (records[id]['family'], id))
  def after(script):
    browser.run(script)
    return browser.run(SHOWN)
  enter = '''const e = document.querySelector('[name={}]'); e.value = '{}';
    e.dispatchEvent(new Event('input', {{bubbles: true}}));'''
  found = after(enter.format('text', 'EXPANSION arxiv'))
  assert found == ['residual-expansion/1', 'residual-expansion/2']
  assert browser.run('return document.querySelector("output").value') == '2 of 12'
  assert after(enter.format('text', 'no such thing')) == []
  assert browser.run('return document.querySelector(".nothing").offsetHeight > 0')
  browser.run('document.querySelector(".nothing button").click()')
  assert browser.ask('/execute/async', script='setTimeout(arguments[0], 50)', args=[]) is None
  assert browser.run(SHOWN) == everything
  assert after(enter.format('family', 'theory')) == [id for id in everything if records[id]['family'] == 'theory']
  fails = after('document.querySelector(".tile.fails").click()')
  assert set(fails) == {id for id, r in records.items() if r['verdict']['value'] == 'fails'}
  theory = after('document.querySelector("[data-family=theory][data-verdict=holds]").click()')
  assert set(theory) == {id for id in everything if records[id]['family'] == 'theory'
                         and records[id]['verdict']['value'] == 'holds'}
  after('document.querySelector("[type=reset]").click()')
  browser.ask('/execute/async', script='setTimeout(arguments[0], 50)', args=[])
  column = 'document.querySelector("table.claims thead tr").cells[{}].querySelector("button").click()'
  q = {id: r['verdict']['q'] for id, r in records.items()}
  for sign in (1, -1):                                   # what has no q is last both times
    ids = after(column.format(5))
    told = [q[id] for id in ids if q[id] is not None]
    assert told == sorted(told, reverse=sign < 0) and [q[id] for id in ids[len(told):]] == [None] * (12 - len(told))
  assert browser.run('return document.querySelector("th[aria-sort]").textContent') == 'q'
  ids = after(column.format(0))
  order = [inference.VERDICTS.index(records[id]['verdict']['value']) for id in ids]
  assert order == sorted(order)
  browser.open(out / 'lns-1.html', 375)
  unfold(browser)
  browser.run('document.querySelector("table.rows thead tr").cells[2].querySelector("button").click()')
  seeds = browser.run('return [...document.querySelectorAll("table.rows tbody tr")].map(r => r.cells[2].textContent)')
  assert [int(s) for s in seeds] == sorted(r['seed'] for r in records['lns/1']['runs'])
  assert browser.ask('/se/log', type='browser') == []


@pytest.mark.browser
def test_a_phone_sorts_by_a_list_and_a_link_opens_what_is_folded(out, browser):
  browser.open(out / 'index.html', 375)
  ids = [r['id'] for r in fabricated.ledger()]
  browser.run('''const e = document.querySelector('[name=order]');
    e.value = '1'; e.dispatchEvent(new Event('change'));''')
  assert browser.run(SHOWN) == sorted(ids)
  browser.open(out / 'lns-1.html', 375)
  assert not browser.run('return document.querySelector("#rows details").open')
  browser.run('document.querySelector(\'.parts a[href="#rows"]\').click()')
  browser.ask('/execute/async', script='setTimeout(arguments[0], 100)', args=[])
  assert browser.run('return document.querySelector("#rows details").open')


@pytest.mark.browser
def test_a_browser_shows_hostile_text_as_text(tmp_path, browser):
  build_hostile(tmp_path / 'site')
  for name in ('index', 'lns-1'):
    for width in (1280, 375):
      browser.open(tmp_path / 'site' / f'{name}.html', width)
      unfold(browser)
      assert browser.run('return document.title') in ('Claims', 'lns/1: holds')
      assert browser.run('return document.querySelectorAll("script").length') == 1
      assert not browser.run(test_report.OVERFLOW), (name, width)
      assert browser.ask('/se/log', type='browser') == []
