"""Read a Hugging Face checkpoint lazily and refuse a damaged one."""

from export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from export.checkpoint.folder import CheckpointFolder, open_folder

__all__ = ["Checkpoint", "CheckpointFolder", "open_checkpoint", "open_folder"]
