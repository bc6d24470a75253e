"""Filling a model from its files: one reader pool, cast or quantized while reading."""

from octavo.models.loading.load import Loader
from octavo.models.loading.progress import LoadProgress
from octavo.models.loading.readers import ReaderPool
from octavo.models.loading.running import Loading

__all__ = ["LoadProgress", "Loader", "Loading", "ReaderPool"]
