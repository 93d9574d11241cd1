"""Probes: equal to scikit-learn by hand, DCI of latents that are known."""

import json
import sys

import h5py
import helpers
import numpy as np
import pytest
from sklearn import linear_model, metrics, neural_network

from iodine.studies import probe

OPTIONS = {"matching": "masks", "seeds": 1, "held_out": 0.25}


def made_up(num_scenes=80, num_slots=4, size=5, noise=0.0, seed=0):
  """Latents whose first three numbers are the factors of their objects."""
  rng = np.random.default_rng(seed)
  position = rng.uniform(size=[num_scenes, 4, 2]).astype(np.float32)
  shape = rng.integers(0, 3, [num_scenes, 4, 1])
  slots = rng.permuted(np.tile(np.arange(num_slots), [num_scenes, 1]), axis=1)
  mean = rng.normal(size=[num_scenes, num_slots, size])
  own = np.concatenate([position, shape], axis=-1)
  mean[np.arange(num_scenes)[:, None], slots[:, :4], :3] = own
  mean += noise * rng.normal(size=mean.shape)
  return {
    "mean": mean,
    "slot": slots[:, :4].astype(np.int16),
    "pixels": np.full([num_scenes, 4], 5),
    "visibility": np.ones([num_scenes, 4], np.float32),
    "factors/position": position,
    "factors/shape": shape.astype(np.uint8),
  }


def of_objects(found):
  """Latents, position and shape of the objects, in the order of scenes."""
  scenes = np.arange(len(found["mean"]))[:, None]
  x = found["mean"][scenes, found["slot"][:, 1:]]
  flat = (x, found["factors/position"][:, 1:])
  shapes = found["factors/shape"][:, 1:, 0]
  return [*(a.reshape(-1, a.shape[-1]) for a in flat), shapes.ravel()]


def test_scores_are_those_of_scikit_learn():
  found = made_up(noise=0.3)
  result = probe.measure(found, {"shape": "categorical"}, OPTIONS)
  is_train = np.random.default_rng(0).permutation(80) >= 20
  side = np.repeat(is_train, 3)
  x, position, shape = of_objects(found)
  x = (x - x[side].mean(axis=0)) / x[side].std(axis=0)
  fitted = linear_model.LinearRegression().fit(x[side], position[side])
  r2 = metrics.r2_score(position[~side], fitted.predict(x[~side]))
  scores = result["factors"]["position"]
  assert scores["score"] == "r2" and 0.1 < r2 < 0.9
  np.testing.assert_allclose(scores["linear"]["mean"], r2, rtol=1e-5)
  nothing = np.tile(position[side].mean(axis=0), [60, 1])
  r2 = metrics.r2_score(position[~side], nothing)
  np.testing.assert_allclose(scores["baseline"]["mean"], r2, rtol=1e-3)
  fitted = linear_model.LogisticRegression(max_iter=1000).fit(
    x[side], shape[side]
  )
  accuracy = np.mean(fitted.predict(x[~side]) == shape[~side])
  scores = result["factors"]["shape"]
  assert scores["score"] == "accuracy"
  np.testing.assert_allclose(scores["linear"]["mean"], accuracy)
  most = np.bincount(shape[side]).argmax()
  accuracy = np.mean(shape[~side] == most)
  np.testing.assert_allclose(scores["baseline"]["mean"], accuracy)
  assert result["num_objects"] == result["num_matched"]["mean"] == 240
  assert "position" in probe.table(result)


def test_an_interrupted_probe_has_no_scores(monkeypatch):
  def interrupted(*arguments):
    raise KeyboardInterrupt

  monkeypatch.setattr(neural_network.MLPRegressor, "_backprop", interrupted)
  with pytest.raises(KeyboardInterrupt):
    probe.measure(made_up(), {}, OPTIONS)


def test_dci_of_factored_latents_is_one_and_of_shuffled_ones_near_zero():
  found = made_up(num_scenes=400)
  x, position, shape = of_objects(found)
  factors = {"position": position.astype(float), "shape": shape.astype(float)}
  train = np.arange(len(x)) % 4 > 0
  whole = probe.probe(x, factors, train, ~train, 0)
  assert [*whole["importance"]] == ["position 1", "position 2", "shape"]
  for name, value in whole["dci"].items():
    assert value == pytest.approx(1.0, abs=1e-2), name
  shuffled = np.random.default_rng(1).permutation(x)
  order = probe.probe(shuffled, factors, train, ~train, 0)["dci"]
  assert max(order.values()) < 0.1 + 0.1


def test_dci_by_hand():
  values = np.array([[0.5, 0.5, 0.0], [-1e-17, 0.0, 1.0]])
  order = probe.dci(values, [0.5, 1.0])
  assert order["disentanglement"] == pytest.approx(1.0)
  both = (1 - np.log(2) / np.log(3) + 1) / 2
  assert order["completeness"] == pytest.approx(both)
  assert order["informativeness"] == 0.75


def test_objects_find_their_slots_by_the_loss():
  found = made_up(num_scenes=200)
  slots = found["slot"][:, 1:].ravel()
  values = {
    name: found[f"factors/{name}"][:, 1:].reshape(600, -1)
    for name in ("position", "shape")
  }
  factors = probe.factors_of(values, {})
  # Numbers have columns, classes have none.
  assert {k: x.ndim for k, x in factors.items()} == {"position": 2, "shape": 1}
  scene = np.repeat(np.arange(200), 3)
  matched = probe.match_by_loss(found["mean"], factors, scene, scene < 150, 0)
  assert np.mean(matched == slots) > 0.95
  for name in ("slot", "pixels", "visibility"):
    del found[name]
  options = {**OPTIONS, "matching": "loss"}
  result = probe.measure(found, {}, options)
  assert result["factors"]["position"]["linear"]["mean"] > 0.9


def write(path, found):
  with h5py.File(path, "w") as file:
    for name, values in found.items():
      file[name] = values
    file.attrs["made_from"] = "nothing"
  return path


def test_what_is_missing_is_said(monkeypatch, tmp_path, capsys):
  found = made_up(num_scenes=4)
  alike = np.zeros([80, 4, 1], np.uint8)
  alike[np.flatnonzero(np.random.default_rng(0).permutation(80) < 20)] = 1
  bare = {k: v for k, v in found.items() if "factors" not in k}
  for i, (content, matching, part) in enumerate(
    (
      (found, "masks", "slots have 9 and 3 objects"),
      ({**made_up(), "factors/shape": alike}, "masks", "class"),
      (bare, "masks", "no factors that differ"),
      ({"mean": found["mean"]}, "masks", "no masks, and `probe.matching=loss`"),
      ({"mean": found["mean"]}, "loss", "no factors that differ"),
    )
  ):
    path = write(tmp_path / f"{i}.h5", content)
    words = [f"latents={path}", f"probe.matching={matching}"]
    line = helpers.fails_with_sentence(capsys, "probe", "with", *words)
    assert f"`{path}` cannot be probed (" in line and part in line
    assert "encode more scenes, with factors that are numbers" in line
  words = ["probe", "with", f"latents={tmp_path}/there_is_none.h5"]
  assert "is not a file of latents" in helpers.fails_with_sentence(
    capsys, *words
  )
  monkeypatch.setitem(sys.modules, "sklearn", None)
  monkeypatch.delitem(sys.modules, "iodine.studies.probe")
  line = helpers.fails_with_sentence(capsys, *words)
  assert "pip install -r requirements-probe.txt" in line


def test_the_command_writes_table_picture_and_json(tmp_path, capsys):
  path = write(tmp_path / "latents.h5", made_up())
  helpers.run_main(
    *("probe", "with", f"latents={path}", "probe.seeds=2"),
    *(f"json_path={tmp_path}/probe.json", "plot.format=pdf"),
  )
  text = capsys.readouterr().out
  assert "240 of 240 visible objects" in text and "disentanglement" in text
  assert "±" in text and "unlike the config" not in text
  result = json.loads((tmp_path / "probe.json").read_text())
  assert result["seeds"] == 2 and result["latents"] == str(path)
  assert result["factors"]["position"]["linear"]["mean"] > 0.99
  assert result["dci"]["disentanglement"]["standard_deviation"] >= 0
  assert np.shape(result["importance"]["values"]) == (3, 5)
  assert (tmp_path / "probe.pdf").read_bytes().startswith(b"%PDF")
