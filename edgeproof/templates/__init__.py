"""Chat templates: programs of strangers, rendered with bounds on what they reach, take and last."""

from edgeproof.templates.renderer import Message, RefusalError, Renderer

__all__ = ["Message", "RefusalError", "Renderer"]
