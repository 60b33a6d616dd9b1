"""``gptbook generate`` and ``gptbook chat``: text from a model, as it comes."""

import argparse
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptbook.app.models import LoadedModel
    from gptbook.generation import Generated, GenerationConfig

Subparsers = (
    argparse._SubParsersAction
)  # argparse has no public name for what add_subparsers returns

MODEL_HELP = (
    "folder of a run of gptbook train, of one of its checkpoints, or of a Hugging Face model; or a "
    "name on the Hub, such as gpt2"
)


def add_commands(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Add ``generate`` and ``chat`` to the command line."""
    generate = commands.add_parser(
        "generate",
        help="write text with a model",
        description="Write behind each prompt. The same seed gives the same text.",
    )
    generate.add_argument("--model", required=True, metavar="DIR|NAME", help=MODEL_HELP)
    generate.add_argument(
        "--prompt",
        action="append",
        required=True,
        metavar="TEXT",
        help="what to write behind; may be repeated; - reads it from standard input",
    )
    generate.add_argument("--n", type=int, default=1, metavar="N", help="texts for each prompt")
    generate.add_argument(
        "--json",
        action="store_true",
        help="an object a line: prompt, text, finish_reason, ids, logprobs",
    )
    generate.add_argument(
        "--pattern", metavar="REGEX", help="write only what this regular expression matches"
    )
    add_settings(generate, max_new_tokens=128, temperature=1.0)
    add_speed(generate)
    generate.set_defaults(run=run_generate)

    chat = commands.add_parser(
        "chat",
        help="talk to a model",
        description="Talk to a model. With none named, the book trains its small chat model on "
        "TinyWorld first, once, in about two minutes.",
    )
    chat.add_argument("--model", metavar="DIR|NAME", help=MODEL_HELP)
    add_settings(chat, max_new_tokens=160, temperature=0.7)
    add_speed(chat)
    chat.set_defaults(run=run_chat)


def add_settings(
    parser: argparse.ArgumentParser, *, max_new_tokens: int, temperature: float
) -> None:
    """Add the settings of generation."""
    for name, kind, default, text in (
        ("max-new-tokens", int, max_new_tokens, "the most tokens that are written"),
        ("temperature", float, temperature, "0 always takes the most probable token"),
        ("top-k", int, None, "draw from the K most probable tokens"),
        ("top-p", float, 1.0, "draw from the most probable tokens that have this share"),
        ("min-p", float, 0.0, "leave out tokens below this share of the most probable one"),
        ("repetition-penalty", float, 1.0, "above 1: what occurred becomes less likely"),
        ("presence-penalty", float, 0.0, "what a token's logit loses that was written already"),
        ("frequency-penalty", float, 0.0, "what it loses each time that it was written"),
        ("seed", int, 0, "of the random numbers"),
    ):
        said = text if default is None else f"{text}; default: {default}"
        parser.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=said)
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before it; may be repeated"
    )
    parser.add_argument(
        "--slide",
        action="store_true",
        help="go on at the end of the model's context, and let it forget the beginning",
    )


def add_speed(parser: argparse.ArgumentParser) -> None:
    """Add what makes a large model write faster."""
    parser.add_argument(
        "--weights",
        choices=("float32", "float16", "bfloat16", "int8"),
        help="keep the matrices in this type, so that less is read for each token",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the model for one text at a time: some seconds first, then the fastest; "
        "needs a C++ compiler",
    )


def made_fast(
    loaded: "LoadedModel", arguments: argparse.Namespace, n_rows: int = 1
) -> "LoadedModel":
    """Return the model as --weights and --compile want it, for so many texts at a time.

    Raises:
        ValueError: --compile with several texts.
    """
    if arguments.compile and n_rows > 1:
        raise ValueError(f"--compile is for one text at a time, not {n_rows}: leave it out")
    if arguments.compile:
        from gptbook.compiled_decoder import compile_for_decoding

        return replace(
            loaded, model=compile_for_decoding(loaded.model, arguments.weights or "float32")
        )
    if arguments.weights is not None:
        from gptbook.decoder import prepare_for_decoding

        model = prepare_for_decoding(loaded.model, arguments.weights, batch_size=n_rows)
        return replace(loaded, model=model)
    return loaded


def settings(arguments: argparse.Namespace) -> "GenerationConfig":
    """Return the settings that the arguments ask for."""
    from gptbook.generation import GenerationConfig

    return GenerationConfig(
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
        presence_penalty=arguments.presence_penalty,
        frequency_penalty=arguments.frequency_penalty,
        seed=arguments.seed,
        stop=arguments.stop,
        overflow="slide" if arguments.slide else "stop",
    )


# --- generate ---


def run_generate(arguments: argparse.Namespace) -> None:
    """Write the texts."""
    from gptbook.app.models import load_model
    from gptbook.arguments import checked_integer

    config = settings(arguments)
    checked_integer(arguments.n, "--n", 1)
    prompts = [sys.stdin.read() if prompt == "-" else prompt for prompt in arguments.prompt]
    loaded = made_fast(load_model(arguments.model), arguments, len(prompts) * arguments.n)
    if len(prompts) * arguments.n == 1 and not arguments.json:
        write_one(loaded, prompts[0], config, arguments.pattern)
        return
    rows = [prompt for prompt in prompts for _ in range(arguments.n)]
    seeds = [config.seed + number for _ in prompts for number in range(arguments.n)]
    write_many(rows, generated(loaded, rows, config, seeds, arguments.pattern), arguments.json)


def constraint_of(loaded: "LoadedModel", pattern: str | None) -> Any:
    """Return the constraint of a pattern, if there is one."""
    if pattern is None:
        return None
    from gptbook.constraints import PatternConstraint

    return PatternConstraint(pattern, loaded.tokenizer)


def write_one(
    loaded: "LoadedModel", prompt: str, config: "GenerationConfig", pattern: str | None
) -> None:
    """Write the prompt and the text behind it as it comes."""
    from gptbook.generation import stream

    pieces = stream(
        loaded.model,
        prompt,
        config,
        tokenizer=loaded.tokenizer,
        constraint=constraint_of(loaded, pattern),
    )
    sys.stdout.write(prompt)
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:
        sys.stdout.write("\n")


def generated(
    loaded: "LoadedModel",
    rows: list[str],
    config: "GenerationConfig",
    seeds: list[int],
    pattern: str | None,
) -> "Generated":
    """Write behind all prompts in one batch."""
    from gptbook.generation import generate

    return generate(
        loaded.model,
        rows,
        config,
        tokenizer=loaded.tokenizer,
        seeds=seeds,
        constraint=constraint_of(loaded, pattern),
    )


def write_many(prompts: list[str], out: "Generated", as_json: bool) -> None:
    """Write texts to standard output, one JSON object a line or one below the other."""
    columns = (prompts, out.texts, out.finish_reasons, out.ids, out.logprobs)
    for number, row in enumerate(zip(*columns, strict=True)):
        if as_json:
            names = ("prompt", "text", "finish_reason", "ids", "logprobs")
            print(json.dumps(dict(zip(names, row, strict=True))))
        else:
            print(f"--- {number + 1} ({row[2]})\n{row[0]}{row[1]}")


# --- chat ---


def run_chat(arguments: argparse.Namespace) -> None:
    """Find or train the model, and talk."""
    from gptbook.app.chat import Chat, talk

    config = settings(arguments)  # a mistake in it is said before anything is trained
    if arguments.model is None:
        from gptbook.app.chat_model import chat_model

        loaded = chat_model()
    else:
        from gptbook.app.models import load_model

        loaded = load_model(arguments.model)
    talk(Chat(made_fast(loaded, arguments), config))
