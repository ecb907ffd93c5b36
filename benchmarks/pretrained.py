"""A checkpoint of GPT-2-small's shape beside its peers: `python -m benchmarks.pretrained [--depth 12 --batch 4]`.

Random weights, written by transformers, read by `pretrained.load`. Forward; with all residuals returned; with the full
covariance of each accumulated. Peers, where they are installed (extra `bench`): transformers' forward with and without
hidden states, TransformerLens's cached forward. The limit is the time of the same operations as square products.
"""
import argparse
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from aspects import pretrained
from aspects import sites
from aspects.statistics.covariance import Covariance
from benchmarks import peers
from benchmarks import timing


def theirs(torch, transformers, directory, ids) -> dict:
  """The candidates of the peers on the same weights and ids."""
  model = transformers.GPT2LMHeadModel.from_pretrained(directory).eval()
  tokens = torch.as_tensor(np.asarray(ids), dtype=torch.long)
  def forward(**options):
    with torch.inference_mode():
      return np.zeros(1) if model(input_ids=tokens, use_cache=False, **options) is None else np.zeros(1)
  out = {'transformers: forward': forward,
         'transformers: hidden states': lambda: forward(output_hidden_states=True)}
  lens = peers.peer('transformer_lens', 'TransformerLens')
  if lens is not None:
    hooked = hooked_transformer(lens, model)
    residual = lambda name: name.endswith('hook_resid_post')
    def cached(names):
      with torch.inference_mode():
        return np.asarray(hooked.run_with_cache(tokens, names_filter=names)[0][0, 0, :1])
    out |= {'TransformerLens: residuals cached': lambda: cached(residual),
            'TransformerLens: everything cached': lambda: cached(None)}
  return out


def hooked_transformer(lens, model):
  """The same weights in TransformerLens, whose own reader asks the hub."""
  from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
  c = model.config
  config = lens.HookedTransformerConfig(
      n_layers=c.n_layer, d_model=c.n_embd, n_ctx=c.n_positions, n_heads=c.n_head, d_head=c.n_embd // c.n_head,
      d_mlp=4 * c.n_embd, d_vocab=c.vocab_size, act_fn='gelu_new', normalization_type='LN', eps=c.layer_norm_epsilon,
      device='cpu')
  hooked = lens.HookedTransformer(config)
  hooked.load_and_process_state_dict(convert_gpt2_weights(model, config), fold_ln=False, center_unembed=False,
                                     center_writing_weights=False)
  return hooked


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--depth', type=int, default=12)
  parser.add_argument('--width', type=int, default=768)
  parser.add_argument('--vocab', type=int, default=50257)
  parser.add_argument('--batch', type=int, default=4)
  parser.add_argument('--length', type=int, default=128)
  parser.add_argument('--repeats', type=int, default=7)
  a = parser.parse_args()
  torch, transformers = peers.peer('torch', 'torch'), peers.peer('transformers', 'transformers')
  if torch is None or transformers is None:
    raise SystemExit('the checkpoint is written by transformers')
  ids = np.asarray(jax.random.randint(jax.random.key(1), (a.batch, a.length), 0, a.vocab))
  with tempfile.TemporaryDirectory() as folder:
    config = transformers.GPT2Config(n_embd=a.width, n_head=a.width // 64, n_layer=a.depth, vocab_size=a.vocab)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    net, variables, *_ = pretrained.load(folder)
    record = sites.select(('resid_post.*',), sites.sites(net, variables, ids))
    covariance = Covariance(record)
    batch = {'weight': np.ones(a.batch, np.float32), 'index': np.arange(a.batch, dtype=np.int32)}
    plain = jax.jit(net.apply)
    returned = jax.jit(lambda v, x: sites.forward(net, v, x, record=record))
    def accumulate(state, v, x):
      out, acts = sites.forward(net, v, x, record=record)
      return out, covariance.update(state, acts, batch)
    accumulate = jax.jit(accumulate, donate_argnums=0)
    specs = {s: jax.ShapeDtypeStruct((a.batch, a.length, a.width), jnp.float32) for s in record}
    state = jax.tree.map(jnp.copy, covariance.init(specs))
    def streamed():
      nonlocal state
      out, state = accumulate(state, variables, ids)
      return out, state
    flops = a.batch * a.length * (a.depth * (24 * a.width ** 2 + 4 * a.length * a.width) + 2 * a.width * a.vocab)
    limit = timing.matmul(flops)
    ours = {'ours: forward': lambda: plain(variables, ids),
            'ours: all residuals returned': lambda: returned(variables, ids),
            'ours: all covariances accumulated': streamed}
    candidates = {**ours, **theirs(torch, transformers, folder, ids), 'limit': limit}
    times = timing.rounds(candidates, a.repeats)
    times['limit'] *= limit.scale
    notes = {name: f'peak {peers.peak(run):,.0f} MiB' for name, run in candidates.items() if name != 'limit'}
    title = f'GPT-2, depth {a.depth}, width {a.width}, batch {a.batch} x {a.length}'
    timing.table(title, times, 'ours: forward', notes)


if __name__ == '__main__':
  main()
