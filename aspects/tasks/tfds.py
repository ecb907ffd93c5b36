"""Any data set of the TensorFlow Datasets catalogue, or of the user's own builders, by its name.

It is read where tfds has prepared it, in array_record, as a random-access data source; reading
never needs TensorFlow. What is not prepared is not fetched behind the user's back: the error
carries the command that prepares it. Images and texts with one label are understood, and texts
alone."""
import dataclasses
import functools
import os

import jax
import numpy as np
import tensorflow_datasets as tfds

from aspects.data import DataSource, Mapped, Source, hold, take
from aspects.plugin import nearest
from aspects.tasks import digits

INPUTS, LABELS = ('image', 'text', 'sentence', 'document'), ('label', 'labels', 'digit')


def scaled(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Images uint8 0..255 to float32 0..1; everything else as it is."""
  if batch['input'].dtype != np.uint8:
    return batch
  return {**batch, 'input': batch['input'].astype(np.float32) / 255}


def fit(image: np.ndarray, size: int) -> np.ndarray:
  """Image uint8 [H, W, C] -> [size, size, C]: the largest centred square, resized (bilinear)."""
  from PIL import Image, ImageOps
  picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
  picture = np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR))
  return picture.reshape(size, size, image.shape[-1])


def encode(text: bytes, length: int, label: np.int32 | None) -> dict[str, np.ndarray]:
  """Bytes int32 [T], padded by 0, with mask [T]; `label` None makes it the next byte [T]."""
  text = np.frombuffer(text, np.uint8)[:length + (label is None)].astype(np.int32)
  if label is None:
    text, label = text[:-1], np.pad(text[1:], (0, length - max(len(text) - 1, 0)))
  mask = (np.arange(length) < len(text)).astype(np.float32)
  return {'input': np.pad(text, (0, length - len(text))), 'label': label, 'mask': mask}


def command(dataset: str, data_dir: str | None) -> str:
  """What to type to prepare `dataset`; tfds's own command line would need TensorFlow for it."""
  folder = '' if data_dir is None else f", data_dir='{data_dir}'"
  return (f'Prepare it once, where there is internet:\n  python -c "import tensorflow_datasets as '
          f"tfds; tfds.builder('{dataset}', file_format='array_record'{folder})"
          f'.download_and_prepare()"\n(This step may need `pip install tensorflow`, as for cifar10 '
          f'and mnist; reading never does.)')


@dataclasses.dataclass(frozen=True)
class Tfds:
  """`dataset` of tfds, e.g. 'cifar10' or 'glue/sst2': images float32 [H, W, C] in 0..1 -> label;
  texts as bytes int32 [T] with mask float32 [T] (1 = real) -> label, or the next byte [T].

  `train` and `test` are splits in the language of tfds ('train[:90%]', 'validation'). `input` and
  `label` name features; by default they are what the data set declares as supervised keys, or the
  usual names. `size` crops and resizes images, needed where they differ in shape; texts are cut to
  `length` bytes. `train_size` keeps fewer training examples, drawn by `split_seed`. `data_dir` is
  the folder of tfds, by default tfds's own. Data up to `memory` bytes are read at once and held.

  Raises FileNotFoundError, with the command, for data that are not prepared; ValueError for an
  unknown split or feature, and for features of a kind that is not understood."""
  dataset: str
  train: str = 'train'
  test: str = 'test'
  input: str | None = None
  label: str | None = None
  size: int | None = None
  length: int = 256
  train_size: int | None = None
  split_seed: int = 0
  data_dir: str | None = None
  memory: int = 2 ** 28

  splits = ('train', 'test')

  @classmethod
  def smoke(cls, folder: str | os.PathLike) -> 'Tfds':
    """For tests: the digits, prepared in `folder` and read as any other data set."""
    digits.prepared(os.fspath(folder))
    return cls(digits.DigitsBuilder.name, train='train[:80%]', test='train[80%:]',
               data_dir=os.fspath(folder))

  @functools.cached_property
  def builder(self) -> tfds.core.DatasetBuilder:
    """The prepared data set, found by its files alone."""
    find = tfds.core.read_only_builder.builder_from_files
    try:
      there = find(self.dataset, data_dir=self.data_dir)
    except tfds.core.DatasetNotFoundError as error:
      known, name = tfds.list_builders(with_community_datasets=False), self.dataset
      # Without TensorFlow tfds lists a part of its catalogue, so that an unknown name may be right.
      doubt = '' if name.split('/')[0].split(':')[0] in known else (
          f'Is the name right? Of those that can be listed here, {nearest(name, known)}\n')
      folder = self.data_dir or 'the folder of tfds'
      raise FileNotFoundError(f'{name!r} is not prepared in {folder}. '
                              f'{doubt}{command(name, self.data_dir)}') from error
    try:
      return find(self.dataset, data_dir=self.data_dir, file_format='array_record')
    except ValueError as error:
      other = os.path.join(self.data_dir or '~/tensorflow_datasets', 'array_record')
      raise FileNotFoundError(f'{there.data_dir} is not in array_record and so without random '
                              f'access. Name another folder by data_dir={other!r}. '
                              f'{command(self.dataset, other)}') from error

  @functools.cached_property
  def keys(self) -> tuple[str, str | None]:
    """Names of the features that are input and label; None for a text that is its own label."""
    features, declared = self.builder.info.features, self.builder.info.supervised_keys or ()
    first, second = ([key] if isinstance(key, str) else [] for key in (*declared, None, None)[:2])
    found = []
    for given, usual in ((self.input, (*first, *INPUTS)), (self.label, (*second, *LABELS))):
      if given is not None and given not in features:
        raise ValueError(f'{self.dataset!r} has no feature {given!r}; {nearest(given, features)}')
      found.append(given or next((key for key in usual if key in features), None))
    name, label = found
    if name is None:
      raise ValueError(f'which feature of {self.dataset!r} is the input? Give input=; '
                       f'{nearest("image", features)}')
    return name, None if label == name else label

  @property
  def kind(self) -> str:
    return 'next_token' if self.keys[1] is None else 'classify'

  @property
  def metric(self) -> str:
    return 'nll' if self.kind == 'next_token' else 'accuracy'

  @property
  def text(self) -> bool:
    return isinstance(self.builder.info.features[self.keys[0]], tfds.features.Text)

  @property
  def vocab(self) -> int | None:
    return 256 if self.text else None

  @property
  def outputs(self) -> int:
    label = self.keys[1]
    if label is None and self.text:
      return 256
    feature = label and self.builder.info.features[label]
    if not isinstance(feature, tfds.features.ClassLabel):
      raise ValueError(f'label {label!r} of {self.dataset!r} is {feature}; this task needs a class '
                       f'label, or a text without one: {self.builder.info.features}')
    return feature.num_classes

  @property
  def example(self) -> dict[str, jax.ShapeDtypeStruct]:
    label = (self.length,) if self.kind == 'next_token' else ()
    spec = {'label': jax.ShapeDtypeStruct(label, np.int32)}
    if self.text:
      return {'input': jax.ShapeDtypeStruct((self.length,), np.int32), **spec,
              'mask': jax.ShapeDtypeStruct((self.length,), np.float32)}
    feature = self.builder.info.features[self.keys[0]]
    shape = (self.size, self.size, feature.shape[-1]) if self.size else feature.shape
    if None in shape:
      raise ValueError(f'examples of {self.dataset!r} have the shapes {shape}; give size= to crop '
                       f'and resize images to one')
    return {'input': jax.ShapeDtypeStruct(shape, np.float32), **spec}

  def source(self, split: str) -> Source:
    if split not in self.splits:
      raise ValueError(f'there is no split {split!r}; splits: {", ".join(self.splits)}')
    self.example, self.outputs                     # what is not understood fails before reading
    part = self.train if split == 'train' else self.test
    try:
      data = self.builder.as_data_source(split=part)
    except (ValueError, KeyError) as error:
      raise ValueError(f'{self.dataset!r} has no split {part!r}; say which with {split}=; '
                       f'{nearest(part, self.builder.info.splits)}') from error
    every = Mapped(hold(DataSource(data, self._read), self.memory), scaled)
    if split == 'test' or self.train_size is None:
      return every
    return take(every, self.train_size, self.split_seed)

  def _read(self, row: dict) -> dict[str, np.ndarray]:
    name, label = self.keys
    label = None if label is None else np.int32(row[label])
    if label is not None and label < 0:
      raise ValueError(f'this split of {self.dataset!r} hides its labels ({label}); take another')
    if self.text:
      return encode(row[name], self.length, label)
    return {'input': fit(row[name], self.size) if self.size else row[name], 'label': label}
