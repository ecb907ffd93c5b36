"""Networks of images at their published sizes have as many parameters as published; nothing is read or run."""
import json
import math

import jax
import pytest

from aspects import net, pretrained
from aspects.nn import huggingface

RESNET = dict(model_type='resnet', architectures=['ResNetForImageClassification'], num_labels=1000)
BASE = dict(num_labels=1000)


@pytest.mark.parametrize('config, count', [
    # torchvision's documentation: resnet18, resnet50, resnet101, convnext_tiny, vit_b_16
    (dict(RESNET, layer_type='basic', hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2]), 11_689_512),
    (RESNET, 25_557_032), (dict(RESNET, depths=[3, 4, 23, 3]), 44_549_160),
    (dict(BASE, model_type='convnext', architectures=['ConvNextForImageClassification']), 28_589_128),
    (dict(BASE, model_type='vit', architectures=['ViTForImageClassification']), 86_567_656)])
def test_as_many_parameters_as_published(config, count, tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps(config))
  imported = pretrained.describe(tmp_path)
  shapes = huggingface.shapes(net.Net(**huggingface._stacked(imported.spec, None)), imported.example)
  assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes['params'])) == count
