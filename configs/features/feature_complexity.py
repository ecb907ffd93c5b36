"""Feature complexity: features that need more layers to be read are learned later and matter less.

    python -m experiments.claims run feature-complexity
"""
from configs import common


def get_config(scale=''):
  config = common.base()
  config.title = 'Feature complexity'
  config.steps, config.batch, config.resplit = 1500, 128, True
  # Digits are read from the first layer on: bits, XORs and parities of three are features of planted difficulty.
  config.task = dict(name='parities', labels=(1, 1, 2, 2, 3, 3), bits=16, train_size=8192, test_size=1024)
  config.net = dict(embed=dict(name='vector'), head=dict(name='classify'), mixer=None,
                    channel=dict(name='mlp', ratio=1.0, act='relu'), norm=dict(name='layer'), depth=6, width=48)
  config.learning = dict(name='backprop', optimizer=dict(name='adam'), learning_rate=2e-3, schedule='cosine', warmup=20,
                         clip=1.0, objective=dict(name='binary'))
  config.evaluation = dict(split='test', examples=0, batch=1024, every=0)
  config.analysis = dict(split='test', examples=0, batch=1024, when=(), call=dict())
  config.checkpoint = dict(every=0, keep=1)
  config.procedure = dict(name='feature_complexity', sites=('resid_post.*', 'pooled'), head='head/logits_map/kernel',
                          atoms=40, checkpoints=12, readable=0.5, iterations=200, permutations=1000)
  config.arms = dict(atoms=dict())
  tenth = 'a weak correlation: with 40 atoms, one of 0.16 is one standard error'
  rank = lambda name, **more: dict(long_name=name, unit='rank correlation', worst=0.0, **more)
  config.claim = common.claim(
      id='feature-complexity/1', component='features/complexity',
      sentence='In a residual perceptron trained on labels of several difficulties, the complexity of a feature of its '
               'end is correlated with the step at which the feature becomes readable, beyond chance and more than for '
               'random directions, and complex features matter less to the outputs.',
      paper=dict(ref='Fel et al. 2024, arXiv:2407.06076',
                 said='Simple features appear early in training and complex ones late; important features are simple.',
                 value=None, unit=None, direction='higher', comparable=False),
      roles=dict(atoms='ours'),
      metrics=dict(
          rho=rank('correlation of complexity and first checkpoint'),
          p=dict(long_name='share of permutations of the atoms that correlate as much', unit='1', worst=1.0),
          rho_shuffled=rank('the same with complexities shuffled'),
          rho_random=rank('the same of random directions'),
          advantage=rank('correlation of atoms minus that of random directions'),
          rho_importance=rank('correlation of complexity and importance'),
          explained=dict(long_name='share of the layer that the atoms reconstruct', unit='1', worst=0.0),
          spread=dict(long_name='largest minus smallest complexity', unit='1', worst=0.0),
          reached=dict(long_name='share of atoms that some checkpoint predicts', unit='1', worst=0.0),
          accuracy=dict(long_name='test accuracy, mean of the labels', unit='1', worst=0.0),
          nll=dict(long_name='test loss of all labels', unit='nats', worst=4.16)),
      assertions=dict(
          later=dict(kind='trend', arms=('atoms',), metric='rho', better='higher', tau=0.0, eps=0.16, reason=tenth,
                     text='complex features become readable later'),
          significant=dict(kind='superior', arms=('atoms',), metric='p', better='lower', tau=0.05, eps=0.01,
                           reason='a fifth of the level', text='the mean p over networks is below 0.05'),
          beyond=dict(kind='superior', arms=('atoms',), metric='advantage', better='higher', tau=0.0, eps=0.16,
                      reason=tenth, text='the correlation is larger than that of random directions'),
          matters=dict(kind='trend', arms=('atoms',), metric='rho_importance', better='lower', tau=0.0, eps=0.16,
                       reason=tenth, text='complex features move the outputs less')),
      controls=dict(
          shuffled=dict(kind='trend', arms=('atoms',), metric='rho_shuffled', better='higher', tau=0.0, eps=0.16,
                        reason=tenth, must='not hold', text='shuffled complexities order nothing')),
      budget=dict(waived='one arm: atoms, shuffled atoms and random directions are read off the same networks'),
      sane=dict(arm='atoms', metric='accuracy', band=(0.9, 1.0001)), looks=(8, 16))
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(steps=20, task=dict(train_size=512, test_size=256), net=dict(depth=2, width=12),
                 evaluation=dict(batch=256), analysis=dict(batch=256),
                 procedure=dict(atoms=6, checkpoints=4, permutations=20), claim=dict(looks=(2,), block=2)),
      full=dict(steps=40000, net=dict(depth=12, width=512), task=dict(bits=18, train_size=2 ** 16, test_size=2 ** 14)))
