"""A folder of the user's own pictures, one subfolder a class, read with pillow when they are asked for.

The test pictures of a class are the first ones in the order of a hash of their name, so that the split does not depend
on the machine, and a picture that is added moves at most one other of its class. Equal pictures under two names are not
noticed."""
import dataclasses
import functools
import hashlib
import os
from pathlib import Path
from typing import Callable

import jax
import numpy as np

from aspects.data import Source, check_positions, hold, take
from aspects.nn import image_processor

SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
PARTS = {'train', 'training', 'test', 'testing', 'val', 'valid', 'validation'}


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
  """A source: `paths` of pictures, opened when they are gathered, and `labels` [N] int32."""
  paths: tuple[Path, ...]
  labels: np.ndarray
  process: Callable[..., np.ndarray]

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, positions) -> dict[str, np.ndarray]:
    positions = check_positions(positions, len(self))
    images = [opened(self.paths[i], self.process) for i in positions]
    return {'input': np.stack(images), 'label': self.labels[positions]}


@dataclasses.dataclass(frozen=True)
class ImageFolder:
  """Pictures float32 [H, W, 3] -> class, the number of the subfolder of `path` in alphabetical order: `names`.

  `processor` is a Hugging Face directory whose preprocessor_config.json says what is done to a picture; or `size` cuts
  the largest centred square, resized to size x size (bilinear), in 0..1. Pictures are upright as their EXIF says, of
  any mode up to 8 bits; files in deeper folders count, other files than pictures do not, nor does what is hidden; of
  moving pictures the first one counts.

  About `test_share` of every class, at least one, are the test split, or all of `test_path` is, a folder with the same
  subfolders. `train_size` keeps fewer training pictures, drawn by `split_seed`. A split of up to `memory` bytes is read
  at once and held.

  Raises FileNotFoundError for no folder or no pictures; ValueError for pictures outside of a subfolder, a class with
  too few, subfolders that are splits and no classes, and, with its name, for a file that cannot be read."""
  path: str
  size: int | None = None
  processor: str | None = None
  test_share: float = 0.1
  test_path: str | None = None
  train_size: int | None = None
  split_seed: int = 0
  memory: int = 2 ** 28

  splits = ('train', 'test')
  kind = 'classify'
  metric = 'accuracy'

  def __post_init__(self):
    if (self.size is None) == (self.processor is None):
      raise ValueError(f'size is {self.size} and processor is {self.processor!r}; give one of the two, so that '
                       f'pictures have one shape')
    if self.test_path is None and not 0 < self.test_share < 1:
      raise ValueError(f'test_share is {self.test_share}; it must be between 0 and 1, or give a test_path')

  @classmethod
  def smoke(cls, folder: str | os.PathLike) -> 'ImageFolder':
    """For tests: twelve pictures of noise in each of three classes, written into `folder`."""
    from PIL import Image
    for i in range(36):
      path = Path(folder, 'image_folder', 'abc'[i % 3], f'{i}.png')
      path.parent.mkdir(parents=True, exist_ok=True)
      noise = np.random.default_rng(i).integers(0, 256, (9, 7 + i % 3, 3), np.uint8)
      Image.fromarray(noise).save(path)
    return cls(os.fspath(Path(folder, 'image_folder')), size=6, test_share=0.25)

  @functools.cached_property
  def _process(self) -> image_processor.ImageProcessor:
    if self.processor is not None:
      return image_processor.load(self.processor)
    return image_processor.ImageProcessor(self.size, (self.size, self.size))

  @functools.cached_property
  def _found(self) -> dict[str, list[Path]]:
    return classes(self.path)

  @property
  def names(self) -> tuple[str, ...]:
    """The classes in the order of their numbers."""
    return tuple(self._found)

  @property
  def outputs(self) -> int:
    return len(self._found)

  @property
  def example(self) -> dict[str, jax.ShapeDtypeStruct]:
    return {'input': jax.ShapeDtypeStruct(self._process.shape, np.float32),
            'label': jax.ShapeDtypeStruct((), np.int32)}

  def paths(self, split: str) -> dict[str, list[Path]]:
    """Class -> its pictures, of one split."""
    if split not in self.splits:
      raise ValueError(f'there is no split {split!r}; splits: {", ".join(self.splits)}')
    if self.test_path is None:
      halves = {name: divided(name, paths, Path(self.path).expanduser(), self.test_share)
                for name, paths in self._found.items()}
      return {name: half[split == 'test'] for name, half in halves.items()}
    test = classes(self.test_path)
    if test.keys() != self._found.keys():
      raise ValueError(f'the subfolders of {self.path!r} and {self.test_path!r} differ in '
                       f'{sorted(test.keys() ^ self._found.keys())}; both must have the same classes')
    return test if split == 'test' else self._found

  def source(self, split: str) -> Source:
    found = self.paths(split)
    labels = np.repeat(np.arange(len(found), dtype=np.int32), [len(paths) for paths in found.values()])
    every = Pictures(tuple(path for paths in found.values() for path in paths), labels, self._process)
    if split == 'train' and self.train_size is not None:
      every = take(every, self.train_size, self.split_seed)
    return hold(every, self.memory)


def classes(path: str) -> dict[str, list[Path]]:
  """Subfolder -> its pictures at any depth, both sorted by name. Raises FileNotFoundError, ValueError."""
  root = Path(path).expanduser()
  if not root.is_dir():
    raise FileNotFoundError(f'there is no folder {path!r}')
  loose = sorted(p.name for p in root.iterdir() if picture(p, root))
  if loose:
    raise ValueError(f'{path!r} has {len(loose)} pictures beside its subfolders, such as {loose[0]!r}, and they have '
                     f'no class; move each into the subfolder of its class')
  folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith('.'))
  found = {folder.name: sorted(p for p in folder.rglob('*') if picture(p, root)) for folder in folders}
  if not any(found.values()):
    raise FileNotFoundError(f'{path!r} has no pictures in {len(found)} subfolders; it needs a subfolder for each '
                            f'class, with files in {", ".join(SUFFIXES)}')
  if empty := [name for name, paths in found.items() if not paths]:
    raise ValueError(f'subfolder {empty[0]!r} of {path!r} has no pictures ({", ".join(SUFFIXES)}); fill or remove it')
  if len(found) < 2:
    raise ValueError(f'{path!r} has one subfolder, {list(found)[0]!r}; classes are at least 2')
  if {name.lower() for name in found} <= PARTS:
    train, *test = sorted(found, key=lambda name: not name.lower().startswith('train'))
    raise ValueError(f'the subfolders of {path!r} are {list(found)}, splits and no classes; name them: '
                     f'path={str(root / train)!r}, test_path={str(root / test[0])!r}')
  return found


def picture(path: Path, root: Path) -> bool:
  """Whether it is a file that is called like a picture and not hidden."""
  hidden = any(part.startswith('.') for part in path.relative_to(root).parts)
  return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()


def divided(name: str, paths: list[Path], root: Path, share: float) -> tuple[list[Path], list[Path]]:
  """Training and test pictures of a class: round(share N) are of the test, but one at least on either side."""
  if len(paths) < 2:
    raise ValueError(f'class {name!r} has one picture, {paths[0]}; a class has at least one to train and one to test')
  by_hash = sorted(paths, key=lambda p: hashlib.sha256(p.relative_to(root).as_posix().encode()).digest())
  count = min(max(round(share * len(paths)), 1), len(paths) - 1)
  return by_hash[count:], by_hash[:count]


def opened(path: Path, process: Callable[..., np.ndarray]) -> np.ndarray:
  """The processed picture. Raises ValueError, with the file, for what pillow cannot read and `process` refuses."""
  from PIL import Image, ImageOps
  try:
    with Image.open(path) as image:
      return process(ImageOps.exif_transpose(image))
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
    raise ValueError(f'{path} cannot be read as a picture ({error}); repair or remove it') from error
