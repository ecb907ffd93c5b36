"""What a pretrained vision model wants done to a picture: preprocessor_config.json of a Hugging Face directory.

Convert to RGB, resize, crop the centre, rescale, normalise, in this order, as the processors of ViT, DeiT, CLIP,
SigLIP, ConvNeXt (also of ResNet) and BiT (also of DINOv2) in transformers do with pillow. A file may leave fields out;
then the defaults of its type hold, which are written here. ConvNeXt has a rule of its own: below 384 pixels the shorter
edge is resized to size / crop_pct and the centre cropped; from 384 on the picture is squeezed into the square.

Differs from transformers: a grey picture becomes RGB for ViT and DeiT too, where transformers would fail on it; files
that name a `Fast` processor are followed with pillow, whose resizing differs from torchvision's by rounding."""
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from aspects.plugin import nearest

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
RESAMPLE = ('nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming')     # by pillow's codes
DEEP = ('I', 'F', 'I;16', 'I;16B', 'I;16L', 'I;16N')                           # pillow clips these to 0..255

COMMON = dict(do_resize=True, do_rescale=True, rescale_factor=1 / 255, do_normalize=True, image_mean=HALF,
              image_std=HALF, do_center_crop=False, crop_size=None, do_convert_rgb=None, resample=3)
DEFAULTS = {                                       # by type; `square`: what a size of one number means
    'ViT': dict(COMMON, size=224, resample=2, square=True),
    'DeiT': dict(COMMON, size=256, crop_size=224, do_center_crop=True, square=True),
    'Siglip': dict(COMMON, size=224, square=True),
    'CLIP': dict(COMMON, size=224, crop_size=224, do_center_crop=True, image_mean=CLIP_MEAN, image_std=CLIP_STD,
                 square=False),
    'Bit': dict(COMMON, size=224, crop_size=224, do_center_crop=True, image_mean=CLIP_MEAN, image_std=CLIP_STD,
                square=False),
    'ConvNext': dict(COMMON, size=384, crop_pct=224 / 256, square=False)}
NAMES = ('image_processor_type', 'feature_extractor_type', 'processor_class', '_valid_processor_keys')
# What newer files write beside these, with the values that ask for nothing.
IDLE = {'data_format': (None, 'channels_first'), 'default_to_square': (None,), 'device': (None,),
        'disable_grouping': (None,), 'do_pad': (None, False), 'input_data_format': (None,), 'pad_size': (None,),
        'return_tensors': (None,), 'crop_pct': (None,)}


@dataclasses.dataclass(frozen=True)
class ImageProcessor:
  """A picture -> float32 [H, W, 3], always of one shape.

  `resize` is (h, w), or one number for the shorter edge, or None; `crop` is the (h, w) that is cut out of the centre,
  with zeros around a picture that is smaller; `resample` is pillow's code. Values 0..255 are multiplied by `scale`,
  then `mean` is subtracted and divided by `std`; None leaves a step out. `convert` turns other modes into RGB, with
  what is transparent over white; without it they are an error.

  Raises ValueError for fields that give pictures of different shapes or are no size, code or three numbers."""
  resize: int | tuple[int, int] | None
  crop: tuple[int, int] | None = None
  resample: int = 2
  scale: float | None = 1 / 255
  mean: tuple[float, ...] | None = None
  std: tuple[float, ...] | None = None
  convert: bool = True

  def __post_init__(self):
    if self.crop is None and not isinstance(self.resize, tuple):
      raise ValueError(f'resize is {self.resize} and nothing is cropped, so that pictures would differ in shape; give '
                       f'a crop, or a height and a width')
    for size in (self.resize, self.crop):
      if size is not None and min(np.atleast_1d(size)) < 1:
        raise ValueError(f'resize and crop are {self.resize}, {self.crop}; a size is at least 1 pixel')
    if self.resample not in range(len(RESAMPLE)):
      raise ValueError(f'resample is {self.resample}; pillow has 0 to 5: {", ".join(RESAMPLE)}')
    for name, three in (('mean', self.mean), ('std', self.std)):
      if three is not None and len(three) != 3:
        raise ValueError(f'{name} is {three}; give three numbers, of red, green and blue')

  @property
  def shape(self) -> tuple[int, int, int]:
    """[H, W, 3] of every result."""
    return (*(self.crop or self.resize), 3)

  def __call__(self, picture) -> np.ndarray:
    """`picture`: of pillow, or uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] -> float32 [H, W, 3].

    Raises ValueError for another array, for 16-bit modes, and without `convert` for modes other than RGB."""
    picture = rgb(picture, self.convert)
    if self.resize is not None:
      height, width = self.resize if isinstance(self.resize, tuple) else shorter(picture.size[::-1], self.resize)
      picture = picture.resize((width, height), resample=self.resample)
    values = np.asarray(picture)
    values = (values if self.crop is None else centre(values, self.crop)).astype(np.float64)
    values = values if self.scale is None else values * self.scale
    values = values if self.mean is None else values - np.array(self.mean)
    return (values if self.std is None else values / np.array(self.std)).astype(np.float32)


def load(directory: str | os.PathLike) -> ImageProcessor:
  """The processor that `directory`/preprocessor_config.json describes.

  Raises FileNotFoundError for no such file; ValueError, with what is known, for a type or a field that is not."""
  path = Path(directory).expanduser() / 'preprocessor_config.json'
  if not path.is_file():
    raise FileNotFoundError(f'there is no {path}; it comes with a vision model of Hugging Face, or give a size instead')
  try:
    given = json.loads(path.read_text('utf-8'))
  except ValueError as error:
    raise ValueError(f'{path} is not JSON ({error}); fetch the file again') from error
  try:
    return read(given)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error


def read(given: dict[str, Any]) -> ImageProcessor:
  """The processor of the fields of a preprocessor_config.json. Raises ValueError, see `load`."""
  kind = _kind(given)
  known = DEFAULTS[kind]
  for name, value in given.items():
    idle = name in IDLE and value in IDLE[name] or name == 'default_to_square' and value == known['square']
    if name not in known and name not in NAMES and not idle:
      raise ValueError(f'field {name!r} with value {value!r} is not understood for {kind}, and guessing would change '
                       f'the pictures; {nearest(name, known)}')
  fields = {**known, **{name: value for name, value in given.items() if name in known and value is not None}}
  resize, crop = _size('size', fields['size'], fields['square']) if fields['do_resize'] else None, None
  if kind == 'ConvNext':
    resize, crop = _convnext(resize, fields)
  elif fields['do_center_crop']:
    crop = _crop(fields['crop_size'])
  return ImageProcessor(
      resize, crop, fields['resample'],
      fields['rescale_factor'] if fields['do_rescale'] else None,
      *((_three(fields[name]) if fields['do_normalize'] else None) for name in ('image_mean', 'image_std')),
      convert=fields['do_convert_rgb'] is not False)


def rgb(picture, convert: bool):
  """A pillow picture in mode RGB; what is transparent is laid over white."""
  from PIL import Image                            # a compiled package that tasks without pictures do not need
  if isinstance(picture, np.ndarray):
    channels = picture.shape[2:] or (1,)
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or channels not in ((1,), (3,), (4,)):
      raise ValueError(f'the picture is {picture.dtype} {picture.shape}; give uint8 [H, W] or [H, W, 1, 3 or 4]')
    picture = Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture)
  if picture.mode in DEEP:
    raise ValueError(f'the picture has mode {picture.mode!r}, more than 8 bits a channel, which conversion to RGB '
                     f'would clip; store it with 8 bits')
  if picture.mode != 'RGB' and not convert:
    raise ValueError(f'the picture has mode {picture.mode!r} and do_convert_rgb is false; store it as RGB')
  if 'A' in picture.getbands() or picture.info.get('transparency') is not None:
    picture = picture.convert('RGBA')
    picture = Image.alpha_composite(Image.new('RGBA', picture.size, (255, 255, 255, 255)), picture)
  return picture.convert('RGB')


def shorter(shape: tuple[int, int], edge: int) -> tuple[int, int]:
  """(h, w) -> (h, w) with `edge` for the shorter one; the longer is rounded down."""
  short, long = min(shape), max(shape)
  resized = int(edge * long / short)
  return (resized, edge) if shape[0] > shape[1] else (edge, resized)


def centre(values: np.ndarray, crop: tuple[int, int]) -> np.ndarray:
  """The middle `crop` (h, w) of [H, W, C], with zeros where the picture is smaller.

  What does not divide by two: a crop loses one more on the far side, a frame has one more on the near side."""
  spare = [have - want for have, want in zip(values.shape, crop)]
  values = np.pad(values, [((max(-s, 0) + 1) // 2, max(-s, 0) // 2) for s in spare] + [(0, 0)])
  top, left = (max(s, 0) // 2 for s in spare)
  return values[top:top + crop[0], left:left + crop[1]]


def _kind(given: dict[str, Any]) -> str:
  name = given.get('image_processor_type') or given.get('feature_extractor_type')
  if name is None:
    raise ValueError(f'image_processor_type is missing, and its defaults are not known without it; write one of '
                     f'{", ".join(kind + "ImageProcessor" for kind in DEFAULTS)} into the file')
  kind = name.removesuffix('Fast').removesuffix('Pil').removesuffix('ImageProcessor').removesuffix('FeatureExtractor')
  if kind not in DEFAULTS or kind == name:
    raise ValueError(f'processor {name!r} is not known; {nearest(name, [k + "ImageProcessor" for k in DEFAULTS])}')
  return kind


def _convnext(edge, fields: dict[str, Any]) -> tuple[int | tuple[int, int], tuple[int, int] | None]:
  if not isinstance(edge, int) or fields['do_center_crop']:
    raise ValueError(f'size is {fields["size"]!r}, do_resize {fields["do_resize"]}, do_center_crop '
                     f'{fields["do_center_crop"]}; ConvNext resizes to a shortest_edge and crops by crop_pct alone')
  return (int(edge / fields['crop_pct']), (edge, edge)) if edge < 384 else ((edge, edge), None)


def _size(name: str, size: int | dict[str, int], square: bool) -> int | tuple[int, int]:
  """A size as the files write it: (h, w), or one number for the shorter edge."""
  if isinstance(size, int):
    return (size, size) if square else size
  fields = {key: value for key, value in size.items() if value is not None}
  if fields.keys() == {'height', 'width'}:
    return fields['height'], fields['width']
  if fields.keys() == {'shortest_edge'}:
    return fields['shortest_edge']
  raise ValueError(f'{name} is {size!r}; a number, height and width, or shortest_edge are understood')


def _crop(size: int | dict[str, int]) -> tuple[int, int]:
  crop = None if size is None else _size('crop_size', size, True)
  if not isinstance(crop, tuple):
    raise ValueError(f'crop_size is {size!r}; do_center_crop needs a number, or height and width')
  return crop


def _three(values: float | list[float]) -> tuple[float, ...]:
  return tuple(np.broadcast_to(np.asarray(values, float), np.shape(values) or 3).tolist())
