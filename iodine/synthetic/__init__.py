"""Generators of scenes in the layouts of the public multi_object_datasets.

They stand in for the public files where those cannot be had: every feature
has the name, shape, type and encoding of the public data set, so whatever
reads one reads the other. Tetrominoes are drawn to the byte as the public
ones are, Multi-dSprites closely, CLEVR only in kind. Moving sprites stand in
for nothing: they are films. Scenes can be written as users have them, too: PNGs
in a folder, arrays in a NPZ file.

Importing this package does not import TensorFlow (worker processes rely on
it); `write_dataset` does when it is called.
"""

from iodine.synthetic.registry import DATASETS, Dataset
from iodine.synthetic.writer import write_dataset

__all__ = ["DATASETS", "Dataset", "write_dataset"]
