"""Successor heads: one head of a decoder that counts maps most elements to the next, and its MLP shows the last digit.

    python -m experiments.claims run successor-heads
"""
from configs import common


def get_config(scale=''):
  config = common.base()
  config.title = 'Successor heads'
  config.resplit = True
  config.steps, config.batch = 400, 32
  config.task = dict(name='counting', length=16)
  config.net = dict(embed=dict(name='tokens', vocab=200, length=16), head=dict(name='unembed'),
                    mixer=dict(name='attention', heads=4, head_size=32, causal=True, window=(1, 0)),
                    channel=dict(name='mlp', ratio=2.0, act='gelu'), norm=dict(name='layer'),
                    placement=dict(name='parallel'), depth=2, width=48)
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=5e-3, schedule='cosine', warmup=50,
                         clip=1.0, decay=1.0, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=256, batch=256, every=100)
  config.analysis = dict(split='test', examples=8, batch=8, when=(), call=dict())
  config.checkpoint = dict(every=0, keep=1)
  config.procedure = dict(name='successor_heads', examples=512)
  config.arms = dict(counting=dict(), shuffled=dict(task=dict(shuffled=True)))
  share = lambda text, worst: dict(long_name=text, unit='1', worst=worst)
  five = '5 % of the gap from none to all'
  above = lambda arms, metric, tau, text: dict(kind='superior', arms=arms, metric=metric, better='higher', tau=tau,
                                               eps=0.05, reason=five, text=text)
  config.claim = common.claim(
      id='successor-heads/1', component='locality/successor_heads',
      sentence='In a two-layer decoder that learns to count, one head maps at least 60 % of the elements to the next '
               'one, at least twice as many as the median head; and the last digit of numbers left out of a linear fit '
               'is read off the first MLP with accuracy 0.5, better than off the embedding.',
      paper=dict(ref='Gould et al. 2023, arXiv:2312.09230', value=None, unit=None, direction='higher',
                 said='Successor heads are found in models from 31 million to 12 billion parameters, with features of '
                      'numbers modulo 10 in common.', comparable=False),
      roles=dict(counting='ours', shuffled='baseline'),
      metrics=dict(
          best=share('successor score of the best head, in the true order', 0.0),
          best_over_median=share('the same, less twice that of the median head', -1.0),
          vocabulary=share('successor score of the best head in the whole vocabulary', 0.0),
          own=share('successor score of the best head, in the order of its data', 0.0),
          probe=share('accuracy of the last digit behind the first MLP', 0.0),
          probe_embedding=share('accuracy of the last digit at the embedding', 1.0),
          probe_gain=share('accuracy behind the first MLP less that at the embedding', -1.0),
          accuracy=share('test accuracy on elements', 0.0)),
      assertions=dict(
          head=above(('counting',), 'best', 0.6, 'the best head maps 60 % of the elements to the next'),
          one_of_many=above(('counting',), 'best_over_median', 0.0, 'twice as many as the median head'),
          order=above(('counting', 'shuffled'), 'best', 0.0, 'more than where the order is shuffled'),
          digits=above(('counting',), 'probe', 0.5, 'the last digit is read off the first MLP'),
          computed=above(('counting',), 'probe_gain', 0.0, 'better than off the embedding')),
      controls=dict(
          shuffled_head=dict(above(('shuffled',), 'best', 0.6, 'shuffled: the best head maps 60 % to the next'),
                             must='not hold'),
          shuffled_digits=dict(above(('shuffled',), 'probe', 0.5, 'shuffled: the last digit is read off the first MLP'),
                               must='not hold')),
      budget=dict(arms=('counting', 'shuffled'), trials=1),
      sane=dict(arm='shuffled', metric='accuracy', band=(0.9, 1.0)))
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=4, batch=4, net=dict(width=16, mixer=dict(head_size=4)), task=dict(train_size=64, test_size=64),
                 evaluation=dict(examples=8, batch=8), procedure=dict(examples=16), claim=dict(looks=(2,), block=2)),
      full=dict(steps=20000, batch=256, net=dict(width=256)))
