"""Builds the gallery: a page for every claim and one for all, in a folder that is whole or not there."""
import functools
import pathlib
import re
import shutil
import tempfile
from typing import Mapping, Sequence

import jinja2
from markupsafe import Markup, escape

from aspects.claims.gallery import pages
from aspects.report import values

HERE = pathlib.Path(__file__).parent
FILES = ('gallery.css', 'gallery.js')
POWER = re.compile(r'e([-+\N{MINUS SIGN}]?)0*(\d+)</data>')
CITED = re.compile(r'arXiv:(?P<arxiv>\d{4}\.\d{4,5}(?:v\d+)?|[a-z-]+/\d{7})|doi:(?P<doi>10\.\d{4,9}/[^\s<>"\',;()]+)')


def build(records: Sequence[Mapping], out: pathlib.Path, *, history: Sequence[Mapping] = (),
          specs: Mapping[str, str] = {}, sources: Mapping[str, str] = {}, stale: Mapping[str, str] = {},
          calibration: Mapping | None = None, small: Mapping[str, Mapping] = {}) -> list[pathlib.Path]:
  """Writes `index.html` and `<system>-<n>.html` for every record to the folder `out`, which is replaced as a whole.

  Args: `records` as claims/records holds them; by id: `specs` the resolved spec and `sources` the component's file, as
    text, `stale` why the record no longer speaks for the code, `small` the record at another scale. `history`: entries
    {time, id, verdict, reason, previous, code_hash, commit}; `calibration`: how often the judge itself is wrong.

  Returns: the files written, the index first. The same input gives the same bytes.

  Raises:
    ValueError: an id that is no `system/number` or is there twice, a curve that cannot be read, or a folder `out`
      that holds something else than a gallery. The old gallery is then untouched."""
  out = pathlib.Path(out)
  _check(records, out)
  environment = _environment()
  claims = sorted((pages.claim(r, stale.get(r['id']), small.get(r['id'])) for r in records), key=lambda c: c['order'])
  by_id = {c['id']: c for c in claims}
  changes = sorted(history, key=lambda h: str(h.get('time')), reverse=True)
  texts = {'index.html': environment.get_template('index.html').render(
      claims=claims, by_id=by_id, changes=changes, calibration=calibration, families=pages.families(claims))}
  single = environment.get_template('claim.html')
  for before, c, after in zip([None, *claims], claims, [*claims[1:], None]):
    texts[c['file']] = single.render(
        c=c, r=c['record'], before=before, after=after, spec=specs.get(c['id']), source=sources.get(c['id']),
        changes=[h for h in changes if h.get('id') == c['id']], **pages.details(c))
  _replace(out, {name: text.encode() for name, text in texts.items()} | {n: (HERE / n).read_bytes() for n in FILES})
  return [out / name for name in (*texts, *FILES)]


def _check(records, out):
  seen = set()
  for record in records:
    id = record['id']
    if not re.fullmatch(r'[a-z0-9-]+/[0-9]+', id):
      raise ValueError(f'id {id!r} is not system/number, in small letters, digits and hyphens: the name of its page')
    if id in seen:
      raise ValueError(f'two records are called {id!r}; a claim has one record at a scale, pass the other in `small`')
    seen.add(id)
  if out.exists() and not (out.is_dir() and ((out / FILES[0]).exists() or not any(out.iterdir()))):
    raise ValueError(f'{out} is no gallery, and would be replaced as a whole; remove it or choose another folder')


def _replace(out, files):
  """Puts a new folder in the place of `out`; until all files are written the old one stays as it is."""
  out.parent.mkdir(parents=True, exist_ok=True)
  fresh = pathlib.Path(tempfile.mkdtemp(prefix=f'.{out.name}.', dir=out.parent))
  try:
    new, old = fresh / 'new', fresh / 'old'
    new.mkdir()
    for name, data in files.items():
      (new / name).write_bytes(data)
    if out.exists():
      out.rename(old)
    new.rename(out)
  finally:
    shutil.rmtree(fresh)


def _environment():
  environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True,
                                   lstrip_blocks=True, undefined=jinja2.StrictUndefined)
  environment.filters |= {'num': number, 'cite': cite, 'pointer': pointer, 'when': when, 'alike': alike}
  return environment


@functools.lru_cache(maxsize=4096, typed=True)          # most numbers of a table of runs are the same in all rows
def number(x) -> Markup:
  """`x` as `report` prints numbers, with powers of ten as such; a word for what is none."""
  if x is None:
    return Markup('<span class="none">none</span>')
  if isinstance(x, bool):
    return Markup('yes' if x else 'no')
  if not isinstance(x, (int, float)):
    return escape(x)
  return Markup(POWER.sub(lambda m: f'\N{HAIR SPACE}×\N{HAIR SPACE}10<sup>{m[1].replace("+", "")}{m[2]}</sup></data>',
                          str(values.number(x))))


def cite(text) -> Markup:
  """`text` with arXiv identifiers and DOIs as links."""
  out, end = Markup(), 0
  for m in CITED.finditer(text):
    url = f'https://arxiv.org/abs/{m["arxiv"]}' if m['arxiv'] else f'https://doi.org/{m["doi"].rstrip(".")}'
    out += escape(text[end:m.start()]) + Markup('<a href="{}" rel="noreferrer">{}</a>').format(url, m[0])
    end = m.end()
  return out + escape(text[end:])


def pointer(name) -> str:
  """A key as a JSON pointer has it (RFC 6901)."""
  return str(name).replace('~', '~0').replace('/', '~1')


def when(time) -> str:
  """An ISO time to the minute."""
  return re.sub(r'^(\d{4}-\d\d-\d\d)T(\d\d:\d\d).*', r'\1 \2', str(time))


def alike(value) -> bool:
  """Whether `value` is a list of mappings with the same keys and no mapping or list inside: a table."""
  rows = value if isinstance(value, (list, tuple)) else []
  return bool(rows) and all(isinstance(r, Mapping) and list(r) == list(rows[0]) for r in rows) and not any(
      isinstance(x, (Mapping, list, tuple)) for r in rows for x in r.values())
