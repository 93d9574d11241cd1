"""The catalogue of metrics: complete, documented, and open to others."""

import pathlib
import re

from iodine import evaluation

ROOT = pathlib.Path(__file__).parents[1]


def test_every_metric_has_a_row_in_the_documentation():
  page = (ROOT / "docs/evaluation.md").read_text()
  (table,) = re.findall(r"\| name \| what it is .*?\n\n", page, re.S)
  rows = re.findall(r"^\| `(.*?)`", table, re.M)
  names = [
    metric.name.replace("{}", "1" if "slot" in metric.name else "<factor>")
    for metric in evaluation.STANDARD
  ]
  assert sorted(rows) == sorted(names)


def test_names_are_unique_and_meanings_are_lines():
  names = [metric.name for metric in evaluation.STANDARD]
  assert len(set(names)) == len(names)
  for metric in evaluation.STANDARD:
    assert 0 < len(metric.meaning) <= 80 and "\n" not in metric.meaning
    assert metric.unit not in metric.title or not metric.unit


def by_name(name):
  (metric,) = [m for m in evaluation.STANDARD if m.name == name]
  return metric
