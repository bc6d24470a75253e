"""Bytes in words: ``"4GB"`` is 4 * 10**9, ``"4GiB"`` is 4 * 2**30."""

from __future__ import annotations

import re

from octavo.errors import ConfigError

_FORM = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_bytes(size: int | str, *, name: str = "memory") -> int:
    """Bytes of ``4_000_000_000``, ``"4GB"``, ``"3.5 GiB"`` or ``"512m"``.

    Args:
        size: a number of bytes, or a number with a unit; without ``i`` units are decimal.
        name: the setting, for the message.

    Raises:
        ConfigError: not a size, or negative.
    """
    if isinstance(size, bool):
        raise _refused(size, name)
    if isinstance(size, int):
        if size < 0:
            raise _refused(size, name)
        return size
    found = _FORM.fullmatch(size) if isinstance(size, str) else None
    if found is None:
        raise _refused(size, name)
    number, power, binary = found.groups()
    if binary and not power:
        raise _refused(size, name)
    unit: int = (1024 if binary else 1000) ** _POWERS[power.lower()]
    return round(float(number) * unit)


def format_bytes(nbytes: float) -> str:
    """``"1.5 GB"``: three digits and a decimal unit."""
    sign, rest = ("-", -nbytes) if nbytes < 0 else ("", nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if rest < 999.5:
            return f"{sign}{rest:.3g} {unit}" if unit != "B" else f"{sign}{rest:.0f} B"
        rest /= 1000
    return f"{sign}{rest:.3g} TB" if rest < 999.5 else f"{sign}{rest:,.0f} TB"


def _refused(size: object, name: str) -> ConfigError:
    return ConfigError(
        f"{size!r} is not an amount of memory",
        where=name,
        next_step='write bytes as a whole number, or a size such as "4GB" or "512MiB"',
    )
