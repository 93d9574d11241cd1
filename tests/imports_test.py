"""Imports go one way, so that every part can be read by itself."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Each file may import those of earlier layers, not its own or later ones.
LAYERS = [
  {
    "iodine.errors",
    "iodine.modules.types",
    "iodine.pretrained",
  },
  {
    "iodine.modules.utils",
    "iodine.modules.metrics",
    "iodine.modules.palette",
  },
  {
    "iodine.modules.convolutions",
    "iodine.modules.precision",
    "iodine.modules.recomputation",
    "iodine.modules.canvas",
  },
  {
    "iodine.modules.distributions",
    "iodine.modules.networks",
    "iodine.modules.curves",
    "iodine.modules.image_grids",
    "iodine.modules.plotting",
    "iodine.modules.latent_plots",
    "iodine.modules.charts",
    "iodine.modules.image_files",
  },
  {
    "iodine.modules.decoder",
    "iodine.modules.refinement",
    "iodine.modules.refinement_inputs",
    "iodine.modules.factor_eval",
  },
  {"iodine.modules.info", "iodine.modules.iterations"},
  {"iodine.modules.iodine"},
  {"iodine.modules.records", "iodine.modules.data_arguments"},
  {"iodine.modules.data_files", "iodine.modules.fast_records"},
  {"iodine.modules.scene_stream"},
  {"iodine.modules.data"},
  {"iodine.loss_scaling", "iodine.scene_scores"},
  {
    "iodine.building",
    "iodine.flops",
    "iodine.process_cost",
    "iodine.optimizers",
    "iodine.evaluation",
    "iodine.summaries",
    "iodine.synthetic",
    "iodine.command_line",
  },
  {
    "iodine.checkpoints",
    "iodine.benchmarking",
    "iodine.pictures",
    "iodine.image_reading",
    "iodine.reporting",
  },
  {"iodine.training", "iodine.tf1_checkpoint", "iodine.new_folders"},
  {"iodine.comparison", "iodine.segmentation"},
  {"iodine.saved_model", "iodine.segmentation_files"},
  {"iodine.commands.common"},
  {
    "iodine.commands.evaluation_outputs",
    "iodine.commands.make_data_command",
    "iodine.commands.stages",
  },
  {
    "iodine.commands.benchmark_sweep",
    "iodine.commands.checkpoint_command",
    "iodine.commands.compare_command",
    "iodine.commands.evaluate_command",
    "iodine.commands.export_savedmodel_command",
    "iodine.commands.plot_command",
    "iodine.commands.segment_command",
  },
  {
    "iodine.commands.benchmark_command",
    "iodine.commands.train_command",
    "iodine.commands.report_command",
  },
  {"iodine.commands.quickstart_command"},
  {"iodine.commands"},
  {"main"},
]


def module_name(path):
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(p for p in parts if p != "__init__")


def imports_of(path):
  """Dotted names that a file imports, functions included."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      # The configs are a package of one name here, of another in a wheel.
      relative = node.level and path.parent.name != "configs"
      assert not relative, f"{path} has a relative import"
      module = f"{node.module}." if node.module else ""
      names |= {f"{module}{alias.name}" for alias in node.names}
  return names


def layer_of(name):
  """The index of the layer that a module, or something in it, is in."""
  for index, layer in enumerate(LAYERS):
    if any(name == m or name.startswith(f"{m}.") for m in layer):
      return index
  return None


FILES = [ROOT / "main.py", *sorted((ROOT / "iodine").rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_one_way(path):
  name = module_name(path)
  if name.startswith("iodine.synthetic") or path.name == "__init__.py":
    return
  own = layer_of(name)
  assert own is not None, f"{name} is in no layer: add it"
  for imported in imports_of(path):
    layer = layer_of(imported)
    if layer is not None:
      assert layer < own, f"{name} imports {imported}"


def test_the_generators_import_only_errors_of_the_project():
  for path in (ROOT / "iodine/synthetic").glob("*.py"):
    for name in imports_of(path):
      allowed = ("iodine.synthetic", "iodine.errors")
      assert not name.startswith("iodine") or name.startswith(allowed)


def test_configs_import_next_to_nothing_of_the_project():
  allowed = {"base", "iodine.pretrained.LAPTOP", "math", "os"}
  allowed |= {"collections.abc.Sequence", "typing.Any"}  # of base
  for path in (ROOT / "configs").glob("*.py"):
    assert imports_of(path) <= allowed, path


def test_modules_know_neither_sacred_nor_training():
  for path in (ROOT / "iodine/modules").glob("*.py"):
    for name in imports_of(path):
      assert not name.startswith(("sacred", "iodine.training")), path


def test_building_imports_only_importlib_and_the_like():
  names = imports_of(ROOT / "iodine/building.py")
  assert not any(
    n.startswith(("tensorflow", "sonnet", "sacred")) for n in names
  )


def test_pictures_are_drawn_without_tensorflow():
  modules = (
    "palette",
    "canvas",
    "plotting",
    "latent_plots",
    "charts",
    "curves",
    "image_files",
  )
  ours = tuple(f"iodine.modules.{name}" for name in modules)
  for name in modules:
    for imported in imports_of(ROOT / f"iodine/modules/{name}.py"):
      assert not imported.startswith("tensorflow"), name
      assert not imported.startswith("iodine") or imported in ours, name


def test_missing_shapeguard_is_one_sentence():
  code = (
    "import sys; sys.modules['shapeguard'] = None\n"
    "try:\n  import iodine.modules.types\n"
    "except ImportError as error: print(error)"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
  )
  assert "pip install --no-deps shapeguard==0.1.1" in result.stdout
  assert result.stdout.count("\n") == 1
