"""Requests as the messages that chat templates take, and the tokenizers that go with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from octavo.errors import BrokenFile, InputError
from octavo.models.checkpoint import Checkpoint
from octavo.requests import Message, Modality, Request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def messages_for_template(request: Request, *, plain: bool = False) -> list[dict[str, Any]]:
    """``[{"role": ..., "content": ...}]``, oldest first.

    Args:
        plain: content is one string, as templates of text models want it; else it is a list of
            ``{"type": "text", "text": ...}`` and, for media, ``{"type": kind}``.

    Raises:
        InputError: ``plain``, and a part is not text.
    """
    return [
        {"role": message.role, "content": text_of(message) if plain else _items(message)}
        for message in request.messages
    ]


def text_of(message: Message) -> str:
    """The texts of a message, one line each.

    Raises:
        InputError: a part is not text.
    """
    for part in message.parts:
        if part.kind is not Modality.TEXT:
            raise InputError(
                f"this model reads text, not {part.kind}",
                where=part.where,
                next_step="ask a model that takes it: octavo platforms lists them",
            )
    return "\n".join(str(part.value) for part in message.parts)


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, request: Request) -> list[int]:
    """Token ids of a request of text, ready to be answered.

    With a chat template it is used; a template that refuses system messages gets their text in
    front of the next message. Without one the texts follow each other.

    Raises:
        InputError: a part is not text, or the template refuses the messages.
    """
    messages = messages_for_template(request, plain=True)
    if tokenizer.chat_template is None:
        text = "\n".join(message["content"] for message in messages)
        return [int(token) for token in tokenizer(text)["input_ids"]]
    from jinja2.exceptions import TemplateError

    try:
        text = _templated(tokenizer, messages)
    except TemplateError as error:
        merged = _system_merged(messages)
        if merged == messages:
            raise _refused(request, error) from error
        try:
            text = _templated(tokenizer, merged)
        except TemplateError as again:
            raise _refused(request, again) from again
    # The template wrote the special tokens.
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def local_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """The tokenizer among a checkpoint's own files; nothing is downloaded.

    Raises:
        InputError: the files are not on this machine, or there is no tokenizer among them.
        BrokenFile: a file of it is damaged.
    """
    from transformers import AutoTokenizer

    from octavo.models.gguf import GgufCheckpoint

    folder = checkpoint.folder
    if isinstance(checkpoint, GgufCheckpoint):
        folder = checkpoint.companions
    if folder is None:
        raise InputError(
            "the model's files are not on this machine",
            where=checkpoint.name,
            next_step=f"octavo pull {checkpoint.name}",
        )
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
    if not any((folder / name).is_file() for name in names):
        raise InputError(
            "no tokenizer beside the model",
            where=checkpoint.name,
            next_step=f"it needs one of {', '.join(names)}; download the model again",
        )
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True
        )
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise BrokenFile(
            f"the tokenizer cannot be read: {error}",
            where=checkpoint.name,
            next_step="download the model again",
        ) from error
    return tokenizer


def end_tokens_of(tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint) -> frozenset[int]:
    """Ids that end an answer: of the tokenizer, the configuration and the generation settings."""
    settings = checkpoint.json("generation_config.json") if _has_settings(checkpoint) else {}
    found = {tokenizer.eos_token_id}
    for value in (checkpoint.config.get("eos_token_id"), settings.get("eos_token_id")):
        found.update(value if isinstance(value, list) else [value])
    return frozenset(int(token) for token in found if token is not None)


def _has_settings(checkpoint: Checkpoint) -> bool:
    return checkpoint.has("generation_config.json")


def _items(message: Message) -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": str(part.value)}
        if part.kind is Modality.TEXT
        else {"type": str(part.kind)}
        for part in message.parts
    ]


def _templated(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, Any]]) -> str:
    return str(
        tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
    )


def _system_merged(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    merged: list[dict[str, Any]] = []
    before = ""
    for message in messages:
        if message["role"] == "system":
            before += f"{message['content']}\n\n"
        else:
            merged.append({**message, "content": before + message["content"]})
            before = ""
    return merged


def _refused(request: Request, error: Exception) -> InputError:
    return InputError(
        f"the model's chat template refuses these messages: {error}",
        where=request.id,
        next_step="messages of user and assistant must alternate, the user's first and last",
    )
