"""Streams: which examples make up batch k, against brute force, and what is refused."""
import itertools
import threading

import numpy as np
import pytest

from aspects import data
from aspects.data import (ArraySource, DataSource, Mapped, SeedStreams, Stream, corrupt, divide, fingerprint, held_out,
                          hold, permutation, prefetch, take)


def numbers(n):
  return ArraySource(input=10 * np.arange(n, dtype=np.float32)[:, None], label=np.arange(n, dtype=np.int32) % 3)


def orders(n, batch_size, steps, **kwargs):
  """The positions that the stream visits, in a row, padding left out."""
  batches = [Stream(numbers(n), batch_size, **kwargs).batch(step) for step in range(steps)]
  return np.concatenate([b['index'][b['weight'] == 1] for b in batches])


class Stored:
  """What tfds hands out: examples one by one, by `__getitems__`."""

  def __init__(self, n):
    self.n, self.reads = n, 0

  def __len__(self):
    return self.n

  def __getitems__(self, positions):
    assert all(isinstance(p, int) for p in positions)
    self.reads += len(positions)
    return [{'image': np.full((2, 2), p % 251, np.uint8), 'label': p} for p in positions]


def read(row):
  return {'input': row['image'], 'label': np.int32(row['label'])}


# --- streams ---------------------------------------------------------------------------------------------------------

def test_the_order_of_the_source_in_a_padded_last_batch():
  stream = Stream(numbers(7), 3)
  assert len(stream) == 3
  np.testing.assert_array_equal(stream.batch(1)['input'], [[30], [40], [50]])
  last = stream.batch(2)
  np.testing.assert_array_equal(last['index'], [6, 6, 6])
  np.testing.assert_array_equal(last['weight'], [1, 0, 0])
  assert {name: (a.dtype.name, a.shape) for name, a in last.items()} == {
      'input': ('float32', (3, 1)), 'label': ('int32', (3,)), 'weight': ('float32', (3,)), 'index': ('int32', (3,))}


def test_in_order_and_repeated_it_wraps_without_padding():
  np.testing.assert_array_equal(orders(5, 3, 4, repeat=True), np.arange(12) % 5)


@pytest.mark.parametrize('n, batch_size', [(7, 3), (8, 4), (5, 13), (1, 2), (10, 1)])
def test_every_epoch_holds_every_example_once(n, batch_size):
  steps = -(-3 * n // batch_size)
  visited = orders(n, batch_size, steps, seed=1, repeat=True)
  for epoch in range(3):
    np.testing.assert_array_equal(np.sort(visited[epoch * n:(epoch + 1) * n]), np.arange(n))
  np.testing.assert_array_equal(orders(n, batch_size, -(-n // batch_size), seed=1), visited[:n])


def test_epochs_and_seeds_have_orders_of_their_own():
  # A shuffle seeded by seed + epoch would make seed 0 in epoch 1 equal to seed 1 in epoch 0.
  n = 50
  seen = [tuple(orders(n, n, 4, seed=seed, repeat=True)[e * n:(e + 1) * n]) for seed in range(4) for e in range(4)]
  assert len(set(seen)) == 16 and tuple(range(n)) not in seen


def test_permutations_are_uniform():
  # 6 orders of 3 elements, 3000 draws: chi-squared of 5 degrees stays below 20.5 with probability 0.999.
  drawn = [tuple(permutation(3, seed, 0)) for seed in range(3000)]
  counts = np.array([drawn.count(p) for p in itertools.permutations(range(3))])
  assert ((counts - 500) ** 2 / 500).sum() < 20.5


@pytest.mark.parametrize('limit', [data.LISTED, 10])
def test_long_and_short_epochs_keep_the_same_promises(limit, monkeypatch):
  monkeypatch.setattr(data, 'LISTED', limit)
  n, stream = 100, Stream(numbers(100), 32, seed=7, repeat=True)
  visited = orders(n, 32, 7, seed=7, repeat=True)
  for epoch in range(2):
    np.testing.assert_array_equal(np.sort(visited[epoch * n:(epoch + 1) * n]), np.arange(n))
  assert list(visited[:n]) != list(visited[n:2 * n]) != list(range(n))
  np.testing.assert_array_equal(stream.batch(6)['index'], visited[192:224])
  parts = [Stream(numbers(100), 32, seed=7, repeat=True, host=(h, 4)).batch(5)['index'] for h in range(4)]
  np.testing.assert_array_equal(np.concatenate(parts), stream.batch(5)['index'])


def test_steps_far_away_need_no_steps_before_them():
  stream = Stream(numbers(10), 4, seed=0, repeat=True)
  far = stream.batch(10 ** 12)
  np.testing.assert_array_equal(far['input'][:, 0], 10 * far['index'])
  assert far['index'].max() < 10


def test_the_batch_of_a_host_is_its_contiguous_slice():
  whole = Stream(numbers(10), 6, seed=2).batch(1)
  for host in range(3):
    part = Stream(numbers(10), 6, seed=2, host=(host, 3)).batch(1)
    for name in whole:
      np.testing.assert_array_equal(part[name], whole[name][2 * host:2 * host + 2])


@pytest.mark.parametrize('fields, message', [
    (dict(batch_size=0), 'batch_size is 0'), (dict(batch_size=4, seed=-1), 'seed is -1'),
    (dict(batch_size=4, host=(2, 2)), 'no host 2 of 2'), (dict(batch_size=4, host=(0, 0)), 'no host 0 of 0'),
    (dict(batch_size=7, host=(0, 3)), 'batch_size 7 is not a multiple of 3 hosts; nearest: 6')])
def test_fields_out_of_range_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    Stream(numbers(5), **fields)


def test_steps_outside_the_pass_are_refused():
  with pytest.raises(IndexError, match=r'step 2 is not in 0\.\.1'):
    Stream(numbers(5), 3).batch(2)
  for repeat in (False, True):
    with pytest.raises(IndexError, match='step -1'):
      Stream(numbers(5), 3, repeat=repeat).batch(-1)
  with pytest.raises(TypeError):
    Stream(numbers(5), 3).batch(0.5)


def test_a_source_of_no_examples_is_refused():
  with pytest.raises(ValueError, match='0 examples'):
    Stream(Mapped(Stored(0), read), 1)


def test_seeds_are_stacked_and_do_not_depend_on_each_other():
  stream = lambda seed: Stream(numbers(9), 4, seed=seed, repeat=True)
  both, other = SeedStreams((stream(0), stream(1))), SeedStreams((stream(5), stream(1)))
  assert len(both) == 3 and both.batch(2)['input'].shape == (2, 4, 1)
  np.testing.assert_array_equal(both.batch(2)['index'][1], other.batch(2)['index'][1])
  np.testing.assert_array_equal(both.batch(2)['label'][0], stream(0).batch(2)['label'])


def test_streams_that_do_not_fit_together_are_refused():
  for streams in ((), (Stream(numbers(9), 4), Stream(numbers(9), 3))):
    with pytest.raises(ValueError, match='agree'):
      SeedStreams(streams)


# --- sources ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('arrays, message', [
    (dict(), 'one or more'), (dict(input=np.zeros((3, 2)), label=np.zeros(2)), "'input': 3, 'label': 2"),
    (dict(input=np.zeros((0, 2))), "'input': 0"), (dict(input=1.), "'input': 0"),
    (dict(input=np.zeros(3), weight=np.ones(3)), "'weight' is written by the stream")])
def test_arrays_that_are_no_source_are_refused(arrays, message):
  with pytest.raises(ValueError, match=message):
    ArraySource(**arrays)


@pytest.mark.parametrize('source', [numbers(5), DataSource(Stored(5), read), take(numbers(8), 5, 0)])
def test_positions_outside_the_source_are_refused(source):
  for positions in ([5], [-1], [0, 7]):
    with pytest.raises(IndexError, match='not all in 0..4'):
      source[np.array(positions)]


def test_a_stored_data_set_is_read_by_position_and_stacked():
  batch = Stream(DataSource(Stored(6), read), 4).batch(1)
  np.testing.assert_array_equal(batch['input'], np.array([4, 5, 5, 5])[:, None, None] * np.ones((2, 2)))
  assert batch['input'].dtype == np.uint8 and batch['label'].dtype == np.int32


def test_what_fits_is_held_and_then_read_no_more():
  stored = Stored(6)
  source = DataSource(stored, read)                # an example has 4 bytes of image and 4 of label
  assert hold(source, 47) is source
  held, reads = hold(source, 48), stored.reads
  np.testing.assert_array_equal(held[np.array([3, 1])]['label'], [3, 1])
  assert stored.reads == reads


def test_mapped_changes_what_is_gathered():
  halves = Mapped(numbers(4), lambda batch: {**batch, 'input': batch['input'] / 2})
  np.testing.assert_array_equal(halves[np.array([3])]['input'], [[15]])


def test_subsets_are_nested_in_order_and_differ_by_seed():
  draws = [take(numbers(100), n, seed=3).positions for n in (10, 40, 100)]
  assert set(draws[0]) < set(draws[1]) < set(draws[2])
  assert all((np.diff(d) > 0).all() for d in draws)
  assert set(take(numbers(100), 10, seed=4).positions) != set(draws[0])
  np.testing.assert_array_equal(take(numbers(100), 10, 3)[np.arange(10)]['input'][:, 0], 10 * draws[0])
  for n in (0, 101):
    with pytest.raises(ValueError, match=f'cannot take {n} of 100'):
      take(numbers(100), n, seed=0)


def test_label_noise_moves_the_stated_share_and_to_every_class_alike():
  labels = np.repeat(np.arange(4), 300)
  noisy = corrupt(labels, 4, 0.5, seed=0)
  assert (noisy != labels).sum() == 600 and set(noisy) == set(range(4))
  table = np.array([[((labels == a) & (noisy == b)).sum() for b in range(4)] for a in range(4)])
  moved = table[~np.eye(4, dtype=bool)]            # 600 over 12 cells; 5 deviations of a binomial are 34
  assert abs(moved - 50).max() < 34
  np.testing.assert_array_equal(corrupt(labels, 4, 0.0, seed=0), labels)
  np.testing.assert_array_equal(corrupt(np.array([0, 1]), 2, 1.0, seed=0), [1, 0])
  with pytest.raises(ValueError, match='label noise 1.5'):
    corrupt(labels, 4, 1.5, seed=0)


def test_a_divided_source_is_whole_and_only_training_labels_get_noise():
  every, test = numbers(30), held_out(30, 0.2, seed=1)
  assert test.sum() == 6
  parts = {split: divide(every, test, split=split, seed=1, classes=3, label_noise=1.0) for split in ('train', 'test')}
  rows = {split: part[np.arange(len(part))] for split, part in parts.items()}
  position = {split: (r['input'][:, 0] / 10).astype(int) for split, r in rows.items()}
  assert sorted([*position['train'], *position['test']]) == list(range(30))
  np.testing.assert_array_equal(rows['test']['label'], position['test'] % 3)
  assert (rows['train']['label'] != position['train'] % 3).all()
  assert len(divide(every, test, split='train', seed=1, classes=3, train_size=5)) == 5
  for share in (0.0, 0.01, 1.0):
    with pytest.raises(ValueError, match=f'share of {share}'):
      held_out(30, share, seed=0)


def test_fingerprints_tell_contents_apart():
  x, y = np.arange(12.).reshape(6, 2), np.arange(6)
  changed, swapped = x.copy(), x[::-1].copy()
  changed[5, 1] += 1e-9
  prints = [fingerprint(ArraySource(input=a, label=b)) for a, b in (
      (x, y), (changed, y), (swapped, y), (x.astype(np.float32), y), (x[:5], y[:5]), (x.reshape(6, 1, 2), y))]
  prints += [fingerprint(ArraySource(input=x, mask=y))]
  assert len(set(prints)) == len(prints)
  assert fingerprint(ArraySource(label=y.copy(), input=x.copy())) == prints[0]
  assert fingerprint(Mapped(ArraySource(input=x, label=y), dict)) == prints[0]


def test_fingerprints_of_large_sources_read_a_sample():
  stored = Stored(10_000)
  fingerprint(DataSource(stored, read), rows=100)
  assert stored.reads == 100


# --- prefetch --------------------------------------------------------------------------------------------------------

def alive():
  return {t for t in threading.enumerate() if t.name == 'prefetch'}


BEFORE = set()


@pytest.fixture(autouse=True)
def threads_of_other_tests():
  BEFORE.clear()
  BEFORE.update(alive())


def workers():
  return alive() - BEFORE


def test_prefetch_changes_nothing_but_when():
  assert list(prefetch(iter(range(100)))) == list(range(100))
  assert list(prefetch([], depth=3)) == [] and not workers()


def test_prefetch_is_ahead_by_depth_and_no_further():
  made, reached = [], threading.Event()

  def items():
    for i in range(10):
      made.append(i)
      if i == 3:
        reached.set()
      yield i

  ahead = prefetch(items(), depth=3)
  assert next(ahead) == 0
  assert reached.wait(10), 'three items beyond the one taken are made without being asked for'
  assert next(ahead) == 1 and len(made) <= 5
  ahead.close()
  assert not workers() and len(made) <= 5


def test_an_exception_is_raised_at_its_place():
  def items():
    yield from range(3)
    raise ZeroDivisionError('in the thread')

  seen = []
  with pytest.raises(ZeroDivisionError, match='in the thread'):
    for item in prefetch(items()):
      seen.append(item)
  assert seen == [0, 1, 2] and not workers()


def test_leaving_early_ends_the_thread():
  for item in prefetch(itertools.count(), depth=2):
    if item == 5:
      break
  del item
  assert not workers()
  with pytest.raises(ValueError, match='depth is 0'):
    prefetch([], depth=0)
