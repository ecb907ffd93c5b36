"""Perturbed neural collapse: the within-to-between ratio only falls along the flow on the central path.

    python -m experiments.claims run perturbed-nc          # half a minute on one core

Scales: claim (default), smoke (seconds), full (more and wider random features).
"""
from configs import common

SLACK = ('a millionth of the whole fall a step: 400 steps of it are 0.04 % of the fall, and it is eight orders above '
         'the rounding of float64')


def get_config(scale=''):
  config = common.theory()
  config.title = 'Perturbation Analysis of Neural Collapse'
  config.procedure = dict(name='perturbed_nc', width=40, per_class=170, lam_w=1e-2, lam_h=0.0, dt=0.05, steps=400,
                          classifier='best')
  config.arms = dict(flow=dict(), decayed=dict(procedure=dict(lam_h=1e-3)),
                     frozen=dict(procedure=dict(classifier='frozen')),
                     shifted=dict(procedure=dict(classifier='shifted')))
  never = lambda arm, about, **more: dict(kind='noninferior', arms=(arm,), metric=f'rise_{about}', better='lower',
                                          eps=1e-6, reason=SLACK, **more)
  config.claim = common.claim(
      id='perturbed-nc/1', component='experiments/perturbed_nc',
      sentence='On the central path from random ReLU features of digits, tr S_W / tr S_B falls at every step, with and '
               'without decay of the features, with S_B about the mean of the class means and about zero.',
      paper=dict(ref='Tirer et al. 2023, arXiv:2210.16658', comparable=False, value=None, unit=None, direction='lower',
                 said='Theorem 3.1: along the gradient flow on the central path the ratio of the traces of '
                      'within-class and (centred) between-class covariance decreases strictly until it is zero.'),
      roles=dict(flow='ours', decayed='ours', frozen='control', shifted='control'),
      metrics=dict(
          rise_centred=dict(long_name='largest rise of the ratio over a step, S_B about its mean', unit='of the fall',
                            worst=1.0),
          rise_uncentred=dict(long_name='largest rise of the ratio over a step, S_B about zero', unit='of the fall',
                              worst=1.0),
          fall_centred=dict(long_name='fall of the ratio, S_B about its mean', unit='nats', worst=0.0),
          fall_uncentred=dict(long_name='fall of the ratio, S_B about zero', unit='nats', worst=0.0),
          start=dict(long_name='ratio of the random features', unit='1'),
          integration=dict(long_name='change of the last ratio when the step is halved', unit='nats', worst=1.0)),
      assertions=dict(
          plain=never('flow', 'centred', text='no step raises the ratio of the paper'),
          decay=never('decayed', 'centred', text='nor does one with decay 1e-3 of the features'),
          plain_about_zero=never('flow', 'uncentred', text='nor is the ratio with S_B about zero raised'),
          decay_about_zero=never('decayed', 'uncentred', text='nor with decay')),
      controls=dict(
          random_classifier=never('frozen', 'uncentred', must='not hold',
                                  text='under a fixed random classifier some step raises it'),
          wrong_classes=dict(kind='superior', arms=('shifted',), metric='rise_centred', better='higher', tau=0.0,
                             eps=1e-3, reason='a thousand times the slack of the assertions',
                             text='under the classifier of other classes a step raises it')),
      budget=dict(waived='nothing is tuned; the controls differ by their fixed classifier alone and run as many steps'),
      sane=dict(arm='flow', metric='integration', band=(0.0, 0.02)))
  return common.scaled(config, scale, claim=dict(), smoke=dict(procedure=dict(width=12, per_class=20, steps=40)),
                       full=dict(procedure=dict(width=512, dt=0.01, steps=2000)))
