"""Scenes of one's own: images, films, arrays, and what can be wrong in them."""

import collections
import dataclasses
import gc
import os
import shutil
import subprocess
import sys
import tracemalloc

import h5py
import helpers
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from cache_test import assert_same, generated, take, tetrominoes
from helpers import noise, save_image

from iodine import errors
from iodine.modules import data
from iodine.readers import arrays, films

NUM_SCENES = 30
OPTIONS = {"batch_size": 4, "image_dim": [14, 14], "shuffle_buffer": 10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The same scenes as records, PNGs, NPZ files and HDF5 files."""
  folder = tmp_path_factory.mktemp("own")
  path = generated(folder, "tetrominoes", NUM_SCENES)
  whole = tetrominoes(path, batch_size=NUM_SCENES, shuffle_buffer=None)
  (scenes,) = whole("test")
  image = np.rint(255 * scenes["image"][:, 0].numpy()).astype(np.uint8)
  stack = scenes["mask"][:, 0].numpy().astype(np.uint8)
  labels = stack[..., 0].argmax(axis=1).astype(np.uint8)
  visibility = scenes["visibility"].numpy()
  factors = {name: value.numpy() for name, value in scenes["factors"].items()}
  for i in range(NUM_SCENES):
    save_image(folder / f"photos/{i}.png", image[i])
    save_image(folder / f"masks/{i}.png", labels[i])
  for i in range(NUM_SCENES):
    save_image(folder / f"both/scene_{i}.png", image[i])
    save_image(folder / f"both/scene_{i}.mask.png", 50 * labels[i])
  named = {f"factors/{name}": value for name, value in factors.items()}
  np.savez(
    folder / "own.npz", image=image, mask=labels, visibility=visibility, **named
  )
  np.savez_compressed(folder / "packed.npz", image=image, mask=stack)
  with h5py.File(folder / "own.h5", "w") as file:
    file["image"] = image
    chunks = (7, 35, 35, 1)
    file.create_dataset(
      "mask", data=labels[..., None], chunks=chunks, compression="gzip"
    )
    file["visibility"] = visibility
    file["num_actual_objects"] = np.full([NUM_SCENES, 1], 3)
    for name, value in factors.items():
      file[name] = value
  with h5py.File(folder / "groups.h5", "w") as file:
    for name, part in (("train", slice(20)), ("test", slice(20, None))):
      file[f"{name}/imgs"] = image[part]
      file[f"{name}/masks"] = stack[part].astype(np.float32)
      file[f"{name}/factors"] = np.zeros([len(image[part]), 4, 9])
  return folder


KINDS = {
  "masks beside": (data.Images, "both", {}),
  "masks elsewhere": (data.Images, "photos", {"masks": "masks"}),
  "npz": (data.Arrays, "own.npz", {}),
  "compressed npz": (data.Arrays, "packed.npz", {}),
  "hdf5": (data.Arrays, "own.h5", {}),
}


def build(folder, kind, **options):
  cls, path, own = KINDS[kind]
  own = {name: str(folder / value) for name, value in own.items()}
  return cls(**OPTIONS | {"path": str(folder / path)} | own | options)


def test_groups_of_an_hdf5_file_are_subsets(folder):
  own = data.Arrays(
    path=str(folder / "groups.h5"),
    batch_size=5,
    train="train",
    test="test",
    shuffle_buffer=None,
  )
  records = tetrominoes(
    str(folder / "tetrominoes.tfrecords"), batch_size=5, shuffle_buffer=None
  )
  expected = take(records(), 6)
  found = [*take(own(), 4), *own("test")]
  assert_same([b["image"] for b in found], [b["image"] for b in expected])
  assert_same([b["mask"] for b in found], [b["mask"] for b in expected])


def test_contiguous_arrays_are_mapped_and_not_read(folder):
  for name in ("own.npz", "packed.npz", "own.h5"):
    opened = arrays.open_file(str(folder / name))
    assert isinstance(opened["image"], np.memmap)


def test_scenes_are_filtered_by_visibility(tmp_path):
  image, mask = noise([8, 6, 6, 3]), noise([8, 6, 6], 1)
  visibility = np.arange(5) < 1 + np.arange(8)[:, None] % 4
  path = str(tmp_path / "own.npz")
  np.savez(path, image=image, mask=mask, visibility=visibility)
  own = data.Arrays(path=path, batch_size=2, max_num_objects=2)
  batches = take(own(None), 2)
  found = np.concatenate([batch["image"] for batch in batches])[:, 0]
  expected = image[[0, 1, 4, 5]] / np.float32(255)
  np.testing.assert_array_equal(found, expected)


def test_images_keep_their_proportions(tmp_path):
  wide = noise([20, 40, 3])
  save_image(tmp_path / "photos/a.png", wide)
  own = data.Images(
    path=str(tmp_path), batch_size=1, image_dim=[20, 20], grayscale=False
  )
  (batch,) = own("test")
  middle = wide[:, 10:30] / np.float32(255)
  np.testing.assert_array_equal(batch["image"][0, 0], middle)
  cropped = data.Images(
    path=str(tmp_path), batch_size=1, crop_region=[[0, 20], [0, 30]]
  )
  assert cropped.image_shape == (20, 30, 3)
  (batch,) = cropped("test")
  np.testing.assert_array_equal(
    batch["image"][0, 0], wide[:, :30] / np.float32(255)
  )


def test_folders_are_subsets_and_names_are_in_order(tmp_path):
  for number in (2, 10, 1):
    for name in ("train", "test"):
      shade = number + 100 * (name == "test")
      save_image(
        tmp_path / f"{name}/deep/a{number}.png", np.full([4, 4], shade, "u1")
      )
  save_image(tmp_path / "train/.hidden.png", noise([4, 4]))
  own = data.Images(
    path=str(tmp_path), batch_size=3, train="train", test="test/deep"
  )
  for subset, first in (("summary", 0), ("test", 100)):
    shades = 255 * next(iter(own(subset)))["image"][:, 0, 0, 0, 0].numpy()
    np.testing.assert_allclose(shades - first, [1, 2, 10], rtol=1e-6)


# -------------------------------------------------------------------- films


@pytest.fixture(scope="module")
def film_folder(tmp_path_factory):
  """Two films of 11 frames, as folders and as GIFs."""
  folder = tmp_path_factory.mktemp("films")
  for name in ("a", "b"):
    shades = 20 * np.arange(11, dtype=np.uint8) + (name == "b")
    frames = [np.full([6, 8, 3], shade, np.uint8) for shade in shades]
    for number, frame in enumerate(frames):
      save_image(folder / f"frames/{name}/{number}.png", frame)
      labels = np.full([6, 8], 0, np.uint8)
      labels[:, number % 8] = 7
      save_image(folder / f"frames/{name}/{number}.mask.png", labels)
    os.makedirs(folder / "gifs", exist_ok=True)
    first, *others = map(PIL.Image.fromarray, frames)
    first.save(folder / f"gifs/{name}.gif", save_all=True, append_images=others)
  return folder


@pytest.mark.parametrize("kind", ["frames", "gifs"])
def test_films_are_cut_into_clips(film_folder, kind):
  own = data.Films(
    path=str(film_folder / kind), batch_size=2, frames=3, stride=2
  )
  clips = np.concatenate([batch["image"] for batch in own("test")])
  shades = np.rint(255 * clips[..., 0, 0, 0])
  expected = [[0, 40, 80], [120, 160, 200]]
  np.testing.assert_array_equal(shades, expected + np.add(expected, 1).tolist())
  if kind == "frames":
    (batch,) = take(own("summary"), 1)
    assert batch["mask"].shape == (2, 3, 2, 6, 8, 1)
    is_on = batch["mask"][0, :, 1, 0, :, 0].numpy().argmax(axis=-1)
    np.testing.assert_array_equal(is_on, [0, 2, 4])
    np.testing.assert_array_equal(batch["visibility"], np.ones([2, 2]))


def test_arrays_of_films_have_frames(tmp_path):
  image, mask = noise([4, 7, 5, 6, 3]), noise([4, 7, 5, 6], 2)
  path = str(tmp_path / "films.npz")
  np.savez(path, image=image, mask=mask)
  own = data.Arrays(path=path, batch_size=4, frames=3, stride=3)
  (batch,) = own("test")
  expected = image[:, ::3] / np.float32(255)
  np.testing.assert_array_equal(batch["image"], expected)
  found = batch["mask"].numpy()[..., 0].argmax(axis=2)
  np.testing.assert_array_equal(found, mask[:, ::3])


# ------------------------------------------------------------ what is wrong


def test_masks_of_photographs_lie_where_their_pixels_do(tmp_path):
  """Squares of one colour each, and labels of any size."""
  colors, labels = noise([4, 6, 3]), np.arange(24).reshape(4, 6)
  labels[labels > 4] = 200_000_000
  large = [x.repeat(150, axis=0).repeat(150, axis=1) for x in (colors, labels)]
  save_image(tmp_path / "a/b.png", large[0])
  save_image(tmp_path / "a/b.mask.tif", large[1].astype(np.int32))
  own = data.Images(path=str(tmp_path), batch_size=1, image_dim=[4, 6])
  tracemalloc.start()
  assert own.num_true_objects == 6
  assert tracemalloc.get_traced_memory()[1] < 3e7  # what the image takes
  tracemalloc.stop()
  (batch,) = own("test")
  np.testing.assert_allclose(
    batch["image"][0, 0], colors / 255, atol=1e-5
  )  # float32
  found = np.argmax(batch["mask"][0, 0, ..., 0], axis=0)
  np.testing.assert_array_equal(found, np.minimum(labels, 5))
  assert batch["visibility"].numpy().tolist() == [[1.0] * 6]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_image_and_mask_of_a_photograph_are_of_one_geometry(tmp_path, suffix):
  """Of sizes that do not divide: a band of a tenth at either end."""
  pixels, labels = np.zeros([1000, 1010, 3], np.uint8), np.zeros([1000, 1010])
  for number, band in enumerate((slice(100), slice(900, None)), 1):
    pixels[band], labels[band] = 255, number
  save_image(tmp_path / f"a.{suffix}", pixels, quality=95)
  save_image(tmp_path / "a.mask.png", labels.astype(np.uint8))
  own = data.Images(path=str(tmp_path), batch_size=1, image_dim=[64, 64])
  (batch,) = own("test")
  rows = batch["image"][0, 0, :, :, 0].numpy().mean(axis=1)
  for half in (rows[:32], rows[32:]):
    assert half.sum() == pytest.approx(6.4, abs=0.1)
  there = batch["mask"][0, 0, :, :, 0, 0].numpy().sum(axis=1)
  assert there.tolist() == [52.0, 6.0, 6.0]


@pytest.mark.parametrize("is_flat", [True, False])
def test_masks_are_found_by_the_ends_of_paths(tmp_path, is_flat):
  folder = tmp_path / "all"
  for i in range(4):
    part, name = ("train", "test")[i % 2], str(i) if is_flat else str(i // 2)
    save_image(folder / f"photos/{part}/{name}.png", noise([8, 8, 3]))
    labels = np.full([8, 8], 0, np.uint8)
    labels[: i + 1] = 3
    place = "" if is_flat else f"{part}/"
    save_image(folder / f"photos/labels/{place}{name}.png", labels)
  masks = f"{folder}/photos/labels"
  parts = [f"{folder}/photos/{part}" for part in ("test", "train")]
  for path in (f"{folder}/photos", f"{folder}/photos/t*/*.png", parts):
    own = data.Images(path=path, masks=masks, batch_size=4, train=[0, 4])
    assert own.num_true_objects == 2
    (batch,) = own("test")
    covered = batch["mask"].numpy()[:, 0, 1, :, 0, 0].sum(axis=1)
    np.testing.assert_array_equal(covered, [2, 4, 1, 3])


# ----------------------------------------------------- the same in all forms


@pytest.mark.parametrize("grayscale", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_tensors_are_those_of_the_records(folder, kind, grayscale):
  if grayscale and kind != "masks beside":
    pytest.skip("one kind will do")
  options = {"train": [0, 21], "test": [21, None], "grayscale": grayscale}
  options["shuffle_buffer"] = None
  path = str(folder / "tetrominoes.tfrecords")
  records = tetrominoes(path, **OPTIONS | options)
  own = build(folder, kind, **options)
  assert own.image_shape == records.image_shape
  assert own.num_true_objects == 4
  names = ["image", "mask", "visibility"]
  if kind in ("npz", "hdf5"):
    names.append("factors")
  for subset in ("train", "summary", "test"):
    skip = 0 if subset == "test" else 6
    expected = take(records(subset, skip), 3)
    found = take(own(subset, skip), 3)
    has_factors = "factors" in names
    assert bool(found[0]["factors"]) == has_factors
    assert_same(
      [{n: batch[n] for n in names} for batch in found],
      [{n: batch[n] for n in names} for batch in expected],
    )
    compact = take(own(subset, skip, compact=True), 3)
    assert compact[0]["mask"].dtype == tf.uint8
    assert_same([own.expand(batch) for batch in compact], found)


@pytest.mark.parametrize("kind", ["masks beside", "compressed npz", "hdf5"])
def test_a_cache_of_them_changes_nothing(folder, kind, tmp_path):
  own = build(folder, kind, test=[25, None])
  cached = build(folder, kind, test=[25, None], cache=str(tmp_path / "cache"))
  for subset in ("train", "summary", "test"):
    assert_same(take(cached(subset), 2), take(own(subset), 2))
  whole = take(own(), 1)[0]["image"]
  for dataset in (own, cached):
    (rows,) = take(dataset(rows=(1, 3)), 1)
    assert_same(rows["image"], whole[1:3])


def test_records_of_other_sizes_are_read(tmp_path, folder):
  path = str(folder / "tetrominoes.tfrecords")
  (scenes,) = tetrominoes(path, batch_size=30)("test")
  image = np.rint(255 * scenes["image"][0, 0].numpy()).astype(np.uint8)
  mask = (255 * scenes["mask"][0, 0].numpy()).astype(np.uint8)
  twice = {
    **helpers.numbered_scene(0),
    "image": image.repeat(2, axis=0).repeat(2, axis=1),
    "mask": mask.repeat(2, axis=1).repeat(2, axis=2),
  }
  path = helpers.write_records(tmp_path / "large.tfrecords", [twice])
  (batch,) = tetrominoes(path, batch_size=1, stored_dim=[70, 70])("test")
  np.testing.assert_array_equal(batch["image"][0], scenes["image"][0])
  np.testing.assert_array_equal(batch["mask"][0], scenes["mask"][0])


# ------------------------------------------------- the layouts of others

LABELS = noise([5, 6, 8], 3)  # every entity is in every scene
STACK = LABELS[:, None] == np.arange(4)[:, None, None]  # [5, 4, 6, 8]
UNIT = noise([5, 6, 8, 3]) / np.float32(255)


@pytest.mark.parametrize(
  "mask", [LABELS[..., None], LABELS, STACK[..., None]], ids=np.shape
)
def test_object_centric_library_is_read_as_it_is(tmp_path, mask):
  """Its masks are [N, H, W, 1]; the other forms give the same."""
  visibility = np.arange(4) <= np.arange(5)[:, None] % 4
  factors = {
    "color": noise([5, 4, 3], seed=1) / np.float32(7),
    "x": noise([5, 4, 1], seed=2) / np.float32(7),
    "scale": noise([5, 4], seed=3) / np.float32(7),
    "shape": noise([5, 4, 1], seed=4),
  }
  path = str(tmp_path / "multidsprites-full.hdf5")
  with h5py.File(path, "w") as file:
    file.update({"image": noise([5, 6, 8, 3]), "mask": mask})
    file["visibility"] = visibility.astype(np.float32)
    file["num_actual_objects"] = visibility[:, 1:].sum(axis=1)[:, None]
    file.update(factors)
  (batch,) = data.Arrays(path=path, batch_size=5)("test")
  expected = {
    "image": UNIT[:, None],
    "mask": STACK[:, None, ..., None].astype(np.float32),
    "visibility": visibility.astype(np.float32),
    "factors": {k: x.reshape(5, 4, -1) for k, x in factors.items()},
  }
  assert_same(batch, expected)


def test_efficient_morl_is_read_by_its_groups(tmp_path):
  path = str(tmp_path / "tetrominoes.h5")
  is_there = STACK & (np.arange(4) < 3)[:, None, None]  # of 3 entities
  subsets = {"train": [0, 1], "val": [2], "test": [3, 4]}
  with h5py.File(path, "w") as file:
    for name, part in subsets.items():
      group = file.create_group(name)
      group["imgs"] = noise([5, 6, 8, 3])[part]
      # The background's is the first.
      group["masks"] = 255 * is_there[part][..., None].astype(np.uint8)
      group["factors"] = noise([len(part), 4, 9])
  for name, part in subsets.items():
    own = data.Arrays(path=path, batch_size=len(part), train=name, test=name)
    visibility = np.array([[1, 1, 1, 0]] * len(part), np.float32)
    expected = {
      "image": UNIT[part][:, None],
      "mask": is_there[part][:, None, ..., None].astype(np.float32),
      "visibility": visibility,
      "factors": {},
    }
    assert_same(take(own(None), 1) + list(own("test")), [expected] * 2)


# ------------------------------------------------------------ what is wrong


@pytest.fixture
def photos(tmp_path):
  for i in range(6):
    save_image(tmp_path / f"photos/{i}.png", noise([8, 8, 3], seed=i))
  return str(tmp_path / "photos")


def sentence(dataset):
  """What the first batches say."""
  with pytest.raises(errors.UserError) as info:
    for subset in ("train", "test"):
      for _, _ in zip(range(4), dataset.batches(subset), strict=False):
        pass
  return str(info.value)


def images_sentence(path, **options):
  return sentence(data.Images(**OPTIONS | {"path": path} | options))


def test_a_sentence_names_the_image_and_keeps_no_iterator(photos):
  """A reading thread that collects it would wait for the iterator's threads."""
  with open(f"{photos}/3.png", "rb+") as file:
    file.truncate(60)

  def iterators():
    return {
      id(thing)
      for thing in gc.get_objects()
      if type(thing).__name__ == "OwnedIterator"
    }

  assert type(iter(tf.data.Dataset.range(1))).__name__ == "OwnedIterator"
  gc.collect()
  before = iterators()
  assert f"`{photos}/3.png` is not an image" in images_sentence(photos)
  assert iterators() <= before


READING = """
import sys
from iodine.modules import data
images = data.Images(path=sys.argv[1], batch_size=4, image_dim=[8, 8])
batches = iter(images("train"))
next(batches)
"""


def test_a_process_ends_while_its_scenes_are_read(tmp_path):
  """Python stops its threads, for which the iterator would wait."""
  for i in range(8):
    save_image(tmp_path / f"{i}.png", noise([900, 900, 3], seed=i))
  command = [sys.executable, "-c", READING, str(tmp_path)]
  assert subprocess.run(command, timeout=120, check=False).returncode == 0


@pytest.mark.parametrize(
  "name, pixels, part",
  [
    ("6.mask.png", noise([8, 8], 2), "in 1 of 7 names, such as no image with"),
    ("5.mask.png", None, "`5.png` with no mask"),
    ("0.bmp", noise([8, 8, 3]), "`0.bmp`, `0.png` with"),
    ("0.mask.bmp", noise([8, 8], 2), "0.mask.bmp`, `"),
    ("5.mask.png", noise([7, 8], 2), "has 7 x 8 pixels, but its image 8 x 8"),
    ("5.mask.png", noise([8, 8, 2], 2), "is no label image"),
    ("0.mask.tif", np.full([8, 8], -1, np.int32), "0.mask.tif`"),
  ],
)
def test_masks_and_images_belong_together(photos, name, pixels, part):
  for i in range(6):
    save_image(f"{photos}/{i}.mask.png", noise([8, 8], 2))
  if os.path.exists(f"{photos}/{name}"):
    os.remove(f"{photos}/{name}")
  if pixels is not None:
    save_image(f"{photos}/{name}", pixels)
  assert part in images_sentence(photos)


def test_images_that_are_refused(tmp_path, photos):
  save_image(f"{photos}/6.tif", np.full([8, 8], 200.0, np.float32))
  found = images_sentence(photos)
  assert f"`{photos}/6.tif` of float32 from 200 to 200 is not" in found
  save_image(f"{photos}/6.tif", np.full([8, 8], 70000, np.int32))
  assert "from 1.06813 to" in images_sentence(photos)
  os.remove(f"{photos}/6.tif")
  save_image(f"{photos}/2.png", noise([8, 9, 3]))
  found = images_sentence(photos, image_dim=None)
  assert "2.png` has 8 x 9 pixels, but" in found
  assert "`data.image_dim=[64,64]`" in found
  assert "`crop_region` is" in images_sentence(
    photos, crop_region=[[0, 8], [0, 9]]
  )
  for chosen in ("val", "./v", [9, 12], [5, 5]):
    assert "none is chosen by" in images_sentence(photos, train=chosen)
  (tmp_path / "void").mkdir()
  void = str(tmp_path / "void")
  assert "`data.path` is" in images_sentence(void)
  assert "`data.masks` is" in images_sentence(photos, masks=void)


def test_a_file_that_is_elsewhere_or_open_for_writing(tmp_path):
  path = str(tmp_path / "own.h5")
  found = sentence(data.Arrays(path=path, batch_size=2))
  assert f"no file `{path}` here: say where it is by `data.path=`" in found
  for reader in (data.Images, data.Films, data.Tetrominoes):
    found = sentence(reader(path=path, batch_size=2))
    assert f"`data.path` is `{path}`, where there is no file" in found
    assert "by `data.path=`" in found
  program = f"""
import h5py
with h5py.File({path!r}, "w") as file:
  file["image"] = [[[[0, 0, 0]]]]
  file.flush()
  print("open", flush=True)
  input()
"""
  with subprocess.Popen(
    [sys.executable, "-c", program],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout.readline() == "open\n"
    found = sentence(data.Arrays(path=path, batch_size=2))
    process.communicate("\n")
  assert f"another program has `{path}` open" in found


def test_of_few_scenes_a_batch_has_some_twice(tmp_path):
  for name in "abc":
    save_image(tmp_path / f"{name}.png", noise([8, 8, 3], seed=ord(name)))
  own = data.Images(path=str(tmp_path), batch_size=4, image_dim=[8, 8])
  batches = own.batches("train")
  images = [image for _ in range(3) for image in next(batches)["image"].numpy()]
  counts = collections.Counter(image.tobytes() for image in images)
  assert set(counts.values()) == {4} and len(counts) == 3


@pytest.mark.parametrize(
  "num_scenes, number", [(9, 0), (10, 1), (40, 4), (1200, 100)]
)
def test_a_tenth_is_held_out_and_at_most_so_many(tmp_path, num_scenes, number):
  image = np.arange(num_scenes, dtype=np.float32)[:, None, None, None]
  image = np.broadcast_to(image / 2048, [num_scenes, 2, 2, 1])
  np.savez(tmp_path / "own.npz", image=image)
  path = str(tmp_path / "own.npz")
  own = data.Arrays(path=path, batch_size=1, held_out=100, grayscale=True)

  def numbers(subset, **options):
    batches = dataclasses.replace(own, **options)(subset)
    found = [float(batch["image"][0, 0, 0, 0, 0]) for batch in batches]
    return [round(2048 * x) for x in found]

  assert numbers("test") == [*range(number or num_scenes)]
  _, test = own.ranges()
  assert test == ([0, number] if number else None)
  options = {"shuffle_buffer": None}
  first = next(iter(dataclasses.replace(own, **options)("train")))
  assert round(2048 * float(first["image"][0, 0, 0, 0, 0])) == number
  # Who says it is asked.
  assert numbers("test", test=[3, 5]) == [3, 4]


def test_what_there_is_and_what_is_skipped_is_told(tmp_path):
  for name in ("a.png", "a.mask.png", "below/b.png", "below/b.mask.png"):
    pixels = [8, 6] if "mask" in name else [8, 6, 3]
    save_image(tmp_path / "p" / name, noise(pixels))
  for name in ("a.txt", "below/b.txt", "below/notes", ".hidden"):
    (tmp_path / "p" / name).write_text("x")
  own = data.Images(path=str(tmp_path / "p"), batch_size=1, image_dim=[4, 5])
  assert own.about() == (
    f"2 scenes in `{tmp_path}/p`, read as 4 x 5; skipped: 2 .txt, 1 without a "
    "suffix"
  )
  np.savez(tmp_path / "a.npz", image=noise([5, 8, 6, 3]))
  own = data.Arrays(path=str(tmp_path / "a.npz"), batch_size=1)
  assert own.about() == f"5 scenes in `{tmp_path}/a.npz`, read as 8 x 6"


IMAGE = {"image": noise([5, 8, 8, 3])}
OBJECTS = np.repeat(np.arange(5), 64).reshape(5, 8, 8)
ARRAYS = {
  "no array `image`, but x": {"x": noise([5, 8, 8, 3])},
  "from 0 to 249": {"image": noise([5, 8, 8, 3]).astype(np.float32)},
  "is int64": {"image": noise([5, 8, 8, 3]).astype(np.int64)},
  "is object": {"image": np.full([5, 8, 8, 3], None)},
  "is uint8 [5, 3, 8, 8]": {"image": noise([5, 3, 8, 8])},
  "is uint8 [5, 4, 8]": {**IMAGE, "mask": noise([5, 4, 8])},
  "`mask` of": {**IMAGE, "mask": np.full([5, 8, 8], None)},
  "`visibility` of": {
    **IMAGE,
    "mask": OBJECTS,
    "visibility": np.full([5, 5], None),
  },
  "at most 254": {**IMAGE, "mask": 2 * noise([5, 8, 8]).astype(int)},
  "from -1 to -1": {**IMAGE, "mask": np.full([5, 8, 8], -1)},
  "from nan to nan": {**IMAGE, "mask": np.full([5, 8, 8], np.nan)},
  "entities {": {
    **IMAGE,
    "mask": noise([5, 8, 8], 1),
    "visibility": np.ones([5, 3]),
    "factors/size": np.ones([5, 4]),
  },
  "there are 3 entities": {
    **IMAGE,
    "mask": OBJECTS,
    "visibility": np.ones([5, 3]),
  },
}


@pytest.mark.parametrize("part", ARRAYS)
def test_arrays_of_another_kind_are_refused(tmp_path, part):
  path = str(tmp_path / "own.npz")
  np.savez(path, **ARRAYS[part])
  found = sentence(data.Arrays(path=path, batch_size=2))
  assert part in found and path in found


def test_texts_are_no_factors(tmp_path):
  path = str(tmp_path / "own.npz")
  texts = {"factors/name": np.full([5, 2], "red")}
  np.savez(path, **IMAGE, mask=OBJECTS, **texts)
  (batch, *_) = data.Arrays(path=path, batch_size=5)("test")
  assert batch["factors"] == {}


def test_files_of_another_kind_are_refused(tmp_path, folder):
  path = tmp_path / "own.npz"
  np.savez(path, **IMAGE)
  path.write_bytes(path.read_bytes()[:300])
  assert "write it again" in sentence(data.Arrays(path=str(path), batch_size=2))
  for name in ("own.npz", "groups.h5"):
    own = data.Arrays(path=str(folder / name), batch_size=2, train="val")
    assert "with a group `val`" in sentence(own)


def test_files_that_are_damaged_in_the_middle(tmp_path, folder, film_folder):
  path = tmp_path / "own.h5"
  shutil.copy(folder / "own.h5", path)
  with h5py.File(path) as file:
    place = file["mask"].id.get_chunk_info(0).byte_offset + 40
  content = bytearray(path.read_bytes())
  content[place] ^= 255
  path.write_bytes(content)
  found = sentence(data.Arrays(path=str(path), batch_size=2))
  assert f"`{path}` is neither an NPZ nor an HDF5 file" in found
  path = tmp_path / "cut.gif"
  path.write_bytes((film_folder / "gifs/a.gif").read_bytes()[:-200])
  assert f"`{path}` is no" in sentence(data.Films(path=str(path), batch_size=1))


def test_what_nobody_has_written_is_not_black(tmp_path):
  shape = (5, 8, 8, 3)
  holes = [{"shape": shape}, {"shape": shape, "chunks": (1, 8, 8, 3)}]
  for number, options in enumerate(holes):
    path = tmp_path / f"{number}.h5"
    with h5py.File(path, "w") as file:
      image = file.create_dataset("image", dtype="u1", **options)
      if "chunks" in options:
        image[:3] = noise([3, 8, 8, 3])
    found = sentence(data.Arrays(path=str(path), batch_size=2))
    assert f"`image` of `{path}` was never written" in found
  layout = h5py.VirtualLayout(shape, "u1")
  layout[:] = h5py.VirtualSource("gone.h5", "image", shape)
  path = tmp_path / "virtual.h5"
  with h5py.File(path, "w") as file:
    file.create_virtual_dataset("image", layout)
  assert "was never" in sentence(data.Arrays(path=str(path), batch_size=2))
  path = tmp_path / "pipe.h5"
  os.mkfifo(path)
  assert "no file" in sentence(data.Arrays(path=str(path), batch_size=2))


def test_films_have_to_be_long_enough(film_folder, tmp_path):
  own = data.Films(path=str(film_folder / "frames"), batch_size=2, frames=12)
  assert "/frames/a` has 11 frames, too few for 12" in sentence(own)
  path = str(tmp_path / "films.npz")
  np.savez(path, image=noise([2, 5, 4, 4, 3]))
  own = data.Arrays(path=path, batch_size=2, frames=6)
  assert "has 5 frames a scene at a stride of 1" in sentence(own)
  (tmp_path / "a.mp4").write_bytes(b"0")
  own = data.Films(path=str(tmp_path / "a.mp4"), batch_size=2)
  assert "videos need PyAV, `pip install av`" in sentence(own)


def test_a_film_is_read_as_a_whole(film_folder):
  (first, second) = films.find("films", str(film_folder / "frames"))
  assert (first.name, second.name) == ("a", "b") and len(first.masks) == 11
  whole = films.read(first)
  assert whole.shape == (11, 6, 8, 3)
  (film,) = films.find("films", str(film_folder / "gifs/a.gif"))
  np.testing.assert_array_equal(whole, films.read(film))
  np.testing.assert_array_equal(whole[[2, 7]], films.read(film, [2, 7]))
  folders = films.find("films", str(film_folder / "frames/*"))
  assert [film.path for film in folders] == [first.path, second.path]
  with pytest.raises(errors.UserError, match="1 of the frames that are wanted"):
    films.read(film, [2, 11])
