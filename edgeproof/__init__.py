"""What the exporters and the runtimes share."""

__version__ = "0.2.0"
