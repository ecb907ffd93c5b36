"""Pictures written here, and what comes of them: classes, splits, processing, and every kind of bad folder."""
import json

import numpy as np
from PIL import Image
import pytest

from aspects.data import ArraySource, Stream
from aspects.tasks.image_folder import ImageFolder, Pictures


def draw(path, value, shape=(4, 4, 3)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full(shape, value, np.uint8)).save(path)
  return path


@pytest.fixture
def folder(tmp_path):
  """Twenty cats of value 0..19 and ten dogs of 100..109, some in deeper folders, among other things."""
  for i in range(20):
    draw(tmp_path / 'animals' / 'cat' / ('young' if i % 2 else '') / f'{i}.png', i)
  for i in range(10):
    draw(tmp_path / 'animals' / 'dog' / f'{i}.PNG', 100 + i)
  draw(tmp_path / 'animals' / '.thumbnails' / '0.png', 0)
  draw(tmp_path / 'animals' / 'dog' / '.cache' / '0.png', 0)
  for name in ('readme.txt', 'dog/labels.csv'):
    (tmp_path / 'animals' / name).write_text('no picture')
  return str(tmp_path / 'animals')


def rows(task, split='train'):
  source = task.source(split)
  return source[np.arange(len(source))]


def test_classes_are_subfolders_and_every_picture_is_there_once(folder):
  task = ImageFolder(folder, size=2, test_share=0.2)
  assert task.names == ('cat', 'dog') and task.outputs == 2 and task.example['input'].shape == (2, 2, 3)
  seen = []
  for split, counts in (('train', [16, 8]), ('test', [4, 2])):
    batch = rows(task, split)
    np.testing.assert_array_equal(np.bincount(batch['label']), counts)
    values = np.round(batch['input'] * 255)
    np.testing.assert_allclose(batch['input'] * 255, values, atol=1e-5)
    assert (values == values[:, :1, :1, :1]).all()
    np.testing.assert_array_equal(values[:, 0, 0, 0] >= 100, batch['label'] == 1)
    seen += values[:, 0, 0, 0].tolist()
  assert sorted(seen) == [*range(20), *range(100, 110)]


def test_the_split_is_of_names_and_barely_moves(folder, tmp_path):
  task = ImageFolder(folder, size=2, test_share=0.2)
  names = lambda: {p.relative_to(folder).as_posix() for paths in ImageFolder(
      folder, size=2, test_share=0.2).paths('test').values() for p in paths}
  first = names()
  assert first != {p.relative_to(folder).as_posix() for found in task._found.values() for p in found[:4]}
  draw(tmp_path / 'animals' / 'cat' / 'new.png', 50)
  assert len(first - names()) <= 1
  (tmp_path / 'animals').rename(tmp_path / 'moved')
  moved = ImageFolder(str(tmp_path / 'moved'), size=2, test_share=0.2).paths('test')
  assert len(first - {p.relative_to(tmp_path / 'moved').as_posix() for found in moved.values() for p in found}) <= 1


def test_pictures_are_read_when_they_are_asked_for(folder, tmp_path):
  held, lazy = (ImageFolder(folder, size=3, memory=memory) for memory in (2 ** 28, 0))
  assert isinstance(held.source('train'), ArraySource) and isinstance(lazy.source('train'), Pictures)
  a, b = (Stream(task.source('train'), 7, seed=1, repeat=True).batch(5) for task in (held, lazy))
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])
  source = lazy.source('train')
  damaged = source.paths[3]
  damaged.write_bytes(damaged.read_bytes()[:50])
  source[np.array([2, 4])]
  with pytest.raises(ValueError, match=f'{damaged.name} cannot be read as a picture .*; repair or remove it'):
    source[np.array([2, 3])]
  for content in (b'', b'GIF89a', b'no picture at all'):
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match=f'{damaged.name} cannot be read as a picture'):
      held.source('train')
  Image.fromarray(np.full((3, 3), 70000, np.int32)).save(damaged.with_suffix('.tiff'))
  damaged.unlink()
  with pytest.raises(ValueError, match=f'{damaged.stem}.tiff cannot be read as a picture .*8 bits'):
    ImageFolder(folder, size=3).source('train')
    ImageFolder(folder, size=3).source('test')


def test_the_square_is_the_centre_and_exif_is_heeded(tmp_path):
  values = np.zeros((4, 8, 3), np.uint8)
  values[:, 2:6] = np.arange(4, dtype=np.uint8).reshape(4, 1, 1) * 10
  for name in 'ab':
    (tmp_path / name).mkdir()
    for i in range(2):
      exif = Image.Exif()
      exif[0x0112] = 3                             # the camera was upside down
      Image.fromarray(values[::-1, ::-1]).save(tmp_path / name / f'{i}.png', exif=exif)
  for image in rows(ImageFolder(str(tmp_path), size=4))['input']:
    np.testing.assert_allclose(image[..., 0] * 255, np.arange(4)[:, None] * np.full((1, 4), 10), atol=1e-4)


def test_a_processor_and_every_mode(tmp_path):
  fields = dict(image_processor_type='ViTImageProcessor', size=dict(height=3, width=5), image_mean=[0.2] * 3)
  (tmp_path / 'preprocessor_config.json').write_text(json.dumps(fields))
  for i, mode in enumerate(('L', 'RGB', 'RGBA', 'P', '1', 'LA', 'CMYK')):
    for name in 'ab':
      draw(tmp_path / 'in' / name / f'{i}.png', 255)
      Image.new('L', (6, 7), 255).convert(mode).save(tmp_path / 'in' / name / f'{i}.tiff')
  batch = rows(ImageFolder(str(tmp_path / 'in'), processor=str(tmp_path)))
  np.testing.assert_allclose(batch['input'], np.full((len(batch['label']), 3, 5, 3), 1.6), atol=1e-6)


def test_a_test_folder_of_its_own(folder, tmp_path):
  draw(tmp_path / 'held' / 'cat' / '0.png', 7)
  draw(tmp_path / 'held' / 'dog' / '0.png', 8)
  task = ImageFolder(folder, size=2, test_path=str(tmp_path / 'held'))
  assert len(task.source('train')) == 30 and rows(task, 'test')['label'].tolist() == [0, 1]
  draw(tmp_path / 'held' / 'eel' / '0.png', 9)
  with pytest.raises(ValueError, match=r"differ in \['eel'\]; both must have the same classes"):
    task.source('test')


def test_a_seeded_draw(folder):
  drawn = [ImageFolder(folder, size=2, train_size=5, split_seed=seed).source('train')[np.arange(5)]['input']
           for seed in (0, 0, 1)]
  np.testing.assert_array_equal(drawn[0], drawn[1])
  assert (drawn[0] != drawn[2]).any()


def test_folders_that_are_refused(folder, tmp_path):
  with pytest.raises(FileNotFoundError, match="there is no folder '.*nowhere'"):
    ImageFolder(str(tmp_path / 'nowhere'), size=2).source('train')
  (tmp_path / 'empty' / 'cat').mkdir(parents=True)
  for path, error, message in (('empty', FileNotFoundError, 'no pictures in 1 subfolders; it needs a subfolder for'),
                               ('animals/dog', ValueError, 'has 10 pictures beside its subfolders, such as .0.PNG.')):
    with pytest.raises(error, match=message):
      ImageFolder(str(tmp_path / path), size=2).source('train')
  draw(tmp_path / 'empty' / 'dog' / '0.png', 1)
  with pytest.raises(ValueError, match="subfolder 'cat' of .* has no pictures"):
    ImageFolder(str(tmp_path / 'empty'), size=2).source('train')
  (tmp_path / 'empty' / 'cat').rmdir()
  with pytest.raises(ValueError, match="has one subfolder, 'dog'; classes are at least 2"):
    ImageFolder(str(tmp_path / 'empty'), size=2).source('train')
  draw(tmp_path / 'empty' / 'cat' / '0.png', 1)
  with pytest.raises(ValueError, match="class 'cat' has one picture, .*0.png; a class has at least one to train"):
    ImageFolder(str(tmp_path / 'empty'), size=2).source('train')
  for held in ('test', 'val'):
    for name in ('train', held):
      draw(tmp_path / held / name / 'cat' / '0.png', 1)
    with pytest.raises(ValueError, match=f"splits and no classes; name them: path='.*/train', test_path='.*/{held}'"):
      ImageFolder(str(tmp_path / held), size=2).source('train')


def test_fields_that_are_refused(folder):
  for fields, message in ((dict(), 'size is None and processor is None; give one'),
                          (dict(size=2, processor='here'), "size is 2 and processor is 'here'; give one"),
                          (dict(size=2, test_share=0.0), 'test_share is 0.0')):
    with pytest.raises(ValueError, match=message):
      ImageFolder(folder, **fields)
  with pytest.raises(ValueError, match='resize and crop are 0'):
    ImageFolder(folder, size=0).source('train')
