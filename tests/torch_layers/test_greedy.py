"""generate() of accelerated models where the decoding loop is ours, and where it is not."""

from __future__ import annotations

import copy
import threading

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (make test-peers)"
)
from transformers.cache_utils import DynamicCache  # noqa: E402

from ternops.torch import BitLinear, accelerate, greedy, replace_linear  # noqa: E402
from ternops.torch.decoder_cache import DecoderCache  # noqa: E402
from ternops.torch.half_linear import HalfLinear  # noqa: E402
from tests.peers.bitnet_folders import KINDS, SIZES  # noqa: E402
from tests.torch_layers.pairs import (  # noqa: E402
    CACHE,
    COPIES,
    STEPS,
    copied,
    generated,
    ids,
    loaded,
    logits,
)  # fmt: skip

pytestmark = pytest.mark.peers


@pytest.fixture
def steps(monkeypatch):
    """The tokens that our loop has made."""
    found, step = [], greedy.next_token

    def noted(*arguments):
        found.append(step(*arguments))
        return found[-1]

    monkeypatch.setattr(greedy, "next_token", noted)
    return found


class Noted:
    """A streamer and a stopping criterion that write down what they are told, in order."""

    def __init__(self, most=None):
        self.events, self.most = [], most

    def put(self, tokens):
        self.events.append(("put", tokens.dtype, tokens.tolist()))

    def end(self):
        self.events.append("end")

    def __call__(self, tokens, scores, **settings):
        self.events.append(("criterion", tokens.tolist(), scores, settings))
        is_over = self.most is not None and tokens.shape[1] >= self.most
        return torch.full((len(tokens),), is_over)


def scored(model, tokens, **settings):
    """The tokens of transformers' own loop, which wants scores; and how many were equally good."""
    given = {"return_dict_in_generate": True, "output_scores": True, **settings}
    found = generated(model, tokens, **given)
    ties = sum(int((each == each.max()).sum() > 1) for each in found.scores)
    return found.sequences, ties


@pytest.mark.parametrize(("layout", "kind", "seed"), KINDS)
def test_tokens_are_theirs(tmp_path, transformers, steps, layout, kind, seed):
    theirs, ours = loaded(tmp_path, transformers, layout, kind, seed)
    expected = generated(theirs, ids(seed))
    assert torch.equal(generated(ours, ids(seed)), expected)
    assert steps == expected[0, -STEPS + 1 :].tolist()
    # With scores, which their own loop computes, they are the same.
    found = generated(ours, ids(seed), return_dict_in_generate=True, output_scores=True)
    assert torch.equal(found.sequences, expected)
    assert len(found.scores) == STEPS
    assert len(steps) == STEPS - 1


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True, "top_k": 5},
        {"num_beams": 2},
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 3, "eos_token_id": 5},
        {"suppress_tokens": [1, 2, 3]},
        {"logits_processor": [lambda tokens, scores: scores.roll(1, -1)]},
        {"prefix_allowed_tokens_fn": lambda batch, tokens: [3, 4, 5]},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"prompt_lookup_num_tokens": 3},
        *({"return_dict_in_generate": True, name: True} for name in (
            "output_scores", "output_logits", "output_hidden_states", "output_attentions",
        )),
    ],
    ids=lambda settings: " ".join(settings),
)  # fmt: skip
def test_all_else_is_their_loop(both, steps, settings):
    results = []
    for model in both:
        torch.manual_seed(1)
        given = dict(settings)
        if "logits_processor" in given:
            given["logits_processor"] = transformers.LogitsProcessorList(given["logits_processor"])
        results.append(generated(model, ids(), **given))
    if "return_dict_in_generate" in settings:
        (name,) = (each.removeprefix("output_") for each in settings if each.startswith("output"))
        assert all(len(getattr(each, name)) == STEPS for each in results)
        results = [each.sequences for each in results]
    assert torch.equal(*results)
    assert not steps


def test_batches_masks_and_positions_are_their_loop(pair, steps):
    tokens = torch.cat([ids(1), ids(2)])
    mask = torch.ones_like(tokens)
    mask[0, :3] = 0
    positions = torch.arange(3, 11)[None]
    for batch, settings in (
        (tokens, {}),
        (tokens[:1], {"attention_mask": mask[:1]}),
        (tokens[:1], {"position_ids": positions}),
    ):
        results = [generated(model, batch, **settings) for model in pair]
        assert torch.equal(*results)
    assert not steps
    given = {"attention_mask": mask[1:], "position_ids": torch.arange(8)[None]}
    assert torch.equal(*(generated(model, tokens[:1], **given) for model in pair))
    assert len(steps) == STEPS - 1


def test_embeddings(pair, steps):
    """In place of tokens; what is returned then are new tokens alone."""
    results = []
    for model in pair:
        table = model.get_input_embeddings()(ids()).detach()
        settings = {"do_sample": False, "max_new_tokens": STEPS}
        results.append(model.generate(inputs_embeds=table, **settings))
    assert torch.equal(*results)
    assert results[0].shape == (1, STEPS)


@pytest.mark.parametrize("most", [None, 9, 10, 15])
def test_streamers_and_criteria_are_asked_as_there(pair, steps, most):
    """In the same order, with the same tensors, until one of them ends it."""
    events = []
    for model in pair:
        noted = Noted(most)
        criteria = transformers.StoppingCriteriaList([noted])
        found = generated(model, ids(), streamer=noted, stopping_criteria=criteria)
        assert found.shape[1] == (most or STEPS + 8)
        events.append(noted.events)
    assert events[0] == events[1]
    assert events[1][-1] == "end"
    assert len(steps) == (most or STEPS + 8) - 9


def test_ends_of_sequences(pair, steps):
    """Of several tokens, whichever comes first; the first token may be one."""
    tokens = generated(pair[0], ids())[0, 8:].tolist()
    for count in (1, 2, 7, STEPS - 1):
        end = tokens[count - 1]
        expected = tokens[: tokens.index(end) + 1]
        steps.clear()
        for settings in ({"eos_token_id": [end, 77]}, {"eos_token_id": end, "pad_token_id": 3}):
            results = [generated(model, ids(), **settings) for model in pair]
            assert torch.equal(*results)
            assert results[1][0, 8:].tolist() == expected
        assert len(steps) == 2 * (len(expected) - 1)


def test_strings_that_stop(pair, steps):
    """And a time limit that is over: transformers' own criteria."""
    tokenizers = pytest.importorskip("tokenizers", reason="comes with transformers")
    words = {f"w{number},": number for number in range(1, SIZES["vocab_size"])} | {"abcdef": 0}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w1,"))
    made.decoder = tokenizers.decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made)
    tokens = generated(pair[0], ids())[0, 8:].tolist()
    settings = {"stop_strings": [f"w{tokens[6]},"], "tokenizer": tokenizer}
    results = [generated(model, ids(), **settings) for model in pair]
    assert torch.equal(*results)
    assert results[1].shape[1] == 8 + tokens.index(tokens[6]) + 1
    assert len(steps) == tokens.index(tokens[6])
    late = transformers.MaxTimeCriteria(max_time=1.0, initial_timestamp=0.0)
    criteria = transformers.StoppingCriteriaList([late])
    assert generated(pair[1], ids(), stopping_criteria=criteria).shape[1] == 9


def test_the_cache_is_what_their_loop_leaves(pair, steps):
    theirs, ours = (
        generated(model, ids(), max_new_tokens=9, return_dict_in_generate=True) for model in pair
    )
    assert type(ours) is type(theirs)
    assert set(ours) == set(theirs)
    cache = ours[CACHE]
    assert type(cache) is DecoderCache
    assert cache.get_seq_length() == theirs[CACHE].get_seq_length() == 16
    # Which is gone on with, by ours and by theirs, and one that a caller has made.
    more, given = copy.deepcopy(cache), DynamicCache()
    generated(ours_model := pair[1], ids(), max_new_tokens=9, **{CACHE: given})
    expected = generated(pair[0], ids())
    steps.clear()
    for held in (cache, given):
        found = generated(ours_model, ours.sequences, max_new_tokens=STEPS - 9, **{CACHE: held})
        assert torch.equal(found, expected)
        assert held.get_seq_length() == STEPS + 7
    assert len(steps) == 2 * (STEPS - 10)
    found = generated(pair[0], ours.sequences, max_new_tokens=STEPS - 9, **{CACHE: more})
    assert torch.equal(found, expected)


def test_prompts_in_chunks(pair, steps):
    results = [generated(model, ids(), prefill_chunk_size=3) for model in pair]
    assert torch.equal(*results)
    assert len(steps) == STEPS - 1


def test_beyond_the_context(pair, steps, passes):
    tokens = ids(count=SIZES["max_position_embeddings"] - 4)
    assert torch.equal(*(generated(model, tokens, max_new_tokens=9) for model in pair))
    assert (len(passes), len(steps)) == (5, 8)


@pytest.mark.parametrize("place", ["", "model", "lm_head"])
@pytest.mark.parametrize("how", ["hook", "hook before", "forward", "global hook"])
def test_whoever_watches_sees_their_loop(both, steps, place, how):
    expected, seen = generated(both[0], ids()), []
    module = both[1].get_submodule(place)
    hook = None
    if how == "hook":
        hook = module.register_forward_hook(lambda *found: seen.append(found))
    elif how == "hook before":
        hook = module.register_forward_pre_hook(lambda *found: seen.append(found))
    elif how == "forward":
        forward = module.forward
        module.forward = lambda *a, **k: (seen.append(a), forward(*a, **k))[1]
    else:
        hook = torch.nn.modules.module.register_module_forward_hook(
            lambda one, *found: seen.append(found) if one is module else None
        )
    try:
        assert torch.equal(generated(both[1], ids()), expected)
    finally:
        if hook is not None:
            hook.remove()
    assert len(seen) == STEPS
    assert not steps


def test_whoever_comes_to_watch_sees_the_rest(both, steps):
    """A hook, and another head, of a criterion."""
    expected, seen = generated(both[0], ids()), []

    def comes(tokens, scores):
        if tokens.shape[1] == 14:
            both[1].register_forward_hook(lambda *found: seen.append(found[2].logits.shape))
        return torch.zeros(1, dtype=torch.bool)

    criteria = transformers.StoppingCriteriaList([comes])
    assert torch.equal(generated(both[1], ids(), stopping_criteria=criteria), expected)
    assert seen == [(1, 1, SIZES["vocab_size"])] * (STEPS - 6)
    assert len(steps) == STEPS - 1


def test_what_an_instance_or_a_class_answers_otherwise(both, steps):
    """Models that prepare their inputs in another way."""
    theirs, ours = both
    asked, prepare = [], ours.prepare_inputs_for_generation

    def prepared(*arguments, **settings):
        asked.append(arguments)
        return prepare(*arguments, **settings)

    ours.prepare_inputs_for_generation = prepared
    assert torch.equal(generated(ours, ids()), generated(theirs, ids()))
    assert (len(asked), len(steps)) == (STEPS, 0)

    class Doubled(transformers.LlamaForCausalLM):
        def forward(self, *arguments, **settings):
            found = super().forward(*arguments, **settings)
            found.logits = -found.logits
            return found

    torch.manual_seed(5)
    model = replace_linear(Doubled(transformers.LlamaConfig(**SIZES, head_dim=16))).eval()
    model.generation_config.eos_token_id = None
    expected = generated(model, ids())
    assert torch.equal(generated(accelerate(model), ids()), expected)
    assert type(model) is Doubled
    assert not steps


@pytest.mark.parametrize("how", [*COPIES, "again"])
def test_copies(pair, steps, how):
    ours = pair[1]
    expected = generated(pair[0], ids())
    if how in COPIES:
        other = copied(ours, how)
    else:
        other = copy.deepcopy(ours)
        mlp = other.model.layers[0].mlp
        mlp.up_proj = BitLinear(mlp.up_proj.in_features, mlp.up_proj.out_features, bias=False)
        kind, other = type(other), accelerate(other.eval())
        assert type(other) is kind
        expected = scored(other, ids())[0]
    assert torch.equal(generated(other, ids()), expected)
    assert len(steps) == STEPS - 1
    assert type(other) is type(ours)


def test_it_is_what_it_was_otherwise(tmp_path, pair, steps):
    """By its name, its files, and a model that is made of the same class."""
    theirs, ours = pair
    assert isinstance(ours, type(theirs))
    assert (type(ours).__name__, type(ours).__module__) == (
        type(theirs).__name__, type(theirs).__module__
    )  # fmt: skip
    assert ours.can_generate()
    ours.save_pretrained(tmp_path)
    assert f'"{type(theirs).__name__}"' in (tmp_path / "config.json").read_text("utf-8")
    other = type(ours)(ours.config).eval()
    other.load_state_dict(
        {k: v for k, v in theirs.state_dict().items() if "proj" not in k}, strict=False
    )
    other.generation_config.eos_token_id = None
    generated(other, ids())
    assert not steps


def test_adapters_of_the_head_and_around_the_model(both, steps):
    """peft's, whose logits are others."""
    peft = pytest.importorskip("peft", reason="peft is not installed (make test-peers)")
    expected = generated(both[0], ids())
    config = peft.LoraConfig(target_modules=["lm_head"], r=2, init_lora_weights=False)
    found = []
    for model in both:
        torch.manual_seed(2)
        found.append(generated(peft.get_peft_model(model, config).eval(), ids()))
    assert torch.equal(*found)
    assert not torch.equal(found[1], expected)
    assert not steps


def test_two_threads(pair, steps):
    expected = {seed: generated(pair[0], ids(seed)) for seed in (1, 2, 3)}
    found = {}

    def run(seed):
        found[seed] = generated(pair[1], ids(seed))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in expected]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert all(torch.equal(found[seed], expected[seed]) for seed in expected)
    assert len(steps) == 3 * (STEPS - 1)


@pytest.fixture(scope="module")
def halves():
    """An accelerated model in bfloat16, whose head has lines that kernels read."""
    torch.manual_seed(6)
    sizes = {**SIZES, "vocab_size": 1000, "hidden_size": 64, "eos_token_id": None}
    model = transformers.BitNetForCausalLM(
        transformers.BitNetConfig(**sizes, tie_word_embeddings=True)
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.uniform_(0.5, 1.5) if "norm" in name else weight.normal_(0, 0.3)
    model = replace_linear(model.bfloat16()).eval()
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return accelerate(model)


@pytest.fixture
def screened(monkeypatch):
    """How often a head was screened; all of them are."""
    from ternops.torch import half_linear, screen

    found, largest = [], screen.Screen.largest
    monkeypatch.setattr(half_linear, "screens_by_itself", lambda *sizes: True)
    monkeypatch.setattr(
        screen.Screen, "largest", lambda self, *a: (found.append(1), largest(self, *a))[1]
    )
    return found


def test_screened_tokens_are_those_of_whole_logits(halves, steps, screened):
    """In bfloat16, where several words often have the same logit."""
    ties = 0
    for seed in range(6):
        expected, count = scored(halves, ids(seed), max_new_tokens=90)
        assert torch.equal(generated(halves, ids(seed), max_new_tokens=90), expected)
        ties += count
    assert ties > 3
    assert len(screened) == len(steps) == 6 * 89


def test_few_tokens_do_not_repay_preparing(halves, steps, screened):
    ours = copy.deepcopy(halves)
    for count, expected in ((4, 0), (5, 4)):
        found = generated(ours, ids(), max_new_tokens=count)
        assert torch.equal(found, scored(ours, ids(), max_new_tokens=count)[0])
        assert len(screened) == expected
    assert type(ours.lm_head) is HalfLinear


@pytest.mark.parametrize("how", ["in place", "data", "memory", "parameter", "resized", "rows"])
def test_a_head_that_has_changed(halves, steps, screened, how):
    """Between two calls, in whatever way; it is tied to the embedding."""
    ours = copy.deepcopy(halves)
    before = generated(ours, ids())
    weight = ours.lm_head.weight
    random = torch.Generator().manual_seed(4)
    noise = torch.randn(weight.shape, generator=random).bfloat16()
    with torch.no_grad():
        if how == "in place":
            weight.add_(noise)
        elif how == "data":
            weight.data += noise
        elif how == "memory":
            weight.detach().view(torch.int16).numpy()[...] = noise.view(torch.int16).numpy()
        elif how == "parameter":
            ours.lm_head.weight = torch.nn.Parameter(noise)
        elif how == "resized":
            ours.resize_token_embeddings(1100)
            ours.lm_head.weight[1000:] = 3 * noise[:100]
        else:
            weight.data[:] = weight.data.roll(7, 0)
    expected = scored(ours, ids())[0]
    screened.clear()
    assert torch.equal(generated(ours, ids()), expected)
    assert not torch.equal(expected, before)
    # resize_token_embeddings makes a layer of PyTorch's own.
    assert len(screened) == (STEPS - 1 if type(ours.lm_head) is HalfLinear else 0)


def test_a_head_that_changes_meanwhile(halves, steps, screened):
    """PyTorch tells of it, and the rest is read whole."""
    found = []
    for run in (generated, scored):
        ours = copy.deepcopy(halves)

        def changes(tokens, scores, ours=ours):
            if tokens.shape[1] == 14:
                with torch.no_grad():
                    ours.lm_head.weight.copy_(ours.lm_head.weight.flip(0))
            return torch.zeros(1, dtype=torch.bool)

        criteria = transformers.StoppingCriteriaList([changes])
        tokens = run(ours, ids(), stopping_criteria=criteria)
        found.append(tokens if run is generated else tokens[0])
    assert torch.equal(*found)
    assert len(screened) == 5
    assert len(steps) == STEPS - 1
    assert not torch.equal(found[0], generated(halves, ids()))


def test_autocast_and_gradients(halves, steps, screened):
    expected = scored(halves, ids())[0]
    with torch.autocast("cpu"):
        generated(halves, ids())
    assert not steps
    with torch.enable_grad():
        assert torch.equal(generated(halves, ids()), expected)
    with torch.inference_mode():
        assert torch.equal(generated(halves, ids()), expected)
    assert len(steps) == 2 * (STEPS - 1)
    assert logits(halves, ids()).isfinite().all()
