"""Records: one JSON a claim with every row of it, the ledger over all, the history, and the audit that judges again.

`claims/records/<system>/<number>.json` is written by a run and by nothing else (`.full.json`: the other scale). The
ledger `claims/claims.json` is generated; `claims/history.jsonl` gets a line whenever a verdict changes.
"""
import datetime
import functools
import json
import math
import pathlib
import subprocess
import tempfile
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

import jsonschema

from aspects import files
from aspects import inference
from aspects.claims import judge as judge_lib
from aspects.claims import spec as spec_lib

LIMIT = 50_000                                       # bytes of a record
DIGITS = 10                                          # significant, of every number of a row
TOLERANCE = 1e-9                                     # relative, between a stored statistic and the same one again


class Folder(NamedTuple):
  """Where everything about claims is kept."""
  root: pathlib.Path

  @property
  def history(self) -> pathlib.Path:
    return self.root / 'history.jsonl'

  @property
  def ledger(self) -> pathlib.Path:
    return self.root / 'claims.json'

  def record(self, id: str, stage: str = 'claim') -> pathlib.Path:
    system, number = id.split('/')
    return self.root / 'records' / system / f'{number}{".full" if stage == "full" else ""}.json'

  def records(self, stage: str = 'claim') -> dict[str, dict]:
    """All records of a scale by id.

    Raises:
      ValueError: a file that is no JSON; names it."""
    out = {}
    for path in sorted(self.root.glob('records/*/*.json')):
      if path.name.endswith('.full.json') == (stage == 'full'):
        try:
          record = json.loads(path.read_text())
        except json.JSONDecodeError as error:
          raise ValueError(f'{path} is not JSON ({error}); run the claim again or restore the file') from error
        out[record['id']] = record
    return out


def rounded(value: Any) -> Any:
  """Numbers of a row as they are stored and judged: `DIGITS` significant digits; what is not finite is None."""
  if isinstance(value, Mapping):
    return {k: rounded(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [rounded(v) for v in value]
  if isinstance(value, float):
    return float(f'{value:.{DIGITS}g}') if math.isfinite(value) else None
  return value


def compose(claim: spec_lib.Claim, rows: Sequence[Mapping], registered: Mapping, provenance: Mapping) -> dict:
  """The record of a claim, judged from its rows; a large one loses curves of later seeds, then unjudged metrics."""
  rows, order = rounded(rows), list(claim.arms)
  rows = sorted(rows, key=lambda r: (r['seed'], order.index(r['arm'])))
  record = _composed(claim, rows, registered, provenance)
  seeds = len({r['seed'] for r in rows})
  while len(dump(record).encode()) > LIMIT and seeds:
    seeds //= 2
    rows = [{k: v for k, v in r.items() if k != 'curve' or r['seed'] < seeds} for r in rows]
    record = _composed(claim, rows, registered, provenance)
  if len(dump(record).encode()) > LIMIT:
    judged = {a['metric'] for a in (*claim.assertions.values(), *claim.controls.values())}
    judged |= {claim.sane['metric']} if claim.sane else set()
    keep = lambda name: any(name == m or name.startswith((f'{m}_error_', f'{m}_scale_')) for m in judged)
    rows = [{**r, 'metrics': {n: v for n, v in r['metrics'].items() if keep(n)}} for r in rows]
    record = _composed(claim, rows, registered, provenance)
  return record


def _composed(claim, rows, registered, provenance) -> dict:
  judged = judge_lib.judge(claim, rows)
  return {'schema': 1, 'id': claim.id, 'system': claim.system, 'family': claim.family, 'title': claim.title,
          'claim': claim.sentence, 'paper': dict(claim.paper),
          'registered': {'spec_hash': claim.hash, 'alpha': inference.ALPHA, 'looks': list(claim.looks),
                         'stage': 'full' if claim.scale == 'full' else 'claim', 'amends': claim.amends, **registered},
          'assertions': judged.assertions, 'gates': judged.gates, 'verdict': judged.verdict,
          'provenance': {**provenance, 'rows_hash': spec_lib.digest(rows)}, 'runs': rows}


def dump(record: Mapping) -> str:
  """The text of a record: a line a row, so that a difference shows which runs changed."""
  head = {k: v for k, v in record.items() if k != 'runs'}
  text = json.dumps(head, indent=1, allow_nan=False)
  rows = ',\n'.join('  ' + json.dumps(r, separators=(',', ':'), allow_nan=False) for r in record['runs'])
  return f'{text[:-2]},\n "runs": [\n{rows}\n ]\n}}\n'


def save(folder: Folder, record: Mapping) -> pathlib.Path:
  """Writes a record, complete or not at all."""
  path = folder.record(record['id'], record['registered']['stage'])
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write(path, dump(record).encode())
  return path


# --- ledger and history ---------------------------------------------------------------------------------------------

def settle(folder: Folder, new: Iterable[Mapping]) -> list[dict]:
  """Adds records to the folder: q-values over the whole ledger, a line of history for every verdict that changed."""
  known = folder.records()
  for record in new:
    if record['registered']['stage'] == 'full':
      save(folder, record)
      continue
    before = known[record['id']] if record['id'] in known else None
    line = {'time': now(), 'id': record['id'], 'verdict': record['verdict']['value'],
            'reason': record['verdict']['reason'], 'previous': before['verdict']['value'] if before else None,
            'code_hash': record['provenance']['code_hash'],
            'commit': record['registered']['commit']}
    was = before['verdict'] if before else {'value': None, 'reason': None, 'previous': None}
    changed = (was['value'], was['reason']) != (line['verdict'], line['reason'])
    previous = was['value'] if changed else was['previous']
    known[record['id']] = {**record, 'verdict': {**record['verdict'], 'previous': previous}}
    if changed:
      folder.root.mkdir(parents=True, exist_ok=True)
      with open(folder.history, 'a') as file:
        file.write(json.dumps(line) + '\n')
  q = q_values(known.values())
  stored = {id: p.read_text() for id in known if (p := folder.record(id)).exists()}
  known = {id: {**record, 'verdict': {**record['verdict'], 'q': q[id]}} for id, record in known.items()}
  for id, record in known.items():
    if id not in stored or stored[id] != dump(record):
      save(folder, record)
  files.write(folder.ledger, (json.dumps(ledger(known.values()), indent=1) + '\n').encode())
  return list(known.values())


def q_values(records: Iterable[Mapping]) -> dict[str, float | None]:
  """Benjamini-Hochberg over the claims that have a p and passed their gates; None for the others."""
  p = {r['id']: judge_lib.p_of(r['assertions']) for r in records}
  told = [id for id, value in p.items() if value is not None]
  q = inference.benjamini_hochberg([p[id] for id in told]) if told else []
  return {id: None for id in p} | {id: rounded(float(v)) for id, v in zip(told, q)}


def ledger(records: Iterable[Mapping]) -> list[dict]:
  """A line a claim: what `list` and the gallery begin with."""
  return [{'id': r['id'], 'family': r['family'], 'title': r['title'], 'verdict': r['verdict']['value'],
           'reason': r['verdict']['reason'], 'q': r['verdict']['q'],
           'seeds': 1 + max((x['seed'] for x in r['runs']), default=-1), 'versus_paper': r['verdict']['versus_paper']}
          for r in sorted(records, key=lambda r: r['id'])]


def history(folder: Folder) -> list[dict]:
  return [json.loads(line) for line in folder.history.read_text().splitlines()] if folder.history.exists() else []


def now() -> str:
  return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')


# --- audit ----------------------------------------------------------------------------------------------------------

def audit(folder: Folder, configs: pathlib.Path) -> list[str]:
  """Everything that is wrong with the committed records, judged again from their rows; empty if nothing is."""
  problems, found = [], spec_lib.find(configs)
  records = folder.records()
  for stage, every in (('claim', records), ('full', folder.records('full'))):
    for id, record in every.items():
      try:
        problems += [f'{id}: {p}' for p in check(record, found, stage)]
      except ValueError as error:
        problems.append(f'{id}: {error}')
  q = q_values(records.values())
  problems += [f'{id}: q is {r["verdict"]["q"]} and {q[id]} over this ledger' for id, r in records.items()
               if not _equal(r['verdict']['q'], q[id])]
  if records and (not folder.ledger.exists() or json.loads(folder.ledger.read_text()) != ledger(records.values())):
    problems.append(f'{folder.ledger} is not what the records give; run `python -m experiments.claims judge`')
  latest = {line['id']: line['verdict'] for line in history(folder)}
  problems += [f'{id}: the history ends with {latest[id] if id in latest else "nothing"}, the record says '
               f'{r["verdict"]["value"]}' for id, r in records.items() if latest.get(id) != r['verdict']['value']]
  return problems


def check(record: Mapping, configs: Mapping[str, pathlib.Path], stage: str) -> list[str]:
  """What is wrong with one record: its form, its spec, its rows, its statistics."""
  errors = [f'{"/".join(map(str, e.path))}: {e.message}' for e in _validator().iter_errors(record)]
  if errors:
    return errors[:3]
  if record['system'] not in configs:
    return [f'there is no config for {record["system"]!r}']
  claim = spec_lib.load(configs[record['system']], stage)
  if record['registered']['spec_hash'] != claim.hash:
    return ['its rows belong to another spec; a spec is not edited after its rows: register an amendment '
            f'(claim.id {claim.system}/{int(claim.id.split("/")[1]) + 1}, amends={claim.id!r})']
  problems = []
  if spec_lib.digest(record['runs']) != record['provenance']['rows_hash']:
    problems.append('its rows are not those that were written by the run')
  if record['provenance']['started'] < record['registered']['time']:
    problems.append(f'its spec was committed at {record["registered"]["time"]}, after its first row '
                    f'({record["provenance"]["started"]})')
  problems += _registration(record, configs[record['system']], stage)
  judged = judge_lib.judge(claim, record['runs'])
  for part, again in (('assertions', judged.assertions), ('gates', judged.gates)):
    if not _equal(record[part], again):
      problems.append(f'{part} are not what its rows give')
  mine = {k: v for k, v in judged.verdict.items() if k not in ('q', 'previous')}
  theirs = {k: v for k, v in record['verdict'].items() if k not in ('q', 'previous')}
  if mine != theirs:
    problems.append(f'the verdict is {theirs}, and its rows give {mine}')
  return problems


@functools.cache
def _validator():
  return jsonschema.Draft202012Validator(json.loads((pathlib.Path(__file__).parent / 'record.schema.json').read_text()))


def _equal(a: Any, b: Any) -> bool:
  """Equal, numbers up to `TOLERANCE`: other releases of scipy round the last digits of a quantile differently."""
  if isinstance(a, Mapping) and isinstance(b, Mapping):
    return set(a) == set(b) and all(_equal(a[k], b[k]) for k in a)
  if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
    return len(a) == len(b) and all(map(_equal, a, b))
  if isinstance(a, float) or isinstance(b, float):
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
    return numbers and math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-12)
  return a == b


# --- registration ---------------------------------------------------------------------------------------------------

def git(*arguments: str, at: pathlib.Path) -> str | None:
  """What git says, None if there is no git, no repository or no such thing."""
  try:
    return subprocess.run(['git', '-C', str(at), *arguments], capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None


def register(path: pathlib.Path) -> dict[str, str]:
  """The commit of a spec and its time, before the first row.

  Raises:
    ValueError: the config is not committed as it stands."""
  path = pathlib.Path(path).resolve()
  told = git('log', '-1', '--format=%H %cI', '--', path.name, at=path.parent)
  if not told or git('status', '--porcelain', '--', path.name, at=path.parent):
    raise ValueError(f'{path.name} is not committed as it stands; a claim is registered by its commit before its first '
                     'row: commit the config, or look at it first with --scale smoke')
  commit, time = told.split()
  time = datetime.datetime.fromisoformat(time).astimezone(datetime.timezone.utc).isoformat(timespec='seconds')
  return {'commit': commit, 'time': time, 'date': time[:10]}


def _registration(record: Mapping, path: pathlib.Path, stage: str) -> list[str]:
  """Whether the registered commit, where this clone has it, holds the registered spec."""
  commit, path = record['registered']['commit'], pathlib.Path(path).resolve()
  then = git('show', f'{commit}:./{path.name}', at=path.parent)
  if then is None or then == path.read_text().strip():
    return []
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / path.parent.name / path.name
    copy.parent.mkdir()
    copy.write_text(then)
    if spec_lib.load(copy, stage).hash != record['registered']['spec_hash']:
      return [f'the config of its commit {commit[:12]} is another spec than the one registered']
  return []
