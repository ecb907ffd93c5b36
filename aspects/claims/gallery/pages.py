"""What the templates are given: one record with its evidence and figures, words for verdicts, reasons and kinds."""
from typing import Any, Mapping

from markupsafe import Markup

from aspects import inference
from aspects.claims.gallery import figures
from aspects.claims.gallery import view

SAYS = {'holds': 'Everything that the claim asserts holds.',
        'fails': 'At least one thing that the claim asserts is excluded by the data.',
        'inconclusive': 'The data decide neither way, or a gate was not passed.'}
REASONS = {
    'decided': 'Decided by the rule that was registered.',
    'underpowered': 'The interval is still too wide to decide at the last look.',
    'control_failed': 'A control did not do what it must, so the result says nothing about the claim.',
    'budget_mismatch': 'The arms did not have equal budgets, so that they do not compare.',
    'missing_runs': 'Too many runs are missing.',
    'not_sane': 'The baseline lies outside its reference range, so that the comparison says nothing.',
    'stale': 'Code that the result depends on has changed since.'}
VERSUS = {'agrees': 'agrees with the paper', 'contradicts': 'contradicts the paper',
          'silent': 'says nothing on the paper', 'not_comparable': 'scales do not compare'}
AXES = {'step': 'Over training', 'layer': 'Layer by layer', 'site': 'Layer by layer'}
LANES = 4                          # strips in a row of the index; what is worst comes first
NAME = 46                          # letters that an axis takes on a phone


def claim(record: Mapping, why_stale: str | None, other: Mapping | None) -> dict[str, Any]:
  """What the index and the page of a record share."""
  system, _, n = record['id'].partition('/')
  seen = [view.evidence(a, record['runs']) for a in record['assertions']]
  lanes = [dict(at=i, a=a, strip=figures.strip(a, e)) for i, (a, e) in enumerate(zip(record['assertions'], seen))]
  own = [lane for lane in lanes if not lane['a'].get('control')]
  worst = ('fails', 'inconclusive', 'holds')
  shown = own if len(own) <= LANES else sorted(own, key=lambda lane: worst.index(lane['a']['verdict']))[:LANES]
  return dict(id=record['id'], record=record, file=f'{system}-{n}.html', order=(record['family'], system, int(n)),
              family=record['family'], verdict=record['verdict']['value'], reason=record['verdict']['reason'],
              versus=record['verdict'].get('versus_paper'), q=record['verdict'].get('q'), lanes=lanes, shown=shown,
              more=len(own) - len(shown), evidence=seen, stale=why_stale, other=other,
              seeds=max((a['n'] for a in record['assertions']), default=0))


def families(claims) -> list[tuple[str, dict[str, int]]]:
  """[(family, {verdict: how many})] by name."""
  found = {}
  for c in claims:
    counts = found.setdefault(c['family'], dict.fromkeys(inference.VERDICTS, 0))
    counts[c['verdict']] += 1
  return sorted(found.items())


def details(c: Mapping) -> dict[str, Any]:
  """Figures and tables that only the page of a claim has."""
  record, runs = c['record'], c['record']['runs']
  colours = view.colours(runs)
  charts = []
  for p in view.panels(runs):
    p = p._replace(lines={arm: p.lines[arm] for arm in colours if arm in p.lines})
    seeds = {arm: len(y) for arm, y in p.lines.items()}
    charts.append(dict(title=AXES.get(p.axis, f'Over {p.axis}'), name=p.name, axis=p.axis, seeds=seeds,
                       svg=figures.curve(p, colours)))
  metrics = list(dict.fromkeys(k for r in runs for k in r.get('metrics') or {}))
  extra = [k for k in ('params', 'flops', 'steps', 'seconds', 'compile_s') if any(k in r for r in runs)]
  gates = [k for k in ('control', 'budget', 'complete', 'sane') if k in record['gates']]
  return dict(
      cards=[card(a, e, runs) for a, e in zip(record['assertions'], c['evidence'])], charts=charts, metrics=metrics,
      extra=extra, gates=gates + [k for k in record['gates'] if k not in gates], other=other(c['other']),
      arms={arm: (figures.swatch(k), next(r.get('role', '') for r in runs if r['arm'] == arm))
            for arm, k in colours.items()},
      says=SAYS, reasons=REASONS, versus=VERSUS)


def card(a: Mapping, e: view.Evidence, runs) -> dict[str, Any]:
  """The figures of one assertion and what its difference is called."""
  minus, lower = '\N{MINUS SIGN}', a.get('better') == 'lower'
  unit = measured = f' ({a["unit"]})' if a.get('unit') not in (None, '', '1') else ''
  arms = a['arms'][::-1] if lower else a['arms']
  if a['kind'] == 'identity':
    return dict(a=a, what='error over its bound', interval=figures.identity(a, view.errors(a, runs)), paired=Markup(),
                ratios=True)
  if a['kind'] == 'trend' and len(arms) > 1:
    unit = ''
    what = f'{minus * lower}rank correlation of {a["metric"]}'
  elif len(arms) == 2:
    what = f'{a["metric"]}: {arms[0]} {minus} {arms[1]}'
  else:
    what = f'{minus * lower}{a["metric"]} of {arms[0]}'
  there = e.values == e.values
  return dict(a=a, what=what + unit, short=len(what + unit) > NAME, ratios=False, later=bool((~e.used & there).any()),
              diverged=bool((e.diverged & there).any()), missing=[e.seeds[i] for i in (e.used & ~there).nonzero()[0]],
              interval=figures.interval(a, e, titled(what, unit)),
              paired=figures.paired(a, runs, titled(a['metric'], measured)) if len(arms) > 1 else Markup())


def titled(name, unit) -> str:
  """The title of an axis: with its unit where a phone has room, which the caption has anyhow."""
  return name + unit if len(name + unit) <= NAME else figures.short(name, NAME)


def other(record: Mapping | None) -> dict[str, Any] | None:
  """A record of another scale: itself and its strips by name of the assertion."""
  if record is None:
    return None
  found = {a['name']: (i, a, figures.strip(a, view.evidence(a, record['runs'])))
           for i, a in enumerate(record['assertions'])}
  return dict(record=record, found=found)
