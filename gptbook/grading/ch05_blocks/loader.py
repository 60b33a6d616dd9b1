"""Exercise 5.5: GPT-2's tensors under other names, and the right way round: its checks."""

import random
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.compare import show
from gptbook.grading.exercise import Args, Check, Kind, Verify, source_of
from gptbook.grading.tensors import difference, normal, same

PLAIN = {"wte.weight": "tokens.weight", "wpe.weight": "positions.weight"}
NORMS = {"ln_1": "attention_norm", "ln_2": "mlp_norm"}
LINEARS = {"attn.c_proj": "attention.output", "mlp.c_fc": "mlp.up", "mlp.c_proj": "mlp.down"}
PARTS = ("query", "key", "value")


def hugging_face_shapes(sizes: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes that GPT-2's tensors have in Hugging Face's files."""
    width, hidden = sizes["d_model"], sizes["d_ff"]
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (sizes["vocab_size"], width),
        "wpe.weight": (sizes["context_length"], width),
    }
    linears = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, hidden),
        "mlp.c_proj": (hidden, width),
    }
    for layer in range(sizes["n_layer"]):
        for norm in ("ln_1", "ln_2"):
            shapes[f"h.{layer}.{norm}.weight"] = shapes[f"h.{layer}.{norm}.bias"] = (width,)
        for name, shape in linears.items():
            shapes[f"h.{layer}.{name}.weight"] = shape
            shapes[f"h.{layer}.{name}.bias"] = shape[1:]
    shapes["ln_f.weight"] = shapes["ln_f.bias"] = (width,)
    return shapes


def find_problems(given: dict[str, Tensor], sizes: dict[str, int]) -> list[str]:
    """Return a line for each tensor that is missing, too many, or of a wrong shape."""
    wanted = hugging_face_shapes(sizes)
    problems = [f"missing: {name}" for name in wanted if name not in given]
    problems += [f"surplus: {name}" for name in given if name not in wanted]
    for name in wanted:
        if name in given and tuple(given[name].shape) != wanted[name]:
            problems.append(f"{name} is {tuple(given[name].shape)}, wanted {wanted[name]}")
    return problems


def convert_gpt2(tensors: dict[str, Tensor], sizes: dict[str, int]) -> dict[str, Tensor]:
    """Return GPT-2's tensors by the book's names, with weights as nn.Linear has them."""
    given = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    buffers = (".attn.bias", ".attn.masked_bias")
    given = {name: tensor for name, tensor in given.items() if not name.endswith(buffers)}
    head = given.pop("lm_head.weight", None)
    problems = find_problems(given, sizes)
    if head is not None and not torch.equal(head, given.get("wte.weight", head)):
        problems.append("lm_head.weight differs from the embedding's, but is to be tied to it")
    if problems:
        raise ValueError("; ".join(problems))

    result = {ours: given[theirs] for theirs, ours in PLAIN.items()}
    for layer in range(sizes["n_layer"]):
        h, block = f"h.{layer}.", f"blocks.{layer}."
        for theirs, ours in NORMS.items():
            for kind in (".weight", ".bias"):
                result[block + ours + kind] = given[h + theirs + kind]
        for theirs, ours in LINEARS.items():
            result[block + ours + ".weight"] = given[h + theirs + ".weight"].T
            result[block + ours + ".bias"] = given[h + theirs + ".bias"]
        columns = given[h + "attn.c_attn.weight"].chunk(3, dim=1)
        biases = given[h + "attn.c_attn.bias"].chunk(3)
        for part, weight, bias in zip(PARTS, columns, biases, strict=True):
            result[block + f"attention.{part}.weight"] = weight.T
            result[block + f"attention.{part}.bias"] = bias
    result["norm.weight"], result["norm.bias"] = given["ln_f.weight"], given["ln_f.bias"]
    return result


# --- inputs: a dict of tensors, and the sizes ---

SIZES = {
    "vocab_size": 7,
    "context_length": 5,
    "n_layer": 2,
    "n_head": 2,
    "d_model": 4,
    "d_ff": 16,
}
SQUARE = {**SIZES, "n_layer": 1, "d_ff": 4}  # even the matrices of the MLP are square

Tensors = dict[str, Tensor]
Change = Callable[[Tensors, random.Random], None]


def draw_file(stream: random.Random, sizes: dict[str, int]) -> Tensors:
    """A file without prefix, buffers and lm_head."""
    return {name: normal(stream, *shape) for name, shape in hugging_face_shapes(sizes).items()}


def draw_plain(stream: random.Random) -> list[Args]:
    """A model with two layers, and one whose matrices are square."""
    return [(draw_file(stream, sizes), dict(sizes)) for sizes in (SIZES, SQUARE)]


def draw_prefixed(stream: random.Random) -> list[Args]:
    """All names begin with "transformer."."""
    tensors = draw_file(stream, SIZES)
    return [({f"transformer.{name}": item for name, item in tensors.items()}, dict(SIZES))]


def draw_buffers(stream: random.Random) -> list[Args]:
    """Masks among the tensors, as in old files."""
    tensors = draw_file(stream, SIZES)
    length = SIZES["context_length"]
    for layer in range(SIZES["n_layer"]):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(length, length).tril()[None, None]
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-10000.0)
    return [(tensors, dict(SIZES))]


def draw_heads(stream: random.Random) -> list[Args]:
    """An lm_head that is the embedding's matrix, and one that is not."""
    tied = draw_file(stream, SQUARE)
    prefixed = {f"transformer.{name}": item for name, item in tied.items()}
    prefixed["lm_head.weight"] = tied["wte.weight"].clone()
    own = draw_file(stream, SQUARE)
    own["lm_head.weight"] = own["wte.weight"] + 1
    return [(prefixed, dict(SQUARE)), (own, dict(SQUARE))]


def spoiled(*changes: Change) -> Callable[[random.Random], list[Args]]:
    """Draws for a file with something wrong: a case for each change."""

    def draw(stream: random.Random) -> list[Args]:
        cases: list[Args] = []
        for change in changes:
            tensors = draw_file(stream, SIZES)
            change(tensors, stream)
            cases.append((tensors, dict(SIZES)))
        return cases

    return draw


def lose(tensors: Tensors, stream: random.Random) -> None:
    """Take a tensor out of a layer."""
    layer = stream.randrange(SIZES["n_layer"])
    name = stream.choice(("ln_1.bias", "attn.c_attn.weight", "mlp.c_proj.weight", "ln_2.weight"))
    del tensors[f"h.{layer}.{name}"]


def lose_last(tensors: Tensors, stream: random.Random) -> None:
    """Take out the final norm's bias."""
    del tensors["ln_f.bias"]


def add(tensors: Tensors, stream: random.Random) -> None:
    """Add a tensor that GPT-2 does not have."""
    name = stream.choice(("attn.rotary.inv_freq", "mlp.c_gate.weight", "ln_3.weight"))
    tensors[f"h.{stream.randrange(2)}.{name}"] = normal(stream, 4)


def add_layer(tensors: Tensors, stream: random.Random) -> None:
    """Add a tensor of a third layer."""
    tensors["h.2.ln_1.weight"] = normal(stream, 4)


def turn(tensors: Tensors, stream: random.Random) -> None:
    """Store a matrix as nn.Linear would."""
    name = f"h.{stream.randrange(2)}.mlp.{stream.choice(('c_fc', 'c_proj'))}.weight"
    tensors[name] = tensors[name].T.contiguous()


def lengthen(tensors: Tensors, stream: random.Random) -> None:
    """Give a vector of a norm one number more; or the table of positions a row."""
    name = stream.choice(("h.0.ln_2.bias", "h.1.attn.c_attn.bias", "wpe.weight"))
    tensors[name] = normal(stream, tensors[name].shape[0] + 1, *tensors[name].shape[1:])


def everything(tensors: Tensors, stream: random.Random) -> None:
    """Two are missing, one is too many, two have a wrong shape."""
    del tensors["wte.weight"], tensors["h.1.attn.c_proj.bias"]
    add_layer(tensors, stream)
    turn(tensors, stream)
    tensors["ln_f.weight"] = normal(stream, 3)


# --- verdicts ---

PREFIX = "transformer."


def is_linear(name: str) -> bool:
    """Whether a result is the weight of a linear layer whose input was one matrix."""
    return name.endswith(tuple(f".{ours}.weight" for ours in LINEARS.values()))


def is_cut(name: str) -> bool:
    """Whether a result is a third of c_attn."""
    return any(f".attention.{part}." in name for part in PARTS)


def is_other(name: str) -> bool:
    """Whether a result is an embedding, a norm, or a bias."""
    return not is_linear(name) and not is_cut(name)


def has_the_names(args: Args, value: Any) -> str | None:
    """The answer is a dict with the names that it must have."""
    if not isinstance(value, dict):
        return f"gives {show(value)}, expected a dict of tensors by name"
    expected = convert_gpt2(*args)
    lacking, extra = sorted(expected.keys() - value.keys()), [n for n in value if n not in expected]
    if lacking or extra:
        return f"gives a dict that lacks {show(lacking)} and has too many: {show(extra)}"
    return None


def has_names_and_shapes(args: Args, value: Any) -> str | None:
    """The names and the shapes of the answer, whatever its numbers."""
    problem = has_the_names(args, value)
    if problem:
        return problem
    expected = convert_gpt2(*args)
    for name, tensor in expected.items():
        if not isinstance(value[name], Tensor):
            return f"gives {show(value[name])} as {name}, expected a tensor"
        if value[name].shape != tensor.shape:
            got, wanted = tuple(value[name].shape), tuple(tensor.shape)
            return f"gives shape {got} as {name}, expected {wanted}"
    return None


def only(chosen: Callable[[str], bool]) -> Verify:
    """A verdict on some of the tensors."""

    def verify(args: Args, value: Any) -> str | None:
        for name, tensor in convert_gpt2(*args).items():
            if not chosen(name):
                continue
            if name not in value:
                return f"gives no {name}"
            problem = difference(tensor, value[name])
            if problem and tensor.ndim == 2 and not difference(tensor.T, value[name]):
                size = f"{tensor.shape[0]} by {tensor.shape[1]}"
                return f"gives {name}, {size}, the other way round: expected its transpose"
            if problem:
                return problem.replace("gives", f"gives as {name}", 1)
        return None

    return verify


def is_accepted(args: Args, value: Any) -> str | None:
    """All names are there, and norms as they are; whether weights are has its own checks."""
    return has_the_names(args, value) or only(lambda name: "norm" in name)(args, value)


def same_only(chosen: Callable[[str], bool]) -> Callable[[Any, Any], bool]:
    """Whether two answers agree in some of the tensors."""
    return lambda a, b: same(
        {name: item for name, item in a.items() if chosen(name)},
        {name: item for name, item in b.items() if chosen(name)},
    )


NAME = re.compile(r"(?:h\.\d+|wte|wpe|ln_f|lm_head)(?:\.\w+)+")


def faulty_names(args: Args) -> set[str]:
    """The names that an error must have, without prefix."""
    tensors = {name.removeprefix(PREFIX): item for name, item in args[0].items()}
    head = tensors.pop("lm_head.weight", None)
    if head is not None and not torch.equal(head, tensors["wte.weight"]):
        return {"lm_head.weight"}
    problems = find_problems(tensors, args[1])
    return {match.group() for line in problems for match in NAME.finditer(line)}


def refuses(args: Args, value: Any) -> str | None:
    """A ValueError that has the names of all faulty tensors and of no other."""
    kind, content, text = value
    wanted = faulty_names(args)
    if not wanted:
        return _accepts(args, value)
    if kind != "raised":
        return f"returns a dict, expected a ValueError that names {', '.join(sorted(wanted))}"
    if "ValueError" not in content:
        return f"raises {content[0]}: {text[:80]}, expected a ValueError"
    named = set(NAME.findall(text))
    fine = named - wanted - {"wte.weight"}  # with which lm_head.weight is compared
    if wanted - named:
        lacking = ", ".join(sorted(wanted - named))
        return f"raises a ValueError that does not name {lacking}: {text[:120]!r}"
    if fine:
        return f"raises a ValueError that names {min(fine)}, which is as it should be"
    return None


def _accepts(args: Args, value: Any) -> str | None:
    if value[0] != "returned":
        return f"raises {value[1][0]}: {value[2][:120]!r}, but nothing is wrong with this file"
    tensors = {name: item for name, item in args[0].items() if name != "lm_head.weight"}
    tensors = {name.removeprefix(PREFIX): item for name, item in tensors.items()}
    return is_accepted((tensors, args[1]), value[1])


def same_refusal(a: Any, b: Any) -> bool:
    """Whether two functions refuse for the same tensors, or both do not."""
    if a[0] != b[0]:
        return False
    if a[0] == "returned":
        return set(a[1]) == set(b[1])
    if "ValueError" not in a[1] or "ValueError" not in b[1]:
        return bool(a[1][0] == b[1][0])
    return set(NAME.findall(a[2])) == set(NAME.findall(b[2]))


FORM = "returns the names and shapes of the book; changes nothing"
REST = "embeddings, norms and biases as they are"
TRANSPOSED = "weights the other way round, square ones too"
CUT = "query, key and value out of c_attn"
PREFIXED = "names with the prefix `transformer.`"
BUFFERS = "masks in the file are no weights"
HEAD = "lm_head.weight: tied, or refused"
MISSING = "refuses a file that lacks a tensor, and names it"
SURPLUS = "refuses a tensor too many, and names it"
MISSHAPEN = "refuses a wrong shape, and names the tensor"
ALL = "names everything that is wrong at once"

_check = partial(Check, same=same)
_refusal = partial(Check, verify=refuses, probe="attempt_and_read", same=same_refusal)

CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_plain, has_names_and_shapes, pure=True),
    _check(REST, Kind.ORACLE, 1, draw_plain, only(is_other), same=same_only(is_other)),
    _check(
        TRANSPOSED, Kind.ORACLE, 3, draw_plain, only(is_linear), same=same_only(is_linear), hint=2
    ),
    _check(CUT, Kind.ORACLE, 2, draw_plain, only(is_cut), same=same_only(is_cut), hint=3),
    _check(PREFIXED, Kind.ORACLE, 1, draw_prefixed, is_accepted),
    _check(
        BUFFERS,
        Kind.ORACLE,
        1,
        draw_buffers,
        is_accepted,
        pure=True,
        hint=4,
    ),
    _refusal(HEAD, Kind.BEHAVIOR, 1, draw_heads, hint=4),
    _refusal(MISSING, Kind.BEHAVIOR, 1, spoiled(lose, lose_last), hint=4),
    _refusal(SURPLUS, Kind.BEHAVIOR, 1, spoiled(add, add_layer), hint=4),
    _refusal(MISSHAPEN, Kind.BEHAVIOR, 1, spoiled(turn, lengthen), hint=4),
    _refusal(ALL, Kind.BEHAVIOR, 1, spoiled(everything), hint=4),
)

REFERENCE = source_of(convert_gpt2)
