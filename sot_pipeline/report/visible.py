"""Text of unknown origin, made harmless to the eye: see `sot_pipeline.visible`."""

from sot_pipeline.visible import excerpt, visible

__all__ = ["excerpt", "visible"]
