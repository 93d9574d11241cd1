"""Imports go one way, room by room, and through the doors."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Folders and single files of `iodine/`. Each may import those of earlier
# layers and itself, neither its neighbours nor later ones.
LAYERS = [
  {"errors", "nvidia", "pretrained"},
  {"files", "kinds"},
  {"building", "entries"},
  {"config_files"},
  {"ops", "readers", "synthetic", "drawing"},
  {"modules", "devices"},
  {"replicas"},
  {"optimizers", "evaluation"},
  {"checkpoints"},
  {"training", "segmentation", "report", "tf1_checkpoint"},
  {"benchmark", "comparison"},
  {"commands"},
  {"studies", "explore"},
  {"api"},
]

# Within the model, from its records to the whole.
MODULES = [
  {"types", "metrics"},
  {"utils"},
  {"distributions", "networks", "image_grids"},
  {"decoder", "refinement", "refinement_inputs", "factor_eval"},
  {"info", "iterations"},
  {"iodine"},
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


def room_of(name):
  """The folder or file of `iodine/` that a dotted name is of, or None."""
  parts = name.split(".")
  return parts[1] if parts[0] == "iodine" and len(parts) > 1 else None


def layer_of(room, layers):
  (index,) = [i for i, layer in enumerate(layers) if room in layer]
  return index


# The public API imports what it offers when it is asked for it.
FILES = [
  path
  for path in sorted((ROOT / "iodine").rglob("*.py"))
  if path.parent != ROOT / "iodine" or not path.name.startswith("__")
]


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_one_way(path):
  room = room_of(module_name(path))
  for imported in imports_of(path):
    other = room_of(imported)
    if other not in (None, room):
      assert layer_of(other, LAYERS) < layer_of(room, LAYERS), imported


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_rooms_are_entered_through_their_doors(path):
  room = room_of(module_name(path))
  for imported in imports_of(path):
    parts = imported.split(".")
    # Configs name the files of the model, so that each of them is a door.
    if len(parts) < 3 or room_of(imported) in (None, room, "modules"):
      continue
    if not (ROOT / "iodine" / parts[1]).is_dir():
      continue
    door = importlib.import_module(f"iodine.{parts[1]}")
    assert len(parts) == 3 and parts[2] in door.__all__, imported


def test_every_door_offers_what_it_says():
  for folder in (ROOT / "iodine").iterdir():
    if not (folder / "__init__.py").exists():
      continue
    door = importlib.import_module(f"iodine.{folder.name}")
    for name in getattr(door, "__all__", ()):
      is_file = (folder / f"{name}.py").exists()
      assert is_file or hasattr(door, name), f"{folder.name}: {name}"


def test_the_model_is_built_from_its_records_to_the_whole():
  known = set().union(*MODULES)
  for name in known:
    for imported in imports_of(ROOT / f"iodine/modules/{name}.py"):
      other = imported.split(".")[-1]
      if imported.startswith("iodine.modules.") and other in known:
        assert layer_of(other, MODULES) < layer_of(name, MODULES), name


def test_no_room_is_too_full():
  folders = {path.parent for path in FILES} - {ROOT / "iodine/pretrained"}
  for folder in folders:
    assert len(list(folder.glob("*.*"))) <= 16, folder


def test_handlers_of_exceptions_are_few_and_hide_no_bugs():
  hidden = {"AttributeError", "NameError", "ImportError", "BaseException"}
  handlers = [
    node
    for path in [ROOT / "main.py", *(ROOT / "iodine").rglob("*.py")]
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.ExceptHandler)
  ]
  assert len(handlers) <= 25
  assert all(handler.type is not None for handler in handlers)
  named = {
    node.id
    for handler in handlers
    for node in ast.walk(handler.type)
    if isinstance(node, ast.Name)
  }
  assert not named & hidden


def test_only_one_file_writes_files():
  for path in FILES:
    if path != ROOT / "iodine/files.py":
      text = path.read_text()
      for call in ("os.replace(", "os.rename(", "os.makedirs(", ".mkdir("):
        assert call not in text, path


def test_the_generators_import_only_the_lowest_layers():
  for path in (ROOT / "iodine/synthetic").glob("*.py"):
    rooms = {room_of(name) for name in imports_of(path)}
    assert rooms <= {None, "synthetic", "errors", "files"}


def test_configs_import_next_to_nothing_of_the_project():
  allowed = {"base", "iodine.pretrained.TETROMINOES", "math", "os"}
  allowed |= {"collections.abc.Sequence", "typing.Any"}  # of base
  for path in (ROOT / "configs").glob("*.py"):
    assert imports_of(path) <= allowed, path


def test_modules_know_neither_sacred_nor_training():
  for path in (ROOT / "iodine/modules").glob("*.py"):
    for name in imports_of(path):
      assert not name.startswith(("sacred", "iodine.training")), path


# What Windows has not.
POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "ctypes"}


def test_nothing_is_imported_that_windows_has_not():
  for path in [ROOT / "main.py", *(ROOT / "iodine").rglob("*.py")]:
    names = {name.partition(".")[0] for name in imports_of(path)}
    assert not names & POSIX, path


def test_building_imports_only_importlib_and_the_like():
  names = imports_of(ROOT / "iodine/building.py")
  assert not any(
    n.startswith(("tensorflow", "sonnet", "sacred")) for n in names
  )


def test_pictures_are_drawn_without_tensorflow():
  for path in (ROOT / "iodine/drawing").glob("*.py"):
    for imported in imports_of(path):
      assert not imported.startswith(("tensorflow", "sonnet")), path


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


def test_images_are_opened_without_imports(tmp_path):
  """Those of a reading thread waited for other readings, and they for it."""
  code = (
    "import sys\n"
    "import PIL.Image\n"
    "from iodine import errors\n"
    "from iodine.readers import image_files\n"
    "kinds = [f'{sys.argv[1]}/{n}' for n in 'a.png b.jpg c.webp d.bmp e.tif'"
    ".split()]\n"
    "broken = f'{sys.argv[1]}/f.png'\n"
    "open(broken, 'w').write('text')\n"
    "before = set(sys.modules)\n"
    "assert errors.message_of(lambda: image_files.read(broken))\n"
    "for path in kinds:\n"
    "  PIL.Image.new('RGB', (4, 4)).save(path)\n"
    "  image_files.read(path)\n"
    "print('imported', *sorted(set(sys.modules) - before))"
  )
  command = [sys.executable, "-c", code, str(tmp_path)]
  result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert result.stdout == "imported\n", result.stdout + result.stderr
