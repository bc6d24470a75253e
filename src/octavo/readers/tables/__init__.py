"""Tables: found on a page and cut into cells, from words, lines and the hints of a model."""

from octavo.readers.tables.find import FoundTable, find_tables
from octavo.readers.tables.rulings import rulings_from_pixels

__all__ = ["FoundTable", "find_tables", "rulings_from_pixels"]
