"""Laws of importers of networks of images, beside those of all: other sizes; pixels as tokens, in stages."""
import copy

from flax import traverse_util
import jax
import numpy as np
import pytest

from tests.pretrained import laws, reference


def layout(block, final, norms=('layernorm_before', 'layernorm_after'), **more):
  """The layout of ViT under other names; what is added is what the sublayers give, unless there is layer scale."""
  return laws.layout(block, norms, attention='attention', pre='fc1', down='fc2', **{
      'channel_gate': None, 'logits': None, 'mixer_out': f'{block}.attention', 'channel_out': f'{block}.mlp',
      'embed': 'embeddings', 'final_norm': final, **more})


class Images(laws.Laws):
  usual = {'num_labels': 5, 'num_hidden_layers': 3}
  side = 8

  @classmethod
  def inputs(cls):
    pixels = np.random.default_rng(0).normal(size=(2, cls.side, cls.side, 3)).astype(np.float32)
    return (pixels,), dict(pixel_values=pixels.transpose(0, 3, 1, 2)), np.ones((2, 1), bool)

  def same_at(self, case, height, width, **options):
    """Both read images of another size alike."""
    pixels = np.random.default_rng(1).normal(size=(1, height, width, 3)).astype(np.float32)
    at = self.layout_of(case)['embed']
    net, found = laws.torch_net(type(self), case), laws.loaded(type(self), case, True)
    theirs, seen = reference.run(net, at, pixel_values=pixels.transpose(0, 3, 1, 2), **options)
    acts = laws.recorded(found.net, found.variables, (pixels,))
    laws.compare(acts, {'embed': seen[at], 'output': laws.output(theirs)}, np.ones((1, 1), bool))


class Convolutional(Images):
  """Networks whose tokens are pixels and whose layers lie in stages; `places` says which tensor each site is."""
  usual = {'num_labels': 5}
  side = 24

  @classmethod
  def places(cls, case):
    """{site: module, or the input of a module}; `stage.layer` of theirs are the layers in order."""
    raise NotImplementedError

  @classmethod
  def reference(cls, case, double=False):
    """{site: value} and 'output'."""
    net, given, places = laws.torch_net(cls, case), cls.inputs()[1], cls.places(case)
    if double:
      net = copy.deepcopy(net).double()
      given = {k: v.astype(np.float64) for k, v in given.items()}
    out, seen = reference.run(net, *{p.removesuffix('.in') for p in places.values()}, **given)
    found = {site: tokens(seen[place], site) for site, place in places.items()}
    return found | {'output': (out.logits if 'logits' in out else out.pooler_output).numpy().reshape(2, -1)}

  def test_every_site_is_the_tensor_of_its_name(self, case):
    laws.compare(laws.ours(type(self), case, True), self.reference(case), self.inputs()[2])

  def test_unrolled_blocks_have_the_same_sites(self):
    acts = laws.ours(type(self), self.first, False)
    laws.compare(acts, self.reference(self.first), self.inputs()[2])
    assert list(acts) == list(laws.ours(type(self), self.first, True))

  def test_float64(self):
    with jax.enable_x64(True):
      found = laws.loaded(type(self), self.first, True)
      acts = laws.recorded(found.net.clone(dtype='float64'), found.variables, [self.inputs()[0][0].astype(np.float64)])
    assert {str(np.asarray(a).dtype) for a in acts.values()} == {'float64'}
    laws.compare(acts, self.reference(self.first, True), self.inputs()[2], 1e-10)

  def test_invariants(self, case):
    for scan in (True, False):
      acts = laws.ours(type(self), case, scan)
      for at in laws.layers(acts):
        self.holds(at)

  def test_a_wrong_layout_fails_the_parity(self):
    right, expected = laws.loaded(type(self), self.first, False), self.reference(self.first)
    for what, change in self.wrong().items():
      flat = traverse_util.flatten_dict(right.variables, sep='/')
      flat |= {path: np.asarray(value) for path, value in change(flat).items()}
      acts = laws.recorded(right.net, traverse_util.unflatten_dict(flat, sep='/'), self.inputs()[0])
      with pytest.raises(AssertionError):
        laws.compare(acts, expected, self.inputs()[2])
        pytest.fail(f'{what} was not noticed')

  def test_images_that_are_not_square_are_refused(self):
    found = laws.loaded(type(self), self.first, False)
    with pytest.raises(ValueError, match='as high as wide'):
      jax.eval_shape(found.net.apply, found.variables, np.zeros((1, 24, 32, 3), np.float32))


def tokens(x, site):
  """A map [B, C, H, W], or [B, H, W, C] behind the norm of ConvNeXt, as [B, T, C]; what was pooled as [B, C]."""
  if x.ndim == 4 and not site.startswith('channel_'):
    x = x.transpose(0, 2, 3, 1)
  return x.reshape(len(x), -1) if site == 'pooled' else x.reshape(len(x), -1, x.shape[-1])
