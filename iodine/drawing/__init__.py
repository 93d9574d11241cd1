"""NumPy in, figures out; no TensorFlow here."""

__all__ = [
  "canvas",
  "charts",
  "latent_plots",
  "palette",
  "plotting",
  "sheet",
]
