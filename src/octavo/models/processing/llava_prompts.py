"""A request as one line of text for LLaVA: the checkpoint's chat template, or the classic one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from octavo.errors import BrokenFile, InputError
from octavo.models.checkpoint import Checkpoint
from octavo.models.processing.clip_files import processor_settings, refuse
from octavo.requests import Message, Modality, Part, Request

_ROLES: Final = {"user": "USER: ", "assistant": "ASSISTANT: ", "system": ""}


def template_of(checkpoint: Checkpoint, tokenizer: Any) -> str | None:
    """The chat template: the processor's before the tokenizer's, whose may know only text.

    Raises:
        BrokenFile: a file that should hold it does not.
    """
    if checkpoint.has("chat_template.jinja"):
        return checkpoint.files.read("chat_template.jinja").decode("utf-8", "replace")
    if checkpoint.has("chat_template.json"):
        found = checkpoint.json("chat_template.json").get("chat_template")
        if not isinstance(found, str):
            raise BrokenFile("chat_template.json holds no chat_template", where=checkpoint.name)
        return found
    found = processor_settings(checkpoint).get("chat_template") or tokenizer.chat_template
    return found if isinstance(found, str) else None


def prompt_of(
    request: Request, family: str, tokenizer: Any, template: str | None, image_token: str
) -> tuple[str, list[Part]]:
    """The prompt with one ``image_token`` for each picture, and the pictures in that order.

    Raises:
        InputError: a part that is neither text nor picture, a text that holds ``image_token``,
            or messages that the template refuses.
    """
    pictures = [_checked(part, family, image_token) for part in request.parts]
    wanted = [part for part in pictures if part.kind is Modality.IMAGE]
    if template is None:
        return _classic(request.messages, tokenizer, image_token), wanted
    from jinja2 import TemplateError

    structured = "type" in template
    messages = [_as_data(message, image_token, structured) for message in request.messages]
    try:
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, TypeError) as error:
        raise InputError(
            f"the model's chat template refuses these messages: {error}",
            where=request.id,
            next_step="ask with one message of the user, without a system message",
        ) from error
    if text.count(image_token) != len(wanted):
        raise InputError(
            f"the model's chat template has room for {text.count(image_token)} pictures, "
            f"the request has {len(wanted)}",
            where=request.id,
        )
    return str(text), wanted


def _checked(part: Part, family: str, image_token: str) -> Part:
    if part.kind not in (Modality.TEXT, Modality.IMAGE):
        raise refuse(part, family, "text and pictures")
    if part.kind is Modality.TEXT and image_token in part.value:
        raise InputError(
            f"the text holds {image_token}, which stands for a picture",
            where=json.dumps(part.value[:60]),
            next_step="leave it out: pictures go where they stand among the parts",
        )
    return part


def _as_data(message: Message, image_token: str, structured: bool) -> dict[str, Any]:
    if not structured:
        return {"role": message.role, "content": _words(message.parts, image_token)}
    content = [
        {"type": "image"} if part.kind is Modality.IMAGE else {"type": "text", "text": part.value}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}


def _words(parts: Sequence[Part], image_token: str) -> str:
    """Parts in their order, each picture on a line of its own."""
    pieces = [image_token + "\n" if p.kind is Modality.IMAGE else str(p.value) for p in parts]
    return "".join(pieces)


def _classic(messages: Sequence[Message], tokenizer: Any, image_token: str) -> str:
    """``USER: <image>\\n... ASSISTANT:`` (Liu et al. 2023, as LLaVA-1.5 was trained)."""
    end = tokenizer.eos_token or ""
    said = []
    for message in messages:
        closing = end if message.role == "assistant" else " "
        said.append(_ROLES[message.role] + _words(message.parts, image_token) + closing)
    return "".join(said) + "ASSISTANT:"
