"""A software GPU for machines without one: Mesa's lavapipe in the user's cache."""

from runtimes.lavapipe.lavapipe import (
    CHOICE,
    LAVAPIPE,
    MESA,
    SYSTEM,
    driver_folder,
    driver_here,
    load_lavapipe,
    shader_cache,
    vulkan_choice,
)

__all__ = [
    "CHOICE",
    "LAVAPIPE",
    "MESA",
    "SYSTEM",
    "driver_folder",
    "driver_here",
    "load_lavapipe",
    "shader_cache",
    "vulkan_choice",
]
