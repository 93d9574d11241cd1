"""The browser of the other tests sees what it should, errors included."""

PAGE = """<!doctype html><h1>Heading</h1><div></div><button>more</button>
<script>
const root = document.querySelector("div").attachShadow({mode: "open"});
root.innerHTML = "<em>inside</em>";
document.querySelector("button").onclick = () => {
  setTimeout(() => document.body.append("late"), 300);
};
</script>
"""


def test_a_local_file(browser, tmp_path):
  page = tmp_path / "page.html"
  page.write_text(PAGE)
  browser.open(page, width=600, height=400)
  found = browser.query("h1, em", "tagName", "innerText")
  assert found == [("H1", "Heading"), ("EM", "inside")]
  assert "late" not in browser.text()
  browser.click("button")
  browser.wait_for(lambda: "late" in browser.text(), seconds=10)
  assert browser.console_errors() == []
  browser.screenshot(tmp_path / "page.png")
  assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")

  # Scripts that fail and pictures from elsewhere are errors.
  for broken, name in (
    ("<script>nothing.here</script>", "nothing"),
    ('<img src="http://example.org/a.png">', "example.org"),
  ):
    page.write_text(PAGE + broken)
    browser.open(page)
    assert any(name in x for x in browser.console_errors())
