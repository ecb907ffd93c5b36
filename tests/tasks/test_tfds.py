"""The real loading path, on small data sets that are prepared here as tfds prepares any other."""
import re
import shlex

import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from aspects.data import ArraySource, Mapped, Stream
from aspects.tasks import tfds as module
from aspects.tasks.tfds import Tfds

TEXTS = (b'spam and eggs', b'no', b'', 'na\u00efve'.encode())


def picture(i, shape):
  return np.random.default_rng(i).integers(0, 256, shape, np.uint8)


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Builders that differ in their features only."""
  VERSION = tfds.core.Version('2.0.0')
  declared: dict = {}
  supervised = None

  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.declared),
                                 supervised_keys=self.supervised, disable_shuffling=True)

  def _split_generators(self, manager):
    return {'train': self._generate_examples(6), 'validation': self._generate_examples(3)}

  def _generate_examples(self, n):
    for i in range(n):
      yield i, self.row(i)


class TinyPictures(Tiny):
  declared = {'image': tfds.features.Image(shape=(4, 5, 3), encoding_format='png'),
              'label': tfds.features.ClassLabel(num_classes=3), 'id': tfds.features.Text()}
  supervised = ('image', 'label')

  def row(self, i):
    return {'image': Image.fromarray(picture(i, (4, 5, 3))), 'label': i % 3, 'id': str(i)}


class TinyPhotos(Tiny):
  declared = {'photo': tfds.features.Image(encoding_format='png'), 'box': tfds.features.BBoxFeature(),
              'species': tfds.features.ClassLabel(names=['cat', 'dog'])}

  def row(self, i):
    box = tfds.features.BBox(0., 0., 1., 1.)
    return {'photo': Image.fromarray(np.full((4 + i, 9, 3), 40 * i, np.uint8)), 'species': i % 2, 'box': box}


class TinyReviews(Tiny):
  declared = {'text': tfds.features.Text(), 'label': tfds.features.ClassLabel(num_classes=2)}

  def row(self, i):
    return {'text': TEXTS[i % 4], 'label': i % 2 if i < 4 else -1}


class TinyCorpus(Tiny):
  declared = {'text': tfds.features.Text()}
  supervised = ('text', 'text')

  def row(self, i):
    return {'text': TEXTS[i % 4]}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = str(tmp_path_factory.mktemp('tfds'))
  for builder in (TinyPictures, TinyPhotos, TinyReviews, TinyCorpus):
    builder(data_dir=folder, file_format='array_record').download_and_prepare()
  return folder


def rows(task, split='train'):
  source = task.source(split)
  return source[np.arange(len(source))]


def test_images_are_scaled_and_keep_their_order(folder):
  task = Tfds('tiny_pictures', test='validation', data_dir=folder)
  assert (task.kind, task.metric, task.outputs, task.vocab) == ('classify', 'accuracy', 3, None)
  batch = rows(task)
  np.testing.assert_array_equal(batch['input'], np.stack([picture(i, (4, 5, 3)) for i in range(6)]).astype('f4') / 255)
  np.testing.assert_array_equal(batch['label'], [0, 1, 2, 0, 1, 2])
  assert batch['input'].dtype == np.float32 and task.example['input'].shape == (4, 5, 3)
  assert len(task.source('test')) == 3


def test_data_read_from_disk_equal_data_held(folder):
  held, read = (Tfds('tiny_pictures', test='validation', data_dir=folder, memory=m) for m in (2 ** 28, 0))
  assert isinstance(held.source('train'), Mapped) and isinstance(held.source('train').source, ArraySource)
  assert not isinstance(read.source('train').source, ArraySource)
  for step in range(3):
    a, b = (Stream(task.source('train'), 4, seed=1, repeat=True).batch(step) for task in (held, read))
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_splits_in_the_language_of_tfds(folder):
  task = Tfds('tiny_pictures', train='train[:4]', test='train[4:]', data_dir=folder, train_size=2)
  np.testing.assert_array_equal(rows(task, 'test')['label'], [1, 2])
  assert len(task.source('train')) == 2
  with pytest.raises(ValueError, match="no split 'test'; say which with test=; .*train, validation"):
    Tfds('tiny_pictures', data_dir=folder).source('test')


def test_pictures_of_different_shapes_are_cropped_and_resized(folder):
  task = Tfds('tiny_photos', input='photo', label='species', test='validation', size=4, data_dir=folder)
  batch = rows(task)
  assert batch['input'].shape == (6, 4, 4, 3) == (6, *task.example['input'].shape)
  for i, image in enumerate(batch['input']):
    np.testing.assert_array_equal(image, np.full((4, 4, 3), np.float32(40 * i) / 255))
  with pytest.raises(ValueError, match='give size='):
    Tfds('tiny_photos', input='photo', label='species', test='validation', data_dir=folder).source('train')


def test_the_crop_is_the_centre():
  image = np.zeros((4, 8, 1), np.uint8)
  image[:, 2:6] = np.arange(16).reshape(4, 4, 1)
  np.testing.assert_array_equal(module.fit(image, 4)[..., 0], np.arange(16).reshape(4, 4))
  assert module.fit(np.zeros((9, 4, 3), np.uint8), 2).shape == (2, 2, 3)


def test_texts_are_bytes_with_a_mask(folder):
  task = Tfds('tiny_reviews', train='train[:4]', test='validation', length=5, data_dir=folder)
  batch = rows(task)
  assert (task.kind, task.outputs, task.vocab) == ('classify', 2, 256)
  text = [row[mask > 0].astype(np.uint8).tobytes() for row, mask in zip(batch['input'], batch['mask'])]
  assert text == [b'spam ', b'no', b'', 'na\u00efv'.encode()]
  np.testing.assert_array_equal(batch['mask'].sum(1), [5, 2, 0, 5])
  np.testing.assert_array_equal(batch['label'], [0, 1, 0, 1])
  with pytest.raises(ValueError, match='hides its labels'):
    rows(Tfds('tiny_reviews', test='validation', data_dir=folder))


def test_texts_without_a_label_predict_the_next_byte(folder):
  task = Tfds('tiny_corpus', test='validation', length=5, data_dir=folder)
  assert (task.kind, task.metric, task.outputs) == ('next_token', 'nll', 256)
  batch = rows(task)
  np.testing.assert_array_equal(batch['input'][:3], [[*b'spam '], [*b'n\0\0\0\0'], 5 * [0]])
  np.testing.assert_array_equal(batch['label'][:3], [[*b'pam a'], [*b'o\0\0\0\0'], 5 * [0]])
  np.testing.assert_array_equal(batch['mask'][:3], [5 * [1], [1, 0, 0, 0, 0], 5 * [0]])


def test_features_that_are_not_there_or_not_understood_are_named(folder):
  make = lambda **fields: Tfds('tiny_photos', test='validation', size=4, data_dir=folder, **fields)
  with pytest.raises(ValueError, match="no feature 'foto'; did you mean 'photo'"):
    make(input='foto').source('train')
  with pytest.raises(ValueError, match='which feature of .* is the input'):
    make().source('train')
  with pytest.raises(ValueError, match="label 'box' .* needs a class label"):
    make(input='photo', label='box').source('train')
  with pytest.raises(ValueError, match='label None'):
    make(input='photo').source('train')


def test_what_is_not_prepared_says_the_command_that_prepares_it(tmp_path, monkeypatch):
  monkeypatch.setattr(tfds, 'list_builders', lambda **_: ['mnist', 'tiny_pictures'])
  monkeypatch.setattr(tfds, 'builder', lambda name, **fields: {'tiny_pictures': TinyPictures}[name](**fields))
  task = Tfds('tiny_pictures', test='validation', data_dir=str(tmp_path))
  with pytest.raises(FileNotFoundError, match="'tiny_pictures' is not prepared") as error:
    task.source('train')
  python, flag, program = shlex.split(re.search('^  (python .*)$', str(error.value), re.M)[1])
  assert (python, flag) == ('python', '-c') and not list(tmp_path.iterdir())
  exec(program, {})
  assert len(Tfds('tiny_pictures', test='validation', data_dir=str(tmp_path)).source('train')) == 6


def test_catalogue_names_are_known_and_mistakes_get_the_nearest(tmp_path):
  for name in ('cifar10', 'mnist', 'imagenet2012', 'mnist:3.0.1', 'cifar11'):
    command = f"tfds.builder('{name}', file_format='array_record', data_dir='{tmp_path}').download_and_prepare()"
    with pytest.raises(FileNotFoundError, match=re.escape(command)) as error:
      Tfds(name, data_dir=str(tmp_path)).source('train')
    assert ('Is the name right?' in str(error.value)) == (name == 'cifar11')
  assert re.search("did you mean .*'cifar10'", str(error.value))


def test_another_file_format_is_refused_with_a_way_out(folder, tmp_path):
  TinyCorpus(data_dir=str(tmp_path), file_format='array_record').download_and_prepare()
  info = tmp_path / 'tiny_corpus' / '2.0.0' / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(FileNotFoundError, match="not in array_record.*data_dir='.*/array_record'"):
    Tfds('tiny_corpus', test='validation', data_dir=str(tmp_path)).source('train')
