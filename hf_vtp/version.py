"""The version, read by the build and written into configs."""

__version__ = "0.1.0"
