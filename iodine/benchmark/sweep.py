"""The benchmark at several values of one quantity after another.

Every point is measured by the same command in a process of its own: its peak
memory is nobody else's, and no graph is left over from an earlier point.
"""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tabulate

from iodine import building, config_files, errors, files, validation
from iodine.benchmark import measuring, table
from iodine.drawing import charts

Config = Mapping[str, Any]
Row = dict[str, Any]  # a point and its measurements


def _is_size(value: Any) -> bool:
  """Returns whether a value is a square's side, or [height, width]."""
  sides = value if isinstance(value, (list, tuple)) else [value, value]
  return len(sides) == 2 and all(validation.is_whole(side, 1) for side in sides)


class Quantity(NamedTuple):
  """Something that a sweep varies.

  Attributes:
    title: for tables and pictures.
    unit: what it counts, in the singular.
    entries: the dotted config entries that hold it.
    accepts: whether something is a value of it.
    needs: what it accepts, in words.
  """

  title: str
  unit: str
  entries: tuple[str, ...]
  accepts: Callable[[Any], bool] = lambda value: validation.is_whole(value, 1)
  needs: str = "whole numbers, at least 1"


QUANTITIES = {
  "batch_size": Quantity("batch size", "scene", ("data.batch_size",)),
  "num_components": Quantity(
    "slots",
    "slot",
    ("model.num_components", "model.output_dist.num_components"),
  ),
  "image_size": Quantity(
    "image size",
    "pixel",
    ("data.image_dim",),
    _is_size,
    "whole numbers, at least 1, or of [height, width]",
  ),
  "num_iters": Quantity(
    "refinements",
    "refinement",
    ("model.num_iters",),
    lambda value: validation.is_whole(value, 0),
    "whole numbers, at least 0",
  ),
}


class Point(NamedTuple):
  """One quantity's value, all else being as the config says.

  Attributes:
    quantity: key of `QUANTITIES`.
    value: a whole number; [H, W] for the image size.
  """

  quantity: str
  value: Any

  @property
  def size(self) -> int:
    """Returns the value in units."""
    return math.prod(self.value) if self._is_image else self.value

  @property
  def label(self) -> str:
    """Returns the value as text."""
    return "{}x{}".format(*self.value) if self._is_image else str(self.value)

  @property
  def _is_image(self) -> bool:
    return self.quantity == "image_size"

  def as_json(self) -> Row:
    """Returns what identifies the point."""
    return {**self._asdict(), "size": self.size, "label": self.label}

  def apply(self, config: Config) -> dict[str, Any]:
    """Returns the config of this point."""
    result = copy.deepcopy(dict(config))
    for entry in QUANTITIES[self.quantity].entries:
      *parents, last = entry.split(".")
      place: Any = result
      for name in parents:
        place = place[name]
      place[last] = self.value
    return result


def read(options: Mapping[str, Any]) -> list[Point]:
  """Reads the points that `benchmark.sweep` asks for.

  Raises:
    errors.UserError: if a quantity or a value is not one.
  """
  sweep = {} if options["sweep"] is None else options["sweep"]
  validation.require(
    isinstance(sweep, Mapping) and not set(sweep) - set(QUANTITIES),
    "benchmark.sweep",
    sweep,
    "lists of values, such as `benchmark.sweep.batch_size=[1,2,4]`, for some "
    f"of {', '.join(QUANTITIES)}",
  )
  points = []
  for name, quantity in QUANTITIES.items():
    values = sweep.get(name)
    if values is None:
      continue
    validation.require(
      validation.is_list(values)
      and len(values) > 0
      and all(quantity.accepts(value) for value in values),
      f"benchmark.sweep.{name}",
      values,
      f"a list of {quantity.needs}",
    )
    if name == "image_size":
      values = [[v, v] if isinstance(v, int) else list(v) for v in values]
    points += [Point(name, value) for value in values]
  return points


def run(
  config: Config, parts: Sequence[str], points: Sequence[Point], script: str
) -> dict[str, Any]:
  """Measures the config itself, then one point after the other.

  Shows tables, and draws a picture.

  Args:
    config: the complete config.
    parts: what is measured of the config itself, besides the training step.
    points: see `read`.
    script: path of `main.py`.

  Returns:
    The measurements of the config; "sweep", a list of what the points are
    (quantity, value, size, label) with theirs or an error; and "fits", per
    quantity the straight lines through step time and peak memory.
  """
  folder = config["pictures_dir"] or "benchmark"
  files.check_folder(folder)
  # In a process of its own like the points, so that memory compares.
  print("measuring the config itself", flush=True)
  result = measure_in_child(config, parts, script)
  print(table.text(result), flush=True)
  rows: list[Row] = []
  for number, point in enumerate(points, start=1):
    name = f"{point.quantity}={point.label}"
    print(f"point {number}/{len(points)}: {name}", flush=True)
    try:
      measured = measure_in_child(point.apply(config), [], script)
    except errors.UserError as error:  # a point should not cost the others
      measured = {"error": str(error)}
    print(f"  {_summary(measured)}", flush=True)
    rows.append({**point.as_json(), **measured})
  good = [row for row in rows if "error" not in row]
  fits = _fits(good)
  if good:
    print(_table(good, fits), flush=True)
    picture = os.path.join(folder, "sweep.png")
    charts.save_sweep(picture, _panels(good, fits))
    print(f"picture: {picture}", flush=True)
  return {**result, "sweep": rows, "fits": fits}


def require_all(rows: Sequence[Row]) -> None:
  """Checks that all points of a sweep were measured.

  Raises:
    errors.UserError: if not.
  """
  missing = [row for row in rows if "error" in row]
  if missing:
    names = ", ".join(f"{row['quantity']}={row['label']}" for row in missing)
    raise errors.UserError(
      f"{names} could not be measured, the first because {missing[0]['error']}"
    )


def measure_in_child(
  config: Config, parts: Sequence[str], script: str
) -> dict[str, Any]:
  """Measures a config without a sweep, in a process of its own.

  Args:
    config: the complete config.
    parts: what is measured besides the training step.
    script: path of `main.py`.

  Raises:
    errors.UserError: if the process fails.
  """
  with tempfile.TemporaryDirectory() as folder:
    config_path = os.path.join(folder, "config.json")
    json_path = os.path.join(folder, "measurements.json")
    options = {**config["benchmark"], "parts": list(parts), "sweep": None}
    config = {**config, "benchmark": options}
    files.write_json(config_path, config)
    # What a file may not say by itself.
    writes = {
      **config_files.writing_entries(config),
      "json_path": json_path,
    }
    named = {str(name) for _, name in building.foreign_names(config)}
    child = subprocess.run(
      [
        *(sys.executable, script, "benchmark", "with", config_path),
        *(f"{entry}={value!r}" for entry, value in writes.items()),
        *(("--trust", ",".join(sorted(named))) if named else ()),
      ],
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    if child.returncode == 0:
      with open(json_path, encoding="utf-8") as file:
        return json.load(file)
  message = child.stderr.strip().rpartition("\n")[2].removeprefix("error: ")
  if child.returncode < 0:
    # The system ends so whoever takes the memory that others need.
    message = f"signal {-child.returncode} ended it, was the memory enough?"
  raise errors.UserError(message or f"it ended with {child.returncode}")


# ----------------------------------------------- table, lines and the picture


def _fits(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
  """Fits lines per quantity and measurement, where there are two points."""
  fits: dict[str, dict[str, Any]] = {}
  for quantity, members in _by_quantity(rows).items():
    sizes = [row["size"] for row in members]
    if len(set(sizes)) > 1:
      fits[quantity] = {
        name: measuring.fit_line(
          sizes, [row[name] for row in members]
        )._asdict()
        for name in ("step_seconds_median", "peak_memory_bytes")
      }
  return fits


def _by_quantity(rows: Sequence[Row]) -> dict[str, list[Row]]:
  groups: dict[str, list[Row]] = {}
  for row in rows:
    groups.setdefault(row["quantity"], []).append(row)
  return groups


def _summary(measured: Mapping[str, Any]) -> str:
  if "error" in measured:
    return f"not measured: {measured['error']}"
  return (
    f"{measured['step_seconds_median']:.3f} s a step, "
    f"{measured['gflops']:.1f} GFLOP/s, "
    f"{measured['peak_memory_bytes'] / 1e6:,.0f} MB"
  )


_COLUMNS = (
  "",
  "",
  "step [s]",
  "images/s",
  "GFLOP",
  "GFLOP/s",
  "share [%]",
  "peak [MB]",
)


def _table(rows: Sequence[Row], fits: Mapping[str, Any]) -> str:
  """Returns one line for every point, one for every straight line."""
  lines_of_points = tabulate.tabulate(
    [
      (
        QUANTITIES[row["quantity"]].title,
        row["label"],
        row["step_seconds_median"],
        row["images_per_second"],
        row["flops_per_step"] / 1e9,
        row["gflops"],
        100 * row["share_of_matmul"],
        row["peak_memory_bytes"] / 1e6,
      )
      for row in rows
    ],
    headers=_COLUMNS,
    disable_numparse=[0, 1],
    floatfmt=("", "", ".4f", ".2f", ".3f", ".1f", ".1f", ".0f"),
    colalign=("left", "right"),
  )
  lines = [
    f"{QUANTITIES[quantity].title}: "
    f"{_formula(fit['step_seconds_median'], 's', quantity)}; "
    f"{_formula(fit['peak_memory_bytes'], 'MB', quantity)}"
    for quantity, fit in fits.items()
  ]
  return "\n".join(["", lines_of_points, *lines])


def _formula(line: Mapping[str, float], unit: str, quantity: str) -> str:
  scale = 1e-6 if unit == "MB" else 1.0
  intercept, slope = scale * line["intercept"], scale * line["slope"]
  sign = "-" if slope < 0 else "+"
  return (
    f"{intercept:.3g} {unit} {sign} {abs(slope):.3g} {unit} per "
    f"{QUANTITIES[quantity].unit}"
  )


def _panels(
  rows: Sequence[Row], fits: Mapping[str, Any]
) -> list[charts.SweepPanel]:
  """Returns what the picture shows: two panels per quantity."""
  panels = []
  for quantity, members in _by_quantity(rows).items():
    for name, title, unit, scale in (
      ("step_seconds_median", "step [s]", "s", 1.0),
      ("peak_memory_bytes", "peak memory [MB]", "MB", 1e-6),
    ):
      line = fits.get(quantity, {}).get(name)
      values = [scale * row[name] for row in members]
      spreads = [row["step_seconds"] for row in members]
      is_time = unit == "s"
      panels.append(
        charts.SweepPanel(
          x_title=QUANTITIES[quantity].title,
          y_title=title,
          x=[row["size"] for row in members],
          x_labels=[row["label"] for row in members],
          y=values,
          low=[s["lower_quartile"] for s in spreads] if is_time else values,
          high=[s["upper_quartile"] for s in spreads] if is_time else values,
          line=line and (scale * line["intercept"], scale * line["slope"]),
          line_label=_formula(line, unit, quantity) if line else "",
        )
      )
  return panels
