"""Files as pages with words, rulings and pixels, lazily.

Importing this loads no PDF library and no codec: ``open_source`` does when a file needs one.
"""

from octavo.media.open import Kind, open_source, sniff
from octavo.media.page import Page, Pixels, Ruling, Source, TextLayer, Word
from octavo.media.turn import turn, turn_box, turned_size

__all__ = [
    "Kind",
    "Page",
    "Pixels",
    "Ruling",
    "Source",
    "TextLayer",
    "Word",
    "open_source",
    "sniff",
    "turn",
    "turn_box",
    "turned_size",
]
