"""DINOv2: Learning Robust Visual Features without Supervision (Oquab et al. 2023, arXiv:2304.07193).

A ViT with layer scale and, in the largest one, gated units. The classifier reads the class token and the mean of the
patches side by side."""
from aspects.nn.huggingface import Config, Import
from aspects.nn.vision import backbone, square, vision


def dinov2(c: Config) -> Import:
  classifies = c.head(Dinov2ForImageClassification=True, Dinov2Model=False)
  c.leave('use_mask_token')
  return body(c, 'dinov2', classifies, 14)


def body(c: Config, base: str, classifies: bool, patch: int, registers: int = 0) -> Import:
  """The network with `registers` tokens that have no position, whose positions are then resized with antialiasing."""
  backbone(c)
  square(c, 'image_size', 224)                        # positions are resized from a square
  c.leave('layerscale_value')                          # where training started
  gated, hidden = c.only('use_swiglu_ffn', False, True), int(c('hidden_size', 768) * c('mlp_ratio', 4))
  if gated:                                            # two thirds, rounded up to a multiple of 8
    hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
  head = (dict(name='classify', pool='first_and_mean', prefix=1 + registers) if classifies
          else dict(name='embedding', pool='tokens'))
  return vision(c, base, head, [('classifier', 'logits_map')] if classifies else (), epsilon=1e-6, patch=patch,
                hidden=hidden, gated=gated, layer_scale=True, names=('norm1', 'norm2'),
                mlp=('mlp.weights_in', 'mlp.weights_out') if gated else ('mlp.fc1', 'mlp.fc2'),
                embed=dict(registers=registers, antialias=True) if registers else {},
                tokens={'register_tokens': 'registers'} if registers else {})
