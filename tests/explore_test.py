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

from iodine import segmentation
from iodine.explore import application, engine

ROOT = pathlib.Path(__file__).parents[1]
OPTIONS = {"slots": 3, "refinements": 2, "seed": 5}
ASKED = {"scene": 1, **OPTIONS}


def a_scene(number):
  return helpers.make_batch(batch_size=1, seed=number)


@pytest.fixture(scope="module")
def model():
  model = helpers.tiny_model({"model.refinement_batch_size": 3})
  model.initialize((8, 8, 3))
  helpers.perturb(model)
  return model


@pytest.fixture(scope="module")
def explored(model):
  scenes = [a_scene(number) for number in range(5)]
  return engine.Engine(model, scenes)


@pytest.fixture(scope="module")
def app(explored):
  about = {"checkpoint": "a", "folder": "runs/a", "step": 7, "options": OPTIONS}
  return application.Application(explored, "127.0.0.1", about)


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


def test_it_infers_and_decodes_as_the_library(model, explored):
  image = a_scene(1)["image"][0, 0].numpy()
  expected = segmentation.Segmenter(model, (8, 8, 3), seed=5)(image)
  answer = explored.infer(1, **OPTIONS)
  samples, means = (np.float32(answer[k]) for k in ("samples", "means"))
  np.testing.assert_allclose(samples[-1], expected.latents, atol=1e-4)
  np.testing.assert_allclose(means[-1], expected.latents_mean, atol=1e-4)
  decoded = explored.decode(samples)
  masks = decoded.masks[..., 0]
  np.testing.assert_allclose(masks[-1], expected.masks, atol=1e-4)
  shown = tiles(answer)
  for column, wanted in (
    (0, image[None].repeat(3, 0)),
    (1, np.clip(decoded.reconstruction[:, 0], 0, 1)),
    (2, np.einsum("tkhw,kc->thwc", masks, answer["colors"])),
    (3, np.clip(3 * np.abs(image - decoded.reconstruction[:, 0]), 0, 1)),
    (4, masks.argmax(axis=1)[..., None] / 255),
    (5, np.clip(decoded.components[:, 0], 0, 1)),
    (9, masks[:, 1, ..., None]),
  ):
    np.testing.assert_allclose(shown[:, column], wanted + 0 * image, atol=0.003)
  curves = answer["curves"]
  assert [len(curves[k]) for k in ("loss", "KL", "ARI")] == [3, 3, 3]
  np.testing.assert_allclose(np.sum(answer["kl"], 1), curves["KL"], atol=0.02)
  nats = np.sum(answer["latent_kl"], 1)
  np.testing.assert_allclose(nats, answer["kl"][-1], atol=0.01)


def test_a_picture_has_what_its_scene_has_but_what_is_true(explored):
  pixels = helpers.noise((8, 8, 3))
  options = {**OPTIONS, "slots": 4, "refinements": 1}
  answer = explored.infer(picture(pixels), **options)
  assert np.shape(answer["means"]) == (2, 4, 3)
  np.testing.assert_array_equal(np.rint(255 * tiles(answer)[0, 0]), pixels)
  assert "ARI" not in answer["curves"] and len(answer["colors"]) == 4
  assert explored.infer(picture(pixels), **options) is answer  # it is kept
  assert explored._answer.cache_info().maxsize == 32


def test_latents_are_called_as_what_they_go_with(model):
  rng = np.random.default_rng(0)
  factors = {
    "position": rng.uniform(size=[50, 2]),
    "shape": rng.integers(3, 6, [50, 1]),
    "size": rng.uniform(size=[50, 1]),
  }
  latents = np.stack(
    [
      -2 * factors["position"][:, 1] + 0.2 * rng.normal(size=50),
      factors["shape"][:, 0] == 4,
      np.zeros(50),
      rng.normal(size=50),
    ],
    axis=1,
  )
  names = engine.names_of(latents, factors)
  assert names == ["position y", "shape", None, None]
  # Of the scenes at hand, and of none.
  for scenes in ([a_scene(0), a_scene(1)], []):
    named = engine.Engine(model, scenes)
    named.prepare(**OPTIONS)
    assert len(named.names.result(timeout=0)) == 3


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
  # Where others may see it, they come by the address that was given.
  shown = application.Application(app._engine, "192.168.1.2", {})
  for host, status in (("192.168.1.2:8035", 200), ("evil.example:8035", 403)):
    found = test.Client(shown).get("/", headers={"Host": host})
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
    ("/infer", {**ASKED, "picture": "data:,AAAA"}, "or a broken one"),
    ("/decode", {"latents": [[[0.0, 1.0]]]}, "3 of them"),
    ("/decode", {"latents": [[[0.0, 1.0, float("nan")]]]}, "a number"),
    ("/npz", {"latents": [[[0.0] * 3] * 17]}, "16 of them"),
    ("/gif", {"latents": []}, "64 of them"),
  ],
)
def test_what_makes_no_sense_is_a_sentence(client, path, body, words):
  found = client.post(path, json=body)
  assert found.status_code == 400
  assert words in found.text and "\n" not in found.text


def test_uploads_are_read_as_segment_reads_them(client, explored):
  pixels = helpers.noise((30, 40, 3))
  expected = segmentation.prepare(pixels, (8, 8, 3))[0][0]
  uri = client.post("/upload", data=picture(pixels)).json["picture"]
  content = base64.b64decode(uri.partition(",")[2])
  made = np.asarray(PIL.Image.open(io.BytesIO(content)))
  np.testing.assert_allclose(made, 255 * expected, atol=0.51)
  broken = picture(pixels)[:400]
  found = client.post("/upload", data=broken)
  assert found.status_code == 400 and "is not an image" in found.text
  found = client.post("/upload", data=b"\0" * (20 * 2**20 + 1))
  assert found.status_code == 413


def test_what_is_kept(client, explored):
  latents = np.float32([[0.5, -1, 2], [0, 1, 0]]).tolist()
  kept = client.post("/npz", json={"latents": [latents]})
  with np.load(io.BytesIO(kept.data)) as arrays:
    np.testing.assert_array_equal(arrays["latents"], latents)
  gif = client.post("/gif", json={"latents": [latents, latents[::-1]]})
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
  app._engine.names.set_result(["position x", None, "color red"])
  server = serving.make_server("127.0.0.1", 0, app, threaded=True)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  yield f"http://127.0.0.1:{server.port}/"
  server.shutdown()
  thread.join()


class Page:
  """The page in a window; its parts have ids."""

  def __init__(self, window, address, width=1280):
    self.window, self.driver = window, window.driver
    self.js("window.location = 'about:blank'")
    window.open(address, width)
    self.wait("views?.edited.data && names.length")
    self.drawn()

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
    self.drawn()

  def drawn(self):
    """Waits until what is asked for is drawn."""
    self.driver.execute_async_script("redraw().then(arguments[0])")

  def press(self, key):
    action_chains.ActionChains(self.driver).send_keys(key).perform()

  def move(self, times):
    """Moves the first latent, each time until its picture is there."""
    self.driver.execute_async_script(
      "const [times, done] = arguments;"
      "const slider = document.querySelector('#latents input');"
      "(async () => { for (let i = 0; i < times; i++) {"
      "  slider.value = i % 6 - 3; await slider.oninput();"
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
  page.drawn()
  # Over the refinements, pictures and curves follow.
  shown = []
  for t in range(3):
    page.js(
      "const range = views.found.part('input');"
      f"range.value = {t}; range.dispatchEvent(new Event('input'))"
    )
    shown.append(
      page.get(
        "[views.found.part('output').value,"
        " views.found.part('.curves').innerText,"
        " views.found.parts('.kinds canvas')[1].toDataURL()]"
      )
    )
  assert [x[0] for x in shown] == ["0 of 2", "1 of 2", "2 of 2"]
  assert len({x[1] for x in shown}) == len({x[2] for x in shown}) == 3
  assert all(k in shown[0][1] for k in ("loss", "KL", "ARI"))
  play = "views.found.part('button')"
  page.js(f"{play}.click()")
  assert page.get(f"{play}.textContent") == "Pause"
  page.wait(f"views.found.t === 2 && {play}.textContent === 'Play'")
  # A click in the picture chooses the slot of the pixel.
  labels = page.get("[...views.found.labels]")
  for slot in set(labels):
    at = labels.index(slot)
    page.js(
      "const stage = views.found.part('.stage');"
      "const box = stage.getBoundingClientRect();"
      "stage.dispatchEvent(new MouseEvent('click', {"
      f"clientX: box.left + box.width * {at % 8 + 0.5} / 8,"
      f"clientY: box.top + box.height * {at // 8 + 0.5} / 8}}))"
    )
    facts = page.get("views.found.part('.facts').textContent")
    number, share = re.match(
      r"Slot (\d): (.*) % of the pixels, KL", facts
    ).groups()
    assert int(number) == slot + 1
    assert float(share) == pytest.approx(labels.count(slot) / 0.64, abs=0.06)
    assert page.get("state.chosen") == slot
    assert page.get("views.found.part('path').getAttribute('d')")[0] == "M"


def test_latents_move_and_the_picture_follows(page):
  (name, *_) = page.get(
    "[...document.querySelectorAll('.latent bdi')].map(x => x.textContent)"
  )
  index = {"position x": 0, "latent 1": 1, "color red": 2}[name]
  before = (
    page.latents(),
    page.get("views.edited.part('canvas').toDataURL()"),
  )
  page.js(
    "const r = document.querySelector('#latents input');"
    "r.value = 3; r.oninput(); r.onchange()"
  )
  page.drawn()
  assert page.get("views.edited.part('canvas').toDataURL()") != before[1]
  after = page.latents()
  changed = np.argwhere(before[0] != after)
  assert changed.tolist() == [[1, index]]
  page.click("undo", "As it was.")
  np.testing.assert_array_equal(page.latents(), before[0])
  assert page.get("views.edited.part('canvas').toDataURL()") == before[1]


def test_scenes_are_edited(page):
  start = page.latents()
  page.click("remove", "Removed.")
  np.testing.assert_array_equal(page.latents(), start[[0, 2]])
  page.click("undo", "As it was.")
  page.click("duplicate", "Duplicated")
  moved = page.latents()
  np.testing.assert_array_equal(moved[:3], start)
  np.testing.assert_array_equal(moved[3, 1:], start[1, 1:])
  assert abs(moved[3, 0] - start[1, 0]) == pytest.approx(2)
  page.click("undo", "As it was.")
  # Of two objects, what says where they are.
  page.js("choosePartner(2)")
  page.click("swap", "Swapped")
  swapped = page.latents()
  assert swapped[[1, 2], 0].tolist() == start[[2, 1], 0].tolist()
  np.testing.assert_array_equal(swapped[:, 1:], start[:, 1:])
  page.click("undo", "As it was.")
  page.js(
    "find('partner').value = 2;"
    "find('partner').dispatchEvent(new Event('change'));"
    "const mix = find('mix'); for (const x of [0.2, 0.5]) {"
    "  mix.value = x; mix.oninput({target: mix}) }"
    "mix.onchange()"
  )
  expected = (start[1] + start[2]) / 2
  np.testing.assert_allclose(page.latents()[1], expected, atol=1e-4)
  page.click("undo", "As it was.")
  # An object of a second scene.
  page.js(
    "find('use').value = 'second'; find('thumbnails').children[4].click()"
  )
  page.told("put it in")
  page.js("views.second.pick(1)")
  page.told("With second scene, slot 2")
  page.click("put", "Put in.")
  other = page.get("second[1].z")
  np.testing.assert_array_equal(page.latents()[3], other)
  page.click("infer", "it found")
  assert page.get("state.options.slots") == 4 and page.latents().shape == (4, 3)
  assert re.fullmatch(r"Of slots [1-4, ]+ it found .+\.", page.status())
  assert page.get("!state.source.scene && !!state.source.picture")
  page.click("undo", "As it was.")
  page.click("undo", "As it was.")
  np.testing.assert_array_equal(page.latents(), start)
  page.js("find('use').value = 'open'")


def test_an_address_restores_what_was_there(page, browser, address):
  page.click("remove", "Removed.")
  page.js(
    "find('use').value = 'second'; find('thumbnails').children[4].click()"
  )
  page.told("put it in")
  page.js("views.second.pick(2)")
  page.told("With second scene, slot 3")
  shown = (
    "[state, second, find('partner').selectedOptions[0].text,"
    " views.second.slot, views.edited.part('canvas').toDataURL()]"
  )
  expected, link = page.get(shown), page.get("location.href")
  page.js("find('use').value = 'open'")
  other = Page(browser, link)
  assert other.get(shown) == expected and expected[2] == "second scene, slot 3"
  state = {**expected[0], "second": None}
  for broken in (
    *(None, {}, "text", {"source": {"scene": 0}}),
    *({**state, "edit": []}, {**state, "chosen": 0.5}, {**state, "edit": [{}]}),
    {**state, "edit": [{**state["edit"][0], "z": [0]}], "chosen": 0},
    *({**state, "second": {"scene": 99}}, {**state, "options": {}}),
  ):
    text = base64.b64encode(json.dumps(broken).encode()).decode()
    fresh = Page(browser, f"{address}#{text}")
    fresh.told("could not be read")
    assert fresh.latents().shape == (3, 3), broken
    fresh.click("undo", "nothing to undo")
  fresh = Page(browser, f"{address}#x")
  fresh.told("could not be read")
  browser.console_errors()  # Chromium tells of refusals


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
  assert PIL.Image.open(tmp_path / "scene.png").size == (8, 8)
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
  page.drawn()
  before = page.latents()
  box.send_keys(str(bad))
  browser.wait_for(lambda: "is not an image" in page.status())
  np.testing.assert_array_equal(page.latents(), before)
  assert "400" in browser.console_errors()[0]  # Chromium tells of refusals
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
    page.drawn()


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
    page.click("undo", "As it was.")
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
  command = browser.driver.execute_cdp_cmd
  command("Emulation.setDeviceMetricsOverride", size)
  command("Emulation.setTouchEmulationEnabled", {"enabled": True})
  try:
    page = Page(browser, address, 390)
    assert page.get("document.documentElement.scrollWidth") == 390
    cut = page.get(
      "[...document.querySelectorAll('button, input, select, p, h2, output')]"
      ".filter(x => !x.closest('#thumbnails') && x.id !== 'file'"
      "  && x.getBoundingClientRect().right > 390).map(x => x.outerHTML)"
    )
    assert cut == []
    # Fingers are larger than arrows.
    small = page.get(
      "[...document.querySelectorAll('button, select, input:not(#file)')]"
      ".filter(x => x.type !== 'radio' && x.offsetHeight)"
      ".filter(x => x.offsetHeight < 44).map(x => x.outerHTML)"
    )
    assert small == []
    # What moves stays in sight where the sliders are.
    page.js("find('latents').scrollIntoView({block: 'end'})")
    assert page.get(
      "views.edited.part('.stage canvas').getBoundingClientRect().bottom > 100"
    )
  finally:
    command("Emulation.setTouchEmulationEnabled", {"enabled": False})
    command("Emulation.clearDeviceMetricsOverride", {})


def test_the_keyboard_is_enough_and_all_has_a_name(page):
  # Once around the page: a group of pictures is one stop.
  page.js("document.body.tabIndex = -1; document.body.focus()")
  seen = []
  while not seen or seen[-1] is not None:
    page.press(keys.Keys.TAB)
    seen.append(
      page.get(
        "document.activeElement === document.body ? null :"
        " document.activeElement.id || document.activeElement.name ||"
        " document.activeElement.ariaLabel ||"
        " document.activeElement.textContent.trim()"
      )
    )
  wanted = {"file", "use", "refinement", "Play", "slots", "seed", "remove"}
  wanted |= {"undo", "infer", "partner", "mix", "picture"}
  assert wanted <= set(seen), wanted - set(seen)
  assert sum(str(name).startswith("group") for name in seen) == 5
  # With keys alone a scene is opened, a slot chosen, a latent moved.
  page.js("find('thumbnails').querySelector(':checked').focus()")
  page.press(keys.Keys.ARROW_RIGHT)
  page.wait("state.source.scene === 1")
  page.js("views.found.part('.slots :checked').focus()")
  page.press(keys.Keys.ARROW_RIGHT)
  page.wait("state.chosen === 2")
  page.drawn()
  before = page.latents()
  page.js("document.querySelector('#latents input').focus()")
  page.press(keys.Keys.ARROW_LEFT)
  page.window.wait_for(lambda: np.sum(page.latents() != before) == 1)
  tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})
  roles = {"button", "slider", "spinbutton", "combobox", "image", "radio"}
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
