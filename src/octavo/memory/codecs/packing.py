"""Two 4-bit codes in a byte: the first in the low half.

Shape letters: n codes, one a byte, an even number; b bytes.
"""

from __future__ import annotations

import torch


def pack_into(packed_b: torch.Tensor, codes_n: torch.Tensor) -> None:
    """Codes of 0 to 15 (``uint8``, contiguous, twice as many as bytes) into ``packed_b``."""
    # A pair as one little-endian number is 0x0H0L; H moves down beside L.
    pairs_b = codes_n.view(torch.int16)
    packed_b.copy_(torch.bitwise_right_shift(pairs_b, 4).bitwise_or_(pairs_b).bitwise_and_(0xFF))


def unpacked(packed_b: torch.Tensor) -> torch.Tensor:
    """The codes again, two from each byte."""
    pairs_b = packed_b.to(torch.int16)
    return pairs_b.bitwise_or_(pairs_b << 4).bitwise_and_(0x0F0F).view(torch.uint8)
