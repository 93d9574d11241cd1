"""The modules of the model and of its data, named as in the original."""

import importlib.util

if importlib.util.find_spec("shapeguard") is None:
  raise ImportError(
    "IODINE needs the package `shapeguard`, which has to be installed by "
    "itself: run `pip install --no-deps shapeguard==0.1.1`"
  )
