"""Images of all kinds, good ones and broken ones."""

import os
import pathlib
import struct

import numpy as np
import PIL.Image
import pytest
from helpers import noise, save_image

from iodine import errors
from iodine.readers import image_files, paths

# ------------------------------------------------------------------ reading


@pytest.mark.parametrize("size", [(1, 1), (7, 4), (40, 90)])
def test_png_is_read_to_the_bit(tmp_path, size):
  colors, gray = noise([*size, 3]), noise(size)
  path = save_image(tmp_path / "a.png", colors)
  read = image_files.read(path)
  assert read.dtype == np.float32
  np.testing.assert_array_equal(read, colors / np.float32(255))
  read = image_files.read(save_image(tmp_path / "b.png", gray))
  np.testing.assert_array_equal(read, gray[..., None] / np.float32(255))


@pytest.mark.parametrize("mode", ["P", "1", "RGB", "L", "CMYK"])
def test_palettes_bits_and_jpeg(tmp_path, mode):
  colors = np.zeros([16, 32, 3], np.uint8)
  colors[:, 16:] = 255
  is_png = len(mode) == 1 and mode != "L"
  path = tmp_path / ("a.png" if is_png else "a.jpg")
  save_image(path, colors, mode, quality=95)
  with PIL.Image.open(path) as image:
    assert image.mode == mode
  read = image_files.to_channels(image_files.read(path), 3)
  atol = 0 if is_png else 0.02  # JPEG's loss
  np.testing.assert_allclose(read, colors / np.float32(255), atol=atol)


def test_sixteen_bits_of_grey(tmp_path):
  gray = np.array([[0, 255, 256], [1000, 40000, 65535]], np.uint16)
  read = image_files.read(save_image(tmp_path / "deep.png", gray))
  np.testing.assert_allclose(
    read[..., 0], gray / 65535, rtol=1e-6
  )  # one rounding to float32


def test_transparent_parts_are_black(tmp_path):
  rgba = noise([6, 5, 4])
  rgba[0, 0, 3], rgba[1, 1, 3] = 0, 255
  read = image_files.read(save_image(tmp_path / "a.png", rgba))
  expected = rgba[..., :3] / 255 * (rgba[..., 3:] / 255)
  np.testing.assert_allclose(read, expected, atol=1e-6)  # float32
  assert not read[0, 0].any()
  np.testing.assert_array_equal(image_files.read(rgba), read)
  # One colour of a palette is transparent.
  image = PIL.Image.fromarray(np.array([[0, 1]], np.uint8))
  image.putpalette([250, 250, 250, 10, 20, 30])
  image.save(tmp_path / "b.png", transparency=0)
  read = image_files.read(tmp_path / "b.png")
  np.testing.assert_allclose(
    255 * read[0], [[0, 0, 0], [10, 20, 30]], atol=1e-4
  )  # float32


def test_photos_are_turned_upright(tmp_path):
  image = PIL.Image.fromarray(noise([4, 6, 3]))
  exif = PIL.Image.Exif()
  exif[0x0112] = 6  # taken with the camera turned by a quarter
  image.save(tmp_path / "a.png", exif=exif)
  read = image_files.read(tmp_path / "a.png")
  upright = np.rot90(noise([4, 6, 3]), -1)
  np.testing.assert_array_equal(read, upright / np.float32(255))


def test_arrays_and_pil_images():
  array = noise([4, 5, 3])
  expected = array / np.float32(255)
  for image in (array, expected, expected.astype(np.float64)):
    np.testing.assert_array_equal(image_files.read(image), expected)
  read = image_files.read(PIL.Image.fromarray(array))
  np.testing.assert_array_equal(read, expected)
  assert image_files.read(array[..., 0]).shape == (4, 5, 1)
  before = array.copy()
  image_files.read(array)
  np.testing.assert_array_equal(array, before)


# --------------------------------------------------------------- the region


@pytest.mark.parametrize(
  "image, target, region",
  [
    ((35, 35), (35, 35), ((0, 35), (0, 35))),
    ((700, 1000), (35, 35), ((0, 700), (150, 850))),
    ((1000, 700), (35, 35), ((150, 850), (0, 700))),
    ((100, 100), (10, 20), ((25, 75), (0, 100))),
    ((3, 1000), (35, 35), ((0, 3), (498, 501))),
    ((1, 1), (128, 64), ((0, 1), (0, 1))),
  ],
)
def test_the_region_is_in_the_middle(image, target, region):
  assert image_files.center_region(image, target) == region


FRAMING = image_files.Framing((100, 150), None, grayscale=False)


def blocks(image):
  """Means of the 6 x 6 blocks of [600, 900, C], in the place of pixels."""
  return image.reshape(100, 6, 150, 6, -1).mean(axis=(1, 3))


def test_photographs_are_averaged(tmp_path):
  pixels = noise([640, 900, 4])
  expected = blocks(pixels[20:620, :, :3] / 255.0)
  path = save_image(tmp_path / "a.png", pixels[..., :3])
  for image in (path, pixels[..., :3], pixels[..., :3] / np.float32(255)):
    found = image_files.read(image, FRAMING)
    np.testing.assert_allclose(found, expected, atol=1e-5)  # float32
  clear = (pixels[..., :3] / 255.0 * (pixels[..., 3:] / 255.0))[20:620]
  path = save_image(tmp_path / "b.png", pixels)
  found = image_files.read(path, FRAMING)
  np.testing.assert_allclose(found, blocks(clear), atol=2 / 255)  # of bytes
  deep = pixels[..., 0].astype(np.uint16) * 257
  found = image_files.read(save_image(tmp_path / "c.png", deep), FRAMING)
  np.testing.assert_allclose(found, expected[..., :1], atol=1e-5)
  # Blocks of 6 or 7 rows and columns.
  pixels = noise([650, 975, 3])
  found = image_files.read(pixels, FRAMING)
  assert found.shape == (100, 150, 3)
  last = pixels[643:, 968:].mean(axis=(0, 1)) / 255
  np.testing.assert_allclose(found[-1, -1], last, atol=1e-5)


@pytest.mark.parametrize("is_turned", [False, True])
def test_no_more_of_a_jpeg_is_decoded_than_is_wanted(
  tmp_path, monkeypatch, is_turned
):
  smooth = PIL.Image.fromarray(noise([8, 11, 3])).resize((1800, 1280))
  stored = smooth.transpose(PIL.Image.Transpose.ROTATE_90)
  exif = PIL.Image.Exif()
  exif[0x0112] = 6  # a quarter to the right
  path = tmp_path / "a.jpg"
  if is_turned:
    stored.save(path, quality=95, exif=exif)
  else:
    smooth.save(path, quality=95)
  sizes, load = [], PIL.ImageFile.ImageFile.load

  def spy(image):
    sizes.append(sorted(image.size))
    return load(image)

  monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", spy)
  assert image_files.read_header(str(path))[0] == (1280, 1800) and not sizes
  found = image_files.read(path, FRAMING)
  assert sizes[0] == [640, 900]  # a half
  monkeypatch.undo()
  expected = blocks(np.asarray(smooth.reduce(2))[20:620] / 255)
  np.testing.assert_allclose(found, expected, atol=0.04)  # JPEG's loss


def test_what_is_smaller_than_photographs_is_cut_only():
  pixels = noise([511, 900, 3])
  found = image_files.read(pixels, FRAMING)
  np.testing.assert_array_equal(found, pixels[:, 67:833] / np.float32(255))


# --------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
  "array, part",
  [
    (np.zeros([1, 4, 4, 3]), "shape [1, 4, 4, 3]"),
    (np.zeros([4, 4, 2]), "shape [4, 4, 2]"),
    (np.zeros([0, 4, 3]), "shape [0, 4, 3]"),
    (np.zeros([4, 4, 3], int), "an array of int64"),
    (np.full([4, 4, 3], 255.0), "from 255 to 255"),
    (np.full([4, 4, 3], np.nan), "from nan"),
    (PIL.Image.new("F", (4, 4), 3.0), "from 3 to 3"),
    (None, "is not an image"),
  ],
)
def test_what_is_no_image(array, part):
  with pytest.raises(errors.UserError) as info:
    image_files.read(array)
  assert part in str(info.value)


def test_broken_files(tmp_path, monkeypatch):
  save_image(tmp_path / "good.png", noise([9, 9, 3]))
  save_image(tmp_path / "good.tif", noise([9, 9, 3]))
  files = {
    "cut.png": (tmp_path / "good.png").read_bytes()[:-60],
    "text.png": b"This is a text.",
    "empty.jpg": b"",
    "rows.tif": (tmp_path / "good.tif")
    .read_bytes()
    .replace(*(struct.pack("<HHII", 257, 4, 1, rows) for rows in (9, 90))),
    "other.png": b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
  }
  for name, content in files.items():
    (tmp_path / name).write_bytes(content)
    with pytest.raises(errors.UserError, match="is not an image") as info:
      image_files.read(tmp_path / name)
    assert str(tmp_path / name) in str(info.value)
    assert "\n" not in str(info.value)
  with pytest.raises(FileNotFoundError) as info:
    image_files.read(tmp_path / "nowhere.png")
  assert info.value.filename.endswith("nowhere.png")
  monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 80)
  with pytest.raises(errors.UserError, match="more than 80 pixels: .*_PIXELS"):
    image_files.read(tmp_path / "good.png")


# ------------------------------------------------------------------ finding


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Some images, a label image, a text and a folder with another image."""
  monkeypatch.chdir(tmp_path)
  os.makedirs("photos/more")
  for name in ("b9.PNG", "b10.png", "a.jpeg", "a.mask.png", "more/c.jpg"):
    save_image(f"photos/{name}", noise([3, 3, 3]), format="PNG")
  for name in ("notes.txt", ".hidden.png"):
    with open(f"photos/{name}", "w") as file:
      file.write("a text")
  return tmp_path


ALL = ["a.jpeg", "b9.PNG", "b10.png", "more/c.jpg"]


@pytest.mark.parametrize(
  "images, found",
  [
    ("photos/b9.PNG", ["b9.PNG"]),
    (pathlib.Path("photos"), ALL),
    ("photos/", ALL),
    ("photos/*", ALL[:-1]),
    ("photos/*.jp*", ["a.jpeg"]),
    ("photos/**/*", ALL),
    ("photo?", ALL),
    (["photos/b9.PNG", "photos"], ["b9.PNG", "a.jpeg", "b10.png", ALL[-1]]),
    (["photos/b9.PNG", "./photos/b9.PNG"], ["b9.PNG"]),
    # What is named itself counts, whatever it is called.
    (["photos/notes.txt", "photos/a.mask.png"], ["notes.txt", "a.mask.png"]),
  ],
)
def test_files_are_found(folder, images, found):
  files = image_files.find(images)
  assert [os.path.relpath(path, "photos") for path in files] == found


def test_links_in_circles_end_and_each_file_is_found_once(folder):
  os.symlink(".", "photos/circle")
  os.symlink(".", "photos/another")
  os.symlink("../photos", "photos/more/up")
  os.mkfifo("photos/pipe.png")
  os.symlink("b9.PNG", "photos/z.png")
  found = paths.expand("images", "photos", image_files.SUFFIXES)
  assert len(found) == len(ALL) + 1
  assert [name for name in found if "mask" not in name] == ALL
  for pattern in ("photos/**", "photos/**/*.*", "**"):
    deep = paths.expand("images", pattern, image_files.SUFFIXES).values()
    real = sorted(map(os.path.realpath, found.values()))
    assert sorted(map(os.path.realpath, deep)) == real
  (one,) = paths.expand("images", "photos/**/c.jpg").values()
  assert os.path.samefile(one, "photos/more/c.jpg")
  assert paths.expand("images", "photos/b10.png") == {
    "photos/b10.png": "photos/b10.png"
  }


def test_names_that_read_as_patterns(folder):
  path = save_image("photos/x[1].png", noise([3, 3, 3]))
  assert image_files.find(path) == [path]
  os.mkdir("x[1]")
  path = save_image("x[1]/a.png", noise([3, 3, 3]))
  assert image_files.find("x[1]") == [path]
  with pytest.raises(errors.UserError, match="reads as a pattern: rename it"):
    image_files.find("x[1]/*.png")


@pytest.mark.parametrize(
  "images, part",
  [
    (None, "`images` is None: give"),
    ([], "`images` is []: give"),
    ("nowhere.png", "`images` is `nowhere.png`, where there is no file"),
    (["photos", "photos/*.gif"], "`images` is `photos/*.gif`, where there"),
    ("empty", "no file whose name ends in .png, .jpg,"),
    ("photos/a.m*", "where there are label images only"),
  ],
)
def test_nothing_to_find(folder, images, part):
  os.mkdir("empty")
  with pytest.raises(errors.UserError) as info:
    image_files.find(images)
  assert part in str(info.value)
