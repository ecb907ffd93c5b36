"""Deep Residual Learning for Image Recognition: a nonlinearity on the sum, act(x + f(x)) (He et al. 2015, arXiv:1512.03385).

The stream is rectified after each addition: mixer_sum = resid_pre + mixer_out and, of the only sublayer of a unit,
resid_post = act(mixer_sum); with two, resid_mid = act(mixer_sum), channel_sum = resid_mid + channel_out and
resid_post = act(channel_sum). Norms are those inside the sublayers; the field `norm` is not used."""
from aspects.nn.activations import activation
from aspects.nn.residual import Residual
from aspects.sites import tag


class PostActivation(Residual):
  """Applies `act` to the stream after a sublayer was added to it."""
  act: str = 'relu'

  def join(self, x, slot, sublayer, layer):
    h = tag(self, f'{slot}_in', x)
    y = self.branched(tag(self, f'{slot}_raw', sublayer(h)), slot, layer)
    return activation(self.act)(tag(self, f'{slot}_sum', x + y))
