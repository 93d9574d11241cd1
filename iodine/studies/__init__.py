"""Above the single run: many of them, their latents, sharing them."""

__all__: list[str] = []
