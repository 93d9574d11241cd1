"""`explore`: the model behind its page, who may ask, the page in Chromium."""

import base64
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading

import headless
import helpers
import numpy as np
import PIL.Image
import psutil
import pytest
from selenium.webdriver.common import action_chains, keys
from werkzeug import serving, test

import iodine
from iodine import config_files, segmentation
from iodine.explore import application, engine

ROOT = pathlib.Path(__file__).parents[1]
OPTIONS = engine.Options(slots=3, refinements=2, seed=5, sample=False)
ASKED = {"scene": 1, **OPTIONS._asdict()}


def explored_model():
  config = config_files.as_trained(helpers.tiny_config({"batch_size": 3}))
  model = iodine.build(config["model"])
  model.initialize((8, 8, 3))
  helpers.perturb(model)
  return model


def some_scenes(number=5):
  batch = helpers.make_batch(number)
  factors = {f"factor/{k}": x for k, x in batch.pop("factors").items()}
  return {k: np.asarray(v) for k, v in {**batch, **factors}.items()}


@pytest.fixture(scope="module")
def model():
  return explored_model()


@pytest.fixture(scope="module")
def explored(model):
  return engine.Engine(model, some_scenes(), {"shape": "categorical"})


@pytest.fixture(scope="module")
def app(explored):
  about = {"checkpoint": "runs/a", "step": 7, **OPTIONS._asdict()}
  app = application.Application(explored, "127.0.0.1", about)
  app.port = 80
  app.warm_up(OPTIONS)
  return app


@pytest.fixture
def client(app):
  return test.Client(app)


def picture(pixels, kind="PNG"):
  content = io.BytesIO()
  PIL.Image.fromarray(pixels).save(content, kind)
  return content.getvalue()


def tiles(answer):
  """The columns of every row of a sheet, [T, columns, H, W, 3] in [0, 1]."""
  content = base64.b64decode(answer["sheet"].partition(",")[2])
  pixels = np.asarray(PIL.Image.open(io.BytesIO(content))) / 255
  rows, height, width = (answer[k] for k in ("rows", "height", "width"))
  grid = pixels.reshape(rows, height, -1, width, 3)
  return grid.transpose(0, 2, 1, 3, 4)


# ------------------------------------------------------------------ the model


@pytest.mark.parametrize("sample", [False, True])
def test_it_infers_and_decodes_as_the_library(model, explored, sample):
  image = explored._scenes["image"][1, 0]
  expected = segmentation.Segmenter(model, (8, 8, 3), seed=5)(image)
  answer = explored.infer(1, OPTIONS._replace(sample=sample))
  latents = np.float32(answer["latents"])
  wanted = expected.latents if sample else expected.latents_mean
  np.testing.assert_allclose(latents[-1], wanted, atol=1e-4)
  decoded = explored.decode(latents[-1])
  shown = tiles(answer)
  np.testing.assert_allclose(shown[:, 0], image[None].repeat(3, 0), atol=0.003)
  np.testing.assert_allclose(
    shown[-1, 1], np.clip(decoded["reconstruction"], 0, 1), atol=0.003
  )
  if sample:
    np.testing.assert_allclose(decoded["masks"], expected.masks, atol=1e-4)
  owner = np.rint(255 * shown[-1, 2, ..., 0])
  np.testing.assert_array_equal(owner, decoded["masks"].argmax(axis=0))
  np.testing.assert_allclose(
    shown[-1, 6:9, ..., 0], decoded["masks"], atol=0.003
  )
  curves = answer["curves"]
  assert [len(curves[k]) for k in ("loss", "KL", "ARI")] == [3, 3, 3]
  np.testing.assert_allclose(np.sum(answer["kl"], 1), curves["KL"], atol=0.02)


def test_a_picture_has_what_its_scene_has_but_what_is_true(explored):
  pixels = helpers.noise((8, 8, 3))
  options = OPTIONS._replace(slots=4, refinements=1)
  answer = explored.infer(picture(pixels), options)
  assert np.shape(answer["latents"]) == (2, 4, 3)
  np.testing.assert_array_equal(np.rint(255 * tiles(answer)[0, 0]), pixels)
  assert "ARI" not in answer["curves"] and len(answer["colors"]) == 4
  assert explored.infer(picture(pixels), options) is answer  # it is kept
  assert explored._answers.cache_info().maxsize == 32


def test_latents_are_called_as_what_they_go_with(explored, monkeypatch):
  masks = explored._scenes["mask"][:, 0, ..., 0]

  def decompose(scene, options):
    (number,) = [
      i
      for i, x in enumerate(masks)
      if x is scene["mask"].base or np.array_equal(x, scene["mask"][0, ..., 0])
    ]
    factors = {k: scene[f"factor/{k}"] for k in ("position", "color", "shape")}
    latents = np.stack(
      [
        -factors["position"][:, 1],
        factors["color"][:, 0],
        np.random.default_rng(number).normal(size=4) * 0.0,
      ],
      axis=1,
    )
    return {"masks": masks[number][None], "latents": latents[None]}

  monkeypatch.setattr(explored, "_decompose", decompose)
  explored.name_latents(OPTIONS)
  names, explored.names = explored.names, None
  assert names == [("position y", 1.0), ("color red", 1.0), None]


# -------------------------------------------------------------- who may ask


def test_only_pages_of_this_machine_are_answered(client, app):
  assert client.get("/", headers={"Host": "127.0.0.1"}).status_code == 200
  for host in ("evil.example", "1.2.3.4", "localhost.evil.example", ""):
    for path in ("/", "/about"):
      assert client.get(path, headers={"Host": host}).status_code == 403, host
  for origin in ("http://evil.example", "null", "http://localhost:99"):
    headers = {"Host": "localhost", "Origin": origin}
    found = client.post("/infer", json=ASKED, headers=headers)
    assert found.status_code == 403, origin
  headers = {"Host": "localhost", "Origin": "http://localhost"}
  found = client.post("/infer", json=ASKED, headers=headers)
  assert found.status_code == 200
  assert "default-src 'self'" in found.headers["Content-Security-Policy"]
  # Where others may see it, they know its address and no name.
  everywhere = application.Application(app._engine, "0.0.0.0", {})
  everywhere.port = 8035
  for host, status in (("192.168.1.2:8035", 200), ("evil.example:8035", 403)):
    found = test.Client(everywhere).get("/", headers={"Host": host})
    assert found.status_code == status


def test_no_file_of_the_machine_is_sent(client):
  for path in (
    *("/explore.py", "/../engine.py", "/..%2f..%2fsetup.cfg", "//etc/passwd"),
    *("/%2e%2e/report/page.py", "/config.json", "/serve.py"),
  ):
    assert client.get(path).status_code == 404, path


@pytest.mark.parametrize(
  "path, body, words",
  [
    ("/infer", {**ASKED, "scene": 5}, "below 5"),
    ("/infer", {**ASKED, "slots": 17}, "below 17"),
    ("/infer", {**ASKED, "refinements": "2"}, "an integer"),
    ("/infer", {**ASKED, "picture": "data:,!"}, "data URI"),
    ("/infer", {**ASKED, "picture": "data:,AAAA"}, "or a broken one"),
    ("/decode", {"latents": [[0.0, 1.0]]}, "3 of them"),
    ("/decode", {"latents": [[0.0, 1.0, float("nan")]]}, "a number"),
    ("/decode", {"latents": [[0.0] * 3] * 17}, "16 of them"),
    ("/gif", {"frames": []}, "64 of them"),
    ("/npz", [], "a dict"),
  ],
)
def test_what_makes_no_sense_is_a_sentence(client, path, body, words):
  found = client.post(path, json=body)
  assert found.status_code == 400
  assert words in found.text and "\n" not in found.text


def test_uploads_are_read_as_segment_reads_them(client, explored):
  pixels = helpers.noise((30, 40, 3))
  expected = segmentation.segmenter.prepare(pixels, (8, 8, 3))[0][0]
  uri = client.post("/upload", data=picture(pixels)).json["picture"]
  content = base64.b64decode(uri.partition(",")[2])
  made = np.asarray(PIL.Image.open(io.BytesIO(content)))
  np.testing.assert_allclose(made, 255 * expected, atol=0.51)
  broken = picture(pixels)[:400]
  found = client.post("/upload", data=broken, headers={"X-Name": "a%20b.png"})
  assert found.status_code == 400 and "`a b.png` is not an image" in found.text
  found = client.post("/upload", data=b"\0" * (20 * 2**20 + 1))
  assert found.status_code == 413


def test_what_is_kept(client, explored):
  latents = np.float32([[0.5, -1, 2], [0, 1, 0]]).tolist()
  kept = client.post("/npz", json={"latents": latents})
  with np.load(io.BytesIO(kept.data)) as arrays:
    np.testing.assert_array_equal(arrays["latents"], latents)
    assert arrays["masks"].shape == (2, 8, 8)
  gif = client.post("/gif", json={"frames": [latents, latents[::-1]]})
  image = PIL.Image.open(io.BytesIO(gif.data))
  assert (image.n_frames, image.size) == (2, (560, 280))


def test_a_port_in_use_is_a_sentence(capsys):
  with socket.create_server(("127.0.0.1", 0)) as taken:
    port = taken.getsockname()[1]
    line = helpers.fails_with_sentence(
      capsys, "explore", "with", f"explore.port={port}"
    )
  assert f"`explore.port` {port}" in line and "0 for a free one" in line


# --------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def address(app):
  explored, port = app._engine, app.port
  explored.names = [("position x", 0.9), None, ("color red", 0.8)]
  server = serving.make_server("127.0.0.1", 0, app, threaded=True)
  app.port = server.port
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  yield f"http://127.0.0.1:{server.port}/"
  server.shutdown()
  thread.join()
  explored.names, app.port = None, port


class Page:
  """The page in a window; its parts have ids."""

  def __init__(self, window, address, width=1280):
    self.window, self.driver = window, window.driver
    self.js("window.location = 'about:blank'")
    window.open(address, width)
    self.wait("views?.edited.data")

  def js(self, code):
    return self.driver.execute_script(code)

  def get(self, value):
    return self.js(f"return {value}")

  def wait(self, condition):
    self.window.wait_for(lambda: self.get(f"!!({condition})"))

  def status(self):
    return self.get("find('status').textContent")

  def click(self, name, told):
    """Clicks a button, and waits for what the status line says then."""
    self.js(f"say(''); find('{name}').click()")
    self.told(told)

  def told(self, words):
    """Waits for what the status line says, and until all is drawn."""
    self.window.wait_for(lambda: words in self.status())
    self.wait("!isDecoding")

  def press(self, key):
    action_chains.ActionChains(self.driver).send_keys(key).perform()

  def move(self, times):
    """Moves the first latent, each time until its picture is there."""
    self.driver.execute_async_script(
      "const [times, done] = arguments;"
      "const slider = document.querySelector('#latents input');"
      "(async () => { for (let i = 0; i < times; i++) {"
      "  slider.value = i % 6 - 3; slider.oninput();"
      "  while (isDecoding) await new Promise(x => setTimeout(x, 1));"
      "} slider.onchange(); done() })()",
      times,
    )

  def latents(self):
    return np.array(self.get("latents()"))


@pytest.fixture
def page(browser, address):
  page = Page(browser, address)
  yield page
  assert browser.console_errors() == []


def test_a_scene_is_chosen_watched_clicked(page):
  page.js("find('thumbnails').children[3].click()")
  page.wait("state.source.scene === 3")
  page.wait("!isDecoding")
  # Over the refinements, pictures and curves follow.
  shown = []
  for t in range(3):
    page.js(f"views.found.range.value = {t}; views.found.range.oninput()")
    shown.append(
      page.get(
        "[views.found.told.value, views.found.curves.innerText,"
        " views.found.small[1].firstChild.toDataURL()]"
      )
    )
  assert [x[0] for x in shown] == ["0 of 2", "1 of 2", "2 of 2"]
  assert len({x[1] for x in shown}) == len({x[2] for x in shown}) == 3
  assert all(k in shown[0][1] for k in ("loss", "KL", "ARI"))
  page.js("views.found.play.click()")
  assert page.get("views.found.play.textContent") == "Pause"
  page.wait("views.found.t === 2 && views.found.play.textContent === 'Play'")
  # A click in the picture chooses the slot of the pixel.
  labels = page.get("[...views.found.labels()]")
  for slot in set(labels):
    at = labels.index(slot)
    page.js(
      "const box = views.found.stage.getBoundingClientRect();"
      "views.found.stage.parentNode.dispatchEvent(new MouseEvent('click', {"
      f"clientX: box.left + box.width * {at % 8 + 0.5} / 8,"
      f"clientY: box.top + box.height * {at // 8 + 0.5} / 8}}))"
    )
    facts = page.get("views.found.facts.textContent")
    number, share = re.match(r"Slot (\d): (.*) % of pixels, KL", facts).groups()
    assert int(number) == slot + 1
    assert float(share) == pytest.approx(labels.count(slot) / 0.64, abs=0.06)
    assert page.get("state.chosen") == slot
    assert page.get("views.found.line.getAttribute('d')").startswith("M")


def test_latents_move_and_the_picture_follows(page):
  (name, *_) = page.get(
    "[...document.querySelectorAll('.latent b')].map(x => x.textContent)"
  )
  index = {"position x": 0, "latent 1": 1, "color red": 2}[name]
  before = page.latents(), page.get("views.edited.stage.toDataURL()")
  page.js(
    "const r = document.querySelector('#latents input');"
    "r.value = 3; r.oninput(); r.onchange()"
  )
  page.wait("!isDecoding")
  page.wait(f"{json.dumps(before[1])} !== views.edited.stage.toDataURL()")
  after = page.latents()
  changed = np.argwhere(before[0] != after)
  assert changed.tolist() == [[1, index]]
  page.click("undo", "Undone.")
  np.testing.assert_array_equal(page.latents(), before[0])
  assert page.get("views.edited.stage.toDataURL()") == before[1]


def test_scenes_are_edited(page):
  start = page.latents()
  page.click("remove", "Removed.")
  np.testing.assert_array_equal(page.latents(), start[[0, 2]])
  page.click("undo", "Undone.")
  page.click("duplicate", "Duplicated")
  moved = page.latents()
  np.testing.assert_array_equal(moved[:3], start)
  np.testing.assert_array_equal(moved[3, 1:], start[1, 1:])
  assert abs(moved[3, 0] - start[1, 0]) == pytest.approx(2)
  page.click("undo", "Undone.")
  # Of two objects, what says where they are.
  page.js("find('partner').value = 'edit 2'")
  page.click("swap", "Swapped places")
  swapped = page.latents()
  assert swapped[[1, 2], 0].tolist() == start[[2, 1], 0].tolist()
  np.testing.assert_array_equal(swapped[:, 1:], start[:, 1:])
  page.click("undo", "Undone.")
  page.js(
    "find('partner').value = 'edit 2'; find('partner').onchange();"
    "for (const x of [0.2, 0.5]) {"
    "  find('mix').value = x; find('mix').oninput() }"
    "find('mix').onchange()"
  )
  expected = (start[1] + start[2]) / 2
  np.testing.assert_allclose(page.latents()[1], expected, atol=1e-4)
  page.click("undo", "Undone.")
  # An object of a second scene.
  page.js(
    "find('use').value = 'second'; find('thumbnails').children[4].click()"
  )
  page.wait("second && find('partner').value === 'second 1'")
  page.click("put", "Put in.")
  other = page.get("slotsOf(second)[1].z")
  np.testing.assert_array_equal(page.latents()[3], other)
  page.click("infer", "slots that were there.")
  assert page.get("state.options.slots") == 4 and page.latents().shape == (4, 3)
  assert re.match(r"Found \d of \d slots", page.status())
  assert page.get("!state.source.scene && !!state.source.picture")
  page.click("undo", "Undone.")
  page.click("undo", "Undone.")
  np.testing.assert_array_equal(page.latents(), start)
  page.js("find('use').value = 'open'")


def test_an_address_restores_what_was_there(page, browser, address):
  page.click("remove", "Removed.")
  expected = page.latents(), page.get("views.edited.stage.toDataURL()")
  link = page.get("location.href")
  other = Page(browser, link)
  np.testing.assert_array_equal(other.latents(), expected[0])
  assert other.get("views.edited.stage.toDataURL()") == expected[1]
  for broken in ("#x", "#e30=", "#bnVsbA=="):
    fresh = Page(browser, address + broken)
    fresh.told("could not be read")
    assert fresh.latents().shape == (3, 3)


def test_things_are_kept(page, tmp_path, monkeypatch):
  page.driver.execute_cdp_cmd(
    "Browser.setDownloadBehavior",
    {"behavior": "allow", "downloadPath": str(tmp_path)},
  )
  page.click("duplicate", "Duplicated")
  for name, file in {
    "picture": "scene.png",
    "npz": "latents.npz",
    "refinement-gif": "refinement.gif",
    "latent-gif": "latent_",
  }.items():
    page.click(name, f"Saved {file}")
  page.window.wait_for(lambda: len(list(tmp_path.glob("*.[pgn]*"))) == 4)
  (gif,) = tmp_path.glob("latent_*.gif")
  assert PIL.Image.open(gif).n_frames == 24
  assert PIL.Image.open(tmp_path / "refinement.gif").n_frames == 3
  assert PIL.Image.open(tmp_path / "scene.png").size == (512, 512)
  # The lines of Python make the same picture.
  folder = tmp_path / "run"
  config = helpers.tiny_config({"data.image_dim": [8, 8]})
  helpers.save_checkpoint(folder, config)
  (folder / "config.json").write_text(json.dumps(config))
  monkeypatch.chdir(tmp_path)
  lines = page.get("find('python').textContent").replace("runs/a", "run")
  made = {}
  exec(lines, made)
  assert made["image"].shape == (8, 8, 3) and made["z"].shape == (4, 3)


def test_files_are_opened(page, browser, tmp_path):
  good, bad = tmp_path / "good.png", tmp_path / "bad.png"
  good.write_bytes(picture(helpers.noise((20, 30, 3))))
  bad.write_bytes(good.read_bytes()[:300])
  box = page.driver.find_element("id", "file")
  box.send_keys(str(good))
  page.wait("state.source.picture")
  page.wait("!isDecoding")
  before = page.latents()
  box.send_keys(str(bad))
  browser.wait_for(lambda: "`bad.png` is not an image" in page.status())
  np.testing.assert_array_equal(page.latents(), before)
  (error,) = browser.console_errors()  # which Chromium tells of any refusal
  assert "400" in error
  for event, data, color in (
    ("drop", "dataTransfer", "red"),
    ("paste", "clipboardData", "blue"),
  ):
    before = page.get("state.source.picture")
    page.js(
      "const sent = new DataTransfer();"
      "const canvas = document.createElement('canvas');"
      "const context = canvas.getContext('2d');"
      f"context.fillStyle = '{color}'; context.fillRect(0, 0, 300, 150);"
      "canvas.toBlob(blob => {"
      "  sent.items.add(new File([blob], 'x.png', {type: 'image/png'}));"
      f"  document.on{event}({{preventDefault() {{}}, {data}: sent}})"
      "})"
    )
    page.wait(f"state.source.picture !== {json.dumps(before)}")
    page.wait("!isDecoding")


def test_two_browsers_do_not_disturb_each_other(
  page, address, tmp_path_factory
):
  with headless.start(tmp_path_factory.mktemp("second")) as window:
    other = Page(window, address)
    untouched = page.latents()
    other.js("find('thumbnails').children[2].click()")
    page.js(
      "const r = document.querySelector('#latents input');"
      "r.value = 1; r.oninput(); r.onchange()"
    )
    other.wait("state.source.scene === 2")
    other.click("remove", "Removed.")
    assert page.get("state.source.scene") == 0
    assert page.latents().shape == (3, 3) and other.latents().shape == (2, 3)
    page.click("undo", "Undone.")
    np.testing.assert_array_equal(page.latents(), untouched)
    assert window.console_errors() == []


def test_two_hundred_moves_leave_nothing_behind(page):
  def counts():
    page.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    counted = page.driver.execute_cdp_cmd("Memory.getDOMCounters", {})
    heap = page.driver.execute_cdp_cmd("Runtime.getHeapUsage", {})
    return counted["nodes"], heap["usedSize"]

  page.driver.execute_cdp_cmd("HeapProfiler.enable", {})
  page.move(20)
  before = counts()
  page.move(200)
  after = counts()
  assert after[0] <= before[0] + 20
  assert after[1] < before[1] + 2**20


def test_a_phone_shows_all_of_it(browser, address):
  size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
  browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
  try:
    page = Page(browser, address, 390)
    assert page.get("document.documentElement.scrollWidth") == 390
    cut = page.get(
      "[...document.querySelectorAll('button, input, select, p, h2, output')]"
      ".filter(x => !x.closest('#thumbnails') && x.id !== 'file'"
      "  && x.getBoundingClientRect().right > 390).map(x => x.outerHTML)"
    )
    assert cut == []
    # What moves stays in sight where the sliders are.
    page.js("find('latents').scrollIntoView({block: 'end'})")
    assert page.get("views.edited.stage.getBoundingClientRect().bottom > 100")
  finally:
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_keyboard_is_enough_and_all_has_a_name(page):
  page.js("document.body.focus()")
  seen = []
  for _ in range(80):
    page.press(keys.Keys.TAB)
    seen.append(
      page.get(
        "document.activeElement.id || document.activeElement.name ||"
        " document.activeElement.ariaLabel ||"
        " document.activeElement.textContent.trim()"
      )
    )
  wanted = {"file", "use", "refinement", "Play", "slots", "seed", "remove"}
  wanted |= {"undo", "infer", "partner", "mix", "picture", "slot 2", "masks"}
  assert wanted <= set(seen), wanted - set(seen)
  # With keys alone a slot is chosen and a latent moved.
  page.js("views.found.slots.children[2].focus()")
  page.press(keys.Keys.SPACE)
  assert page.get("state.chosen") == 2
  before = page.latents()
  page.js("document.querySelector('#latents input').focus()")
  page.press(keys.Keys.ARROW_LEFT)
  assert np.sum(page.latents() != before) == 1
  tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})
  roles = {"button", "slider", "spinbutton", "combobox", "image"}
  named = [
    (node["role"]["value"], node.get("name", {}).get("value", ""))
    for node in tree["nodes"]
    if node["role"]["value"] in roles and not node["ignored"]
  ]
  assert len(named) > 30 and all(name for _, name in named), named


def test_nothing_is_asked_of_another_machine(page, address):
  page.click("duplicate", "Duplicated")
  names = page.get("performance.getEntriesByType('resource').map(x => x.name)")
  foreign = [x for x in names if not x.startswith((address, "data:", "blob:"))]
  assert foreign == [] and len(names) > 5


# ------------------------------------------------------------- the command


@pytest.mark.slow
def test_the_command_serves_the_model_that_comes_with_the_project(
  browser, tmp_path
):
  words = ["explore", "with", "explore.port=0", "seed=0"]
  process = subprocess.Popen(
    [sys.executable, str(ROOT / "main.py"), *words],
    cwd=tmp_path,
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONUNBUFFERED": "1"},
  )
  try:
    for line in process.stdout:
      if line.startswith("page: "):
        break
    page = Page(browser, line.split()[1])
    page.wait("names.length")
    assert "position x" in page.get("find('latents').textContent")
    assert page.get("found.curves.ARI.at(-1)") > 0.9

    page.move(50)
    memory = psutil.Process(process.pid).memory_info
    before = memory().rss
    page.move(200)
    assert memory().rss < before + 2**25
    assert browser.console_errors() == []
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
  finally:
    process.kill()
    process.stdout.close()
