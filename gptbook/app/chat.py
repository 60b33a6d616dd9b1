"""A conversation in a terminal: lines in, replies out as they come."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace

from gptbook.app.models import LoadedModel
from gptbook.flops import count_parameters
from gptbook.generation import GenerationConfig, stream
from gptbook.tinyworld_chat import ASSISTANT, END, SPECIAL_TOKENS, Conversation, Message

HELP = """\
  /new    forget the conversation
  /undo   take back your last message and the reply
  /edit   change your last message, or /edit TEXT
  /retry  another reply to it
  /show   the conversation so far
  /quit   end (so does Ctrl-D)
Ctrl-C stops a reply; at the prompt it ends the program."""

TINYWORLD_HINT = """\
It knows TinyWorld and nothing else. Try:
  Tell a short story about George and a wooden spoon.
  How can I beat Arlo at checkers?
  In which town is the home of Daisy Carver?"""

PLAIN_NAMES = {"user": "User", "assistant": "Assistant", "system": "System"}


class Chat:
    """A conversation with a model.

    Attributes:
        messages: what was said so far, by "user" and "assistant" in turn.
    """

    def __init__(self, loaded: LoadedModel, config: GenerationConfig) -> None:
        self.loaded, self.config = loaded, config
        self.messages: list[Message] = []
        self.n_replies = 0  # each has a seed of its own
        self.n_forgotten = 0  # messages that the last reply could not see

    def reply(self, text: str) -> Iterator[str]:
        """Yield the reply to a message while it is written; then both are in `messages`.

        Whoever stops it, keeps what had come until then.

        Raises:
            ValueError: the text holds markup, or is longer than the model's context.
        """
        message = Message("user", text)
        prompt = self._prompt([*self.messages, message])
        return self._reply(message, prompt)

    def _reply(self, message: Message, prompt: list[int]) -> Iterator[str]:
        config = replace(
            self.config,
            stop=[*self.config.stop, *self._stops()],
            seed=self.config.seed + self.n_replies,
        )
        self.n_replies += 1
        said: list[str] = []
        try:
            for piece in stream(self.loaded.model, prompt, config, tokenizer=self.loaded.tokenizer):
                said.append(piece)
                yield piece
        finally:
            reply = "".join(said)
            for mark in SPECIAL_TOKENS:  # or it could speak in another role from now on
                reply = reply.replace(mark, "")
            self.messages += [message, Message("assistant", reply.strip())]

    def undo(self) -> str | None:
        """Take back the last exchange; return the user's message, or None if there is none."""
        if not self.messages:
            return None
        text = self.messages[-2].text
        del self.messages[-2:]
        return text

    def _stops(self) -> list[str]:
        return [END] if self.loaded.speaks_markup else ["\nUser:", "\nAssistant:"]

    def _render(self, messages: list[Message]) -> str:
        if self.loaded.speaks_markup:
            return Conversation(tuple(messages)).render() + ASSISTANT
        lines = [f"{PLAIN_NAMES[message.role]}: {message.text}\n" for message in messages]
        return "".join(lines) + "Assistant:"

    def _prompt(self, messages: list[Message]) -> list[int]:
        """Return the ids of the newest messages that leave room for a reply."""
        limit = self.loaded.model.config.context_length
        room = limit - min(self.config.max_new_tokens, limit // 2)
        markup = set(SPECIAL_TOKENS) & set(self.loaded.tokenizer.special_tokens)
        for start in range(0, len(messages), 2):
            rendered = self._render(messages[start:])
            ids = self.loaded.tokenizer.encode(rendered, allowed_special=markup)
            if len(ids) <= room:
                self.n_forgotten = start
                return ids
        raise ValueError(
            f"the message has {len(ids)} tokens with its markup, but there is room for {room} in "
            f"the model's context of {limit}: shorten it"
        )


def talk(chat: Chat) -> None:
    """Read lines from standard input and write replies, until the input ends."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() editing and a history
    if sys.stdin.isatty():
        parameters = count_parameters(chat.loaded.model.config).total
        print(f"A model of {parameters:,} parameters. /help says what you can do.")
        print(TINYWORLD_HINT + "\n" if chat.loaded.speaks_markup else "")
    while (text := read_line()) is not None:
        if text.startswith("/"):
            text = command(chat, text)
            if text is None:
                return
        if text:
            answer(chat, text)


def read_line(text: str = "") -> str | None:
    """Return a line, where there is a terminal with `text` in it to be changed; None at the end."""
    try:
        with prefilled(text):
            return input("> " if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt) as ending:
        if sys.stdin.isatty():
            print()  # whatever comes next begins a line
        if isinstance(ending, KeyboardInterrupt):
            raise
        return None


@contextlib.contextmanager
def prefilled(text: str) -> Iterator[None]:
    """Let the next line that is read begin with a text."""
    try:
        import readline
    except ImportError:
        yield
        return
    readline.set_startup_hook(lambda: readline.insert_text(text))
    try:
        yield
    finally:
        readline.set_startup_hook(None)


def command(chat: Chat, text: str) -> str | None:
    """Do what a line that begins with / asks for; return a message to send, "", or None to end."""
    match text:
        case "/quit" | "/exit":
            return None
        case "/new":
            chat.messages.clear()
        case "/undo":
            said = chat.undo()
            print("nothing to take back" if said is None else f"taken back: {said}")
        case "/retry":
            return chat.undo() or ""
        case "/edit":
            return edited(chat)
        case _ if text.startswith("/edit "):
            return edited(chat, text.removeprefix("/edit "))
        case "/show":
            for message in chat.messages:
                print(f"{message.role}: {message.text}")
        case _:
            print(HELP)
    return ""


def edited(chat: Chat, text: str | None = None) -> str:
    """Return the user's last message, changed; or "" if there is none, or it is left empty.

    Args:
        chat: the conversation.
        text: what it becomes; None: let the user change it.
    """
    kept = chat.messages[-2:]
    said = chat.undo()
    if said is None:
        print("nothing to change yet")
        return ""
    if text is None:
        text = read_line(said)
    if not text:
        chat.messages += kept
        print("nothing changed")
    return text or ""


def answer(chat: Chat, text: str) -> None:
    """Write the reply to a message; Ctrl-C stops the reply and nothing else."""
    forgotten = chat.n_forgotten
    try:
        pieces = chat.reply(text)
    except ValueError as error:
        print(f"{error}", file=sys.stderr)
        return
    if chat.n_forgotten > forgotten == 0:  # said once
        print("(the beginning of the conversation no longer fits and is forgotten)")
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        pieces.close()  # type: ignore[attr-defined]  # a generator
        sys.stdout.write(" [stopped]")
    sys.stdout.write("\n\n" if sys.stdin.isatty() else "\n")
    sys.stdout.flush()
