"""The noise bank: a small network on every task that exists, to know how far two equal runs are apart.

    python -m experiments.claims noise
"""
from configs import common

VECTOR = dict(embed=dict(name='vector'), head=dict(name='classify'))
BINARY = dict(objective=dict(name='binary'))


def get_config(scale=''):
  config = common.base()
  config.title = 'The noise bank'
  config.steps, config.batch, config.resplit = 300, 64, True
  config.task = dict(name='digits')
  config.net = dict(mixer=None, channel=dict(name='mlp', ratio=2.0, act='relu'), norm=dict(name='layer'),
                    placement=dict(name='pre'), stack=dict(name='plain', scan=True), depth=4, width=32, **VECTOR)
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=2e-3, schedule='cosine', warmup=20,
                         clip=1.0, decay=0.01, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=1024, batch=256, every=0)
  config.analysis = dict(split='test', examples=64, batch=64, when=(), call=dict())
  tokens = lambda vocab, length: dict(embed=dict(name='tokens', vocab=vocab, length=length),
                                      mixer=dict(name='attention', heads=4))
  config.arms = dict(
      digits=dict(evaluation=dict(examples=0, batch=360)),
      boolean=dict(task=dict(name='boolean'), evaluation=dict(examples=0, batch=819)),
      parities=dict(task=dict(name='parities', labels=(1, 2, 3)), learning=BINARY),
      permutation_power=dict(task=dict(name='permutation_power', symbols=6, hops=2)),
      modular_addition=dict(task=dict(name='modular_addition', p=29, test_share=0.3),
                            evaluation=dict(examples=0, batch=252),
                            net=tokens(30, 3)),
      stdlib_text=dict(task=dict(name='stdlib_text', length=32, max_bytes=500_000, train_size=8000), batch=16,
                       net=dict(head=dict(name='unembed'), **tokens(256, 32)),
                       evaluation=dict(examples=128, batch=128)))
  return common.scaled(config, scale, claim=dict(), smoke=dict(steps=4), full=dict())
