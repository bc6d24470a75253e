"""Bytes in words, there and back."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import ConfigError
from octavo.memory.sizes import format_bytes, parse_bytes

UNITS = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kB": 10**3,
    "KiB": 2**10,
    "mi": 2**20,
    "MB": 10**6,
    "g": 10**9,
    "GiB": 2**30,
    "TB": 10**12,
    "tib": 2**40,
}


@pytest.mark.parametrize(
    ("size", "nbytes"),
    [
        (0, 0),
        (4_000_000_000, 4 * 10**9),
        ("4GB", 4 * 10**9),
        ("3.5 GiB", 7 * 2**29),
        ("512m", 512 * 10**6),
        (" 1 kib ", 1024),
        ("0.5B", 0),
        ("12", 12),
    ],
)
def test_parses(size: int | str, nbytes: int) -> None:
    assert parse_bytes(size) == nbytes


@given(
    st.integers(0, 10**6),
    st.integers(0, 999),
    st.sampled_from(sorted(UNITS)),
    st.sampled_from(["", " ", "  "]),
)
def test_parses_what_decimal_arithmetic_says(
    whole: int, thousandths: int, unit: str, space: str
) -> None:
    text = f"{whole}.{thousandths:03d}"
    exact = Decimal(text) * UNITS[unit]
    nearest = int(exact.to_integral_value(ROUND_HALF_EVEN))
    assert abs(parse_bytes(f"{text}{space}{unit}") - nearest) <= (1 if exact % 1 else 0) + int(
        nearest / 2**52
    )


@pytest.mark.parametrize(
    "size",
    [-1, True, 1.5, None, "", "GB", "4 XB", "1ib", "-4GB", "4GBs", "1e9", "4,5GB", "½GB", b"1"],
)
def test_refuses_what_is_no_size(size: object) -> None:
    with pytest.raises(ConfigError, match="is not an amount of memory") as error:
        parse_bytes(size, name="host")  # type: ignore[arg-type]
    assert str(error.value).startswith(f"host: {size!r}")
    assert "4GB" in str(error.value)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1500, "1.5 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (4 * 10**9, "4 GB"),
        (1.234e12, "1.23 TB"),
        (999.6e12, "1,000 TB"),
        (5e15, "5,000 TB"),
        (-2_500_000, "-2.5 MB"),
    ],
)
def test_formats(nbytes: float, text: str) -> None:
    assert format_bytes(nbytes) == text


@given(st.integers(0, 999 * 10**12))
def test_reads_back_what_it_writes(nbytes: int) -> None:
    text = format_bytes(nbytes)
    assert abs(parse_bytes(text) - nbytes) <= nbytes * 0.005
    assert len(text) <= len("1.23 GB")
