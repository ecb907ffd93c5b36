"""Parameters are filled bit by bit, however their tensors lie in memory."""
import ml_dtypes
import numpy as np
import pytest

from aspects.nn import huggingface

DTYPES = (ml_dtypes.bfloat16, np.float16, np.float32, np.float64, np.int8)
bits = lambda x: np.ascontiguousarray(x).view(np.uint8)


def matrix(dtype, shape=(300, 320)):
  """Any bits, those of several NaN among them."""
  size = np.prod(shape) * np.dtype(dtype).itemsize
  return np.random.default_rng(0).integers(0, 256, size, np.uint8).view(dtype).reshape(shape)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('host', (True, False))
@pytest.mark.parametrize('view', (
    lambda x: x, lambda x: x.T, lambda x: x.T.reshape(320, 30, 10), lambda x: x[:, :256].T,
    lambda x: np.moveaxis(x.reshape(30, 2, 5, 320)[:, 1], (0, 1), (-2, -1)), lambda x: x[0], lambda x: x[:0].T),
    ids=('same', 'turned', 'heads', 'part', 'interleaved', 'row', 'empty'))
def test_values_arrive_to_the_bit(dtype, host, view, monkeypatch):
  if not host:                                       # the CPU is not among the platforms
    monkeypatch.setattr(huggingface, '_host', lambda: None)
  value = view(matrix(dtype))
  alone, both = huggingface._filled([value], False), huggingface._filled([value, value[::-1]], True)
  assert alone.dtype == both.dtype == value.dtype and both.shape == (2, *value.shape)
  np.testing.assert_array_equal(bits(alone), bits(value))
  np.testing.assert_array_equal(bits(both), bits(np.stack([value, value[::-1]])))
  assert not alone.size or alone.ctypes.data % 64 == 0       # what a device takes over without copying


@pytest.mark.parametrize('size', (1, 1000, 10 ** 9))
def test_pieces_are_the_whole(size):
  value = matrix(np.float32).T
  out = np.full(value.shape, -1, np.float32)
  pieces = huggingface._pieces(out, value, size)
  for o, v in pieces:
    np.copyto(o, v)
  np.testing.assert_array_equal(bits(out), bits(value))
  assert len(pieces) == {1: 320, 1000: 320, 10 ** 9: 1}[size]
  number = np.array(3.0)
  assert huggingface._pieces(number, number, 1) == [(number, number)]
