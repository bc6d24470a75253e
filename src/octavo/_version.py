"""The version, read by the build and by ``octavo.__version__``."""

__version__ = "0.1.0"
