"""`report` as users run it, its page as Chromium shows it."""

import json
import os
import re

import helpers
import pytest
import tensorflow as tf

from iodine import training

STEP = 7
WIDTHS = ("scrollWidth", "clientWidth")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """The folder of a model of 3 slots and 2 refinements, with logs."""
  folder = str(tmp_path_factory.mktemp("run"))
  config = {**helpers.tiny_config(), "environment": {"x": 1}}  # a stranger's
  helpers.save_checkpoint(folder, config, step=STEP)
  with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
    json.dump(config, file)
  writer = training.SummaryWriter(folder)
  for step in range(1, STEP):
    writer.scalars(step, {"loss/total": -step, "loss/ari_nobg": step / 10})
  return folder


def command(scenes, checkpoint, *options):
  return [
    *("report", "with", "tetrominoes", *helpers.TINY_OPTIONS),
    *(f"data.path={scenes}", f"checkpoint_dir={checkpoint}", *options),
  ]


@pytest.fixture(scope="module")
def report(five_scenes, checkpoint, tmp_path_factory):
  """Path of a report, and its metrics."""
  metrics = tmp_path_factory.mktemp("metrics") / "metrics.json"
  options = [
    *("evaluation.seeds=2", "evaluation.num_components=[3,2]"),
    *("evaluation.num_scenes=4", "plot.scenes=[4,1]"),
    *("plot.num_scenes_for_map=2", f"json_path={metrics}"),
  ]
  helpers.run_main(*command(five_scenes, checkpoint, *options))
  return f"{checkpoint}/report.html", json.loads(metrics.read_text())


def cells(page, metric):
  """Values in full and as text, of one row of the table of metrics."""
  (row,) = re.findall(rf'<tr data-metric="{metric}">.*?</tr>', page)
  found = re.findall(r'<data value="([^"]*)">([^<]*)</data>', row)
  return [float(value) for value, _ in found], [text for _, text in found]


def test_it_has_all_metrics(report):
  path, metrics = report
  with open(path, encoding="utf-8") as file:
    page = file.read()
  assert ">x: 1<" in page
  names = [name for name, value in metrics.items() if "mean" in str(value)]
  names = [n for n in names if n not in ("per_iteration", "generalisation")]
  assert set(re.findall(r'data-metric="(.*?)"', page)) == set(names)
  assert len(names) > 15
  for name in names:
    values, texts = cells(page, name)
    entry = metrics[name]
    assert values == [x for x in entry.values() if x is not None]
    for value, text in zip(values, texts, strict=True):
      # Four digits are shown.
      shown = float(text.replace("−", "-"))
      assert shown == pytest.approx(value, rel=6e-4, abs=1e-12)
  (over_iterations,) = re.findall(r'id="iterations".*?</section>', page, re.S)
  values = re.findall(r'<data value="([^"]*)">', over_iterations)
  by_iteration = metrics["per_iteration"]
  columns = ["ari", "ari_nobg", "miou", "msc", "mse", "recons", "kl"]
  columns.append("num_active_slots")
  assert [float(value) for value in values] == [
    by_iteration[name][t]["mean"] for t in range(3) for name in columns
  ]


def test_chromium_shows_it_without_the_network(report, browser):
  path, metrics = report
  browser.open(path)
  headings = [text for (text,) in browser.query("h1, h2, h3", "textContent")]
  assert headings == [
    *("4 scenes of Tetrominoes", "What was evaluated", "Metrics"),
    *("Over the iterations", "Other numbers of slots"),
    *("Training", "Scenes", "Scene 4", "Scene 1", "Samples from the prior"),
    *("Map of the latents", "Config"),
  ]
  images = browser.query(
    "img", "complete", "naturalWidth", "naturalHeight", "alt", "src"
  )
  # Five of each scene, curves, generalisation, training, samples, latents.
  assert len(images) == 2 * 5 + 5
  for complete, width, height, alt, source in images:
    assert complete and width > 100 and height > 100
    assert len(alt) > 15
    assert source.startswith("data:image/")
  assert len({alt for *_, alt, _ in images}) == len(images)
  kinds = [re.match(r"data:image/(\w+)", x[-1]).group(1) for x in images]
  assert (kinds.count("gif"), kinds.count("png")) == (2, 13)
  # Each entry of the table of contents leads somewhere.
  links = [link for (link,) in browser.query("nav a", "hash")]
  targets = {f"#{i}" for (i,) in browser.query("section[id]", "id")}
  assert set(links) == targets and len(links) == len(targets) == 11
  # Nothing was asked for but the page, and nothing complained.
  assert (
    browser.driver.execute_script(
      "return performance.getEntriesByType('resource')"
      ".filter(x => !x.name.startsWith('data:')).length"
    )
    == 0
  )
  assert browser.console_errors() == []
  # Its own script, and the data of two scenes.
  assert browser.query("script", "src", "type") == [
    *[("", "application/json")] * 2,
    ("", ""),
  ]
  assert browser.query("link[rel=stylesheet], iframe", "tagName") == []
  text = browser.text()
  assert f"{STEP}" in text and "a&b<i>/tetrominoes_train" in text
  assert f"over {metrics['num_scenes']} scenes" in text
  names = [name for (name,) in browser.query(".config th", "innerText")]
  values = [value for (value,) in browser.query(".config td", "innerText")]
  config = dict(zip(names, values, strict=True))
  assert config["data.image_dim"] == "[8, 8]"
  assert config["model.refinement_core.recurrent_net.hidden_sizes"] == "[]"
  assert config["evaluation.num_components"] == "[3, 2]"


def test_scenes_are_played_and_clicked(report, browser):
  browser.open(report[0], width=390)
  browser.wait_for(lambda: browser.query(".curves figure", "tagName"))
  (first, second) = browser.query(".view output", "value")
  assert first == second == ("2 of 2",)
  names = [
    x.split()[0] for (x,) in browser.query(".curves figure", "innerText")
  ]
  assert names == 2 * ["loss", "KL", "ARI"]
  run = browser.driver.execute_script
  pictures = (
    "[...document.querySelectorAll('.view canvas')].map(x => x.toDataURL())"
  )
  before = run(f"return {pictures}")
  run(
    "const range = document.querySelector('.view input'); range.value = 0;"
    "range.dispatchEvent(new Event('input'))"
  )
  assert browser.query(".view output", "value") == [("0 of 2",), ("2 of 2",)]
  after = run(f"return {pictures}")
  # Of the first scene all but the image itself, of the second one none.
  changed = [x != y for x, y in zip(before, after, strict=True)]
  assert not any(changed[len(changed) // 2 :]) and sum(changed) > 5
  browser.click(".view .slots label:last-child")
  chosen = browser.query(".view .slots input", "checked")
  assert chosen == 2 * [(False,), (False,), (True,)]
  for (facts,) in browser.query(".view .facts", "textContent"):
    assert re.fullmatch(r"Slot 3: .* % of the pixels, KL .* nats", facts)
  assert browser.console_errors() == []


@pytest.mark.parametrize("width", [360, 1500])
def test_the_page_itself_does_not_scroll_sideways(report, browser, width):
  browser.open(report[0], width=width)
  ((scroll, client),) = browser.query("html", *WIDTHS)
  assert scroll <= client
  # Chromium may not make its window smaller than it likes.
  assert client < 600 or width > 600


def test_nothing_is_cut_on_a_phone(report, browser):
  browser.open(report[0])
  metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1}
  send = browser.driver.execute_cdp_cmd
  send("Emulation.setDeviceMetricsOverride", {**metrics, "mobile": True})
  try:
    sizes = browser.query("html, .scroll, .picture, h1", *WIDTHS)
  finally:
    send("Emulation.clearDeviceMetricsOverride", {})
  assert sizes[0] == (390, 390) and len(sizes) > 10
  assert all(scroll <= client for scroll, client in sizes), sizes


def test_the_file_refers_to_nothing_outside(report):
  with open(report[0], encoding="utf-8") as file:
    page = file.read()
  assert os.path.getsize(report[0]) < 10e6
  assert "://" not in page
  for value in re.findall(r'(?:src|href)="(.{0,20})', page):
    assert value.startswith(("data:", "#"))
  assert "url(" not in page and "@import" not in page
  assert "a&b<i>" not in page and "a&amp;b&lt;i&gt;" in page


def test_little_to_show_gives_a_short_page(five_scenes, tmp_path):
  """No logs of a training, no scenes, no regressor, no refinement."""
  config = helpers.tiny_config({"model.factor_evaluator": None})
  helpers.save_checkpoint(tmp_path, config)
  output = tmp_path / "new/page.html"
  options = [
    *("model.factor_evaluator=None", f"output={output}", "num_iters=0"),
    *("plot.scenes=[]", "plot.num_scenes_for_map=1"),
    "evaluation.num_scenes=1",
  ]
  helpers.run_main(*command(five_scenes, tmp_path, *options))
  page = output.read_text(encoding="utf-8")
  ids = re.findall(r'<section id="(\w+)"', page)
  parts = "subject metrics iterations samples latents config"
  assert ids == parts.split()
  # A single scene has no standard error.
  assert page.count('<td class="number">–</td>') == page.count("data-metric=")


@pytest.mark.parametrize(
  "option, part",
  [
    ("output=/tmp", "`/tmp` is not a file"),
    ("plot.scenes=[5]", "no scene 5: the test subset has 5 scenes"),
  ],
)
def test_errors_leave_nothing(
  capsys, five_scenes, checkpoint, tmp_path, option, part
):
  output = f"output={tmp_path}/page.html"
  words = command(five_scenes, checkpoint, output, option)
  assert part in helpers.fails_with_sentence(capsys, *words)
  assert os.listdir(tmp_path) == []


def test_logs_are_read_as_they_were_last_written(tmp_path):
  def write(name, values):
    with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
      for step, tag, value in values:
        event = tf.compat.v1.Event(step=step)
        entry = event.summary.value.add(tag=tag)
        if isinstance(value, tuple):  # as TF1 writes it
          entry.simple_value = value[0]
        else:
          entry.tensor.CopyFrom(tf.make_tensor_proto(value, tf.float32))
        writer.write(event.SerializeToString())

  write(
    "events.out.tfevents.1",
    [(1, "a", 1.0), (2, "a", (2.5,)), (3, "a", 3.0), (1, "b", 9.0)],
  )
  write(
    "events.out.tfevents.2",
    [(3, "a", 30.0), (4, "a", float("nan")), (5, "a", 5)],
  )
  cut = tmp_path / "events.out.tfevents.2"
  cut.write_bytes(cut.read_bytes()[:-3])
  (tmp_path / "evaluation").mkdir()
  write("evaluation/events.out.tfevents.3", [(7, "a", 7.0)])
  found = training.read_scalars(str(tmp_path), ["a", "c"])
  assert found == {"a": [(1, 1.0), (2, 2.5), (3, 30.0)]}
  assert training.read_scalars(str(tmp_path / "no"), ["a"]) == {}
