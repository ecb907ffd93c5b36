"""Handwritten digits, 1,797 grey images of 8 x 8 pixels in ten classes: real data, no download.

The test part of Alpaydin and Kaynak (1998, "Optical recognition of handwritten digits", UCI), which
scikit-learn carries. It is a data set of tfds here, stored as array_record and prepared on first
use in tfds's folder (`TFDS_DATA_DIR`, else `~/tensorflow_datasets`); neither needs TensorFlow.

The split is ours: with the images sorted by class, within a class in an order that `split_seed`
draws, every fifth is a test image. That makes 1,437 and 360."""
import contextlib
import dataclasses
import io
import os
from pathlib import Path

import jax
import numpy as np
import tensorflow_datasets as tfds

from aspects.data import DataSource, Source, divide, hold, permutation


class DigitsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """The images as a data set of tfds: `image` float32 [8, 8, 1] in 0..1, `label` 0..9."""
  name = 'sklearn_digits'
  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    image = tfds.features.Tensor(shape=(8, 8, 1), dtype=np.float32)
    label = tfds.features.ClassLabel(num_classes=10)
    return tfds.core.DatasetInfo(
        builder=self, description='The digits of scikit-learn, in its order.',
        features=tfds.features.FeaturesDict({'image': image, 'label': label}),
        supervised_keys=('image', 'label'), disable_shuffling=True)

  def _split_generators(self, manager):
    del manager                                    # nothing is downloaded
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    from sklearn.datasets import load_digits       # seconds to import, and needed only once
    digits = load_digits()
    for i, (image, label) in enumerate(zip(digits.images, digits.target)):
      yield i, {'image': (image[..., None] / 16).astype(np.float32), 'label': int(label)}


def prepared(data_dir: str | None) -> tfds.core.DatasetBuilder:
  """The data set, written first if it is not there. Two processes may do this at the same time."""
  builder = DigitsBuilder(data_dir=data_dir, file_format='array_record')
  try:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
      builder.download_and_prepare()
  except OSError:
    # tfds writes beside the target and then renames, which only one of two processes can do.
    builder = DigitsBuilder(data_dir=data_dir, file_format='array_record')
    if not (Path(builder.data_dir) / 'dataset_info.json').exists():
      raise
  return builder


def read(row: dict) -> dict[str, np.ndarray]:
  return {'input': row['image'], 'label': np.int32(row['label'])}


@dataclasses.dataclass(frozen=True)
class Digits:
  """Images float32 [8, 8, 1] in 0..1 -> digit 0..9; stratified split of 1,437 and 360.

  `train_size` keeps fewer training images and `label_noise` makes that share of their labels wrong,
  both drawn by `split_seed`. `data_dir` is a folder of tfds, by default tfds's own."""
  train_size: int | None = None
  label_noise: float = 0.0
  split_seed: int = 0
  data_dir: str | None = None

  splits = ('train', 'test')
  kind = 'classify'
  metric = 'accuracy'
  outputs = 10

  @classmethod
  def smoke(cls, folder: str | os.PathLike) -> 'Digits':
    """For tests: all of it, prepared in `folder`."""
    return cls(data_dir=os.fspath(folder))

  @property
  def example(self) -> dict[str, jax.ShapeDtypeStruct]:
    return {'input': jax.ShapeDtypeStruct((8, 8, 1), np.float32),
            'label': jax.ShapeDtypeStruct((), np.int32)}

  def source(self, split: str) -> Source:
    every = hold(DataSource(prepared(self.data_dir).as_data_source(split='train'), read))
    label = every[np.arange(len(every))]['label']
    drawn = np.argsort(permutation(len(every), self.split_seed))
    by_class = np.lexsort((drawn, label))
    test = np.zeros(len(every), bool)
    test[by_class[::5]] = True
    return divide(every, test, split=split, seed=self.split_seed, classes=self.outputs,
                  train_size=self.train_size, label_noise=self.label_noise)
