"""Generation with a cache of keys and values: one program for the prompt, one for all further tokens.

    from aspects import generate
    out = generate(net, variables, ids, 20, mask=mask, record=('resid_post.-1',), edits={'mixer_out.2': Skip()})

Sites are recorded and edited as in `forward`: a site of the stream has one row for each token that was read.
"""
import collections
import functools
from typing import Any, Mapping, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aspects import sites

Array = jax.Array


class Generated(NamedTuple):
  """`tokens` int32 [B, T + N]: the prompts, as they were padded, and N new tokens; `mask` [B, T + N] of what counts
  (after `stop` nothing does); `logits` [B, N, V], from which each new token was drawn; `acts` {site: [B, T + N - 1,
  ...]}: all tokens that were read."""
  tokens: Array
  mask: Array
  logits: Array
  acts: dict[str, Array]


def generate(net, variables, tokens, new: int, *, mask=None, temperature: float = 0.0, key=None,
             stop: int | None = None, record: Any = (), edits: Mapping[str, Any] = {}) -> Generated:
  """`new` tokens after each prompt of `tokens` int [B, T].

  Args:
    mask: [B, T] of real tokens; prompts of different length are padded on the left, so that all end together.
    temperature: 0 takes the likeliest token; above, tokens are drawn with `key` from softmax(logits / temperature).
    stop: the token after which a text is over; the rest of its row is that token, with mask 0.
    record, edits: as in `forward`; an edit that is planted acts on the prompt and on every new token. Sites whose rows
      are not those of the tokens read, such as attn_scores, have as many places as the cache on the key axis.

  Raises:
    ValueError: a prompt is padded on the right, `new` < 1, a net that is no causal transformer, more positions than its
      table has, or a temperature without a key.
  """
  tokens = jnp.asarray(tokens, jnp.int32)
  count, length = tokens.shape
  mask = np.ones((count, length), np.float32) if mask is None else np.asarray(mask, np.float32)
  _check(net, mask, length, new, temperature, key)
  whole = jnp.asarray(np.pad(mask, ((0, 0), (0, new)), constant_values=1))
  keys = jax.random.split(key if key is not None else jax.random.key(0), new)
  record = (record,) if isinstance(record, str) else tuple(record)
  edits = collections.OrderedDict(edits)             # several edits of one site apply in the order given
  out, logits, acts = _generated(net, record, temperature > 0, stop, variables, edits, tokens, whole, keys,
                                 jnp.float32(temperature or 1.0))
  ids = jnp.concatenate([tokens, out], 1)
  if stop is not None:
    over = jnp.cumsum(jnp.pad(out == stop, ((0, 0), (1, 0)))[:, :-1], 1) > 0
    whole = whole.at[:, length:].set(1.0 - over)
  return Generated(ids, whole, logits, dict(acts))


def _check(net, mask: np.ndarray, length: int, new: int, temperature: float, key) -> None:
  if new < 1:
    raise ValueError(f'new is {new}; it is how many tokens to generate, from 1')
  mixer = getattr(net, 'mixer', None)
  if mixer is None or mixer['name'] != 'attention' or not mixer.get('causal') or net.head['name'] != 'unembed':
    raise ValueError('generation needs a causal network: mixer=dict(name=\'attention\', causal=True) and '
                     f'head=dict(name=\'unembed\'); this one has {mixer!r} and {net.head!r}')
  if (np.diff(mask, axis=1) < 0).any() or not (mask[:, -1] > 0).all():
    raise ValueError('a prompt is padded on the right or in its middle; pad on the left, so that all prompts end at '
                     'the same place')
  table = net.embed.get('length', 1024)
  if table and length + new > table:
    raise ValueError(f'{length} + {new} tokens exceed the {table} positions of the network')
  if temperature < 0 or temperature > 0 and key is None:
    raise ValueError(f'temperature is {temperature}; above 0 give a key=jax.random.key(...), and never below')


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _generated(net, record, draw: bool, stop, variables, edits, tokens, mask, keys, temperature):
  """(new tokens [B, N], logits [B, N, V], recorded values along the tokens that were read)."""
  count, length = tokens.shape
  at = jnp.maximum(jnp.cumsum(mask, 1) - 1, 0).astype(jnp.int32)       # positions, from 0 at the first real token

  def read(cache, ids, places, mask):
    values = {**variables, **({'cache': cache} if cache is not None else {})}
    return sites.record_sites(net, values, (ids, mask, places), record, edits, {}, keep=('cache',))

  def choose(logits, key, over):
    new = jax.random.categorical(key, logits / temperature) if draw else logits.argmax(-1)
    return new.astype(jnp.int32) if stop is None else jnp.where(over, stop, new).astype(jnp.int32)

  # A place of the cache counts once it is filled.
  filled = lambda n: mask * (jnp.arange(mask.shape[1])[None] < n)
  logits, acts, state = read(None, tokens, at[:, :length], filled(length))
  over = jnp.zeros(count, bool)
  first = choose(logits[:, -1], keys[0], over)

  def step(carry, given):
    cache, token, over = carry
    i, key = given
    over = over if stop is None else over | (token == stop)
    place = jax.lax.dynamic_slice_in_dim(at, length + i, 1, 1)
    logits, acts, state = read(cache, token[:, None], place, filled(length + i + 1))
    new = choose(logits[:, -1], key, over)
    return (state['cache'], new, over), (new, logits[:, -1], acts)

  carry = (state['cache'], first, over)
  _, (rest, scores, later) = jax.lax.scan(step, carry, (jnp.arange(len(keys) - 1), keys[1:]))
  new = jnp.concatenate([first[:, None], rest.T], 1)
  scores = jnp.concatenate([logits[:, -1:], jnp.moveaxis(scores, 0, 1)], 1)
  return new, scores, collections.OrderedDict((s, _along(s, acts[s], later[s])) for s in acts)


def _along(site: str, first: Array, later: Array) -> Array:
  """Values of the prompt and of the steps [N - 1, ...], joined along the axis of the tokens that were read."""
  axis = 2 if site.startswith(('attn_scores', 'attn_probs')) else 1
  return jnp.concatenate([first, jnp.moveaxis(jnp.squeeze(later, axis + 1), 0, axis)], axis)
