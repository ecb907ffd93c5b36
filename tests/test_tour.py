"""The tour as a user runs it, at smoke scale, and the notebook, executed."""
import pathlib
import re
import subprocess
import sys

import nbclient
import nbformat
import numpy as np
import pytest

from aspects import measure as measure_lib
from aspects import results
from tests import test_report

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def tour(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('tour')
  done = subprocess.run([sys.executable, '-m', 'experiments.run', '--config=configs/tour.py:smoke',
                         f'--workdir={workdir}'], cwd=ROOT, capture_output=True, text=True, timeout=900)
  assert done.returncode == 0, done.stderr[-3000:]
  return workdir, done


def test_the_last_line_says_where_the_report_is(tour):
  workdir, done = tour
  assert done.stdout.splitlines()[-1].endswith(f'the report is {workdir}/report.html')
  assert (workdir / 'report.html').exists()


def test_progress_shows_loss_speed_and_time_left(tour):
  assert re.search(r'vision[^:]*: 100%.*20/20 \[.*<.*step.*loss', tour[1].stderr.replace('\r', '\n'))


def test_every_aspect_is_there_with_seeds_and_steps(tour):
  tree = results.load(tour[0] / 'results.nc')
  for arm in ('vision', 'language'):
    seen = set()
    for name, node in tree[arm].children.items():
      data = node.to_dataset()
      if name == 'training':
        continue
      if name == 'cka_of_seeds':
        assert list(measure_lib.between(data.cka_linear_song).network.values) == ['seed 0', 'seed 1']
        continue
      if name == 'cka_of_steps':
        assert list(measure_lib.between(data.cka_linear_song).network.values) == ['step 0', 'step 20']
        continue
      seen.add(data.attrs['aspect'])
      assert list(data.seed.values) == [0, 1] and list(data.step.values) == [0, 20], f'{arm} {name}'
      headline = data[data.attrs['headline']]
      assert np.isfinite(headline.values).any(), f'{arm} {name} {headline.name}'
      curves = [v for v in data.data_vars.values() if v.attrs['figure'] != 'none']
      assert curves and all(v.attrs['long_name'] and v.attrs['units'] for v in curves)
    assert seen == set(measure_lib.ASPECTS)


def test_the_report_shows_both_networks_and_every_measure(tour):
  page = (tour[0] / 'report.html').read_text()
  for word in ('vision', 'language', 'Features', 'Correlations', 'Representations', 'Depth', 'Locality'):
    assert word in page
  assert page.count('role="img"') >= 20


@pytest.mark.browser
@pytest.mark.parametrize('width', [1280, 390])
def test_a_browser_shows_the_report_of_the_tour(tour, width, tmp_path):
  browser = test_report.Browser(tmp_path)
  try:
    browser.open(tour[0] / 'report.html', width)
    browser.run('document.querySelectorAll("details").forEach(d => d.open = true)')
    sizes = browser.run("""return [...document.querySelectorAll('figure svg')].map(s => {
      const box = s.getBoundingClientRect();
      return [box.width, box.height, s.querySelectorAll('path, image, use').length];
    })""")
    assert len(sizes) >= 20 and all(w > 250 and h > 150 and parts > 5 for w, h, parts in sizes)
    assert not browser.run(test_report.OVERFLOW)
    assert browser.run('return performance.getEntriesByType("resource").length') == 0
    assert browser.ask('/se/log', type='browser') == []
  finally:
    browser.close()


@pytest.mark.parametrize('name, count', [('tour', 2), ('correlations', 6), ('pretrained', 3)])
def test_a_notebook_runs_and_shows_its_figures(name, count):
  notebook = nbformat.read(ROOT / 'colab' / f'{name}.ipynb', as_version=4)
  nbclient.NotebookClient(notebook, timeout=600, resources={'metadata': {'path': str(ROOT)}}).execute()
  figures = [o for c in notebook.cells if c.cell_type == 'code' for o in c.outputs
             if o.output_type == 'execute_result' and 'image/png' in o.data]
  assert len(figures) == count
