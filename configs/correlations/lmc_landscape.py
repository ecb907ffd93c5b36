"""Landscaping linear mode connectivity: the later two runs part, the lower the barrier, and curvature predicts it.

    python -m experiments.claims run lmc-landscape

Of the learning rates 0.1, 0.3, 0.4 and 0.5, tried on two or four runs from 1000 up, 0.4 is the largest at which all of
them fit the train set; at 0.1 barriers are of 1e-4 nats or less.
"""
from configs import common


def get_config(scale=''):
  config = common.base()
  config.title = 'Landscaping Linear Mode Connectivity'
  config.steps, config.batch, config.resplit = 720, 128, True           # 60 epochs
  config.task = dict(name='digits')
  # A smooth nonlinearity: the Hessian of a ReLU network misses its kinks.
  config.net = dict(name='aspects.nn.perceptron:Perceptron', widths=(64, 64, 64), act='tanh')
  config.learning = dict(name='backprop', optimizer=dict(name='sgd', momentum=0.9), learning_rate=0.4,
                         schedule='constant', clip=None, decay=0.0, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='train', examples=512, batch=512, every=0)
  config.analysis.update(examples=64, batch=64, when=(1.0,))
  config.checkpoint = dict(every=0, keep=1)
  config.procedure = dict(name='lmc_landscape', forks=(0, 1, 3, 10, 30), points=21, common=True)
  config.arms = dict(forked=dict(), apart=dict(procedure=dict(common=False)))
  lower = dict(kind='trend', metric='fall', better='lower', tau=0.8, eps=0.05,
               reason='half of what one pair of neighbouring forks in the other order changes')
  epochs = (0, 1, 3, 10, 30)
  metrics = {f'{what}_{k}': dict(long_name=f'{text} of runs that part after {k} epochs', unit=unit)
             for k in epochs for what, text, unit in (('midpoint', 'excess loss at the midpoint', 'nats'),
                                                      ('barrier', 'largest excess loss', 'nats'),
                                                      ('distance', 'distance', 'units of the weights'))}
  config.claim = common.claim(
      id='lmc-landscape/1', component='experiments/lmc_landscape',
      sentence='Between runs of a perceptron on digits that part after k epochs, the excess of the train loss at the '
               'midpoint falls with k, no layer that moves alone has the barrier of all together, and the curvature '
               'along the line predicts the excess over all k and layers.',
      paper=dict(ref='Singh et al. 2024, arXiv:2406.16300',
                 said='Barriers are understood as runs on different sides of a ridge: the later they part, the lower; '
                      'an analysis of the barrier by curvature and distance also predicts those of single layers.',
                 value=None, unit=None, direction='lower', comparable=False),
      roles=dict(forked='ours', apart='control'),
      metrics=dict(
          fall=dict(long_name='rank correlation of the excess at the midpoint with k', unit='1', worst=1.0),
          layer_excess=dict(long_name='largest excess of one layer\'s barrier over that of all, over the largest',
                            unit='1', worst=1.0),
          layer_share=dict(long_name='barrier of the worst single layer, over that of all', unit='1', worst=2.0),
          rho_path=dict(long_name='rank correlation of excess and prediction, curvature along the line', unit='1',
                        worst=-1.0),
          rho_ends=dict(long_name='rank correlation of excess and prediction, curvature at both ends', unit='1',
                        worst=-1.0),
          error=dict(long_name='largest error of the prediction, over the largest excess', unit='1'),
          nll=dict(long_name='train loss of the first run', unit='nats', worst=2.303),
          accuracy=dict(long_name='train accuracy of the first run', unit='1', worst=0.0), **metrics),
      assertions=dict(
          falls=dict(**lower, arms=('forked',), text='the later the fork, the lower the midpoint'),
          layers=dict(kind='superior', arms=('forked',), metric='layer_excess', better='lower', tau=0.0, eps=0.05,
                      reason='5 % of the largest barrier', text='every single layer has the lower barrier'),
          predicted=dict(kind='trend', arms=('forked',), metric='rho_path', better='higher', tau=0.9, eps=0.05,
                         reason='half of the way from 0.9 to 1', text='curvature along the line predicts the excess')),
      controls=dict(apart=dict(**lower, arms=('apart',), must='not hold',
                               text='runs from other first weights have no such order')),
      budget=dict(arms=('forked', 'apart'), trials=1), sane=dict(arm='forked', metric='accuracy', band=(0.99, 1.0)),
      looks=(8, 16), block=8)
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=36, procedure=dict(forks=(0, 1, 3), points=5), net=dict(widths=(8, 8, 8)),
                 claim=dict(looks=(2,), block=2)),
      full=dict(steps=14400, net=dict(widths=(512, 512, 512)), procedure=dict(forks=(0, 1, 3, 10, 30, 100), points=41)))
