"""Generation with a cache against the network run anew on everything that was written so far."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aspects import Add, forward, generate, Net
from tests import fill

VOCAB, NEW = 11, 5
NETS = {
    'plain': dict(mixer=dict(name='attention', heads=2, causal=True)),
    'scanned, grouped, rotary, windows': dict(
        embed=dict(name='tokens', vocab=VOCAB, length=0), stack=dict(name='plain', scan=True), norm=dict(name='rms'),
        mixer=dict(name='attention', heads=4, kv_heads=2, causal=True, rotary=dict(base=50.0), window=(3, 0),
                   qk_norm=dict(name='rms')))}
PROMPTS = np.array([[3, 1, 4, 1], [5, 9, 2, 6], [0, 0, 7, 8]], np.int32)
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]], np.float32)


@pytest.fixture(scope='module', params=NETS)
def network(request):
  net = Net(**{**dict(outputs=VOCAB, depth=2, width=8, embed=dict(name='tokens', vocab=VOCAB, length=16),
                      channel=dict(name='gated_mlp'), head=dict(name='unembed')), **NETS[request.param]})
  return net, fill.variables(net, PROMPTS)


def by_hand(net, variables, prompt, edits={}):
  """Greedy tokens and all logits of one prompt without padding, each token from a forward pass over all before it."""
  ids = list(prompt)
  for _ in range(NEW):
    # Behind the text stands padding, so that one program serves all lengths.
    text = np.array([ids + [0] * (len(prompt) + NEW - len(ids))], np.int32)
    logits, acts = forward(net, variables, text, record=('*',), edits=edits)
    ids.append(int(np.asarray(logits)[0, len(ids) - 1].argmax()))
  return ids, np.asarray(logits)[0], {k: np.asarray(v)[0] for k, v in acts.items()}


def test_tokens_logits_and_sites_are_those_of_the_whole_text(network):
  net, variables = network
  out = generate(net, variables, PROMPTS, NEW, mask=MASK, record=('resid_post.*', 'z.0', 'attn_probs.1'))
  for row, mask in enumerate(MASK):
    pad = int((mask == 0).sum())
    ids, logits, acts = by_hand(net, variables, PROMPTS[row, pad:])
    assert out.tokens[row, pad:].tolist() == ids
    np.testing.assert_allclose(out.logits[row], logits[-NEW - 1:-1], atol=2e-5)
    read = len(ids) - 1
    for site in ('resid_post.0', 'resid_post.1', 'z.0'):
      np.testing.assert_allclose(out.acts[site][row, pad:], acts[site][:read], atol=2e-5)
    probs = np.asarray(out.acts['attn_probs.1'])[row, :, pad:]
    np.testing.assert_allclose(probs[:, :, pad:pad + read], acts['attn_probs.1'][:, :read, :read], atol=2e-5)
    assert np.abs(probs[:, :, :pad]).max(initial=0) == 0 and (out.mask[row, pad:] == 1).all()


def test_an_edit_acts_on_the_prompt_and_on_every_new_token(network):
  net, variables = network
  edits = {'resid_post.0': Add(delta=jnp.linspace(-2, 2, 8))}
  out = generate(net, variables, PROMPTS[:1], NEW, edits=edits, record=('resid_post.1',))
  ids, logits, acts = by_hand(net, variables, PROMPTS[0], edits)
  assert out.tokens[0].tolist() == ids
  np.testing.assert_allclose(out.logits[0], logits[-NEW - 1:-1], atol=2e-5)
  plain = generate(net, variables, PROMPTS[:1], NEW)
  assert np.abs(np.asarray(plain.logits - out.logits)).max() > 1e-2


def test_drawn_tokens_follow_their_distribution():
  net = Net(outputs=3, depth=1, width=8, embed=dict(name='tokens', vocab=3, length=4), head=dict(name='unembed'),
            mixer=dict(name='attention', heads=1, causal=True))
  variables = fill.variables(net, np.zeros((1, 1), np.int32))
  out = generate(net, variables, np.zeros((4000, 1), np.int32), 1, temperature=0.7, key=jax.random.key(0))
  p = np.asarray(jax.nn.softmax(out.logits[0, 0] / 0.7))
  share = np.bincount(np.asarray(out.tokens[:, 1]), minlength=3) / 4000
  np.testing.assert_allclose(share, p, atol=5 * np.sqrt(0.25 / 4000))


def test_a_text_ends_at_the_stop_token(network):
  net, variables = network
  free = generate(net, variables, PROMPTS[:2], NEW)
  stop = int(free.tokens[0, 5])
  out = generate(net, variables, PROMPTS[:2], NEW, stop=stop)
  at = free.tokens[0, 4:].tolist().index(stop)
  assert (out.tokens[0, 4 + at:] == stop).all()
  assert out.mask[0, 4:].tolist() == [1.0] * (at + 1) + [0.0] * (NEW - at - 1)


@pytest.mark.parametrize('change, message', (
    (dict(mask=MASK[:, ::-1]), 'padded on the right'), (dict(new=0), 'from 1'), (dict(temperature=1.0), 'give a key'),
    (dict(new=20), 'exceed the 16 positions')))
def test_what_cannot_be_generated_is_refused(change, message):
  net = Net(outputs=VOCAB, depth=1, width=8, embed=dict(name='tokens', vocab=VOCAB, length=16),
            head=dict(name='unembed'), mixer=dict(name='attention', heads=2, causal=True))
  variables = fill.variables(net, PROMPTS)
  with pytest.raises(ValueError, match=message):
    generate(net, variables, PROMPTS, **{'new': NEW, **change})
  with pytest.raises(ValueError, match='needs a causal network'):
    generate(Net(outputs=3, embed=net.embed, head=net.head, mixer=dict(name='attention')), variables, PROMPTS, NEW)
