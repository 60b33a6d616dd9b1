"""Generation: the same tokens with a cache and without, alone and in batches, ours and theirs."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptbook.beam_search import beam_search
from gptbook.config import GPTConfig
from gptbook.constraints import PatternConstraint, compile_pattern, json_pattern
from gptbook.generation import GenerationConfig, generate, stream
from gptbook.interop import save_huggingface
from gptbook.model import GPT
from gptbook.readers import last_logits
from gptbook.sampling import token_logprobs
from gptbook.text_stream import TextStream
from gptbook.tokenizer import BPETokenizer, train_bpe

torch.set_num_threads(1)
TEXT = (
    "The wind went over the hills, and Mara said: “Où est la clé?” “Ici”, "
    'said Noé. {"name": "Mara", "age": 12} 😀 ' * 3
)


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return train_bpe([TEXT], 290, special_tokens=["<|endoftext|>"])


def small(**changes: Any) -> GPT:
    """Return a small model with large random weights, in float64, so that rounding decides nothing.

    In float32 a batch may round otherwise than a row; with float64 a tie within rounding, which
    is what it would take for another token, has odds of about 10^-12 for each token.
    """
    values = {"vocab_size": 290, "context_length": 48, "n_layer": 2, "n_head": 2, "d_model": 32}
    model = GPT(GPTConfig(**(values | changes)), seed=1).double()
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.data *= 8
    return model.eval()


@pytest.fixture(scope="module")
def model() -> GPT:
    return small()


PROMPTS = [[5], [7, 8, 9, 10, 11, 12], [40, 41], [9] * 11]
DRAWN = GenerationConfig(max_new_tokens=20, temperature=0.9, top_p=0.95, end_ids=(), seed=3)
GREEDY = GenerationConfig(max_new_tokens=20, temperature=0, end_ids=())
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": {"positions": "rope", "norm": "rmsnorm", "mlp": "swiglu", "bias": False,
              "n_kv_head": 1, "tied": False},
    "window": {"positions": "rope", "sliding_window": 5},
    "sinusoidal": {"positions": "sinusoidal"},
}  # fmt: skip


# --- one by one, in batches, with a cache and without ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [GREEDY, DRAWN])
def test_cached_batches_write_what_uncached_rows_write(kind: str, config: GenerationConfig) -> None:
    model = small(**KINDS[kind])
    together = generate(model, PROMPTS, config, seeds=[3, 4, 5, 6])
    for row, (prompt, seed) in enumerate(zip(PROMPTS, [3, 4, 5, 6], strict=True)):
        alone = generate(model, prompt, replace(config, seed=seed), cached=False)
        assert together.ids[row] == alone.ids[0]
        assert together.logprobs[row] == pytest.approx(alone.logprobs[0])
    assert together.finish_reasons == ["length"] * 4


def test_a_row_does_not_depend_on_when_others_end(model: GPT) -> None:
    config = replace(DRAWN, max_new_tokens=30)
    free = generate(model, PROMPTS, config, seeds=range(4))
    ends = replace(config, end_ids=[free.ids[1][4], free.ids[3][9]])
    ended = generate(model, PROMPTS, ends, seeds=range(4))
    assert "end" in ended.finish_reasons
    for row, ids in enumerate(ended.ids):
        assert ids == free.ids[row][: len(ids)]
        if ended.finish_reasons[row] == "end":
            assert ids[-1] in (ends.end_ids or ())
            assert not set(ids[:-1]) & set(ends.end_ids or ())


def test_the_same_seed_gives_the_same_text_and_another_seed_another(model: GPT) -> None:
    twice = generate(model, [[5], [5], [5]], DRAWN, seeds=[1, 1, 2])
    assert twice.ids[0] == twice.ids[1] != twice.ids[2]


def test_log_probabilities_are_those_of_one_forward_pass(model: GPT) -> None:
    out = generate(model, [3, 1, 4], DRAWN)
    row = torch.tensor([[3, 1, 4, *out.ids[0]]])
    logits = model(row)[0, 2:-1]
    expected = token_logprobs(logits, row[0, 3:])
    assert out.logprobs[0] == pytest.approx(expected.tolist())
    plain = generate(model, [3, 1, 4], replace(DRAWN, top_p=1.0, temperature=1.0))
    assert plain.sampling_logprobs[0] == pytest.approx(plain.logprobs[0])


def test_penalties_look_at_each_row_alone(model: GPT) -> None:
    config = replace(GREEDY, repetition_penalty=1.5, presence_penalty=0.5, frequency_penalty=0.5)
    together = generate(model, PROMPTS, config)
    alone = [generate(model, prompt, config).ids[0] for prompt in PROMPTS]
    assert together.ids == alone
    assert together.ids != generate(model, PROMPTS, GREEDY).ids


def test_a_model_in_training_mode_comes_back_in_it() -> None:
    model = small(dropout=0.5).train()
    frozen = next(model.children()).eval()
    first = generate(model, [5, 6], GREEDY)
    assert model.training
    assert not frozen.training
    assert first.ids == generate(model.eval(), [5, 6], GREEDY).ids


# --- the end of the context ---


@pytest.mark.parametrize("cached", [True, False])
def test_the_context_ends_a_row_or_slides(model: GPT, cached: bool) -> None:
    stops = generate(model, [5] * 40, replace(GREEDY, max_new_tokens=99), cached=cached)
    assert stops.finish_reasons == ["context"]
    assert len(stops.ids[0]) == 9  # the last is drawn from a full context, and is not read
    slides = replace(DRAWN, max_new_tokens=40, overflow="slide")
    out = generate(model, [[5] * 40, [6, 7]], slides, cached=cached)
    assert [len(ids) for ids in out.ids] == [40, 40]
    assert out.ids == generate(model, [[5] * 40, [6, 7]], slides).ids
    assert out.ids[1] == generate(model, [6, 7], slides).ids[0]


def test_a_prompt_longer_than_the_context_needs_leave_to_slide(model: GPT) -> None:
    prompt = list(range(60))
    with pytest.raises(ValueError, match="slide"):
        generate(model, prompt, GREEDY)
    slides = replace(GREEDY, overflow="slide", max_new_tokens=5)
    assert generate(model, prompt, slides).ids == generate(model, prompt[-36:], slides).ids


def test_a_window_slides_without_end_and_without_forgetting() -> None:
    short, long = (small(**KINDS["window"], context_length=length) for length in (16, 200))
    prompts = [list(range(50)), [1, 2, 3]]
    config = replace(DRAWN, overflow="slide", max_new_tokens=30)
    expected = generate(long, prompts, config).ids
    assert generate(short, prompts, config).ids == expected
    assert generate(short, prompts, config, cached=False).ids == expected


# --- when to stop ---


def test_stop_strings_may_span_tokens(model: GPT, tokenizer: BPETokenizer) -> None:
    free = generate(model, "The wind", replace(DRAWN, max_new_tokens=30), tokenizer=tokenizer)
    text = free.texts[0]
    assert text == tokenizer.decode(free.ids[0])
    borders = list(itertools.accumulate(len(tokenizer.decode_bytes([i])) for i in free.ids[0]))
    data = text.encode()
    for start in range(1, 12):
        stop_bytes = data[start : start + 5]
        try:
            stop = stop_bytes.decode()
        except UnicodeDecodeError:
            continue
        if "�" in stop:
            continue
        out = generate(
            model, "The wind", replace(DRAWN, max_new_tokens=30, stop=[stop]), tokenizer=tokenizer
        )
        where = data.find(stop_bytes)
        assert out.finish_reasons == ["stop"]
        assert out.texts == [data[:where].decode(errors="replace")]
        n_ids = 1 + sum(border < where + len(stop_bytes) for border in borders)
        assert out.ids[0] == free.ids[0][:n_ids]


@given(
    text=st.text("abé😀\n", max_size=20),
    stops=st.lists(st.text("abé😀\n", min_size=1, max_size=3), max_size=3),
    cuts=st.lists(st.integers(0, 80), max_size=10),
)
@settings(deadline=None)
def test_a_text_stream_holds_back_exactly_what_is_not_certain(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    data = text.encode()
    borders = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    found = TextStream(stops)
    pieces = []
    for start, end in itertools.pairwise(borders):
        found.push(data[start:end])
        pieces.append(found.take())
        assert "�" not in pieces[-1]
    found.finish()
    pieces.append(found.take())
    places = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    _, first = min(places, default=(0, len(text)))  # the one that ends first, however data is cut
    assert "".join(pieces) == found.text == text[:first]
    assert found.stopped == bool(places)


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    found = TextStream(["x"])
    found.push(b"\xf0\x9f")
    assert found.take() == ""
    found.push(b"ax")
    assert found.take() == "�a"
    assert found.stopped


def test_a_stream_yields_what_generate_gives(model: GPT, tokenizer: BPETokenizer) -> None:
    config = replace(DRAWN, max_new_tokens=40, stop=["said"])
    for seed in range(4):
        config = replace(config, seed=seed)
        pieces = list(stream(model, "Noé 😀", config, tokenizer=tokenizer))
        assert all(pieces)
        assert "".join(pieces) == generate(model, "Noé 😀", config, tokenizer=tokenizer).texts[0]


def test_the_tokenizers_end_of_text_ends_a_row_and_begins_an_empty_one(
    tokenizer: BPETokenizer,
) -> None:
    end = tokenizer.special_tokens["<|endoftext|>"]
    model = small(positions="none", tied=False)
    model.unembedding.weight.data[end] = 0  # type: ignore[union-attr]
    config = GenerationConfig(max_new_tokens=80, temperature=2.0, overflow="slide")
    out = generate(model, ["", ""], config, tokenizer=tokenizer)
    assert out.ids[0] == out.ids[1] == generate(model, [end], config, tokenizer=tokenizer).ids[0]
    assert out.finish_reasons == ["end", "end"] or len(out.ids[0]) == 80
    assert "<|endoftext|>" not in out.texts[0]
    with pytest.raises(ValueError, match="empty"):
        generate(model, [[]], config)


def test_no_new_tokens(model: GPT, tokenizer: BPETokenizer) -> None:
    config = GenerationConfig(max_new_tokens=0)
    out = generate(model, ["a", "b"], config, tokenizer=tokenizer)
    assert (out.ids, out.texts, out.finish_reasons) == ([[], []], ["", ""], ["length"] * 2)
    assert generate(model, list[str](), config, tokenizer=tokenizer).ids == []


def test_broken_logits_end_their_row_only() -> None:
    model = small(positions="none")
    model.tokens.weight.data[77] = float("nan")  # whoever reads 77 has NaN everywhere
    out = generate(model, [[5, 77], [77]], GREEDY)
    assert out.finish_reasons == ["invalid", "invalid"]
    assert out.ids == [[], []]


def test_ids_that_the_tokenizer_lacks_are_never_written(tokenizer: BPETokenizer) -> None:
    model = small(vocab_size=400)
    model.tokens.weight.data[300:] *= 3
    config = replace(DRAWN, end_ids=None, max_new_tokens=30)
    out = generate(model, "The", config, tokenizer=tokenizer)
    assert max(out.ids[0]) < tokenizer.vocab_size
    assert max(generate(model, [1], config).ids[0]) >= tokenizer.vocab_size


# --- errors ---


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"max_new_tokens": -1}, ValueError),
        ({"stop": [""]}, ValueError),
        ({"stop": [b"x"]}, TypeError),
        ({"end_ids": [-1]}, ValueError),
        ({"overflow": "roll"}, (TypeError, ValueError)),
        ({"seed": -1}, ValueError),
        ({"temperature": -1}, ValueError),
    ],
)
def test_settings_out_of_range_are_refused_by_name(values: dict[str, Any], error: Any) -> None:
    with pytest.raises(error, match=next(iter(values))):
        GenerationConfig(**values)


def test_prompts_that_cannot_be_read_are_refused(model: GPT, tokenizer: BPETokenizer) -> None:
    with pytest.raises(ValueError, match="tokenizer"):
        generate(model, "text")
    with pytest.raises(ValueError, match="290"):
        generate(model, [290])
    with pytest.raises(ValueError, match="seeds"):
        generate(model, [[1], [2]], seeds=[1])
    with pytest.raises(TypeError):
        generate(model, [1.5])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tokenizer"):
        generate(model, [1], GenerationConfig(stop="x"))
    with pytest.raises(ValueError, match="context_length"):
        stream(model, [1] * 49, tokenizer=tokenizer)


def test_the_settings_of_the_issue() -> None:
    config = GenerationConfig(
        max_new_tokens=128, temperature=0.8, top_k=50, top_p=0.95, min_p=0.0, stop=["\n\n"], seed=7
    )
    assert config.stop == ("\n\n",)
    assert hash(config) == hash(replace(config))


# --- transformers as an oracle ---


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_greedy_text_is_that_of_transformers(family: str, tmp_path: Path) -> None:
    import transformers

    changes = KINDS[family] | ({"bias": True} if family == "gpt2" else {})
    model = small(**changes)
    save_huggingface(model, tmp_path / "model", dtype=torch.float32)
    model = model.float().double()  # as they are in the file
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").double().eval()
    config = GenerationConfig(max_new_tokens=25, temperature=0, end_ids=(), repetition_penalty=1.2)
    for prompt in PROMPTS[1:3]:
        for penalty in (1.0, 1.2):
            ours = generate(model, prompt, replace(config, repetition_penalty=penalty)).ids[0]
            found = theirs.generate(
                torch.tensor([prompt]), max_new_tokens=25, do_sample=False,
                repetition_penalty=penalty, pad_token_id=0, eos_token_id=None,
            )  # fmt: skip
            assert ours == found[0, len(prompt) :].tolist()


# --- beams ---


def every_text(
    model: GPT, prompt: list[int], length: int, end: int
) -> dict[tuple[int, ...], float]:
    """Return the log-probability of each text of that length or ended before."""
    found: dict[tuple[int, ...], float] = {(): 0.0}
    for _ in range(length):
        longer = {}
        for ids, logprob in found.items():
            if ids[-1:] == (end,):
                longer[ids] = logprob
                continue
            logprobs = last_logits(model, [[*prompt, *ids]])[0].log_softmax(-1)
            longer |= {(*ids, token): logprob + float(p) for token, p in enumerate(logprobs)}
        found = longer
    return found


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_beams_wide_enough_find_the_best_texts(penalty: float) -> None:
    model = small(vocab_size=4)
    with torch.no_grad():
        texts = every_text(model, [1, 2], 4, end=0)
    scores = {ids: logprob / len(ids) ** penalty for ids, logprob in texts.items()}
    best = sorted(scores, key=lambda ids: -scores[ids])[:5]
    beams = beam_search(model, [1, 2], 300, 4, end_ids=[0], length_penalty=penalty)
    assert [beam.ids for beam in beams[:5]] == best
    assert [beam.score for beam in beams[:5]] == pytest.approx([scores[ids] for ids in best])
    narrow = beam_search(model, [1, 2], 5, 4, end_ids=[0], length_penalty=penalty)
    assert narrow[0].score <= beams[0].score + 1e-9


def test_one_beam_is_greedy_and_more_are_no_worse(model: GPT) -> None:
    one = beam_search(model, [5], 1, 12)
    assert list(one[0].ids) == generate(model, [5], replace(GREEDY, max_new_tokens=12)).ids[0]
    many = beam_search(model, [5], 20, 12)
    assert len(many) == len({beam.ids for beam in many}) == 20
    assert many[0].logprob >= one[0].logprob
    assert [beam.score for beam in many] == sorted((beam.score for beam in many), reverse=True)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_beams_are_those_of_transformers(penalty: float, tmp_path: Path) -> None:
    import transformers

    model = small(**KINDS["gpt2"])
    save_huggingface(model, tmp_path / "model", dtype=torch.float32)
    model = model.float().double()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").double().eval()
    end = generate(model, PROMPTS[1], GREEDY).ids[0][3]
    found = theirs.generate(
        torch.tensor([PROMPTS[1]]), max_new_tokens=8, do_sample=False, num_beams=4,
        length_penalty=penalty, early_stopping="never", eos_token_id=end, pad_token_id=0,
    )[0, len(PROMPTS[1]) :].tolist()  # fmt: skip
    ours = beam_search(model, PROMPTS[1], 4, 8, end_ids=[end], length_penalty=penalty)
    assert list(ours[0].ids) == found[: len(ours[0].ids)]


def test_broken_logits_end_a_search() -> None:
    model = small(positions="none")
    model.tokens.weight.data[77] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        beam_search(model, [77], 2, 3)


# --- constraints ---

PATTERNS = [
    "abc", "a|bc|", "a*b+c?", "(ab|c){2,3}", "[a-c]{2}x", "[^ab]{1,2}", ".{3}", r"\d+\.\d*",
    r"\w\W\s\S", "é|😀{2}", "[à-é]+", r"\x41|\n", "(?:a|(b))c", "a{0}b{2,}", r"[\]\-a]", "[a-]",
    "", "[^\n]*!", r"\D\D", "([ab]*a[ab]{3})",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_automata_match_what_pythons_expressions_match(pattern: str, data: st.DataObject) -> None:
    compiled, automaton = re.compile(pattern, re.ASCII), compile_pattern(pattern)
    alphabet = st.sampled_from("abcx1. !-]é😀àA\n") | st.characters(exclude_categories=["Cs"])
    for text in (
        data.draw(st.text(alphabet, max_size=6)),
        data.draw(st.from_regex(compiled, fullmatch=True)),
    ):
        if any("\ud800" <= character <= "\udfff" for character in text):
            continue
        assert automaton.matches(text) == (compiled.fullmatch(text) is not None)


@pytest.mark.parametrize(
    "pattern",
    ["(", "a)", "[", "[]", "*a", "a{2", "a{x}", "a{3,2}", "\\", r"\q", "^a", "a$", "(?=a)",
     "[b-a]", r"\xg1", "(a{1000}){1000}", r"[^\s\S]", r"[\d-x]"],
)  # fmt: skip
def test_patterns_that_are_not_understood_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["[0-9]{3}-[0-9]{4}", "(Mara|Noé) said: .{1,10}!", "é{5}"])
def test_constrained_text_matches(model: GPT, tokenizer: BPETokenizer, pattern: str) -> None:
    config = GenerationConfig(max_new_tokens=60, overflow="slide")
    constraint = PatternConstraint(pattern, tokenizer)
    out = generate(
        model, ["a", "bb", ""], config, tokenizer=tokenizer, seeds=[1, 2, 3], constraint=constraint
    )
    for text, reason in zip(out.texts, out.finish_reasons, strict=True):
        assert reason == "constraint"
        assert re.fullmatch(pattern, text)
    alone = generate(
        model, "bb", replace(config, seed=2), tokenizer=tokenizer, constraint=constraint
    )
    assert alone.ids[0] == out.ids[1]


def test_a_pattern_that_may_end_lets_the_end_of_text_follow(
    model: GPT, tokenizer: BPETokenizer
) -> None:
    constraint = PatternConstraint("(ab)+", tokenizer)
    config = GenerationConfig(max_new_tokens=2000, overflow="slide", temperature=3.0)
    ends = set()
    for seed in range(5):
        out = generate(
            model, "a", replace(config, seed=seed), tokenizer=tokenizer, constraint=constraint
        )
        assert re.fullmatch("(ab)+", out.texts[0]) or out.finish_reasons == ["length"]
        ends |= set(out.finish_reasons)
    assert "end" in ends


def test_masks_allow_just_the_tokens_that_can_be_continued(tokenizer: BPETokenizer) -> None:
    constraint = PatternConstraint("(the|that) hill", tokenizer)
    allowed = constraint.allowed(0)
    for token, data in tokenizer.vocab.items():
        fits = b"the hill".startswith(data) or b"that hill".startswith(data)
        assert allowed[token] == fits, data


SHAPE: Any = {"name": str, "age": int, "mood": ("calm", "glad", None), "tags": [str], "ok": bool}


def test_json_of_a_shape(model: GPT, tokenizer: BPETokenizer) -> None:
    automaton = compile_pattern(json_pattern(SHAPE))
    value = {"name": 'a"\\é\n', "age": -10, "mood": None, "tags": ["x", ""], "ok": True}
    assert automaton.matches(json.dumps(value))
    assert automaton.matches(json.dumps(value, ensure_ascii=False))
    assert not automaton.matches(json.dumps(value | {"age": 1.5}))
    assert not automaton.matches(json.dumps(value | {"mood": "sad"}))
    assert not automaton.matches(json.dumps(value).replace("-10", "010"))
    shape: Any = {"age": int, "mood": ("calm", "glad"), "x": (float, None), "half": [bool]}
    out = generate(
        model, "json", GenerationConfig(max_new_tokens=400, overflow="slide", temperature=2.0),
        tokenizer=tokenizer, constraint=PatternConstraint(json_pattern(shape), tokenizer),
    )  # fmt: skip
    if out.finish_reasons == ["constraint"]:
        assert list(json.loads(out.texts[0])) == list(shape)


@pytest.mark.parametrize("shape", [[], [int, str], ()])
def test_shapes_that_mean_nothing_are_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match="shape"):
        json_pattern(shape)
    with pytest.raises(TypeError, match="shape"):
        json_pattern({"a": set})
