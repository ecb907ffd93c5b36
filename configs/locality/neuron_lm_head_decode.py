"""Neurons decoded by the head: clamping what a neuron reads raises the token that its weights are decoded to.

    python -m experiments.claims run neuron-lm-head-decode

Scales: claim (default), smoke (seconds), full (a larger language model).
"""
from configs import common


def get_config(scale=''):
  config = common.base()
  config.title = 'Decoding specialised feature neurons with the final projection layer'
  config.steps, config.batch = 400, 8
  config.task = dict(name='stdlib_text', length=64, max_bytes=2_000_000)
  config.net = dict(embed=dict(name='tokens', vocab=256, length=64), head=dict(name='unembed'),
                    mixer=dict(name='attention', heads=4, causal=True), channel=dict(name='gated_mlp', size=256),
                    norm=dict(name='rms'), placement=dict(name='pre'), stack=dict(name='plain', scan=True), depth=4,
                    width=64)
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=3e-3, schedule='cosine', warmup=20,
                         clip=1.0, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=128, batch=64, every=0)
  config.analysis = dict(split='test', examples=32, batch=32, when=(), call=dict())
  config.checkpoint = dict(every=0, keep=1)
  config.procedure = dict(name='neuron_lm_head_decode', share=0.05, strength=4.0, others=20, pool=40, direction=1,
                          side_by_side=4)
  config.arms = dict(trained=dict(), untrained=dict(steps=0))
  nats = dict(unit='nats', worst=0.0)
  percent = dict(eps=0.01, reason='one per cent of the odds of a token, for a clamp of four standard deviations')
  raises = lambda arms, metric, **more: dict(kind='superior', arms=arms, metric=metric, better='higher', tau=0.0,
                                             **percent, **more)
  config.claim = common.claim(
      id='neuron-lm-head-decode/1', component='locality/neuron_lm_head_decode',
      sentence='In a small gated language model, clamping one of the 5 % of neurons of the last layer that the head '
               'decodes most confidently to four standard deviations raises its decoded byte above bytes as frequent, '
               'more than for bytes dealt out among the neurons and more than in the first layer.',
      paper=dict(ref='Davies 2025, arXiv:2501.02688', value=None, unit=None, direction='higher', comparable=False,
                 said='Up-projection neurons of Llama 3.1 8B decode to concepts through the LM head, and clamping them '
                      'raises the probability of the concept.'),
      roles=dict(trained='ours', untrained='control'),
      metrics=dict(
          effect_last=dict(long_name='rise of log p of the decoded byte, last layer', **nats),
          effect_first=dict(long_name='rise of log p of the decoded byte, first layer', **nats),
          effect_gap=dict(long_name='rise in the last layer less that in the first', **nats),
          shuffled_last=dict(long_name='rise in the last layer of bytes dealt out among the neurons', **nats),
          advantage_last=dict(long_name='rise of the decoded less that of dealt bytes, last layer', **nats),
          probability=dict(long_name='mean probability of the decoded bytes, last layer', unit='1', worst=0.0),
          nll=dict(long_name='test loss', unit='nats', worst=5.545)),
      assertions=dict(
          raises=raises(('trained',), 'effect_last', text='in the last layer a clamp raises the decoded byte'),
          own=raises(('trained',), 'advantage_last', text='it raises it more than bytes of other neurons'),
          late=raises(('trained',), 'effect_gap', text='it raises it more in the last layer than in the first')),
      controls=dict(
          shuffled=raises(('trained',), 'shuffled_last', must='not hold',
                          text='bytes dealt out among the neurons are not raised'),
          untrained=raises(('untrained',), 'effect_last', must='not hold',
                           text='a network that was not trained raises nothing')),
      budget=dict(waived='one trained arm: decoded and dealt bytes are read off the same networks'),
      sane=dict(arm='trained', metric='nll', band=(1.5, 2.8)), looks=(8, 16))
  return common.scaled(config, scale, claim=dict(),
                       smoke=dict(steps=4, batch=4, net=dict(depth=2, width=16, channel=dict(size=20)),
                                  evaluation=dict(examples=8, batch=8), analysis=dict(examples=8, batch=8),
                                  claim=dict(looks=(2,), block=2)),
                       full=dict(steps=20000, batch=256, net=dict(depth=12, width=768, channel=dict(size=2048))))
