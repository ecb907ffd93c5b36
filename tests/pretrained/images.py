"""Laws of importers of vision transformers, beside those of all: images of another size, a classifier's own layout."""
import numpy as np

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
