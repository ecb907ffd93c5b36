"""The names of TransformerLens and interp-engine, each against the tensor of a torch forward that their authors mean.

What the hooks of TransformerLens mean is read off its `transformer_block`, `abstract_attention`, `mlp` and `gated_mlp`:
hook_q, hook_k, hook_v are the outputs of the maps, before a norm of the heads and before rotation; hook_attn_out and
hook_mlp_out come after a second norm (ln1_post, ln2_post), as what is added; k, v of grouped queries are not repeated;
scores are scaled and capped, and masked with -inf. The points of interp-engine are those of its ENGINE_HOOK_MAPPINGS.
"""
import contextlib
import functools
import importlib

import numpy as np
import pytest

from aspects import sites
from aspects.sites import matches, select
from tests.pretrained import laws, reference
from tests.pretrained import test_gemma2, test_gpt2, test_gpt_neox, test_llama

NETS = {'gpt2': (test_gpt2.TestGpt2, 'tied'), 'gpt_neox': (test_gpt_neox.TestGptNeox, 'parallel'),
        'llama': (test_llama.TestLlama, 'grouped'), 'gemma2': (test_gemma2.TestGemma2, 'capped')}
each = pytest.mark.parametrize('name', NETS)
LAYER = 1                                            # of gemma2 the one without a window


def gated(block, mlp):
  return {'mlp.hook_pre': f'{block}.{mlp}.gate_proj', 'mlp.hook_pre_linear': f'{block}.{mlp}.up_proj',
          'mlp.hook_post': f'{block}.{mlp}.down_proj.in', 'attn.hook_q': f'{block}.self_attn.q_proj',
          'attn.hook_k': f'{block}.self_attn.k_proj', 'attn.hook_v': f'{block}.self_attn.v_proj',
          'attn.hook_z': f'{block}.self_attn.o_proj.in', 'hook_resid_pre': f'{block}.in', 'hook_resid_post': block}


G, N, L = f'transformer.h.{LAYER}', f'gpt_neox.layers.{LAYER}', f'model.layers.{LAYER}'
SPLIT = {'gpt2': lambda x, n: np.split(x, 3, -1)[n],                                         # q, k, v one after another
         'gpt_neox': lambda x, n: x.reshape(*x.shape[:2], 4, 3, 8)[..., n, :]}               # head by head
# {hook under blocks.1: module of transformers}; q, k, v of a fused map are cut out of it by SPLIT.
HOOKS = {
    'gpt2': {'hook_resid_pre': f'{G}.in', 'hook_resid_mid': f'{G}.ln_2.in', 'hook_resid_post': G,
             'hook_attn_out': f'{G}.attn', 'hook_mlp_out': f'{G}.mlp', 'attn.hook_q': f'{G}.attn.c_attn',
             'attn.hook_k': f'{G}.attn.c_attn', 'attn.hook_v': f'{G}.attn.c_attn', 'attn.hook_z': f'{G}.attn.c_proj.in',
             'mlp.hook_pre': f'{G}.mlp.c_fc', 'mlp.hook_post': f'{G}.mlp.c_proj.in'},
    'gpt_neox': {'hook_resid_pre': f'{N}.in', 'hook_resid_post': N, 'hook_attn_out': f'{N}.attention',
                 'hook_mlp_out': f'{N}.mlp', 'attn.hook_q': f'{N}.attention.query_key_value',
                 'attn.hook_k': f'{N}.attention.query_key_value', 'attn.hook_v': f'{N}.attention.query_key_value',
                 'attn.hook_z': f'{N}.attention.dense.in', 'mlp.hook_pre': f'{N}.mlp.dense_h_to_4h',
                 'mlp.hook_post': f'{N}.mlp.dense_4h_to_h.in'},
    'llama': {**gated(L, 'mlp'), 'hook_resid_mid': f'{L}.post_attention_layernorm.in',
              'hook_attn_out': f'{L}.self_attn', 'hook_mlp_out': f'{L}.mlp'},
    'gemma2': {**gated(L, 'mlp'), 'hook_resid_mid': f'{L}.pre_feedforward_layernorm.in',
               'hook_attn_out': f'{L}.post_attention_layernorm', 'hook_mlp_out': f'{L}.post_feedforward_layernorm'}}
ROTARY = ('gpt_neox', 'llama', 'gemma2')
# {point of interp-engine: the hook of TransformerLens that is the same tensor, or what a sublayer is handed}
POINTS = {'resid_pre': 'hook_resid_pre', 'resid_mid': 'hook_resid_mid', 'resid_post': 'hook_resid_post',
          'value': 'attn.hook_v', 'z': 'attn.hook_z', 'attn_scores': 'attn.hook_attn_scores',
          'attn_probs': 'attn.hook_pattern', 'attn_out_post': 'hook_attn_out', 'mlp_out_post': 'hook_mlp_out',
          'mlp_pre': 'mlp.hook_pre', 'mlp_pre_linear': 'mlp.hook_pre_linear', 'mlp_act': 'mlp.hook_post',
          'attn_in': 'attn_in', 'mlp_in': 'mlp_in'}
HANDED = {'gpt2': ('ln_1', 'ln_2'), 'gpt_neox': ('input_layernorm', 'post_attention_layernorm'),
          'llama': ('input_layernorm', 'post_attention_layernorm'),
          'gemma2': ('input_layernorm', 'pre_feedforward_layernorm')}


@contextlib.contextmanager
def attention_seen(model):
  """What the attention of each layer is handed: [(query, key [B, H, T, d], scale, cap)], heads of keys not repeated."""
  module = importlib.import_module(f'transformers.models.{model}.modeling_{model}')
  plain, seen, patch = module.eager_attention_forward, [], pytest.MonkeyPatch()
  def watched(layer, query, key, value, mask, scaling=None, softcap=None, **kwargs):
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    seen.append((query.detach().numpy(), key.detach().numpy(), scale, softcap))
    if softcap is not None:
      kwargs['softcap'] = softcap
    return plain(layer, query, key, value, mask, scaling=scaling, **kwargs)
  patch.setattr(module, 'eager_attention_forward', watched)
  try:
    yield seen
  finally:
    patch.undo()


@functools.cache
def theirs(name):
  """{hook: tensor}, in their order of axes, of layer 1."""
  cls, case = NETS[name]
  block = {'gpt2': G, 'gpt_neox': N}.get(name, L)
  handed = [f'{block}.{norm}' for norm in HANDED[name]]
  modules = {m.removesuffix('.in') for m in HOOKS[name].values()} | set(handed)
  with attention_seen(name) as seen:
    out, tensors = reference.run(laws.torch_net(cls, case), *modules, output_attentions=True, **cls.inputs()[1])
  found = {hook: tensors[module] for hook, module in HOOKS[name].items()}
  for n, hook in enumerate(('attn.hook_q', 'attn.hook_k', 'attn.hook_v')):
    found[hook] = SPLIT[name](found[hook], n) if name in SPLIT else found[hook]
  query, key, scale, cap = seen[LAYER]
  if name in ROTARY:
    found['attn.hook_rot_q'], found['attn.hook_rot_k'] = query.swapaxes(1, 2), key.swapaxes(1, 2)
  scores = scale * np.einsum('bhqd,bhkd->bhqk', query, key.repeat(query.shape[1] // key.shape[1], 1))
  scores = scores if cap is None else cap * np.tanh(scores / cap)
  real = cls.inputs()[2]
  may = np.tril(np.ones(scores.shape[-2:], bool)) & real[:, None, None]
  found['attn.hook_attn_scores'] = np.where(may, scores, -np.inf)
  found['attn.hook_pattern'] = out.attentions[LAYER].numpy()
  return found | {'attn_in': tensors[handed[0]], 'mlp_in': tensors[handed[1]]}


def same(ours, expected, mask):
  """Of real tokens; what is masked with -inf there has the lowest finite number here."""
  ours = np.where(np.isinf(expected), 0, ours.reshape(expected.shape))
  where = mask[:, None, :, None] if expected.ndim == 4 and expected.shape[2] == expected.shape[3] else mask.reshape(
      *mask.shape, *[1] * (expected.ndim - 2))
  expected = np.where(np.isinf(expected), 0, expected)
  laws.near(np.where(where, ours, 0), np.where(where, expected, 0))


@each
def test_hooks_of_transformer_lens(name):
  cls, case = NETS[name]
  acts, mask = laws.ours(cls, case, False), cls.inputs()[2]
  hooks = {hook: x for hook, x in theirs(name).items() if 'hook' in hook}
  for hook, expected in hooks.items():
    site, = select(f'blocks.{LAYER}.{hook}', acts)
    same(acts[site], expected, mask)
  # Those that this network does not have are refused.
  for hook in set(sites._HOOKS.values()) - set(hooks):
    assert not matches(f'blocks.{LAYER}.{hook}', acts), hook


def test_every_hook_of_the_table_was_compared():
  assert {h for h in set().union(*map(theirs, NETS)) if 'hook' in h} == set(sites._HOOKS.values())


@each
def test_points_of_interp_engine(name):
  cls, case = NETS[name]
  acts, mask, compared = laws.ours(cls, case, False), cls.inputs()[2], set()
  for point, hook in POINTS.items():
    if hook in theirs(name):
      site, = select(f'{point}.{LAYER}', acts)
      same(acts[site], theirs(name)[hook], mask)
      compared.add(point)
    else:
      assert not matches(f'{point}.{LAYER}', acts), point
  assert set(sites._POINTS.values()) - compared <= {'mlp_pre_linear'}
  final = {'gpt2': 'transformer.ln_f', 'gpt_neox': 'gpt_neox.final_layer_norm'}.get(name, 'model.norm')
  _, seen = reference.run(laws.torch_net(cls, case), final, **cls.inputs()[1])
  same(acts['final_norm'], seen[final], mask)


def test_scores_that_are_masked_are_the_lowest():
  cls, case = NETS['llama']
  scores = laws.ours(cls, case, False)[f'attn_scores.{LAYER}']
  masked = np.isinf(theirs('llama')['attn.hook_attn_scores'])
  assert masked.any() and (scores[masked] == np.finfo(np.float32).min).all()


def test_the_tensors_next_to_each_other_differ():
  """Each name could be mistaken for its neighbour: of these pairs only one member agrees with the site."""
  _, seen = reference.run(laws.torch_net(*NETS['gemma2']), f'{L}.self_attn', f'{L}.mlp', **laws.Laws.inputs()[1])
  gemma = theirs('gemma2')
  pairs = [(gemma['hook_attn_out'], seen[f'{L}.self_attn']), (gemma['hook_mlp_out'], seen[f'{L}.mlp']),
           (gemma['attn.hook_q'], gemma['attn.hook_rot_q']), (gemma['attn.hook_k'], gemma['attn.hook_rot_k']),
           (gemma['mlp.hook_pre'], gemma['mlp.hook_pre_linear']), (gemma['hook_resid_mid'], gemma['hook_resid_pre'])]
  for a, b in pairs:
    with pytest.raises(AssertionError):
      laws.near(a, b.reshape(a.shape), 1e-2)


@pytest.mark.parametrize('hook', ['hook_embed', 'blocks.1.ln1.hook_normalized', 'blocks.1.hook_attn_in',
                                  'blocks.1.hook_mlp_in', 'blocks.1.attn.hook_result'])
def test_names_of_other_tensors_are_refused(hook):
  cls, case = NETS['gpt2']
  with pytest.raises(ValueError, match='no site matches'):
    select(hook, laws.ours(cls, case, False))
