"""Iterative feature merging on a perceptron of digits: units merge with little loss, and better than at random.

    python -m experiments.claims run ifm --scale claim
"""
from configs import common


def get_config(scale=''):
  config = common.base()
  config.title = 'Iterative feature merging'
  config.steps, config.batch, config.resplit = 400, 64, True
  config.task = dict(name='digits')
  config.net = dict(name='aspects.nn.perceptron:Perceptron', widths=(256, 256), act='relu')
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=2e-3, schedule='cosine',
                         decay=1e-4, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=0, batch=360, every=0)
  config.analysis = dict(split='test', examples=0, batch=360, when=(), call=dict())
  config.checkpoint = dict(every=0, keep=1)
  config.procedure = dict(name='ifm', compressor=dict(name='feature_merge'), fractions=(0.3, 0.5, 0.7), grid=0.05,
                          drop=0.02)
  config.arms = dict(ifm=dict(), dense=dict(procedure=dict(compressor=None)),
                     random=dict(procedure=dict(compressor=dict(name='random_merge'))),
                     narrow=dict(net=dict(widths=(64, 64))))
  accuracy = lambda f: dict(long_name=f'test accuracy with {f} % of the units merged', unit='1', worst=0.0)
  nll = lambda f: dict(long_name=f'test loss with {f} % of the units merged', unit='nats', worst=2.303)
  spread = 'one sd of the difference of two dense networks, 24 seeds from 1000 on: 0.0105'
  better = lambda f: dict(kind='superior', arms=('ifm', 'random'), metric=f'accuracy_{f}', better='higher', tau=0.0,
                          eps=0.01, reason=spread, text=f'better than random pairs at {f} %')
  config.claim = common.claim(
      id='ifm/1', component='compressors/feature_merge',
      sentence='Merging 30 % of the units of both hidden layers, without data or training, costs at most 3 points of '
               'accuracy; at 30, 50 and 70 % it costs less than merging random pairs; a wider network tolerates more.',
      paper=dict(ref='Chen, Zhou & Yan 2024, arXiv:2310.06756',
                 said='Networks lose parameters by merging equivalent features, without finetuning and hardly any '
                      'performance; the larger the network, the more redundant its features.',
                 value=None, unit=None, direction='equal', comparable=False),
      roles=dict(ifm='ours', dense='baseline', random='control', narrow='ablation'),
      metrics=dict(**{f'accuracy_{f}': accuracy(f) for f in (30, 50, 70)}, **{f'nll_{f}': nll(f) for f in (30, 50, 70)},
                   tolerated=dict(long_name='share of units merged before accuracy drops by 2 points', unit='1',
                                  worst=0.0)),
      assertions=dict(
          cheap=dict(kind='noninferior', arms=('ifm', 'dense'), metric='accuracy_30', better='higher', eps=0.03,
                     reason='the 3 points of the claim', text='30 % merged costs at most 3 points'),
          cheap_loss=dict(kind='noninferior', arms=('ifm', 'dense'), metric='nll_30', better='lower', eps=0.11,
                          reason='5 % of the way from the dense network (0.08 nats) to chance (2.30 nats)',
                          text='30 % merged costs at most 0.11 nats'),
          random_30=better(30), random_50=better(50), random_70=better(70),
          wider=dict(kind='superior', arms=('ifm', 'narrow'), metric='tolerated', better='higher', tau=0.0, eps=0.05,
                     reason='one step of the grid of shares', text='256 units tolerate a larger share than 64')),
      controls=dict(random=dict(kind='noninferior', arms=('random', 'dense'), metric='nll_30', better='lower', eps=0.11,
                                reason='as for the claim', must='not hold',
                                text='30 % merged at random costs more than the margin')),
      budget=dict(waived='All arms but narrow train the same network for the same steps; what is merged is smaller by '
                         'design, and narrow asks about size.'),
      sane=dict(arm='dense', metric='accuracy_30', band=(0.95, 1.0)),
      block=16)
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=30, net=dict(widths=(24, 24)), arms=dict(narrow=dict(net=dict(widths=(8, 8)))),
                 procedure=dict(grid=0.3), claim=dict(looks=(2,), block=2)),
      full=dict(steps=4000, net=dict(widths=(1024, 1024)), arms=dict(narrow=dict(net=dict(widths=(256, 256))))))
