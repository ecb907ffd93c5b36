"""The published labels: their counts and digest, and the symmetry that defines them."""
import hashlib
import itertools

import numpy as np
import pytest

from aspects.tasks import boolean
from aspects.tasks.boolean import Boolean

BITS = np.array(list(itertools.product((0, 1), repeat=12)))
# SHA-256 of numpy.packbits of `y` in data/var_u.mat of the authors' repository ravidziv/IDNNs.
PUBLISHED = '371b2b46a5052b4f69f7991ca141fb5afa1ac364ef7beb81ec900eecac2f86d9'


def test_labels_are_the_published_ones():
  labels = boolean.labels(BITS)
  assert hashlib.sha256(np.packbits(labels.astype(np.uint8)).tobytes()).hexdigest() == PUBLISHED


def test_labels_by_number_of_ones_are_as_published():
  # Shares of label 1 in the analysis of the deep-bottleneck project: 7.58 % of 5, 57.58 % of 6, 92.42 % of 7 ones.
  labels, ones = boolean.labels(BITS), BITS.sum(1)
  counts = [int(labels[ones == k].sum()) for k in range(13)]
  assert counts == [0, 0, 0, 0, 0, 60, 532, 732, 495, 220, 66, 12, 1] and labels.mean() == 2118 / 4096


def test_points_are_the_vertices_of_an_icosahedron():
  points = boolean.vertices()
  np.testing.assert_allclose((points ** 2).sum(1), 1, rtol=1e-12)
  np.testing.assert_allclose(points.sum(0), 0, atol=1e-12)
  angles = np.sort(np.round(np.degrees(np.arccos(np.clip(points @ points.T, -1, 1))), 3), axis=1)
  np.testing.assert_array_equal(angles, np.tile([0] + 5 * [63.435] + 5 * [116.565] + [180], (12, 1)))


def test_pairs_by_distance_are_counted_as_by_hand():
  points = boolean.vertices()
  for bits in BITS[[0, 1, 1365, 2730, 4095, 77]]:
    present = np.flatnonzero(bits)
    cosines = [points[i] @ points[j] for i, j in itertools.combinations(present, 2)]
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    expected = [sum(abs(a - angle) < 1 for a in angles) for angle in (63.4, 116.6, 180)]
    np.testing.assert_array_equal(boolean.pairs(bits[None])[0], expected)


def test_no_rotation_or_reflection_of_the_sphere_changes_a_label():
  # A symmetry of the points is fixed by the images of three of them that span space.
  points, labels = boolean.vertices(), boolean.labels(BITS)
  base = next(list(t) for t in itertools.combinations(range(12), 3) if abs(np.linalg.det(points[list(t)])) > 0.1)
  found = set()
  for image in itertools.permutations(range(12), 3):
    matrix = np.linalg.solve(points[base], points[list(image)])
    if np.allclose(matrix @ matrix.T, np.eye(3)):
      match = np.isclose(points @ matrix @ points.T, 1)
      if match.any(1).all():
        found.add(tuple(match.argmax(1)))
  assert len(found) == 120                         # the full icosahedral group
  for permutation in found:
    np.testing.assert_array_equal(boolean.labels(BITS[:, list(permutation)]), labels)
  swapped = BITS[:, [1, 0, *range(2, 12)]]         # not a symmetry, and labels do change
  assert (boolean.labels(swapped) != labels).any()


def test_patterns_fall_into_the_64_classes_of_the_paper():
  classes = np.concatenate([BITS.sum(1, keepdims=True), boolean.pairs(BITS)], 1)
  assert len(np.unique(classes, axis=0)) == 64


def test_the_splits_make_up_the_4096_patterns():
  train, test = (Boolean().source(split) for split in ('train', 'test'))
  assert (len(train), len(test)) == (3277, 819)
  rows = np.concatenate([s[np.arange(len(s))]['input'] for s in (train, test)])
  assert len(np.unique(rows, axis=0)) == 4096
  for source in (train, test):
    batch = source[np.arange(len(source))]
    np.testing.assert_array_equal(boolean.labels(batch['input'].astype(int)), batch['label'])


def test_fields():
  assert len(Boolean(train_size=100).source('train')) == 100
  clean, noisy, other = (t.source('train')[np.arange(3277)] for t in (
      Boolean(), Boolean(label_noise=0.1), Boolean(split_seed=1)))
  assert (clean['label'] != noisy['label']).sum() == 328
  assert (clean['input'] != other['input']).any()
  with pytest.raises(ValueError, match='test share of 0'):
    Boolean(test_share=0).source('train')
