"""Read a Hugging Face checkpoint lazily and refuse a damaged one."""

from export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from export.checkpoint.folder import CheckpointFolder, open_folder
from export.checkpoint.recovered import recovered_grids

__all__ = [
    "Checkpoint",
    "CheckpointFolder",
    "open_checkpoint",
    "open_folder",
    "recovered_grids",
]
