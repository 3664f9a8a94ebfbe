"""Read a Hugging Face checkpoint lazily and refuse a damaged one."""

from export.checkpoint.checkpoint import Checkpoint, open_checkpoint

__all__ = ["Checkpoint", "open_checkpoint"]
