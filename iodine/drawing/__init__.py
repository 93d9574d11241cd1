"""NumPy in, figures out; no TensorFlow here."""

__all__ = [
  "canvas",
  "charts",
  "image_files",
  "latent_plots",
  "palette",
  "plotting",
  "sheet",
]
