"""What the documentation shows runs: the python blocks of a page, in order, in one namespace."""
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def blocks(page):
  """[(line, source)] of the python blocks."""
  text = page.read_text()
  return [(text[:m.start(1)].count('\n') + 1, m[1]) for m in re.finditer(r'^```python\n(.*?)^```$', text, re.M | re.S)]


def links(page):
  """The files of this repository that a page points to."""
  return [m for m in re.findall(r'\]\(([^)#\s]+)', page.read_text()) if '://' not in m]


def test_pages_have_blocks():
  assert len(blocks(ROOT / 'docs' / 'sites.md')) >= 5


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_python_blocks_run(page):
  namespace = {'__name__': page.stem}
  for line, source in blocks(page):
    exec(compile('\n' * (line - 1) + source, str(page), 'exec'), namespace)


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
  assert not [link for link in links(page) if not (page.parent / link).exists()]
