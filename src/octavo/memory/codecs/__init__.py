"""Tensors to bytes and back, each way with a declared bound on the error."""

from octavo.memory.codecs.base import Codec
from octavo.memory.codecs.choice import choose, encode_within
from octavo.memory.codecs.grouped import Grouped
from octavo.memory.codecs.half import Half
from octavo.memory.codecs.lossless import Lossless
from octavo.memory.codecs.lowrank import LowRank
from octavo.memory.codecs.measuring import Measured, measure
from octavo.memory.codecs.raw import Raw
from octavo.memory.codecs.registry import CODECS, codec_named, decode
from octavo.memory.codecs.sparse import Sparse

__all__ = [
    "CODECS",
    "Codec",
    "Grouped",
    "Half",
    "Lossless",
    "LowRank",
    "Measured",
    "Raw",
    "Sparse",
    "choose",
    "codec_named",
    "decode",
    "encode_within",
    "measure",
]
