"""The data as the paper says, after the named config of a data set.

  python main.py with clevr6 paper_data

The original code trains on all scenes of a file and, for CLEVR, on those of
exactly five objects. The paper trains CLEVR6 on up to six objects among the
first 70,000 scenes, Multi-dSprites and Tetrominoes on the first 60,000, and
tests each on 320 scenes after those. Expect the metrics of the paper's table 1
to be comparable only in this setting.
"""

from . import base


def paper_data(data):
  num_train = 70000 if data["constructor"].endswith(".CLEVR") else 60000
  data = {**base.split(num_train), "num_test_scenes": 320}
  if num_train == 70000:
    # Six objects and the background.
    data["min_num_objects"] = None
    data["max_num_objects"] = 7
  del num_train
