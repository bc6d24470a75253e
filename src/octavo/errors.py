"""Every error that Octavo raises on purpose.

OctavoError                      what went wrong, where, and what to do next
├── InputError                   the thing handed in cannot be used as it is
│   ├── SourceNotFound           no such file, or a pattern that matches nothing
│   ├── UnsupportedFormat        no reader for this kind of file
│   ├── BrokenFile               the file is damaged beyond what the library can mend
│   ├── PasswordRequired         encrypted, and no password or a wrong one was given
│   └── LimitExceeded            a picture or archive over the size limits (a bomb)
├── ConfigError                  an unknown key, a wrong value, or two that exclude each other
├── MissingDependency            an optional library is needed; ``next_step`` is the command
├── PageError                    one page failed; the others are whole
│   ├── PageTimeout              a page went over its time limit
│   └── WorkerCrashed            the process that read the page died (a fault in native code)
├── DownloadError                the hub cannot be reached, refuses, or sent something else
├── BudgetExceeded               a reservation would pass the memory budget; says who holds what
├── TierError                    a tier of the memory hierarchy could not keep or give back a value
│   ├── TierFull                 no room in a tier, or no space on its disk
│   ├── CorruptValue             bytes read back are not the bytes written (checksum)
│   └── LostValue                the file that held a value is gone or too short
├── CodecError                   a value cannot be encoded or decoded
├── DeadlineExceeded             an answer was not complete in time
├── ReleasedError                a handle was used after its release
├── JournalError                 the journal of a run cannot be used
└── OutputError                  the report cannot be written (disk full, no permission)
"""

from __future__ import annotations


class OctavoError(Exception):
    """Base of all errors.

    Args:
        what: one sentence, what went wrong.
        where: the file, page or key that it concerns.
        next_step: what the caller can do about it.
    """

    def __init__(
        self, what: str, *, where: str | None = None, next_step: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next_step = next_step

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head} ({self.next_step})" if self.next_step else head

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.next_step))


def _rebuild(
    kind: type[OctavoError], what: str, where: str | None, next_step: str | None
) -> OctavoError:
    return kind(what, where=where, next_step=next_step)


class InputError(OctavoError):
    """The thing handed in cannot be used as it is."""


class SourceNotFound(InputError):
    """No such file, or a pattern that matches nothing."""


class UnsupportedFormat(InputError):
    """No reader for this kind of file."""


class BrokenFile(InputError):
    """The file is damaged beyond what the library can mend."""


class PasswordRequired(InputError):
    """The file is encrypted, and no password or a wrong one was given."""


class LimitExceeded(InputError):
    """A picture or archive over the size limits."""


class ConfigError(OctavoError):
    """An unknown key, a wrong value, or two settings that exclude each other."""


class MissingDependency(OctavoError):
    """An optional library is needed; ``next_step`` is the command that installs it."""


class PageError(OctavoError):
    """One page failed; the others are whole."""


class PageTimeout(PageError):
    """A page went over its time limit."""


class WorkerCrashed(PageError):
    """The process that read the page died."""


class DownloadError(OctavoError):
    """The hub cannot be reached, refuses, or sent other bytes than it announced."""


class BudgetExceeded(OctavoError):
    """A reservation would pass the memory budget; ``what`` says who holds what."""


class TierError(OctavoError):
    """A tier of the memory hierarchy could not keep or give back a value."""


class TierFull(TierError):
    """No room in a tier, or no space on its disk."""


class CorruptValue(TierError):
    """The bytes read back are not the bytes written."""


class LostValue(TierError):
    """The file that held a value is gone or too short."""


class CodecError(OctavoError):
    """A value cannot be encoded or decoded."""


class DeadlineExceeded(OctavoError):
    """An answer was not complete in time."""


class ReleasedError(OctavoError):
    """A handle was used after its release."""


class JournalError(OctavoError):
    """The journal of a run cannot be used."""


class OutputError(OctavoError):
    """The report cannot be written."""
