"""The smallest study that has everything: a residual MLP on 64 digits and two measures."""
from configs import common


def get_config(scale=''):
  config = common.base()
  config.title, config.steps, config.batch, config.seeds = 'tiny', 6, 8, 2
  config.task = dict(name='digits', train_size=64)
  config.net = dict(embed=dict(name='vector'), head=dict(name='classify'), depth=2, width=8, mixer=None,
                    channel=dict(name='mlp', act='relu', ratio=1.0))
  config.learning = dict(name='backprop', learning_rate=1e-2, optimizer=dict(name='adam'), decay=0.01,
                         objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=16, batch=16, every=2)
  config.analysis = dict(split='test', examples=48, batch=16, when=(0.0, 0.5, 1.0), call=dict())
  config.measures = dict(cka=dict(name='correlations/cka', pool='mean'),
                         spectrum=dict(name='features/spectrum', pool='mean'))
  config.checkpoint = dict(every=2, keep=2)
  return common.scaled(config, scale, tiny=dict(), long=dict(steps=300, checkpoint=dict(every=10),
                                               evaluation=dict(every=20)),
                       pair=dict(steps=150, checkpoint=dict(every=10), evaluation=dict(every=50)))
