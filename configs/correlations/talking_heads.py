"""Talking heads: a few directions carry what the previous-token head says to the induction head, and weights show it.

    python -m experiments.claims run talking-heads
"""
from configs import common


def get_config(scale=''):
  config = common.base()
  config.title = 'Talking heads'
  config.resplit = True
  config.steps, config.batch = 1000, 32
  config.task = dict(name='repeated_sequences', vocab=32, length=32, shortest=4, longest=16, train_size=16384)
  config.net = dict(embed=dict(name='tokens', vocab=32, length=0), head=dict(name='unembed'),
                    mixer=dict(name='attention', heads=4, causal=True, rotary=dict(share=0.5)), norm=dict(name='layer'),
                    placement=dict(name='pre'), depth=2, width=48)
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=5e-3, schedule='cosine', warmup=50,
                         clip=1.0, decay=1.0, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=256, batch=256, every=100)
  config.analysis = dict(split='test', examples=8, batch=8, when=(), call=dict())
  config.checkpoint = dict(every=0, keep=1)
  config.procedure = dict(name='talking_heads', draws=200, components=4, removals=10, examples=256)
  config.arms = dict(trained=dict(), untrained=dict(steps=0))
  about = lambda text, unit, worst: dict(long_name=text, unit=unit, worst=worst)
  config.claim = common.claim(
      id='talking-heads/1', component='correlations/talking_heads',
      sentence='In two layers of attention that learned induction, the largest K-composition of one direction is that '
               'of the previous-token head with the induction head, 3 standard deviations above random bases, and '
               'removing the 4 directions that score highest costs 20 points of accuracy more than 4 others.',
      paper=dict(ref='Merullo et al. 2024, arXiv:2406.09519', value=20.0, unit='percentage points', direction='higher',
                 said='Edits along the low-rank channels that the decomposition finds improve recall in a list by more '
                      'than 20 percent.', comparable=False),
      roles=dict(trained='ours', untrained='control'),
      metrics=dict(
          margin=about('K-composition of one direction, ahead of all other pairs', '1', -1.0),
          margin_whole=about('K-composition of whole circuits, ahead of all other pairs', '1', -1.0),
          z=about('K-composition of one direction over random bases', 'standard deviations', 0.0),
          removed=about('accuracy lost without the directions that score highest', '1', 0.0),
          removed_random=about('accuracy lost without as many others', '1', 1.0),
          removed_gap=about('accuracy lost by the former more than by the latter', '1', -1.0),
          previous=about('attention of the writer to the token before', '1', 0.0),
          induction=about('attention of the reader to behind an earlier occurrence', '1', 0.0),
          accuracy=about('accuracy on tokens that have stood before', '1', 0.0)),
      assertions=dict(
          largest=dict(kind='superior', arms=('trained',), metric='margin', better='higher', tau=0.0, eps=0.02,
                       reason='a fiftieth of the range of the scores, from none to all',
                       text='the pair that induces has the largest score of all pairs'),
          beyond_chance=dict(kind='superior', arms=('trained',), metric='z', better='higher', tau=3.0, eps=0.5,
                             reason='half a standard deviation of the null',
                             text='and one more than 3 standard deviations above random bases'),
          channel=dict(kind='superior', arms=('trained',), metric='removed_gap', better='higher', tau=0.2, eps=0.05,
                       reason='5 % of the gap from none to all',
                       text='its directions carry induction, 20 points more than others of the same head')),
      controls=dict(
          untrained=dict(kind='superior', arms=('untrained',), metric='z', better='higher', tau=3.0, eps=0.5,
                         reason='as above', must='not hold', text='untrained: 3 standard deviations above random'),
          others=dict(kind='superior', arms=('trained',), metric='removed_random', better='higher', tau=0.2, eps=0.05,
                      reason='as above', must='not hold', text='other directions of the head cost 20 points')),
      budget=dict(waived='the arms are the same networks before and after training'),
      sane=dict(arm='trained', metric='accuracy', band=(0.9, 1.0)))
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=4, batch=4, net=dict(width=16), task=dict(train_size=64, test_size=64),
                 evaluation=dict(examples=8, batch=8),
                 procedure=dict(draws=5, components=1, removals=2, examples=16), claim=dict(looks=(2,), block=2)),
      full=dict(steps=20000, batch=256, net=dict(width=256, mixer=dict(heads=8))))
