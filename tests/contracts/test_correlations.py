"""Laws of every measure of all pairs of layers, on plain arrays of two networks: what a layer is to itself, what far,
equal and constant units do, what few rows and NaN are answered with, and what a result says of itself.

Nothing is known here of a single measure. What differs is read off its result: distances, differences, displacements
and shares are 0 where layers are equal, scores are 1; a map that reads otherwise in the other direction says in its
long name which layer is the row's. A measure without a `pool` keeps positions and is given maps.
"""
import dataclasses
import functools
import re
import warnings

import numpy as np
import pytest

from aspects import measure as measure_lib
from aspects import plugin
from aspects.statistics.sample import Sample

FAMILY = 'correlations'
N = 120                                   # rows; each half of them outnumbers the units
FEW = 24                                  # fewer rows than units, and enough for the defaults of all measures
WIDTHS = {'a:layer.2': 40, 'a:layer.10': 32, 'b:layer.0': 30, 'b:layer.1': 28}      # in forward order, not by name
CONSTANT = 'a:layer.10'
PAIRS = ('site', 'other')
# Exact arithmetic would give 0 and 1; the moments are of float32, and distances are roots: sqrt(6e-8) = 2.4e-4.
ITSELF = 1e-3
# Data lie on a grid of 1/256 and stay exact in float32 when 1e4 is added, so that what changes is arithmetic alone.
FAR = 1e-3
# Other pairs share no number with a layer; only the order of sums may change.
APART = 1e-6


def measures():
  """{name: measure} of all examples of the family; those after the first of a name carry their fields behind it."""
  out = {}
  for spec in plugin.examples(FAMILY):
    fields = ', '.join(f'{k}={v}' for k, v in spec.items() if k != 'name')
    name = f'{spec["name"]} {fields}' if spec['name'] in out else spec['name']
    out[name] = plugin.build(FAMILY, spec, sites=('layer.*',))
  return out


MEASURES = measures()
each = pytest.mark.parametrize('name', MEASURES)


def keeps_positions(part):
  return 'pool' not in {f.name for f in dataclasses.fields(part)}


@functools.cache
def data(maps):
  """{site: float32 [N, D]}, or maps [N, 3, 3, D] each moved on: layers that share some of what they say, on a
  grid of 1/256."""
  rng = np.random.default_rng(0)
  lead = (N, 3, 3) if maps else (N,)
  shared = rng.normal(size=(*lead, 12))
  out = {}
  for site, d in WIDTHS.items():
    shared = np.roll(shared, 1, tuple(range(1, len(lead))))
    mixed = shared @ rng.normal(size=(12, d)) / 4 + rng.normal(size=(*lead, d))
    out[site] = (np.round(256 * mixed) / 256).astype(np.float32)
  return out


def acts_of(name):
  return dict(data(keeps_positions(MEASURES[name])))


def measured(name, acts, rows=N):
  """(result, [text of each warning]) over the first `rows` rows; the others are padding."""
  weight = (np.arange(N) < rows).astype(np.float32)
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    found = measure_lib.measure_arrays(MEASURES[name], acts, weight=weight)
  assert all(w.category is UserWarning for w in caught), [str(w.message) for w in caught]
  return found, [str(w.message) for w in caught]


@functools.cache
def plain(name):
  found, said = measured(name, acts_of(name))
  assert not said, 'ordinary layers give no warning'
  return found


def of_pairs(found):
  """{variable: values [site, other]}."""
  return {key: found[key] for key in found if found[key].dims == PAIRS}


def with_itself(variable):
  """What a map says of a layer and itself: 0, 1, NaN where there is no test, or None for less than 1."""
  if re.search(r'_(p|p_best|q)$', variable.name):
    return np.nan
  if re.search(r'_(distance|difference)(_|$)|_share$', variable.name) or variable.attrs['units'] == 'positions':
    return 0
  return None if 'regularised' in variable.attrs['long_name'] else 1


def directed(variable):
  return re.search(r"\b(row|column)'s", variable.attrs['long_name'])


def names_site(text, site):
  return re.search(rf'(?<![\w:.]){re.escape(site)}(?![\w.]*\w)', text)


@each
def test_a_layer_and_itself(name):
  for key, variable in of_pairs(plain(name)).items():
    if variable.attrs['figure'] != 'map':
      continue
    own, expected = np.diag(variable), with_itself(variable)
    if expected is None:
      assert ((own > 0) & (own < 1 - ITSELF)).all(), f'{key}: {own}'
    else:
      np.testing.assert_allclose(own, expected, rtol=0, atol=ITSELF, err_msg=key)


@each
def test_pairs_are_symmetric_unless_the_name_says_whose_layer(name):
  for key, variable in of_pairs(plain(name)).items():
    gap = np.nanmax(np.abs(variable.values - variable.values.T))
    scale = np.nanmax(np.abs(variable.values))
    if directed(variable):
      assert gap > 1e-3 * scale, f'{key} is symmetric; its long name says it is not'
    else:
      assert gap <= 1e-9 * scale, f'{key} is not symmetric; its long name must say whose layer is the row\'s'
      np.testing.assert_array_equal(np.isnan(variable), np.isnan(variable.values.T), key)


@each
def test_far_from_zero(name):
  """Offsets of 1e4 deviations in float32 change nothing that does not depend on the mean."""
  rng = np.random.default_rng(1)
  far = {s: x + (10_000 * rng.choice([-1, 1], x.shape[-1])).astype(np.float32) for s, x in acts_of(name).items()}
  found, said = measured(name, far)
  assert not said
  for key, moves in MEASURES[name].invariant.items():
    if 'translation' in moves:
      expected = plain(name)[key]
      scale = np.nanmax(np.abs(expected))
      np.testing.assert_allclose(found[key], expected, rtol=0, atol=FAR * scale, err_msg=key)


@each
def test_copies_and_constants_among_units(name):
  """All values are there; constants are like zeros but for the mean, and copies too where linear maps do not count."""
  acts = acts_of(name)
  def result(copied, *constants):
    x = acts[CONSTANT].copy()
    x[..., 1] = copied * x[..., 0]
    x[..., 2:5] = constants
    found, said = measured(name, acts | {CONSTANT: x})
    assert all(names_site(text, CONSTANT) for text in said), said
    for key, variable in of_pairs(found).items():
      np.testing.assert_array_equal(np.isnan(variable), np.isnan(plain(name)[key]), key)
      assert not np.isinf(variable).any(), key
    return found
  whole, no_constants, neither = result(1, 0, 1.1, -3e4), result(1, 0, 0, 0), result(0, 0, 0, 0)
  for key, moves in MEASURES[name].invariant.items():
    for move, expected in (('translation', no_constants), ('linear', neither)):
      if 'translation' in moves and move in moves:
        scale = np.nanmax(np.abs(expected[key]))
        np.testing.assert_allclose(whole[key], expected[key], rtol=0, atol=FAR * scale, err_msg=f'{key}, {move}')


@each
def test_a_layer_that_does_not_vary(name):
  """One warning names it, other pairs are what they are without it, and what it holds counts only with its mean."""
  acts = acts_of(name)
  x, others = acts[CONSTANT], [s for s in acts if s != CONSTANT]
  without, _ = measured(name, {s: acts[s] for s in others})
  results = []
  for value in (np.zeros(x.shape[-1]), np.random.default_rng(2).normal(size=x.shape[-1])):
    found, said = measured(name, acts | {CONSTANT: np.broadcast_to(value, x.shape).astype(np.float32)})
    assert len(said) == 1 and names_site(said[0], CONSTANT), said
    assert not any(names_site(said[0], s) for s in others), said
    for key, variable in of_pairs(found).items():
      scale = np.nanmax(np.abs(without[key]))
      kept = variable.sel(site=others, other=others)
      np.testing.assert_allclose(kept, without[key], rtol=0, atol=APART * scale, err_msg=key)
      assert not np.isinf(variable).any(), key
    results.append(found)
  dead, constant = results
  for key, moves in MEASURES[name].invariant.items():
    if 'translation' in moves:
      scale = np.nanmax(np.abs(dead[key]))
      np.testing.assert_allclose(constant[key], dead[key], rtol=0, atol=FAR * scale, err_msg=key)


@each
def test_more_units_than_rows(name):
  found, said = measured(name, acts_of(name), FEW)
  for text in said:
    assert any(names_site(text, s) for s in WIDTHS) and re.search(r'\d+', text) and 'rows' in text, text
  for key, variable in of_pairs(found).items():
    unknown = np.isnan(variable.values) & ~np.isnan(plain(name)[key].values)
    assert not unknown.any() or said, f'{key} is NaN, and nothing says why'
    assert not np.isinf(variable).any(), key


@each
def test_too_few_rows_are_refused_with_their_number_and_the_least(name):
  least, acts = set(), acts_of(name)
  for n in range(FEW + 1):
    try:
      found, said = measured(name, acts, n)
    except ValueError as error:
      text = str(error)
      assert re.search(rf'\b{n}\b', text), f'{n} rows: {text}'
      bound = re.search(r'at least (\d+)', text)
      assert bound, f'{n} rows: {text}'
      least.add(int(bound[1]))
      continue
    break
  enough = found.attrs['rows']                       # of maps every position is a row
  assert len(least) == 1 and max(least) <= enough, f'{enough} rows are enough, and errors ask for {least}'
  assert np.isfinite(found[found.attrs['headline']]).any(), f'{enough} rows are accepted, and say nothing'
  for key, variable in of_pairs(found).items():
    unknown = np.isnan(variable.values) & ~np.isnan(plain(name)[key].values)
    bad = np.array(list(acts))[unknown.diagonal()]
    assert not unknown.any() or said, f'{key} of {n} rows is NaN, and nothing says why'
    assert all(any(names_site(text, s) for text in said) for s in bad), f'{key} is NaN for {bad}: {said}'


@each
@pytest.mark.parametrize('value', (np.nan, np.inf))
def test_activations_that_are_not_finite_are_refused(name, value):
  acts = acts_of(name)
  x = acts[CONSTANT].copy()
  x[3, ..., 2] = value
  with pytest.raises(ValueError, match='not finite') as error:
    measured(name, acts | {CONSTANT: x})
  assert names_site(str(error.value), CONSTANT), str(error.value)
  assert not any(names_site(str(error.value), s) for s in acts if s != CONSTANT), str(error.value)


@each
def test_a_result_says_what_it_is_made_of(name):
  found, part = plain(name), MEASURES[name]
  specs = {s: x for s, x in acts_of(name).items()}
  assert found.attrs['pool'] and found.attrs['rows'] == (9 * N if keeps_positions(part) else N)
  if any(isinstance(statistic, Sample) for statistic in part.needs(specs).values()):
    assert re.search(r'at most \d+ rows, drawn uniformly with seed \d+', found.attrs['sample'])
  for key, variable in of_pairs(found).items():
    assert variable.attrs['long_name'] and variable.attrs['units'], key
    # Without a scale of its own a map is of a quantity with a unit, or says what it grows with.
    if variable.attrs['figure'] == 'map' and variable.attrs['units'] in ('1', 'rad'):
      assert 'limits' in variable.attrs or variable.attrs['unlimited'], key


@each
def test_layers_of_several_networks_stand_in_forward_order(name):
  found = plain(name)
  assert list(found.site.values) == list(found.other.values) == list(WIDTHS)
  headline = found[found.attrs['headline']]
  across = measure_lib.between(headline).sel(network='b', other_network='a')
  np.testing.assert_array_equal(across.dropna('site', how='all').dropna('other', how='all'), headline.values[2:, :2])
