"""Neural collapse in deep linear networks: gradient descent reaches the geometry of the theorems, at every layer.

    python -m experiments.claims run nc-deep-linear        # a minute on one core

Scales: claim (default), smoke (seconds), full (more classes, layers and width).
"""
from configs import common

ASKED = "the claim's own threshold; the minimiser has 0, and what is left is how far the descent has come"


def get_config(scale=''):
  config = common.theory()
  config.title = 'Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data'
  config.procedure = dict(name='nc_deep_linear', sizes=(25, 25, 25, 25), width=16, layers=3, decay=5e-4, spread=0.2,
                          rate=0.2, momentum=0.9, steps=5500)
  config.arms = dict(balanced=dict(), imbalanced=dict(procedure=dict(sizes=(40, 30, 20, 10))),
                     undecayed=dict(procedure=dict(decay=0.0)))
  below = lambda arm, metric, eps, text: dict(kind='noninferior', arms=(arm,), metric=metric, better='lower', eps=eps,
                                              reason=ASKED, text=text)
  order = lambda metric, better, text: dict(
      kind='superior', arms=('imbalanced',), metric=metric, better=better, tau=0.0, eps=0.017,
      reason="half of the theorem's own smallest step between classes of these sizes, 0.035", text=text)
  config.claim = common.claim(
      id='nc-deep-linear/1', component='experiments/nc_deep_linear',
      sentence='Free features under three linear layers, trained by gradient descent with weight decay, collapse at '
               'every layer to an orthogonal frame with the classifier aligned; with unequal classes they stay '
               "orthogonal, with the theorem's lengths: the larger the class, the longer its classifier and the "
               'shorter its features.',
      paper=dict(ref='Dang et al. 2023, arXiv:2301.00437', comparable=False, value=None, unit=None, direction='equal',
                 said='Every global minimiser shows collapse across the linear layers; for unequal classes class means '
                      'and classifiers are orthogonal, of lengths that depend on the number of examples.'),
      roles=dict(balanced='ours', imbalanced='ours', undecayed='control'),
      metrics=dict(
          nc1=dict(long_name='within-class variability, worst layer', unit='1', worst=10.0),
          nc2=dict(long_name='distance from an orthogonal frame, worst layer', unit='1', worst=2.0),
          nc3=dict(long_name='distance of classifier and class means, worst layer', unit='1', worst=2.0),
          cosine=dict(long_name='largest cosine of two class means, worst layer', unit='1', worst=1.0),
          lengths=dict(long_name="largest deviation from the theorem's lengths", unit='nats', worst=10.0),
          rows_step=dict(long_name="least growth of a classifier's length to the next larger class", unit='nats',
                         worst=-1.0),
          means_step=dict(long_name="greatest growth of a class mean's length to the next larger class", unit='nats',
                          worst=1.0),
          gradient=dict(long_name='norm of the gradient at the end', unit='1', worst=1.0)),
      assertions=dict(
          collapse=below('balanced', 'nc1', 1e-3, 'features equal their class mean at every layer'),
          frame=below('balanced', 'nc2', 1e-2, 'class means and classifiers are orthogonal frames at every layer'),
          aligned=below('balanced', 'nc3', 1e-2, 'classifiers point where the class means do'),
          collapse_unequal=below('imbalanced', 'nc1', 1e-3, 'features of unequal classes collapse too'),
          orthogonal_unequal=below('imbalanced', 'cosine', 1e-2, 'and their means stay orthogonal'),
          lengths_unequal=below('imbalanced', 'lengths', 1e-2, 'with the lengths of the theorem'),
          classifiers_grow=order('rows_step', 'higher', 'a larger class has a longer classifier'),
          features_shrink=order('means_step', 'lower', 'and shorter features')),
      controls=dict(without_decay=dict(
          kind='superior', arms=('undecayed',), metric='nc2', better='higher', tau=0.1, eps=0.01,
          reason='a tenth of the distance asked for', text='without weight decay the descent ends elsewhere')),
      budget=dict(waived='one step size for all arms, chosen on seeds from 1000 up; the arms differ in the aim'),
      sane=dict(arm='balanced', metric='gradient', band=(0.0, 1e-4)))
  return common.scaled(config, scale, claim=dict(), smoke=dict(procedure=dict(steps=110)),
                       full=dict(procedure=dict(width=64, layers=6, rate=0.1, steps=33000)))
