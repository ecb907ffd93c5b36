"""LayerNorm Scaling: the outputs of the norms of block l divided by sqrt(l) keep deep blocks useful (Sun et al. 2025).

    python -m experiments.claims run lns
"""
from configs import common

DEPTH = 12


def get_config(scale=''):
  config = common.base()
  config.title = 'The Curse of Depth in Large Language Models'
  config.steps, config.batch = 300, 4
  config.task = dict(name='stdlib_text', length=32, max_bytes=1_000_000)
  config.net = dict(embed=dict(name='tokens', vocab=256, length=32), head=dict(name='unembed'),
                    mixer=dict(name='attention', heads=4, causal=True), channel=dict(name='mlp', ratio=2.0, act='gelu'),
                    norm=dict(name='layer'), placement=dict(name='pre'), stack=dict(name='plain', scan=True),
                    depth=DEPTH, width=64)
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=2e-3, schedule='cosine', warmup=20,
                         clip=1.0, decay=0.1, objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=128, batch=64, every=100)
  config.analysis = dict(split='test', examples=128, batch=64, when=(1.0,), call=dict())
  config.measures = dict(skip=dict(name='depth/skip'), stream=dict(name='depth/stream'))
  config.arms = dict(pre=dict(), lns=dict(net=dict(norm=dict(name='depth_scaled'))),
                     before=dict(net=dict(norm=dict(name='scaled_input'))))
  damage = 'shares of the damage of all blocks'
  config.claim = common.claim(
      id='lns/1', component='norms/depth_scaled',
      sentence='Dividing the output of every norm in block l by sqrt(l) moves single-block ablation damage to the '
               'deeper half of a pre-norm language model and slows the growth of the variance of its stream.',
      paper=dict(ref='Sun et al. 2025, arXiv:2502.05795', value=None, unit=None, direction='higher', comparable=False,
                 said='LayerNorm Scaling keeps the variance of deep pre-norm layers from exploding, so that deep '
                      'layers contribute; better pre-training from 130M to 1B parameters.'),
      roles=dict(lns='ours', pre='baseline', before='control'),
      metrics=dict(
          nll=dict(source='training', variable='test_nll', reduce='last', long_name='test loss', unit='nats',
                   worst=5.545),
          late_damage=dict(source='skip', variable='loss_increase', select=dict(skipped=(DEPTH // 2, DEPTH)),
                           reduce='share', long_name='damage done by skipping blocks 7 to 12', unit=damage),
          growth=dict(source='stream', variable='variance', reduce='ratio', unit='last block / first block',
                      long_name='growth of the variance of the stream')),
      assertions=dict(
          damage=dict(kind='superior', arms=('lns', 'pre'), metric='late_damage', better='higher', tau=0.0, eps=0.025,
                      reason='5 % of the gap from no damage in the deeper half to an even spread (0 to 0.5)',
                      text='the deeper half carries a larger share of the damage'),
          variance=dict(kind='superior', arms=('lns', 'pre'), metric='growth', better='lower', tau=0.0, eps=0.5,
                        reason='half of what one block adds to a stream of twelve equal branches, in first blocks',
                        text='the variance of the stream grows less')),
      controls=dict(
          before=dict(kind='superior', arms=('before', 'pre'), metric='late_damage', better='higher', tau=0.0,
                      eps=0.025,
                      reason='as for the claim', must='not hold', text='scaling in front of the norm does nothing')),
      budget=dict(arms=('lns', 'pre', 'before'), trials=1),
      sane=dict(arm='pre', metric='nll', band=(1.5, 3.5)), looks=(8, 16))
  return common.scaled(config, scale, claim=dict(),
                       smoke=dict(steps=4, net=dict(depth=2, width=16), claim=dict(looks=(2,), block=2),
                                  evaluation=dict(examples=16, batch=16), analysis=dict(examples=16, batch=16)),
                       full=dict(steps=20000, batch=256, net=dict(depth=24, width=512), task=dict(length=256),
                                 claim=dict(looks=(8,))))
