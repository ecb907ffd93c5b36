"""Laws of every importer: the published config is understood, field by field, and every parameter has one tensor.

The configs are the defaults of transformers' configuration class of the same `model_type`, at their full size: shapes
only, nothing is made. That the numbers are right is what tests/pretrained checks, tensor by tensor."""
import functools
import json
import re

from flax import traverse_util
import pytest

from aspects import net as net_lib
from aspects import plugin
from aspects.nn import huggingface
from tests.pretrained import reference as ref

NAMES = plugin.names('pretrained')
each = pytest.mark.parametrize('name', NAMES)


@functools.cache
def published(name):
  """The default config of an architecture, saved as its body."""
  kinds = {kind.replace('-', '_'): kind for kind in ref.transformers.CONFIG_MAPPING}
  config = ref.transformers.AutoConfig.for_model(kinds[name])
  body = type(config).__name__.replace('Config', 'Model')
  return {**json.loads(config.to_json_string(use_diff=False)), 'architectures': [body]}


def imported(name, **change):
  """{tower: Import} of the published config with fields changed; a network alone is the tower None."""
  config = huggingface.Config({**published(name), **change}, f'{name}/config.json')
  out = plugin.component('pretrained', name)(config)
  config.finish()
  return {None: out} if isinstance(out, huggingface.Import) else dict(out)


@each
def test_every_parameter_has_one_tensor_and_every_tensor_one_place(name):
  for each_import in imported(name).values():
    net_lib.check(each_import.spec)
    net = net_lib.Net(**huggingface._stacked(each_import.spec, True))
    shapes = traverse_util.flatten_dict(huggingface.shapes(net, each_import.example), sep='/')
    keys = list(each_import.keys)
    theirs = [k.theirs for k in keys]
    assert len(set(theirs)) == len(theirs)
    ours = [f'{k.collection}/{path}' for k in keys for path in k.ours]
    assert len(set(ours)) == len(ours)
    depth = {path: leaf.shape[0] for path, leaf in shapes.items() if re.search(r'/stage_\d+/block/', path)}
    unrolled = {path for path in shapes if path not in depth}
    unrolled |= {path.replace('/block/', f'/block_{i}/') for path, n in depth.items() for i in range(n)}
    assert set(ours) == unrolled


@each
def test_a_field_that_is_not_known_is_refused_by_name(name):
  with pytest.raises(ValueError, match="has the field 'attention_of_tomorrow' = 3"):
    imported(name, attention_of_tomorrow=3)


@each
def test_a_class_that_is_not_known_is_refused_by_name(name):
  with pytest.raises(ValueError, match='architectures.*ForTimeTravel'):
    imported(name, architectures=['BodyForTimeTravel'])
