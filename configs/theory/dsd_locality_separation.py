"""Locality and weight sharing: the samples that a CNN, an LCN and an FCN need for a signal in one of k patches.

    python -m experiments.claims run dsd-locality-separation   # two minutes on one core

Scales: claim (default), smoke (seconds), full (more pixels, patches and samples).
Rates: for each network the best mean of log2 n over k = 4, 8, 16 of 11 rates, 0.01, 0.03, 0.1 to 1000, on seeds 1000
to 1007, and of the best three of these on seeds 1000 to 1031.
"""
from configs import common

RESOLUTION = ('half a step of the grid, a factor of 1.4 in samples: less is within the interpolation; the exponents of '
              'the bounds hold up to constants, so that no effect of the paper is on this scale')


def get_config(scale=''):
  config = common.theory()
  config.title = 'Role of Locality and Weight Sharing in Image-Based Tasks'
  config.procedure = dict(name='dsd_locality_separation', network='cnn', patches=(1, 4, 8, 16), compared=(4, 16), d=10,
                          sigma=0.25, target=0.125, sizes=(2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048), tests=2048,
                          spread=0.3, rate=30.0, bias_rate=0.1, steps=300, chunk=64)
  config.arms = dict(cnn=dict(), lcn=dict(procedure=dict(network='lcn', rate=100.0)),
                     fcn=dict(procedure=dict(network='fcn', rate=0.03)))
  fewer = lambda few, many, metric, text: dict(kind='superior', arms=(many, few), metric=metric, better='higher',
                                               tau=0.0, eps=0.5, reason=RESOLUTION, text=text)
  samples = lambda k: dict(long_name=f'samples to err on an eighth, {k} patches', unit='log2', worst=12.0)
  config.claim = common.claim(
      id='dsd-locality-separation/1', component='experiments/dsd_locality_separation',
      sentence='To err on an eighth of the images with a signal in one of k patches, a locally connected network '
               'needs more samples than a convolutional one and a fully connected one more than both at k = 8 and '
               '16, and what weight sharing saves grows from k = 4 to 16.',
      paper=dict(ref='Lahoti et al. 2024, arXiv:2403.15707', comparable=False, value=None, unit=None,
                 direction='higher',
                 said='Up to logarithms CNNs need O(k + d) samples, LCNs at least of order k d and at most k (k + d), '
                      'FCNs at least of order k^2 d.'),
      roles=dict(cnn='ours', lcn='ours', fcn='baseline'),
      metrics=dict(
          log2_n_k1=samples(1), log2_n_k4=samples(4), log2_n_k8=samples(8), log2_n_k16=samples(16),
          growth=dict(long_name='samples at 16 patches over samples at 4', unit='log2', worst=12.0)),
      assertions=dict(
          sharing_8=fewer('cnn', 'lcn', 'log2_n_k8', 'weight sharing saves samples at 8 patches'),
          sharing_16=fewer('cnn', 'lcn', 'log2_n_k16', 'and at 16'),
          locality_8=fewer('lcn', 'fcn', 'log2_n_k8', 'locality saves samples at 8 patches'),
          locality_16=fewer('lcn', 'fcn', 'log2_n_k16', 'and at 16'),
          sharing_grows=fewer('cnn', 'lcn', 'growth', 'weight sharing saves the more the more patches there are')),
      controls=dict(one_patch=dict(
          kind='equivalent', arms=('lcn', 'cnn'), metric='log2_n_k1', better='higher', eps=0.5, reason=RESOLUTION,
          text='with one patch the two networks are the same, and so are their samples')),
      budget=dict(waived='the numbers of parameters are what is compared; steps, initialisation and the number of '
                         'rates tried are equal', arms=('cnn', 'lcn', 'fcn'), trials=dict(cnn=11, lcn=11, fcn=11)),
      sane=dict(arm='fcn', metric='log2_n_k4', band=(1.0, 8.0)))
  return common.scaled(
      config, scale, claim=dict(),
      smoke=dict(procedure=dict(patches=(1, 4, 8, 16), d=4, sizes=(2, 8, 32), tests=64, steps=10, chunk=32)),
      full=dict(procedure=dict(d=20, steps=1000, tests=8192,
                               sizes=(4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192))))
