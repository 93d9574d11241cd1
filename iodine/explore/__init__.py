"""A page on this machine: objects to click, latents to move, scenes to edit."""

__all__: list[str] = []
