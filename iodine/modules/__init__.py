"""The modules of the model and of its data, named as in the original."""

try:
  import shapeguard as _shapeguard  # noqa: F401
except ImportError as error:
  raise ImportError(
    "IODINE needs the package `shapeguard`, which has to be installed by "
    "itself: run `pip install --no-deps shapeguard==0.1.1`."
  ) from error
