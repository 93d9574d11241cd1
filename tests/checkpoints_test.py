import os

import helpers
import numpy as np
import pytest

from iodine import building, checkpoints, errors


def make_model(**updates):
  model = helpers.tiny_model(updates)
  model.initialize((8, 8, 3))
  return model


def make_store(folder, **updates):
  model = make_model(**updates)
  optimizer = building.build(helpers.tiny_config(updates)["optimizer"])
  optimizer.initialize(model.trainable_variables)
  helpers.perturb(model)
  return model, checkpoints.CheckpointStore(str(folder), model, optimizer)


def test_restore_brings_back_every_variable(tmp_path):
  model, store = make_store(tmp_path)
  prefix = store.save()
  other = make_model()
  assert checkpoints.restore(tmp_path, model=other) == (prefix, None)
  for a, b in zip(model.variables, other.variables, strict=True):
    np.testing.assert_array_equal(a, b)


def test_restore_takes_a_prefix_too(tmp_path):
  model, store = make_store(tmp_path)
  first = store.save()
  before = model.initial_sample_distribution.numpy()
  store._optimizer.global_step.assign(5)
  model.initial_sample_distribution.assign_add(before * 0 + 1)
  store.save()
  other = make_model()
  checkpoints.restore(first, model=other)
  np.testing.assert_array_equal(other.initial_sample_distribution, before)


def test_variables_have_the_names_of_the_checkpoint(tmp_path):
  model, store = make_store(tmp_path)
  names = checkpoints.variables_by_path(model)
  assert len(names) == len(model.variables)
  assert "decoder/pixel_decoder/conv_net/layers/0/w" in names
  assert (
    names["initial_sample_distribution"] is model.initial_sample_distribution
  )


@pytest.mark.parametrize(
  "updates, part",
  [
    ({"n_z": 4}, "initial_sample_distribution is [6] there and [8] here"),
    (
      {"model.refinement_core.recurrent_net.hidden_sizes": [5]},
      "recurrent_net/layers/0/b_gates is not in the checkpoint",
    ),
    (
      {"model.factor_evaluator": None},
      "factor_evaluator/predict_latents/b [25] is only there",
    ),
  ],
)
def test_another_config_is_a_sentence_and_changes_nothing(
  tmp_path, updates, part
):
  _, store = make_store(tmp_path)
  store.save()
  other = make_model(**updates)
  before = [np.array(v) for v in other.variables]
  with pytest.raises(errors.UserError) as info:
    checkpoints.restore(str(tmp_path), model=other)
  assert part in str(info.value)
  assert "\n" not in str(info.value)
  for a, b in zip(before, other.variables, strict=True):
    np.testing.assert_array_equal(a, b)


def test_missing_checkpoints(tmp_path):
  with pytest.raises(errors.UserError, match="holds no checkpoint"):
    checkpoints.restore(str(tmp_path), model=make_model())
  with pytest.raises(errors.UserError, match="no checkpoint at `/no/such`"):
    checkpoints.restore("/no/such", model=make_model())


def test_a_broken_checkpoint(tmp_path):
  _, store = make_store(tmp_path)
  prefix = store.save()
  data_file = f"{prefix}.data-00000-of-00001"
  os.truncate(data_file, os.path.getsize(data_file) // 2)
  with pytest.raises(errors.UserError, match="broken or incomplete"):
    checkpoints.restore(str(tmp_path), model=make_model())
  with open(f"{prefix}.index", "wb") as file:
    file.write(b"nonsense")
  with pytest.raises(errors.UserError, match="broken or incomplete"):
    checkpoints.restore(str(tmp_path), model=make_model())


def test_a_folder_that_cannot_be_made(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="cannot create the folder"):
    make_store(tmp_path / "file" / "folder")
