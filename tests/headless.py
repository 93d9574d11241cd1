"""Headless Chromium, for the tests that look at a page as people see it.

The fixture `browser` in conftest.py hands one out, and skips its test where
Chromium or its driver is not installed.
"""

import contextlib
import os
import pathlib
import shutil
import time
from unittest import mock

from selenium import webdriver
from selenium.webdriver.chrome import service

PROGRAMS = ("chromium", "chromedriver")

_FLAGS = (
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-proxy-server",
  # A page that reaches for the network gets an error, see `console_errors`.
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)

# All elements that a CSS selector means, those in shadow roots, too.
_FIND = """
const find = (selector, root = document) => [
  ...root.querySelectorAll(selector),
  ...[...root.querySelectorAll('*')].flatMap(
    x => x.shadowRoot ? find(selector, x.shadowRoot) : []
  ),
];
"""


def missing():
  """Which programs are not installed, as a reason to skip; None: none."""
  names = [name for name in PROGRAMS if shutil.which(name) is None]
  if not names:
    return None
  return f"{' and '.join(names)} not installed: apt-get install chromium-driver"


class Browser:
  """A window of Chromium."""

  def __init__(self, driver):
    self.driver = driver

  def open(self, place, width=1400, height=1000):
    """Opens a URL or a local file in a window of that many pixels."""
    if os.path.exists(place):
      place = pathlib.Path(place).resolve().as_uri()
    self.driver.set_window_size(width, height)
    self.driver.get("about:blank")
    self.driver.get_log("browser")  # of the page before
    self.driver.get(place)

  def query(self, selector, *properties):
    """JavaScript properties, in tuples, of what a CSS selector means."""
    found = self.driver.execute_script(
      _FIND
      + "return find(arguments[0]).map(x => arguments[1].map(name => x[name]))",
      selector,
      properties,
    )
    return [tuple(values) for values in found]

  def text(self):
    """What is to be read on the page."""
    return self.driver.execute_script("return document.body.innerText")

  def click(self, selector):
    """Clicks all elements that a CSS selector means, see `query`."""
    # At once, as pages replace their elements between two calls.
    self.driver.execute_script(
      _FIND + "find(arguments[0]).forEach(x => x.click())", selector
    )

  def wait_for(self, condition, seconds=60):
    """Waits until a function gives something true, which it returns."""
    deadline = time.monotonic() + seconds
    while True:
      value = condition()
      if value:
        return value
      assert time.monotonic() < deadline, " ".join(self.text().split())
      time.sleep(0.2)

  def screenshot(self, path):
    """Writes what the window shows as PNG."""
    self.driver.save_screenshot(str(path))

  def console_errors(self):
    """What went wrong on the page since it was opened or this was called."""
    return [
      entry["message"]
      for entry in self.driver.get_log("browser")
      if entry["level"] == "SEVERE"
    ]


@contextlib.contextmanager
def start(profile):
  """Starts Chromium with an empty folder for its profile."""
  options = webdriver.ChromeOptions()
  options.binary_location = shutil.which("chromium")
  for flag in (*_FLAGS, f"--user-data-dir={profile}"):
    options.add_argument(flag)
  options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
  # The driver is on this machine, whatever the proxy.
  with mock.patch.dict(os.environ, {"no_proxy": "localhost,127.0.0.1"}):
    driver = webdriver.Chrome(
      options, service.Service(shutil.which("chromedriver"))
    )
  try:
    yield Browser(driver)
  finally:
    driver.quit()
