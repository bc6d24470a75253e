"""Answers held to a form while they are made: tokens that would leave it cannot be chosen.

A form is compiled once for a tokenizer; every answer has a :class:`Matcher` that knows how far it
is. Masks are bits, 1/32 of the logits, until they are laid over them where the logits are.

Shape letters: b requests, t tokens, v vocabulary, r rows that are held, w words of 32 bits.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import torch

from octavo.errors import ConfigError, InputError, MissingDependency
from octavo.response import ResponseForm

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

#: Compiled forms of one tokenizer that are kept, latest used first.
KEPT: Final = 64


class Grammars:
    """What a tokenizer's answers can be held to. Safe to use from many threads.

    Args:
        tokenizer: a fast one whose tokens are bytes or characters (byte-level BPE, or
            SentencePiece with a fallback to bytes).
        end_tokens: ids that end an answer; they are allowed where the form is whole.

    Raises:
        ConfigError: what this tokenizer's tokens say cannot be known from it (WordPiece).
        MissingDependency: llguidance is not installed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_tokens: Iterable[int]) -> None:
        try:
            from llguidance.hf import from_tokenizer
        except ImportError as error:
            raise MissingDependency(
                "llguidance is not installed, and answers of a given form need it",
                next_step="pip install 'octavo[models]'",
            ) from error
        self.end_tokens = frozenset(end_tokens)
        kind: Any = tokenizer
        try:
            self._tokenizer = from_tokenizer(kind, eos_token=sorted(self.end_tokens) or None)
        except ValueError as error:
            raise ConfigError(
                f"answers of this model cannot be held to a form: {error}",
                where=str(tokenizer.name_or_path) or type(tokenizer).__name__,
                next_step="ask without one, or ask a model with a byte-level tokenizer",
            ) from error
        self.vocabulary = int(self._tokenizer.vocab_size)
        self._compiled: OrderedDict[ResponseForm, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def matcher(self, form: ResponseForm, tokens: Iterable[int] = ()) -> Matcher:
        """A matcher for one answer.

        Args:
            tokens: of an answer that is continued.

        Raises:
            ConfigError: the form is too large for its limits.
            InputError: ``tokens`` do not have the form.
        """
        made = Matcher(self._start(form), form, self.end_tokens, self.vocabulary)
        for token in tokens:
            made.advance(token)
        return made

    def _start(self, form: ResponseForm) -> LLMatcher:
        from llguidance import LLMatcher

        with self._lock:
            start = self._compiled.get(form)
            if start is None:
                start = LLMatcher(self._tokenizer, form.grammar, log_level=0)
                if start.is_error():
                    raise _too_large(form, start.get_error())
                self._compiled[form] = start
                if len(self._compiled) > KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(form)
            # A copy shares what was learned of the form, and starts at its beginning.
            return start.deep_copy()


_grammars: WeakKeyDictionary[Any, dict[frozenset[int], Grammars]] = WeakKeyDictionary()
_grammars_lock = threading.Lock()


def grammars_of(tokenizer: PreTrainedTokenizerBase, end_tokens: Iterable[int]) -> Grammars:
    """Those of a tokenizer, made once (a third of a second for 50 000 tokens); they go with it."""
    ends = frozenset(end_tokens)
    with _grammars_lock:
        known = _grammars.setdefault(tokenizer, {})
        if ends not in known:
            known[ends] = Grammars(tokenizer, ends)
        return known[ends]


class Matcher:
    """How far one answer is in its form. For one thread at a time.

    Attributes:
        form: what it is held to.
        words: 32-bit words of a mask.
    """

    def __init__(
        self, reader: LLMatcher, form: ResponseForm, end_tokens: frozenset[int], vocabulary: int
    ) -> None:
        self.form = form
        self.words = -(-vocabulary // 32)
        self._vocabulary = vocabulary
        self.end_tokens = end_tokens
        self._reader = reader
        self._taken = 0
        self._ended = False

    @property
    def whole(self) -> bool:
        """Whether the answer so far has the form; it may be allowed to go on."""
        return bool(self._reader.is_accepting())

    @property
    def finished(self) -> bool:
        """Whether the answer is over: an end token came, or nothing but one can come."""
        return self._ended or bool(self._reader.is_stopped())

    def mask(self, allowed_w: NDArray[np.int32]) -> None:
        """Writes which tokens may come next, one bit each, lowest first; shape (words,).

        Raises:
            ConfigError: the form became too large for its limits.
        """
        if self._ended:
            allowed_w.fill(0)
            bits = allowed_w.view(np.uint8)
            for token in self.end_tokens:
                bits[token >> 3] |= 1 << (token & 7)
            return
        self._reader.unsafe_compute_mask_ptr(allowed_w.ctypes.data, allowed_w.nbytes)
        if self._reader.is_error():
            raise _too_large(self.form, self._reader.get_error())

    def allowed(self, logits_v: torch.Tensor) -> None:
        """Makes every token that may not come next impossible, in place.

        Raises:
            ConfigError: nothing is left to choose, or the form became too large for its limits.
        """
        hold(logits_v.unsqueeze(0), [self])

    def advance(self, token: int) -> None:
        """Takes the token that was chosen.

        Raises:
            InputError: it may not come here; the matcher stays where it was.
        """
        if token in self.end_tokens:
            if not (self._ended or self.whole):
                raise self._refused(token)
            self._ended = True
        # The reader breaks for good on a number that is no token.
        elif (
            self._ended
            or not 0 <= token < self._vocabulary
            or self._reader.try_consume_tokens([token]) != 1
        ):
            raise self._refused(token)
        else:
            self._taken += 1

    def rollback(self, tokens: int) -> None:
        """Takes back the last ``tokens``; an end token counts as one.

        Raises:
            InputError: more than there are.
        """
        inner = tokens - self._ended
        if tokens < 0 or inner > self._taken:
            raise InputError(
                f"{tokens} tokens cannot be taken back of {self._taken + self._ended}",
                where=str(self.form.kind),
            )
        if tokens == 0:
            return
        self._ended = False
        if inner and not self._reader.rollback(inner):
            raise InputError(self._reader.get_error(), where=str(self.form.kind))
        self._taken -= inner

    def _refused(self, token: int) -> InputError:
        return InputError(
            f"token {token} may not come here",
            where=f"{self.form.kind} after {self._taken} tokens",
            next_step="choose from the logits that the matcher masked",
        )


def hold(logits_bv: torch.Tensor, matchers: Sequence[Matcher | None]) -> None:
    """Masks rows in place: one matcher a row, all of one tokenizer; None leaves a row as it is.

    Beside the logits one byte a token and row is used while it works.

    Raises:
        ConfigError: nothing is left to choose in a row, as when the model's own settings suppress
            what the form asks for; or a form became too large for its limits.
    """
    rows = [(row, matcher) for row, matcher in enumerate(matchers) if matcher is not None]
    if not rows:
        return
    allowed_rw = np.empty((len(rows), rows[0][1].words), np.int32)
    for number, (_, matcher) in enumerate(rows):
        matcher.mask(allowed_rw[number])
    forbidden_rv = _forbidden(allowed_rw, logits_bv.device)
    known = min(forbidden_rv.shape[1], logits_bv.shape[1])
    for number, (row, _) in enumerate(rows):
        # Models have more logits than tokens, to be a multiple of something.
        logits_bv[row, known:] = -torch.inf
        logits_bv[row, :known].masked_fill_(forbidden_rv[number, :known], -torch.inf)
    # One question to the device for all rows.
    none_r = torch.stack([logits_bv[row].amax() for row, _ in rows]).isneginf()
    if none_r.any():
        row, matcher = rows[int(none_r.int().argmax())]
        raise ConfigError(
            "the form leaves no token to choose",
            where=f"{matcher.form.kind} in row {row}",
            next_step="the model's generation settings may suppress tokens that the form needs",
        )


def _forbidden(allowed_rw: NDArray[np.int32], device: torch.device) -> torch.Tensor:
    """Booleans, shape (r, 32 w), on ``device``; only the bits travel."""
    packed = np.invert(allowed_rw).view(np.uint8)
    if device.type == "cpu":
        return torch.from_numpy(np.unpackbits(packed, axis=1, bitorder="little")).view(torch.bool)
    return _spread(torch.from_numpy(packed).to(device))


def _spread(packed_rn: torch.Tensor) -> torch.Tensor:
    """Bits of bytes as booleans, lowest first, where the bytes are."""
    bits_8 = torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8)
    return (packed_rn.unsqueeze(-1) & bits_8.to(packed_rn.device)).ne(0).flatten(1)


class Held:
    """A batch of answers of transformers' ``generate``, held to their forms: a logits processor,
    which must come before those that narrow or draw. One token a row and step, no beams.

    Args:
        matchers: one a row, in order; None for a row that may say anything.
    """

    def __init__(self, matchers: Sequence[Matcher | None]) -> None:
        self._matchers = matchers
        self._seen: int | None = None

    def __call__(self, ids_bt: torch.Tensor, scores_bv: torch.Tensor) -> torch.Tensor:
        self._follow(ids_bt)
        hold(scores_bv, self._matchers)
        return scores_bv

    def over(self, ids_bt: torch.Tensor) -> list[bool]:
        """Which rows are finished, with the tokens that were chosen last: nothing more can come,
        so the end token need not be computed. False for rows without a form."""
        self._follow(ids_bt)
        return [matcher is not None and matcher.finished for matcher in self._matchers]

    def _follow(self, ids_bt: torch.Tensor) -> None:
        """Takes what was chosen since the last time; the prompt is what is there the first time."""
        if self._seen is None:
            self._seen = ids_bt.shape[1]
        new_bt = ids_bt[:, self._seen :].tolist()
        self._seen = ids_bt.shape[1]
        for matcher, tokens in zip(self._matchers, new_bt, strict=True):
            for token in tokens:
                # Rows that are over are filled up while others go on.
                if matcher is not None and not matcher.finished:
                    matcher.advance(token)


def _too_large(form: ResponseForm, message: str) -> ConfigError:
    first = message.strip().splitlines()[0] if message.strip() else "no reason given"
    return ConfigError(
        f"the form cannot be followed: {first}",
        where=str(form.kind),
        next_step="make it smaller: fewer choices, shorter repetitions",
    )
