"""What every task promises, for each file of the family: no list, a new file is tested by being there.

A task that reads files has a classmethod `smoke(folder)`, which returns a small instance with what it needs prepared in
`folder`; every other task is made with its defaults."""
import dataclasses
import socket

import jax
import numpy as np
import pytest

from aspects import plugin
from aspects.data import SeedStreams, Stream

BATCH = 64


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('tasks')


@pytest.fixture(scope='module')
def offline():
  """Any attempt to reach another machine is an error."""
  def refuse(*args, **kwargs):
    raise AssertionError(f'a task asked for the network: {args}')
  with pytest.MonkeyPatch.context() as patch:
    for name in ('connect', 'connect_ex'):
      patch.setattr(socket.socket, name, refuse)
    patch.setattr(socket, 'getaddrinfo', refuse)
    yield


@pytest.fixture(scope='module', params=plugin.names('tasks'))
def make(request, folder, offline):
  """Makes a fresh instance of the task each time."""
  part = plugin.component('tasks', request.param)
  return lambda: part.smoke(folder) if hasattr(part, 'smoke') else part()


@pytest.fixture(scope='module')
def task(make):
  return make()


@pytest.fixture(scope='module', params=('train', 'test'))
def source(request, task):
  return task.source(request.param)


def equal(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_task_is_a_frozen_value(make):
  assert make() == make() and hash(make()) == hash(make())
  with pytest.raises(dataclasses.FrozenInstanceError):
    setattr(make(), dataclasses.fields(make())[0].name, None)


def test_declarations(task):
  assert {'train', 'test'} <= set(task.splits)
  assert task.kind in ('classify', 'next_token', 'multilabel')
  assert task.metric in ('accuracy', 'nll')
  assert set(task.example) - {'mask'} == {'input', 'label'}


def test_an_unknown_split_is_refused_with_the_known_ones(task):
  with pytest.raises(ValueError, match='validation.*train, test'):
    task.source('validation')


def test_examples_are_as_declared(task, source):
  rows = source[np.arange(3)]
  declared = {name: jax.ShapeDtypeStruct((3, *s.shape), s.dtype) for name, s in task.example.items()}
  assert {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in rows.items()} == declared
  assert all(np.isfinite(a).all() for a in rows.values())


def test_the_head_covers_the_labels_and_the_table_the_tokens(task, source):
  rows = source[np.arange(len(source))]
  real = rows['mask'] > 0 if task.kind == 'next_token' and 'mask' in rows else slice(None)
  labels = rows['label'][real]
  assert labels.min() >= 0 and labels.max() < task.outputs
  assert task.kind == 'next_token' or len(np.unique(labels)) == task.outputs
  if np.issubdtype(rows['input'].dtype, np.integer):
    assert rows['input'].min() >= 0 and rows['input'].max() < task.vocab
  if task.kind == 'next_token':
    np.testing.assert_array_equal(rows['input'][:, 1:], rows['label'][:, :-1])


def test_batches_are_functions_of_the_step(make, source):
  stream = Stream(source, BATCH, seed=3, repeat=True)
  forth = [stream.batch(step) for step in (0, 1, 7)]
  for step, batch in zip((7, 1, 0), forth[::-1]):
    equal(stream.batch(step), batch)


def test_another_process_would_see_the_same(make, task):
  for split in task.splits:
    equal(Stream(make().source(split), BATCH, seed=5).batch(0), Stream(task.source(split), BATCH, seed=5).batch(0))


@pytest.mark.parametrize('seed', [None, 0])
def test_hosts_share_one_global_batch(source, seed):
  last = len(Stream(source, BATCH)) - 1
  for step in (0, last):
    whole = Stream(source, BATCH, seed=seed).batch(step)
    for count in (2, 4):
      parts = [Stream(source, BATCH, seed=seed, host=(h, count)).batch(step) for h in range(count)]
      equal({name: np.concatenate([part[name] for part in parts]) for name in whole}, whole)


@pytest.mark.parametrize('seed', [None, 11])
def test_an_epoch_is_every_example_once(source, seed):
  stream = Stream(source, 1000, seed=seed)
  batches = [stream.batch(step) for step in range(len(stream))]
  index, weight = (np.concatenate([b[name] for b in batches]) for name in ('index', 'weight'))
  np.testing.assert_array_equal(np.sort(index[weight == 1]), np.arange(len(source)))
  assert set(weight) <= {0, 1}
  equal({name: batches[0][name] for name in source[np.arange(1)]}, source[batches[0]['index']])


def test_train_and_test_share_no_example(task):
  def examples(split):
    rows = task.source(split)
    rows = rows[np.arange(len(rows))]
    return {a.tobytes() + b.tobytes() for a, b in zip(rows['input'], rows['label'])}
  train, test = examples('train'), examples('test')
  assert train and test and not train & test


def test_seeds_stack(source):
  streams = tuple(Stream(source, 8, seed=seed, repeat=True) for seed in (4, 2))
  stacked = SeedStreams(streams).batch(1)
  for i, stream in enumerate(streams):
    equal({name: values[i] for name, values in stacked.items()}, stream.batch(1))
