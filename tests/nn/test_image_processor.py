"""Pictures as transformers' own processors make them, on odd sizes, grey and with alpha; the rules by hand."""
import importlib
import json
import logging

import numpy as np
from PIL import Image
import pytest

from aspects.nn import image_processor
from aspects.nn.image_processor import ImageProcessor

IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
FILES = {                                          # as they are on the hub, old and new, in smaller sizes
    'vit-base-patch16-224': dict(image_processor_type='ViTImageProcessor', do_normalize=True, do_resize=True,
                                 do_rescale=True, rescale_factor=1 / 255, image_mean=[0.5] * 3, image_std=[0.5] * 3,
                                 resample=2, size=dict(height=24, width=20)),
    'vit, old': dict(feature_extractor_type='ViTFeatureExtractor', size=17, resample=3),
    'vit, bare': dict(image_processor_type='ViTImageProcessor', size=dict(height=9, width=31), do_normalize=False),
    'vit, bytes': dict(image_processor_type='ViTImageProcessor', size=16, do_rescale=False, do_normalize=False,
                       resample=0),
    'deit': dict(feature_extractor_type='DeiTFeatureExtractor', size=25, crop_size=22, resample=3, **IMAGENET),
    'clip': dict(feature_extractor_type='CLIPFeatureExtractor', crop_size=18, do_center_crop=True, size=18, resample=3,
                 image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711]),
    'clip, new': dict(image_processor_type='CLIPImageProcessorFast', crop_size=dict(height=19, width=14),
                      size=dict(shortest_edge=21), data_format='channels_first', device=None, do_convert_rgb=True),
    'clip, frame': dict(image_processor_type='CLIPImageProcessor', crop_size=25, size=dict(shortest_edge=12)),
    'siglip': dict(image_processor_type='SiglipImageProcessor', processor_class='SiglipProcessor', resample=3,
                   size=dict(height=18, width=18), do_convert_rgb=None),
    'dinov2': dict(image_processor_type='BitImageProcessor', crop_size=dict(height=22, width=22), do_convert_rgb=True,
                   size=dict(shortest_edge=26), resample=3, **IMAGENET),
    'convnext-224': dict(feature_extractor_type='ConvNextFeatureExtractor', crop_pct=0.875, size=28, resample=3,
                         **IMAGENET),
    'resnet-50': dict(image_processor_type='ConvNextImageProcessor', crop_pct=0.95, size=dict(shortest_edge=23),
                      resample=2, **IMAGENET),
    'convnext-384': dict(image_processor_type='ConvNextImageProcessor', size=dict(shortest_edge=384), resample=1)}
SIZES = ((30, 41), (57, 33), (23, 23), (7, 90))


def picture(shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope='module')
def transformers():
  """transformers, which says in its log that torchvision is not there; nothing of it is used."""
  logging.getLogger('transformers').setLevel(logging.ERROR)
  return importlib.import_module('transformers')


def reference(transformers, fields, image):
  kind = image_processor._kind(fields)
  theirs = getattr(transformers, f'{kind}ImageProcessorPil').from_dict(dict(fields))
  values = theirs(image, do_convert_rgb=True, return_tensors='np', data_format='channels_first')['pixel_values'][0]
  return np.moveaxis(values, 0, -1)


@pytest.mark.parametrize('name', FILES)
def test_pictures_are_those_of_transformers(transformers, tmp_path, name):
  (tmp_path / 'preprocessor_config.json').write_text(json.dumps(FILES[name]))
  ours = image_processor.load(tmp_path)
  for i, size in enumerate(SIZES):
    for channels in ((3,), (), (4,)):
      image = Image.fromarray(picture((*size, *channels), i))
      expected = reference(transformers, FILES[name], image)
      result = ours(image)
      assert result.dtype == np.float32 and result.shape == ours.shape == expected.shape
      np.testing.assert_allclose(result, expected, atol=1e-6, rtol=1e-6)


def test_defaults_are_those_of_transformers(transformers):
  for kind, ours in image_processor.DEFAULTS.items():
    theirs = getattr(transformers, f'{kind}ImageProcessorPil')().to_dict()
    made = image_processor.read({'image_processor_type': f'{kind}ImageProcessor'})
    again = image_processor.read(json.loads(json.dumps(theirs)))
    assert made == again and ours.keys() >= theirs.keys() - {'image_processor_type'}


def test_arrays_and_modes_are_pictures_too():
  process = ImageProcessor((5, 6))
  grey = picture((9, 8))
  for other in (grey[..., None], np.stack([grey] * 3, -1), Image.fromarray(grey), Image.fromarray(grey).convert('RGB')):
    np.testing.assert_array_equal(process(other), process(grey))
  np.testing.assert_array_equal(process(grey)[..., 0], process(grey)[..., 2])


def test_transparent_is_white():
  image = np.zeros((4, 4, 4), np.uint8)
  image[:, :2, 3] = 255                            # the left half is black, nothing is on the right
  np.testing.assert_array_equal(ImageProcessor((4, 4))(image)[..., 0], [[0, 0, 1, 1]] * 4)


def test_a_constant_picture_by_hand():
  process = ImageProcessor((3, 3), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
  expected = (51 / 255 - np.array([0.1, 0.2, 0.3])) / [0.5, 0.25, 2]
  np.testing.assert_allclose(process(np.full((7, 5), 51, np.uint8)), np.broadcast_to(expected, (3, 3, 3)), atol=1e-7)


def test_crops_and_frames_by_hand():
  values = np.arange(20).reshape(4, 5, 1)
  np.testing.assert_array_equal(image_processor.centre(values, (2, 2))[..., 0], [[6, 7], [11, 12]])
  np.testing.assert_array_equal(image_processor.centre(values, (1, 8))[0, :, 0], [0, 0, 5, 6, 7, 8, 9, 0])
  assert [image_processor.shorter(s, 10) for s in ((20, 30), (30, 20), (7, 7), (3, 10))] == [
      (10, 15), (15, 10), (10, 10), (10, 33)]


@pytest.mark.parametrize('fields, message', [
    (dict(), 'image_processor_type is missing.*ViTImageProcessor'),
    (dict(image_processor_type='DINOv3ViTImageProcessorFast'), "processor 'DINOv3ViT.*' is not known; .*BitImageProc"),
    (dict(image_processor_type='ViTImageProcessor', do_flip_channel_order=True), "field 'do_flip_channel_order' with"),
    (dict(image_processor_type='ViTImageProcessor', crop_pct=0.9), "field 'crop_pct' with value 0.9"),
    (dict(image_processor_type='ViTImageProcessor', do_pad=True), "field 'do_pad' with value True"),
    (dict(image_processor_type='CLIPImageProcessor', default_to_square=True), "field 'default_to_square' with"),
    (dict(image_processor_type='CLIPImageProcessor', do_center_crop=False), 'resize is 224 and nothing is cropped'),
    (dict(image_processor_type='ViTImageProcessor', do_resize=False), 'resize is None and nothing is cropped'),
    (dict(image_processor_type='ViTImageProcessor', size=dict(longest_edge=9)), "size is {'longest_edge': 9}; a num"),
    (dict(image_processor_type='ConvNextImageProcessor', size=dict(height=9, width=9)), 'ConvNext resizes to a short'),
    (dict(image_processor_type='ViTImageProcessor', do_center_crop=True), 'crop_size is None; do_center_crop needs'),
    (dict(image_processor_type='ViTImageProcessor', resample=7), 'resample is 7; pillow has 0 to 5'),
    (dict(image_processor_type='ViTImageProcessor', image_mean=[0.5]), 'mean is .0.5,.; give three numbers'),
    (dict(image_processor_type='ViTImageProcessor', size=0), 'a size is at least 1 pixel')])
def test_what_is_not_understood_is_refused(tmp_path, fields, message):
  (tmp_path / 'preprocessor_config.json').write_text(json.dumps(fields))
  with pytest.raises(ValueError, match=f'preprocessor_config.json: .*{message}'):
    image_processor.load(tmp_path)


def test_files_and_pictures_that_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match='there is no .*preprocessor_config.json'):
    image_processor.load(tmp_path)
  (tmp_path / 'preprocessor_config.json').write_text('[')
  with pytest.raises(ValueError, match='is not JSON'):
    image_processor.load(tmp_path)
  process = ImageProcessor((5, 6), convert=False)
  assert process(picture((4, 4, 3))).shape == (5, 6, 3)
  for image, message in ((np.zeros((4, 4, 3)), 'float64'), (picture((4, 4, 2)), r'uint8 \(4, 4, 2\)'),
                         (picture((4,)), r'uint8 \(4,\)'), (picture((4, 4)), "mode 'L' and do_convert_rgb is false"),
                         (Image.fromarray(picture((4, 4)).astype(np.int32)), "mode 'I', more than 8 bits")):
    with pytest.raises(ValueError, match=message):
      process(image)
