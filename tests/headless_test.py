"""The browser of the other tests sees what it should, errors included."""

PAGE = "<!doctype html><h1>Heading</h1>"


def test_a_local_file(browser, tmp_path):
  page = tmp_path / "page.html"
  page.write_text(PAGE)
  browser.open(page)
  assert browser.query("h1", "tagName", "innerText") == [("H1", "Heading")]
  assert browser.console_errors() == []
  # Scripts that fail and pictures from elsewhere are errors.
  for broken, name in (
    ("<script>nothing.here</script>", "nothing"),
    ('<img src="http://example.org/a.png">', "example.org"),
  ):
    page.write_text(PAGE + broken)
    browser.open(page)
    assert any(name in x for x in browser.console_errors())
