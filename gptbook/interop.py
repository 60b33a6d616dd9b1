# Exported from chapters/05_pretrained.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Checkpoints in Hugging Face's form, both ways: GPT-2, Llama and Qwen3, from safetensors only.

One table for each family says which of their tensors is which of ours. Reading copies into the
places that it names, and writing copies out of them. The classes of Llama and Qwen3 in transformers
differ in the norms of queries and keys; other families with their names may follow.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gptbook.config import Backend, GPTConfig
from gptbook.interop_config import config_from_huggingface, config_to_huggingface
from gptbook.model import GPT


class Row(NamedTuple):
    """One row of a family's table: a layer of ours, and where its weight and bias are in theirs.

    Attributes:
        ours: our name, with {layer} for the block's number.
        theirs: their name; several if our matrix holds several of theirs one below the other.
        transposed: whether their weight has inputs as rows and outputs as columns.
    """

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False


GPT2_ROWS = (
    Row("tokens", ("transformer.wte",)),
    Row("learned_positions", ("transformer.wpe",)),
    Row("blocks.{layer}.attention_norm", ("transformer.h.{layer}.ln_1",)),
    Row("blocks.{layer}.attention.qkv", ("transformer.h.{layer}.attn.c_attn",), transposed=True),
    Row("blocks.{layer}.attention.output", ("transformer.h.{layer}.attn.c_proj",), transposed=True),
    Row("blocks.{layer}.mlp_norm", ("transformer.h.{layer}.ln_2",)),
    Row("blocks.{layer}.mlp.up", ("transformer.h.{layer}.mlp.c_fc",), transposed=True),
    Row("blocks.{layer}.mlp.down", ("transformer.h.{layer}.mlp.c_proj",), transposed=True),
    Row("norm", ("transformer.ln_f",)),
    Row("unembedding", ("lm_head",)),
)

LLAMA_ROWS = (
    Row("tokens", ("model.embed_tokens",)),
    Row("blocks.{layer}.attention_norm", ("model.layers.{layer}.input_layernorm",)),
    Row(
        "blocks.{layer}.attention.qkv",
        (
            "model.layers.{layer}.self_attn.q_proj",
            "model.layers.{layer}.self_attn.k_proj",
            "model.layers.{layer}.self_attn.v_proj",
        ),
    ),
    Row("blocks.{layer}.attention.output", ("model.layers.{layer}.self_attn.o_proj",)),
    Row("blocks.{layer}.mlp_norm", ("model.layers.{layer}.post_attention_layernorm",)),
    Row(
        "blocks.{layer}.mlp.gate_up",
        ("model.layers.{layer}.mlp.gate_proj", "model.layers.{layer}.mlp.up_proj"),
    ),
    Row("blocks.{layer}.mlp.down", ("model.layers.{layer}.mlp.down_proj",)),
    Row("norm", ("model.norm",)),
    Row("unembedding", ("lm_head",)),
)

QWEN3_ROWS = (
    *LLAMA_ROWS,
    Row("blocks.{layer}.attention.q_norm", ("model.layers.{layer}.self_attn.q_norm",)),
    Row("blocks.{layer}.attention.k_norm", ("model.layers.{layer}.self_attn.k_norm",)),
)

ROWS = {"gpt2": GPT2_ROWS, "llama": LLAMA_ROWS, "qwen3": QWEN3_ROWS}
"""Each family's table."""


def huggingface_views(tensors: Mapping[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """Return views of our tensors by Hugging Face's names, each in the shape that it has there.

    A view shares its numbers: copying into it loads, and reading it saves. The tensors may be a
    model's parameters, or anything of the same names and shapes, such as their gradients.

    Args:
        tensors: our tensors by our names.
        config: the model's.

    Raises:
        ValueError: Hugging Face has no family with such models.
    """
    views: dict[str, Tensor] = {}
    for row in ROWS[config_to_huggingface(config)["model_type"]]:
        for layer in range(config.n_layer if "{layer}" in row.ours else 1):
            for kind in ("weight", "bias"):
                tensor = tensors.get(f"{row.ours.format(layer=layer)}.{kind}")
                if tensor is None:
                    continue
                parts = torch.split(tensor, part_sizes(len(row.theirs), len(tensor), config))
                for name, part in zip(row.theirs, parts, strict=True):
                    turned = row.transposed and kind == "weight"
                    views[f"{name.format(layer=layer)}.{kind}"] = part.T if turned else part
    return views


def part_sizes(n_parts: int, n_rows: int, config: GPTConfig) -> list[int]:
    """Return how many rows each part has: queries, keys and values, or equal parts."""
    if n_parts == 3:
        return [n_head * config.d_head for n_head in (config.n_head, *2 * [config.n_kv_head])]
    return n_parts * [n_rows // n_parts]


WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
"""What Hugging Face calls the file of a model, and the index of those of a large one."""


def save_huggingface(
    model: GPT,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_size: int = 5_000_000_000,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
) -> Path:
    """Write a model so that transformers' AutoModelForCausalLM loads it; return the folder.

    Other programs that read such folders, vLLM among them, find the same names and keys there. It
    appears whole or not at all: the files are written to one beside it, which is then renamed.

    Args:
        model: a GPT of a kind that Hugging Face has, on any device.
        folder: where to; it must not exist, or be empty.
        dtype: the type to write; None: the model's.
        max_shard_size: bytes above which the tensors are divided among several files.
        bos_token_id: the id that generation begins with, for config.json.
        eos_token_id: the id that ends generation.

    Raises:
        FileExistsError: the folder has files.
        ValueError: no family of Hugging Face's has such a model.
    """
    dtype = dtype or model.tokens.weight.dtype
    values = config_to_huggingface(model.config) | {
        "torch_dtype": str(dtype).removeprefix("torch."),
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
    }
    folder = Path(folder).expanduser().resolve()
    with folder_written_aside(folder) as aside:
        write_shards(parameter_views(model), aside, dtype, max_shard_size)
        write_json(aside / "config.json", values)
    return folder


def parameter_views(model: GPT) -> dict[str, Tensor]:
    """Return views of a model's parameters by Hugging Face's names."""
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return huggingface_views(tensors, model.config)


@contextlib.contextmanager
def folder_written_aside(folder: Path) -> Iterator[Path]:
    """Give a new folder to write to; at the end it becomes `folder`, or on an error it goes."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not empty: delete it, or name another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    aside.mkdir()
    try:
        yield aside
        if folder.exists():
            folder.rmdir()
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as people like to read them."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_shards(
    views: Mapping[str, Tensor], folder: Path, dtype: torch.dtype, max_shard_size: int
) -> None:
    """Write the tensors to one file, or to several and an index. One file at a time is copied."""
    shards: list[list[str]] = [[]]
    size = total = 0
    for name, view in views.items():
        n_bytes = view.numel() * dtype.itemsize
        if shards[-1] and size + n_bytes > max_shard_size:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size, total = size + n_bytes, total + n_bytes
    files: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = WHOLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        copies = {name: views[name].to("cpu", dtype, copy=True).contiguous() for name in names}
        save_file(copies, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(names, file)
    if len(shards) > 1:
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": files})


PREFIXES = {"gpt2": "transformer.", "llama": "model.", "qwen3": "model."}
"""What names lack in a file that was saved from the class without the matrix of the logits."""

BUFFERS = re.compile(
    r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)"
    r"|(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"
)
"""Tensors of old files that were not learned: masks, and frequencies of rotary positions."""

READABLE = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""The types of numbers that are read. Others belong to quantized models."""

HEAD = "lm_head.weight"


class StoredTensor(NamedTuple):
    """Where a tensor lies, under which name, and what its file's header says of it."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> Tensor:
        """Return the tensor."""
        with safe_open(self.path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(self.name)
        return tensor


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold an object, and holds a {type(values).__name__}")
    return values


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model, one or, by its index, several.

    Raises:
        FileNotFoundError: there are none, or some that the index names are missing.
        ValueError: the index is damaged, or names files elsewhere.
    """
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(
            f"{folder} has neither {WHOLE} nor {INDEX}. Other kinds of files (.bin, .pt, .pth) are "
            "not read, since unpickling one can run any program: have transformers convert it, on "
            "a machine where you trust it"
        )
    shards = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise ValueError(f"{folder / INDEX} has no weight_map from tensors to names of files")
    names = sorted(set(shards.values()))
    if elsewhere := [name for name in names if Path(name).name != name]:
        raise ValueError(f"{folder / INDEX} names files elsewhere: {', '.join(elsewhere)}")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}, which {INDEX} names")
    return [folder / name for name in names]


def stored_tensors(folder: Path) -> list[StoredTensor]:
    """Return what the headers of a checkpoint's files list; no tensor is read.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: a file is cut off, or is no safetensors file.
    """
    stored = []
    for path in checkpoint_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - it is no dict
                    part = file.get_slice(name)
                    shape = tuple(part.get_shape())
                    stored.append(StoredTensor(path, name, shape, part.get_dtype()))
        except SafetensorError as error:
            raise ValueError(
                f"{path} is cut off, or no safetensors file ({error}): get it again"
            ) from error
    return stored


def matched(
    stored: list[StoredTensor], views: Mapping[str, Tensor], config: GPTConfig
) -> dict[str, StoredTensor]:
    """Return the stored tensor for each view. Only shapes and names of the views are looked at.

    Raises:
        ValueError: they do not go together. It lists all tensors that are missing, surplus,
            misshapen, or of a type that is not read.
    """
    family = config_to_huggingface(config)["model_type"]
    found: dict[str, StoredTensor] = {}
    problems: list[str] = []
    for tensor in stored:
        name = tensor.name if tensor.name in views else PREFIXES[family] + tensor.name
        name = HEAD if tensor.name == HEAD and config.tied else name
        if name in found:
            problems.append(f"twice: {tensor.name}")
        elif name in views or name == HEAD:
            found[name] = tensor
        elif not BUFFERS.fullmatch(tensor.name):
            problems.append(f"surplus: {tensor.name} {list(tensor.shape)}")
    embedding = f"{ROWS[family][0].theirs[0]}.weight"
    head = found.pop(HEAD) if config.tied and HEAD in found else None
    problems += [f"missing: {name} {list(views[name].shape)}" for name in views.keys() - found]
    for name, tensor in found.items():
        if tensor.shape != tuple(views[name].shape):
            wanted = list(views[name].shape)
            problems.append(f"misshapen: {tensor.name} {list(tensor.shape)}, wanted {wanted}")
        if tensor.dtype not in READABLE:
            problems.append(f"type {tensor.dtype}: {tensor.name}, wanted {', '.join(READABLE)}")
    if head and embedding in found and not torch.equal(head.read(), found[embedding].read()):
        problems.append(f"{HEAD} differs from {embedding}, and tie_word_embeddings is true")
    if problems:
        where = stored[0].path.parent if stored else "the checkpoint"
        listed = "\n  ".join(sorted(problems))
        raise ValueError(f"{where} does not fit the model ({family}):\n  {listed}")
    return found


def copy_stored(found: Mapping[str, StoredTensor], model: GPT) -> None:
    """Copy stored tensors into the model's places of those names, converting their types."""
    views = parameter_views(model)
    for name, tensor in found.items():
        views[name].copy_(tensor.read())


def load_huggingface(model: GPT, folder: str | Path) -> None:
    """Copy the weights of a checkpoint into a model of the same shape, whatever their types.

    Names and shapes are checked before anything is copied: after an error the model is unchanged.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: a file is damaged, or tensors are missing, surplus or misshapen; all are listed.
    """
    stored = stored_tensors(Path(folder).expanduser())
    copy_stored(matched(stored, parameter_views(model), model.config), model)


HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def from_pretrained(
    name_or_dir: str | Path,
    *,
    revision: str | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    dropout: float = 0.0,
    backend: Backend = "auto",
) -> GPT:
    """Return a pretrained GPT-2, Llama or Qwen3, in evaluation mode.

    Args:
        name_or_dir: a folder with config.json and safetensors files, or a name on Hugging Face's
            Hub, such as "gpt2" or "Qwen/Qwen3-0.6B"; a folder of that name comes first.
        revision: the Hub's branch, tag or commit.
        dtype: the type of the weights; None: that of the files.
        device: where the weights go.
        dropout: the model's, for further training.
        backend: how attention is computed.

    Raises:
        FileNotFoundError: files are missing, or the name could not be had.
        ImportError: a name was given, and huggingface_hub is not installed.
        TypeError: a value in config.json has the wrong type.
        ValueError: config.json or a file is damaged or asks for what our model does not have, or
            tensors are missing, surplus or misshapen; all are listed.
    """
    folder = checkpoint_folder(name_or_dir, revision)
    config = config_from_huggingface(read_json(folder / "config.json"))
    with torch.device("meta"):
        model = GPT(replace(config, dropout=dropout, backend=backend), seed=None)
    found = matched(stored_tensors(folder), parameter_views(model), config)
    types = {READABLE[tensor.dtype] for tensor in found.values()}
    model = model.to(dtype or reduce(torch.promote_types, types)).to_empty(device=device)
    copy_stored(found, model)
    return model.eval()


def checkpoint_folder(name_or_dir: str | Path, revision: str | None = None) -> Path:
    """Return the folder, or the one in the Hub's cache to which that name's files are downloaded.

    Raises:
        FileNotFoundError: there is no such folder, and the Hub did not give such a name.
        ImportError: huggingface_hub is not installed.
    """
    folder = Path(name_or_dir).expanduser()
    if folder.is_dir():
        return folder
    if not HUB_NAME.fullmatch(str(name_or_dir)):
        raise FileNotFoundError(f"there is no folder {folder}")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f"{name_or_dir} is no folder here, and to get it from the Hub takes huggingface_hub: "
            "pip install 'gptbook[interop]'"
        ) from error
    files = ["config.json", WHOLE, "model-*.safetensors", INDEX]
    try:
        return Path(snapshot_download(str(name_or_dir), revision=revision, allow_patterns=files))
    except OSError as error:
        raise FileNotFoundError(
            f"{name_or_dir} is no folder here, and the Hub did not give it: {error}"
        ) from error
