"""Scenes of one's own: images, films, arrays, and what can be wrong in them."""

import gc
import os
import zipfile

import h5py
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from cache_test import assert_same, generated, take, tetrominoes

from iodine import errors
from iodine.modules import data
from iodine.readers import arrays, films, image_sets

NUM_SCENES = 30
OPTIONS = {"batch_size": 4, "image_dim": [14, 14], "shuffle_buffer": 10}


def noise(shape, largest=255, seed=0):
  generator = np.random.default_rng(seed)
  return generator.integers(0, largest + 1, shape, dtype=np.uint8)


def save(path, pixels):
  os.makedirs(os.path.dirname(path), exist_ok=True)
  PIL.Image.fromarray(pixels).save(path)


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
    save(folder / f"photos/{i}.png", image[i])
    save(folder / f"masks/{i}.png", labels[i])
  for i in range(NUM_SCENES):
    save(folder / f"both/scene_{i}.png", image[i])
    save(folder / f"both/scene_{i}.mask.png", 50 * labels[i])
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


@pytest.mark.parametrize("grayscale", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_tensors_are_those_of_the_records(folder, kind, grayscale):
  if grayscale and kind != "masks beside":
    pytest.skip("one kind will do")
  ranges = {"train": [0, 21], "test": [21, None], "grayscale": grayscale}
  records = tetrominoes(
    str(folder / "tetrominoes.tfrecords"), **OPTIONS, **ranges
  )
  own = build(folder, kind, **ranges)
  assert own.image_shape == records.image_shape
  assert own.num_true_objects == 4
  for subset in ("train", "summary", "test", None):
    skip = 0 if subset == "test" else 6
    expected = take(records(subset, skip), 3)
    names = ["image", "mask", "visibility"]
    found = take(own(subset, skip), 3)
    factors = found[0]["factors"]
    if kind in ("npz", "hdf5"):
      assert factors.keys() == {"color", "shape", "position"}
      names.append("factors")
    else:
      assert factors == {}
    part = [{name: batch[name] for name in names} for batch in expected]
    assert_same([{n: b[n] for n in names} for b in found], part)
    compact = take(own(subset, skip, compact=True), 3)
    assert compact[0]["mask"].dtype == tf.uint8
    assert_same([own.expand(batch) for batch in compact], found)


@pytest.mark.parametrize("kind", ["masks beside", "compressed npz", "hdf5"])
def test_a_cache_of_them_changes_nothing(folder, kind, tmp_path):
  own = build(folder, kind, test=[25, None])
  cached = build(folder, kind, test=[25, None], cache=str(tmp_path / "cache"))
  for subset in ("train", "summary", "test"):
    assert_same(take(cached(subset), 2), take(own(subset), 2))
    rows = take(own(subset, rows=(1, 3)), 1)
    assert_same(take(cached(subset, rows=(1, 3)), 1), rows)
    whole = take(own(subset), 1)[0]["image"]
    assert_same(rows[0]["image"], whole[1:3])


def test_a_cache_of_other_images_is_refused(folder, tmp_path):
  for i in range(4):
    save(tmp_path / f"photos/{i}.png", noise([8, 8, 3], seed=i))
  options = {"path": str(tmp_path / "photos"), "cache": str(tmp_path / "c")}
  take(data.Images(**OPTIONS | options)(), 1)
  save(tmp_path / "photos/4.png", noise([8, 8, 3]))
  with pytest.raises(errors.UserError, match="other files than `path` names"):
    data.Images(**OPTIONS | options)()


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
  save(tmp_path / "photos/a.png", wide)
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
      save(
        tmp_path / f"{name}/deep/a{number}.png", np.full([4, 4], shade, "u1")
      )
  save(tmp_path / "train/.hidden.png", noise([4, 4]))
  own = data.Images(
    path=str(tmp_path), batch_size=3, train="train", test="test/deep"
  )
  for subset, first in (("summary", 0), ("test", 100)):
    shades = 255 * next(iter(own(subset)))["image"][:, 0, 0, 0, 0].numpy()
    np.testing.assert_allclose(shades - first, [1, 2, 10], rtol=1e-6)


def test_without_masks_there_is_only_an_image(folder):
  own = data.Images(path=str(folder / "photos"), **OPTIONS)
  (batch,) = take(own(), 1)
  assert batch.keys() == {"image", "factors"} and batch["factors"] == {}
  assert own.num_true_objects == 0


# -------------------------------------------------------------------- films


@pytest.fixture(scope="module")
def film_folder(tmp_path_factory):
  """Two films of 11 frames, as folders and as GIFs."""
  folder = tmp_path_factory.mktemp("films")
  for name in ("a", "b"):
    shades = 20 * np.arange(11, dtype=np.uint8) + (name == "b")
    frames = [np.full([6, 8, 3], shade, np.uint8) for shade in shades]
    for number, frame in enumerate(frames):
      save(folder / f"frames/{name}/{number}.png", frame)
      labels = np.full([6, 8], 0, np.uint8)
      labels[:, number % 8] = 7
      save(folder / f"frames/{name}/{number}.mask.png", labels)
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


def test_a_film_is_read_as_a_whole(film_folder):
  whole = films.read_film(str(film_folder / "frames/a"))
  assert whole.shape == (11, 6, 8, 3)
  np.testing.assert_array_equal(
    whole, films.read_film(str(film_folder / "gifs/a.gif"))
  )


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


@pytest.fixture
def photos(tmp_path):
  for i in range(6):
    save(tmp_path / f"photos/{i}.png", noise([8, 8, 3], seed=i))
  return str(tmp_path / "photos")


def first_batches(dataset):
  for subset in ("train", "test"):
    for _, _ in zip(range(4), dataset.batches(subset), strict=False):
      pass


def images_sentence(path, **options):
  with pytest.raises(errors.UserError) as info:
    first_batches(data.Images(**OPTIONS | {"path": path} | options))
  return str(info.value)


def test_broken_images_are_named_and_counted(photos):
  with open(f"{photos}/3.png", "rb+") as file:
    file.truncate(60)
  sentence = images_sentence(photos)
  assert f"`{photos}/3.png` is not an image" in sentence
  with open(f"{photos}/4.png", "w") as file:
    file.write("text")
  assert "2 of 6 scenes of" in images_sentence(photos)


def test_a_sentence_keeps_no_iterator(photos):
  """A reading thread that collects it would wait for the iterator's threads."""
  with open(f"{photos}/3.png", "w") as file:
    file.write("text")

  def iterators():
    return {
      id(thing)
      for thing in gc.get_objects()
      if type(thing).__name__ == "OwnedIterator"
    }

  assert type(iter(tf.data.Dataset.range(1))).__name__ == "OwnedIterator"
  gc.collect()
  before = iterators()
  with pytest.raises(errors.UserError) as info:
    first_batches(data.Images(**OPTIONS, path=photos))
  assert "3.png" in str(info.value)
  assert iterators() <= before


def test_images_of_mixed_sizes_want_a_size(photos):
  save(f"{photos}/2.png", noise([8, 9, 3]))
  sentence = images_sentence(photos, image_dim=None)
  assert "2.png` has 8 x 9 pixels, but" in sentence
  assert "`data.image_dim=[64,64]`" in sentence
  first_batches(data.Images(path=photos, **OPTIONS))


def test_masks_and_images_belong_together(photos):
  for i in range(6):
    save(f"{photos}/{i}.mask.png", noise([8, 8], 2))
  first_batches(data.Images(path=photos, **OPTIONS))
  save(f"{photos}/6.mask.png", noise([8, 8], 2))
  sentence = images_sentence(photos)
  assert "1 mask without an image" in sentence and "6.mask.png" in sentence
  os.remove(f"{photos}/6.mask.png")
  os.remove(f"{photos}/5.mask.png")
  assert "1 image of 6 without a mask" in images_sentence(photos)
  save(f"{photos}/5.mask.png", noise([7, 8], 2))
  assert "has 7 x 8 pixels, but its image 8 x 8" in images_sentence(photos)
  save(f"{photos}/5.mask.png", noise([8, 8, 3], 2))
  assert "is no label image" in images_sentence(photos)


@pytest.mark.parametrize("is_flat", [True, False])
def test_masks_are_found_by_the_ends_of_paths(tmp_path, is_flat):
  folder = tmp_path / "all"
  for i in range(4):
    part, name = ("train", "test")[i % 2], str(i) if is_flat else str(i // 2)
    save(folder / f"photos/{part}/{name}.png", noise([8, 8, 3]))
    labels = np.full([8, 8], 0, np.uint8)
    labels[: i + 1] = 3
    place = "" if is_flat else f"{part}/"
    save(folder / f"photos/labels/{place}{name}.png", labels)
  masks = f"{folder}/photos/labels"
  parts = [f"{folder}/photos/{part}" for part in ("test", "train")]
  for path in (f"{folder}/photos", f"{folder}/photos/t*/*.png", parts):
    own = data.Images(path=path, masks=masks, batch_size=4, train=[0, 4])
    assert own.num_true_objects == 2
    (batch,) = own("test")
    covered = batch["mask"].numpy()[:, 0, 1, :, 0, 0].sum(axis=1)
    np.testing.assert_array_equal(covered, [2, 4, 1, 3])


def test_a_mask_has_one_image_and_an_image_one_mask(photos):
  for i in range(6):
    save(f"{photos}/{i}.mask.png", noise([8, 8], 2))
  save(f"{photos}/0.bmp", noise([8, 8, 3]))
  sentence = images_sentence(photos)
  assert "0.mask.png` is the mask of two images" in sentence
  os.remove(f"{photos}/0.bmp")
  save(f"{photos}/0.mask.bmp", noise([8, 8], 2))
  assert "are masks of the same image" in images_sentence(photos)
  os.remove(f"{photos}/0.mask.bmp")
  os.remove(f"{photos}/0.mask.png")
  save(f"{photos}/0.mask.tif", np.full([8, 8], -1, np.int32))
  assert "has the number -1" in images_sentence(photos)


def test_numbers_that_are_no_pixels_are_named(photos):
  save(f"{photos}/6.tif", np.full([8, 8], 200.0, np.float32))
  sentence = images_sentence(photos)
  assert f"in `{photos}/6.tif`: an array of numbers from 200 to" in sentence
  save(f"{photos}/6.tif", np.full([8, 8], 70000, np.int32))
  assert "pixels from 70000 to 70000" in images_sentence(photos)


def test_texts_are_no_factors_and_nan_no_object(tmp_path):
  path = str(tmp_path / "own.npz")
  image, mask = noise([5, 8, 8, 3]), noise([5, 8, 8], 2)
  texts = {"factors/name": np.full([5, 2], "red")}
  np.savez(path, image=image, mask=mask, **texts)
  (batch, *_) = data.Arrays(path=path, batch_size=5)("test")
  assert batch["factors"] == {}
  np.savez(path, image=image, mask=np.full([5, 8, 8], np.nan))
  with pytest.raises(errors.UserError, match="has the number nan"):
    data.Arrays(path=path, batch_size=5)("test")


def test_there_have_to_be_images(tmp_path, photos):
  os.makedirs(tmp_path / "empty")
  assert "no file that counts" in images_sentence(str(tmp_path / "empty"))
  assert "but there is nothing" in images_sentence(str(tmp_path / "nowhere"))
  assert "quote a name that reads as a number" in images_sentence(2024)
  assert "quote a name" in images_sentence(photos, masks=2024)
  assert "no images in a folder `val`" in images_sentence(photos, train="val")
  assert "none is chosen by" in images_sentence(photos, train=[9, 12])
  assert "no images in a folder `./v`" in images_sentence(photos, train="./v")
  assert "`data.constructor=iodine.modules.data.Arrays`" in images_sentence(
    "a.npz"
  )
  (tmp_path / "void").mkdir()
  sentence = images_sentence(photos, masks=str(tmp_path / "void"))
  assert "`masks` is `" in sentence and "no file that counts" in sentence
  save(tmp_path / "one/a.png", noise([8, 8, 3]))
  assert "1 for a batch of 4" in images_sentence(str(tmp_path / "one"))


ARRAYS = {
  "no array `image`": {"x": noise([5, 8, 8, 3])},
  "numbers from 0 to 249": {"image": noise([5, 8, 8, 3]).astype(np.float32)},
  "is int64": {"image": noise([5, 8, 8, 3]).astype(np.int64)},
  "has the shape [5, 3, 8, 8]": {"image": noise([5, 3, 8, 8])},
  "which does not fit": {
    "image": noise([5, 8, 8, 3]),
    "mask": noise([5, 4, 8]),
  },
  "numbers up to 255": {"image": noise([5, 8, 8, 3]), "mask": noise([5, 8, 8])},
  "different numbers of entities": {
    "image": noise([5, 8, 8, 3]),
    "mask": noise([5, 8, 8], 1),
    "visibility": np.ones([5, 3]),
    "factors/size": np.ones([5, 4]),
  },
  "where there are 3 entities": {
    "image": noise([5, 8, 8, 3]),
    "mask": np.repeat(np.arange(5), 64).reshape(5, 8, 8),
    "visibility": np.ones([5, 3]),
  },
}


@pytest.mark.parametrize("part", ARRAYS)
def test_arrays_of_another_kind_are_refused(tmp_path, part):
  path = str(tmp_path / "own.npz")
  np.savez(path, **ARRAYS[part])
  with pytest.raises(errors.UserError) as info:
    first_batches(data.Arrays(path=path, batch_size=2))
  assert part in str(info.value) and path in str(info.value)


def test_numbers_out_of_range_are_found_where_they_come(tmp_path):
  path = str(tmp_path / "own.npz")
  image = np.zeros([9, 8, 8, 3], np.float32)
  image[7] = 2.0
  np.savez(path, image=image)
  with pytest.raises(errors.UserError, match="numbers from 0 to 2"):
    first_batches(data.Arrays(path=path, batch_size=2, shuffle_buffer=None))


def test_files_of_another_kind_are_refused(tmp_path):
  path = tmp_path / "own.npz"
  np.savez(path, image=noise([5, 8, 8, 3]))
  path.write_bytes(path.read_bytes()[:300])
  for kind in ("own.npz", "nowhere.h5", 7):
    with pytest.raises(errors.UserError, match="give|write it again"):
      data.Arrays(
        path=kind if kind == 7 else str(tmp_path / kind), batch_size=2
      )()


def test_masks_that_are_all_negative(tmp_path):
  path = str(tmp_path / "own.npz")
  mask = np.full([5, 8, 8], -1)
  np.savez(path, image=noise([5, 8, 8, 3]), mask=mask)
  with pytest.raises(errors.UserError, match="has the number -1"):
    data.Arrays(path=path, batch_size=2)()


def _in_another_file(file):
  file.create_dataset(
    "image", (5, 8, 8, 3), "u1", external=[("secret", 0, 5 * 8 * 8 * 3)]
  )


def _missing(file):
  layout = h5py.VirtualLayout((5, 8, 8, 3), "u1")
  layout[:] = h5py.VirtualSource("nowhere.h5", "image", (5, 8, 8, 3))
  file.create_virtual_dataset("image", layout)


@pytest.mark.parametrize("write", [_in_another_file, _missing])
def test_a_file_reads_no_others(tmp_path, write):
  path = str(tmp_path / "own.h5")
  with h5py.File(path, "w") as file:
    write(file)
  with pytest.raises(errors.UserError, match="its values in other files"):
    data.Arrays(path=path, batch_size=2)()


def test_a_group_of_another_file_is_not_read(tmp_path):
  path = str(tmp_path / "own.h5")
  with h5py.File(tmp_path / "secret.h5", "w") as file:
    file["train/image"] = noise([5, 8, 8, 3])
  with h5py.File(path, "w") as file:
    file["train"] = h5py.ExternalLink("secret.h5", "train")
  with pytest.raises(errors.UserError, match="its values in other files"):
    data.Arrays(path=path, batch_size=2, train="train")()


@pytest.mark.parametrize(
  "header",
  [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 8, 8, 3), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (5, 8, 8, 3), ",
    "(" * 200,
  ],
)
def test_headers_of_members_that_make_no_sense(tmp_path, header):
  path = str(tmp_path / "own.npz")
  magic = np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little")
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("image.npy", magic + header.encode() + bytes(960))
  with pytest.raises(errors.UserError, match="cannot be read"):
    data.Arrays(path=path, batch_size=2)()


def test_an_archive_that_is_encrypted(tmp_path):
  path = tmp_path / "own.npz"
  np.savez(path, image=noise([5, 8, 8, 3]))
  content = bytearray(path.read_bytes())
  content[6] |= 1
  content[content.rindex(b"PK\1\2") + 8] |= 1
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match="is encrypted"):
    data.Arrays(path=str(path), batch_size=2)()


def test_films_have_to_be_long_enough(film_folder, tmp_path):
  with pytest.raises(errors.UserError, match="2 films of 2 with fewer than 12"):
    data.Films(path=str(film_folder / "frames"), batch_size=2, frames=12)()
  with pytest.raises(errors.UserError, match="films of 5 frames, too few"):
    path = str(tmp_path / "films.npz")
    np.savez(path, image=noise([2, 5, 4, 4, 3]))
    data.Arrays(path=path, batch_size=2, frames=6)()
  with pytest.raises(
    errors.UserError, match="install it with `pip install av`"
  ):
    monkey = tmp_path / "a.mp4"
    monkey.write_bytes(b"0")
    image_sets.find_clips(str(monkey), 2, 1)


def test_records_of_other_sizes_are_read(tmp_path, folder):
  from data_test import write  # the layout of the public files, enlarged

  (scenes,) = tetrominoes(str(folder / "tetrominoes.tfrecords"), batch_size=30)(
    "test"
  )
  image = np.rint(255 * scenes["image"][0, 0].numpy()).astype(np.uint8)
  mask = (255 * scenes["mask"][0, 0].numpy()).astype(np.uint8)
  twice = {
    "image": image.repeat(2, axis=0).repeat(2, axis=1),
    "mask": mask.repeat(2, axis=1).repeat(2, axis=2),
    "visibility": np.ones([4], np.float32),
    **{name: np.zeros([4], np.float32) for name in ("x", "y", "shape")},
    "color": np.zeros([4, 3], np.float32),
  }
  path = write(tmp_path / "large.tfrecords", [twice])
  (batch,) = tetrominoes(path, batch_size=1, stored_dim=[70, 70])("test")
  np.testing.assert_array_equal(batch["image"][0], scenes["image"][0])
  np.testing.assert_array_equal(batch["mask"][0], scenes["mask"][0])
