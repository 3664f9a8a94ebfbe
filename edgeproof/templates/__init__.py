"""Chat templates: programs of strangers, rendered with bounds on what they reach, take and last."""

from edgeproof.templates.renderer import Message, Renderer

__all__ = ["Message", "Renderer"]
