"""Any published language model on texts of yours, seen from all five aspects, beside the same network untrained.

    python -m experiments.run --config=configs/pretrained.py --config.net.pretrained=DIR --config.task.tokenizer=DIR \
        --config.task.path='CORPUS/*.txt' --workdir=runs/pretrained

DIR is in Hugging Face layout (config.json, *.safetensors, tokenizer.json), or hf://organisation/name for the network;
CORPUS are files of text or JSON lines. An encoder without logits: --config.evaluation.every=None.
Scales: claim (default), smoke (few examples), full (all examples).
"""
from configs import common


def get_config(scale=''):
  config = common.base()
  config.title = 'What the layers of a published language model do'
  config.seeds, config.steps = 1, 0
  config.task = dict(name='text_files', path='corpus', tokenizer='bytes', length=128)
  config.net = dict(pretrained='checkpoint')
  config.learning = dict(name='backprop', objective=dict(name='cross_entropy'))
  config.evaluation = dict(split='test', examples=64, batch=16, every=0)
  config.analysis = dict(split='test', examples=256, batch=16, when=(1.0,), call=dict())
  stream, tokens = ('embed', 'resid_post.*'), 'sample 16'
  config.measures = dict(
      spectrum=dict(name='features/spectrum', sites=stream, pool=tokens),
      intrinsic_dimension=dict(name='features/intrinsic_dimension', sites=stream),
      cka=dict(name='correlations/cka', sites=stream, pool=tokens),
      logit_lens=dict(name='representations/logit_lens'),
      contribution=dict(name='depth/contribution'),
      stream=dict(name='depth/stream'),
      density=dict(name='locality/density'),
      attention_distance=dict(name='locality/attention_distance', causal=True))
  config.arms = dict(pretrained=dict(), untrained=dict(net=dict(fresh=True)))
  return common.scaled(config, scale, claim=dict(),
                       smoke=dict(evaluation=dict(examples=16), analysis=dict(examples=32)),
                       full=dict(evaluation=dict(examples=0), analysis=dict(examples=0, batch=64)))
