"""Convergent learning: two networks share features beyond chance, and share more as a space than unit by unit.

    python -m experiments.claims run convergent-learning
"""
from configs import common

LAYERS = (1, 2, 3)


def get_config(scale=''):
  config = common.base()
  config.title = 'Convergent learning'
  config.steps, config.batch = 600, 64
  config.task = dict(name='digits')
  config.net = dict(name='aspects.nn.perceptron:Perceptron', widths=(64, 64, 64), act='relu')
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=2e-3, schedule='cosine', warmup=20,
                         decay=1e-4, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=0, batch=360, every=0)
  config.analysis = dict(split='test', examples=0, batch=360, when=(), call=dict())
  config.checkpoint = dict(every=0, keep=1)
  config.procedure = dict(name='convergent_learning', site='resid_post.*', ridge=1e-3,
                          penalties=(0.2, 0.1, 0.05, 0.02, 0.01), clusters=10)
  config.arms = dict(trained=dict(), untrained=dict(steps=0))
  layer = lambda text, worst: {i: dict(long_name=f'{text}, layer {i}', unit='1', worst=worst) for i in LAYERS}
  named = {'match': layer('mean |correlation| of units matched one to one', 0.0),
           'over_null': layer('the same, less that of shuffled images', 0.0),
           'rare': layer('share of matched units with |correlation| below 0.5', 0.0),
           'gap': layer('R2 from all units, less the squared correlation with the best', -1.0)}
  report = lambda text, unit='1': dict(long_name=f'{text}, mean of the layers', unit=unit, worst=0.0)
  # Written before the first pilot: 5 % of the gap from no correlation to 1, and from a margin of .05 to an R2 of 1.
  margin, share = 0.05, '5 % of the gap from 0 to 1'
  each = lambda name, **fields: {f'{name}_{i}': dict(kind='superior', better='higher', eps=margin, reason=share,
                                                     **{k: v(i) for k, v in fields.items()}) for i in LAYERS}
  arms, one, zero = (lambda i: ('trained', 'untrained')), (lambda i: ('trained',)), (lambda i: 0.0)
  config.claim = common.claim(
      id='convergent-learning/1', component='correlations/unit_matching',
      sentence='In every hidden layer of perceptrons that differ in their start, units matched one to one correlate '
               'more than in untrained networks and than by chance; a unit is predicted from all units of the other '
               'network by .05 in R2 better than from its best partner, and by more than in untrained networks.',
      paper=dict(ref='Li et al. 2015, arXiv:1511.07543',
                 said='Some features are learned reliably by several networks and others are not; units span common '
                      'subspaces, but the basis of these is not shared.', value=None, unit=None, direction='higher',
                 comparable=False),
      roles=dict(trained='ours', untrained='control'),
      metrics=dict(**{f'{name}_{i}': about for name, layers in named.items() for i, about in layers.items()},
                   r2=report('R2 of a unit from all units of the other network'),
                   single=report('squared correlation of a unit with its best partner'),
                   gap_null=report('gap with the images of each unit shuffled'),
                   sparse_weights=report('units that keep nine tenths of R2 under an l1 penalty', 'units'),
                   mixed=report('evenness of clusters of the units of both networks'),
                   accuracy=dict(long_name='test accuracy, mean of the two networks', unit='1', worst=0.0)),
      assertions=dict(
          **each('learned', arms=arms, metric=lambda i: f'match_{i}', tau=zero,
                 text=lambda i: f'layer {i}: units match better than before training'),
          **each('chance', arms=one, metric=lambda i: f'over_null_{i}', tau=zero,
                 text=lambda i: f'layer {i}: units match better than shuffled ones'),
          **each('space', arms=one, metric=lambda i: f'gap_{i}', tau=lambda i: 0.05,
                 text=lambda i: f'layer {i}: all units predict more than the best one'),
          **each('beyond_random', arms=arms, metric=lambda i: f'gap_{i}', tau=zero,
                 text=lambda i: f'layer {i}: and by more than in untrained networks')),
      controls=dict(
          null=dict(kind='superior', arms=('trained',), metric='gap_null', better='higher', tau=0.05, eps=margin,
                    reason=share, must='not hold',
                    text='with shuffled images all units predict no more than the best')),
      budget=dict(waived='the arms are the same networks before and after training'),
      sane=dict(arm='trained', metric='accuracy', band=(0.93, 1.0)),
      block=8)
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=10, net=dict(widths=(12, 12, 12)), procedure=dict(penalties=(0.1, 0.01), clusters=4),
                 claim=dict(looks=(2,), block=2)),
      full=dict(steps=20000, net=dict(widths=(512, 512, 512))))
