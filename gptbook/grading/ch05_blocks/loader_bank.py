"""Exercise 5.5: GPT-2's tensors under other names: mistakes and styles."""

from gptbook.grading.ch05_blocks.common import BOOK, SECTIONS
from gptbook.grading.ch05_blocks.loader import CHECKS, REFERENCE
from gptbook.grading.exercise import Mistake, Part, edited
from gptbook.grading.shortcuts import Forbidden
from gptbook.grading.tensors import PRELOAD

NAMES, TRANSPOSED, TIED = SECTIONS["names"], SECTIONS["transposed"], SECTIONS["tied"]

GIVEN = 'given = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}'
BUFFERS = 'buffers = (".attn.bias", ".attn.masked_bias")'
FILTER = "given = {name: tensor for name, tensor in given.items() if not name.endswith(buffers)}"
HEAD = 'head = given.pop("lm_head.weight", None)'
OWN_HEAD = 'if head is not None and not torch.equal(head, given.get("wte.weight", head)):'
MISSING = 'problems = [f"missing: {name}" for name in wanted if name not in given]'
SURPLUS = 'problems += [f"surplus: {name}" for name in given if name not in wanted]'
SHAPE = "if name in given and tuple(given[name].shape) != wanted[name]:"
RAISE = 'raise ValueError("; ".join(problems))'
PLAIN = "result = {ours: given[theirs] for theirs, ours in PLAIN.items()}"
LINEAR = 'result[block + ours + ".weight"] = given[h + theirs + ".weight"].T'
COLUMNS = 'columns = given[h + "attn.c_attn.weight"].chunk(3, dim=1)'
CUT = 'result[block + f"attention.{part}.weight"] = weight.T'
PARTS = 'PARTS = ("query", "key", "value")'

TURN_OBLONG = """
            weight = given[h + theirs + ".weight"]
            turned = weight.T if weight.shape[0] != weight.shape[1] else weight
            result[block + ours + ".weight"] = turned""".strip()
BY_HEADS = """n_head = sizes["n_head"]
        width = sizes["d_model"]
        by_head = given[h + "attn.c_attn.weight"].reshape(width, n_head, 3, width // n_head)
        columns = [by_head[:, :, part].reshape(width, width) for part in range(3)]"""
IN_PLACE = """
            weight = given[h + theirs + ".weight"].t_()
            result[block + ours + ".weight"] = weight""".strip()

MISTAKES = (
    Mistake(
        "Only matrices that are not square are turned",
        "You transpose where the shape demands it, and a square matrix fits both ways. Whether it "
        "is transposed depends on its name: all four Conv1D layers are.",
        TRANSPOSED,
        5,
        edited(REFERENCE, (LINEAR, TURN_OBLONG), (CUT, CUT.removesuffix(".T"))),
        hint=2,
    ),
    Mistake(
        "Nothing is transposed",
        "Conv1D keeps inputs as rows and outputs as columns, and `nn.Linear` the other way round. "
        "Transpose the weights of attn.c_attn, attn.c_proj, mlp.c_fc and mlp.c_proj.",
        TRANSPOSED,
        6,
        edited(REFERENCE, (LINEAR, LINEAR.removesuffix(".T")), (CUT, CUT.removesuffix(".T"))),
        hint=2,
    ),
    Mistake(
        "Query, key and value are not transposed",
        "You cut c_attn by columns and leave the three parts as they are. They are square, so no "
        "shape tells, but they are Conv1D weights like the others.",
        TRANSPOSED,
        2,
        edited(REFERENCE, (CUT, CUT.removesuffix(".T"))),
        hint=3,
    ),
    Mistake(
        "Reshaped, not transposed",
        "`reshape` and `view` give a matrix the right shape with its numbers in the wrong places. "
        "Swap the axes, with `.T` or `transpose(0, 1)`.",
        TRANSPOSED,
        3,
        edited(
            REFERENCE,
            (LINEAR, LINEAR.replace(".T", ".reshape(given[h + theirs + '.weight'].shape[::-1])")),
        ),
        hint=2,
    ),
    Mistake(
        "The embeddings are transposed",
        "You transpose every matrix, the tables too. A table has a row for each token or place on "
        "both sides.",
        TRANSPOSED,
        2,
        edited(REFERENCE, (PLAIN, PLAIN.replace("given[theirs]", "given[theirs].T"))),
        hint=2,
    ),
    Mistake(
        "c_attn is cut along its rows",
        "Rows of a Conv1D weight are inputs, and a third of the inputs is none of the three. "
        "Transpose first and cut rows, or cut columns and transpose each part.",
        TRANSPOSED,
        2,
        edited(
            REFERENCE,
            (
                COLUMNS,
                'width = sizes["d_model"]\n'
                '        columns = given[h + "attn.c_attn.weight"].reshape(3, width, width)',
            ),
        ),
        hint=3,
    ),
    Mistake(
        "c_attn is cut by heads first",
        "You read the columns as a head's query, key and value, and then the next head's, as in "
        "GPT-NeoX. GPT-2 has all queries, then all keys, then all values.",
        NAMES,
        2,
        edited(REFERENCE, (COLUMNS, BY_HEADS)),
        hint=3,
    ),
    Mistake(
        "The parts of c_attn are in another order",
        "c_attn has queries, keys and values in this order, as its paper's Q, K, V. You take the "
        "keys for the queries.",
        NAMES,
        2,
        edited(REFERENCE, (PARTS, 'PARTS = ("key", "query", "value")')),
        hint=3,
    ),
    Mistake(
        "The prefix is not removed",
        "The file's names begin with `transformer.` or do not, depending on who saved it. Strip it "
        "where it is there.",
        NAMES,
        2,
        edited(REFERENCE, (GIVEN, "given = dict(tensors)")),
        hint=1,
    ),
    Mistake(
        "The masks count as surplus",
        "Old files hold the causal mask of each layer as attn.bias and attn.masked_bias. They are "
        "no weights; leave them out before you look for surplus names.",
        NAMES,
        1,
        edited(REFERENCE, (FILTER, "")),
        hint=4,
    ),
    Mistake(
        "c_attn's biases are taken for masks",
        "`endswith('attn.bias')` is true for attn.c_attn.bias as well, so that you throw it away. "
        "Begin the ending with a dot.",
        NAMES,
        14,
        edited(REFERENCE, (BUFFERS, 'buffers = ("attn.bias", "attn.masked_bias")')),
        hint=4,
    ),
    Mistake(
        "lm_head.weight counts as surplus",
        "A file of the whole model has lm_head.weight, which is the matrix of wte.weight once "
        "more. Take it out of the names before you compare them.",
        TIED,
        1,
        edited(REFERENCE, (HEAD, "head = None")),
        hint=4,
    ),
    Mistake(
        "lm_head.weight is dropped unseen",
        "If lm_head.weight differs from wte.weight, the model is not tied, and its logits would be "
        "others. Refuse such a file.",
        TIED,
        1,
        edited(REFERENCE, (OWN_HEAD, "if False:")),
        hint=4,
    ),
    Mistake(
        "A missing name is a KeyError",
        "You find out about a missing tensor when you want it, and say only the first one's name. "
        "Compare all names before you convert anything, and raise ValueError.",
        NAMES,
        2,
        edited(REFERENCE, (MISSING, "problems = []")),
        hint=4,
    ),
    Mistake(
        "What is left over is ignored",
        "A tensor that no one asked for means that the file is of another model, or that you have "
        "left something out. Raise ValueError with its name.",
        NAMES,
        2,
        edited(REFERENCE, (SURPLUS, "")),
        hint=4,
    ),
    Mistake(
        "Shapes are not looked at",
        "A matrix of the wrong shape fails far from here, or broadcasts and fails nowhere. Compare "
        "each shape with the one that the sizes demand.",
        NAMES,
        2,
        edited(REFERENCE, (SHAPE, "if False:")),
        hint=4,
    ),
    Mistake(
        "Only the first problem is named",
        "Whoever has to mend a file wants to know all that is wrong with it. Collect the problems, "
        "and raise once.",
        NAMES,
        1,
        edited(REFERENCE, (RAISE, "raise ValueError(problems[0])")),
        hint=4,
    ),
    Mistake(
        "The caller's tensors are transposed",
        "A method whose name ends with an underscore changes the tensor itself, which is still its "
        "caller's. Use `.T`.",
        TRANSPOSED,
        2,
        edited(REFERENCE, (LINEAR, IN_PLACE)),
        hint=2,
    ),
)

STYLES = {
    "a table of shapes and rules": """
import re


def convert_gpt2(tensors, sizes):
    C, F = sizes["d_model"], sizes["d_ff"]
    table = [("wte.weight", (sizes["vocab_size"], C), "tokens.weight", False)]
    table += [("wpe.weight", (sizes["context_length"], C), "positions.weight", False)]
    rows = [("ln_1", None, C, "attention_norm"), ("ln_2", None, C, "mlp_norm")]
    rows += [("attn.c_attn", C, 3 * C, "attention.qkv"), ("attn.c_proj", C, C, "attention.output")]
    rows += [("mlp.c_fc", C, F, "mlp.up"), ("mlp.c_proj", F, C, "mlp.down")]
    for n in range(sizes["n_layer"]):
        for theirs, n_in, n_out, ours in rows:
            theirs, ours = f"h.{n}.{theirs}", f"blocks.{n}.{ours}"
            shape = (n_out,) if n_in is None else (n_in, n_out)
            table.append((theirs + ".weight", shape, ours + ".weight", n_in is not None))
            table.append((theirs + ".bias", (n_out,), ours + ".bias", False))
    table += [("ln_f.weight", (C,), "norm.weight", False), ("ln_f.bias", (C,), "norm.bias", False)]

    mask = re.compile(r"h\\.\\d+\\.attn\\.(masked_)?bias")
    given, head = {}, None
    for name, tensor in tensors.items():
        short = name[12:] if name.startswith("transformer.") else name
        if short == "lm_head.weight":
            head = tensor
        elif not mask.fullmatch(short):
            given[short] = tensor
    missing = [name for name, *_ in table if name not in given]
    surplus = sorted(set(given) - {name for name, *_ in table})
    wrong = [n for n, shape, *_ in table if n in given and given[n].shape != shape]
    if head is not None and "wte.weight" in given:
        table_too = given["wte.weight"]
        if head.shape != table_too.shape or (head != table_too).any():
            wrong.append("lm_head.weight")
    if missing or surplus or wrong:
        raise ValueError(f"missing {missing}, surplus {surplus}, wrong shape {wrong}")

    out = {}
    for theirs, _, ours, turned in table:
        tensor = given[theirs].transpose(0, 1).contiguous() if turned else given[theirs].clone()
        if ".qkv." in ours:
            for i, part in enumerate(("query", "key", "value")):
                out[ours.replace("qkv", part)] = tensor[i * C : (i + 1) * C]
        else:
            out[ours] = tensor
    return out
""",
    "a walk through the file": """
import torch

RENAMED = {
    "ln_1": "attention_norm",
    "ln_2": "mlp_norm",
    "attn.c_attn": None,
    "attn.c_proj": "attention.output",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}


def convert_gpt2(tensors, sizes):
    C, F = sizes["d_model"], sizes["d_ff"]
    shapes = {
        "ln_1": (C,), "ln_2": (C,), "attn.c_attn": (C, 3 * C), "attn.c_proj": (C, C),
        "mlp.c_fc": (C, F), "mlp.c_proj": (F, C),
    }
    result, problems, seen = {}, [], set()

    def take(name, tensor):
        parts = name.split(".")
        kind = parts[-1]
        if name in ("wte.weight", "wpe.weight"):
            rows = sizes["vocab_size" if name[1] == "t" else "context_length"]
            return (rows, C), {"tokens.weight" if name[1] == "t" else "positions.weight": tensor}
        if name in ("ln_f.weight", "ln_f.bias"):
            return (C,), {f"norm.{kind}": tensor}
        middle = ".".join(parts[2:-1])
        if parts[0] != "h" or int(parts[1]) >= sizes["n_layer"] or middle not in shapes:
            return None
        shape = shapes[middle] if kind == "weight" else shapes[middle][-1:]
        if tuple(tensor.shape) != shape:
            return shape, {}
        if tensor.dim() == 2:
            tensor = torch.einsum("io->oi", tensor)
        block = f"blocks.{parts[1]}."
        if middle != "attn.c_attn":
            return shape, {f"{block}{RENAMED[middle]}.{kind}": tensor}
        thirds = torch.split(tensor, C, dim=0)
        named = zip(("query", "key", "value"), thirds)
        return shape, {f"{block}attention.{part}.{kind}": t for part, t in named}

    head = None
    for full, tensor in tensors.items():
        name = full.replace("transformer.", "", 1)
        if name.endswith(("attn.masked_bias", ".attn.bias")):
            continue
        seen.add(name)
        if name == "lm_head.weight":
            head = tensor
            continue
        found = take(name, tensor)
        if found is None:
            problems.append(f"{full} is not known")
        elif tuple(tensor.shape) != found[0]:
            problems.append(f"{full} has {list(tensor.shape)} and not {list(found[0])}")
        else:
            result.update(found[1])
    wanted = [f"h.{n}.{m}.{k}" for n in range(sizes["n_layer"]) for m in RENAMED
              for k in ("weight", "bias")]
    wanted += ["wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"]
    problems += [f"{name} is missing" for name in wanted if name not in seen]
    if head is not None and "tokens.weight" in result:
        if not torch.equal(head, result["tokens.weight"]):
            problems.append("lm_head.weight is not tied")
    if problems:
        raise ValueError("cannot load: " + ", ".join(problems))
    return result
""",
    "a copy that is emptied": """
import torch


def convert_gpt2(tensors, sizes):
    left = {}
    for name, tensor in tensors.items():
        left[name.split("transformer.")[-1]] = tensor.clone()
    errors, out = [], {}
    C, F = sizes["d_model"], sizes["d_ff"]

    def pop(name, *shape):
        tensor = left.pop(name, None)
        if tensor is None:
            errors.append("missing " + name)
        elif tensor.size() != torch.Size(shape):
            errors.append("shape of " + name)
        else:
            return tensor
        return torch.zeros(shape)

    out["tokens.weight"] = pop("wte.weight", sizes["vocab_size"], C)
    out["positions.weight"] = pop("wpe.weight", sizes["context_length"], C)
    for i in range(sizes["n_layer"]):
        for name, new, n_in, n_out in (
            ("attn.c_attn", "qkv", C, 3 * C),
            ("attn.c_proj", "attention.output", C, C),
            ("mlp.c_fc", "mlp.up", C, F),
            ("mlp.c_proj", "mlp.down", F, C),
        ):
            weight = pop(f"h.{i}.{name}.weight", n_in, n_out).permute(1, 0)
            bias = pop(f"h.{i}.{name}.bias", n_out)
            if new == "qkv":
                for j, part in enumerate(["query", "key", "value"]):
                    out[f"blocks.{i}.attention.{part}.weight"] = weight.reshape(3, C, C)[j]
                    out[f"blocks.{i}.attention.{part}.bias"] = bias.reshape(3, C)[j]
            else:
                out[f"blocks.{i}.{new}.weight"] = weight
                out[f"blocks.{i}.{new}.bias"] = bias
        for name, new in (("ln_1", "attention_norm"), ("ln_2", "mlp_norm")):
            for kind in ("weight", "bias"):
                out[f"blocks.{i}.{new}.{kind}"] = pop(f"h.{i}.{name}.{kind}", C)
        left.pop(f"h.{i}.attn.bias", None)
        left.pop(f"h.{i}.attn.masked_bias", None)
    out["norm.weight"], out["norm.bias"] = pop("ln_f.weight", C), pop("ln_f.bias", C)
    head = left.pop("lm_head.weight", None)
    if head is not None and not (head.shape == out["tokens.weight"].shape
                                 and bool(torch.all(head == out["tokens.weight"]))):
        errors.append("lm_head.weight is not wte.weight")
    errors += ["surplus " + name for name in left]
    if errors:
        raise ValueError("\\n".join(errors))
    return out
""",
}

PART = Part("convert_gpt2", CHECKS, REFERENCE, MISTAKES, STYLES, Forbidden(BOOK), preload=PRELOAD)
