"""Masks as people have them: what was wrong silently, and every form."""

import os

import helpers
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from iodine import errors
from iodine.modules import data, metrics

IMAGE = helpers.noise([8, 8, 3])
# Background, two objects.
LABELS = np.zeros([8, 8], np.uint8)
LABELS[:3], LABELS[5:] = 1, 2
STACK = np.stack([LABELS == 1, LABELS == 2])


def save(path, pixels, **options):
  os.makedirs(os.path.dirname(path), exist_ok=True)
  PIL.Image.fromarray(np.asarray(pixels)).save(path, **options)


def scene(dataset):
  (batch,) = dataset("test")
  return batch


def owners(dataset):
  """The entity [T, H, W] of each pixel, -1 where there is none."""
  mask = scene(dataset)["mask"][0, ..., 0].numpy()
  assert set(np.unique(mask)) <= {0.0, 1.0}
  total = mask.sum(axis=1)
  assert total.max() <= 1
  return np.where(total == 0, -1, mask.argmax(axis=1))


def images(path, **options):
  return data.Images(
    path=str(path), **{"batch_size": 1, "image_dim": [8, 8], **options}
  )


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  save("p/a.png", IMAGE)
  return tmp_path


# ------------------------------------------------------ silently wrong before


@pytest.mark.parametrize(
  "name, options",
  [
    *(("a.mask.jpg", {}), ("a.mask.webp", {}), ("a.mask.avif", {})),
    ("a.mask.tif", {"compression": "jpeg"}),
  ],
)
def test_label_images_in_lossy_formats_are_refused(folder, name, options):
  save(f"p/{name}", LABELS, **options)
  with pytest.raises(errors.UserError, match=f"`p/{name}` is not a .*PNG"):
    scene(images("p"))


def test_void_pixels_belong_to_nothing_and_no_score_counts_them(folder, capsys):
  void = LABELS.copy()
  void[4] = 255
  save("p/a.mask.png", void)
  # Taken for an object, and said.
  assert list(owners(images("p"))[0, :, 0]) == [1, 1, 1, 0, 3, 2, 2, 2]
  assert "give `data.ignore_label=255`" in capsys.readouterr().out
  own = images("p", ignore_label=255)
  assert own.num_true_objects == 3
  assert list(owners(own)[0, :, 0]) == [1, 1, 1, 0, -1, 2, 2, 2]
  assert "ignore_label" not in capsys.readouterr().out
  mask = scene(own)["mask"][:, 0]
  # Whatever is there does not matter.
  for there in (0, 1, 2):
    found = np.where(void == 255, there, LABELS)
    predicted = tf.constant(np.eye(3)[found], tf.float32)
    predicted = tf.transpose(predicted, [2, 0, 1])[None, ..., None]
    counts = metrics.mask_contingency(mask, predicted)
    assert metrics.ari_of_contingency(counts) == 1.0
    assert metrics.mean_iou(counts[0].numpy()) == 1.0


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_void_numbers_in_arrays(folder, dtype):
  void = LABELS.astype(dtype)
  void[4] = 255
  np.savez("a.npz", image=IMAGE[None], mask=void[None])
  own = data.Arrays(path="a.npz", batch_size=1)
  with pytest.raises(errors.UserError, match="give it as `data.ignore_label`"):
    scene(own)
  own = data.Arrays(path="a.npz", batch_size=1, ignore_label=255)
  assert list(owners(own)[0, :, 0]) == [1, 1, 1, 0, -1, 2, 2, 2]
  assert list(scene(own)["visibility"][0]) == [1, 1, 1]


@pytest.mark.parametrize("suffix", ["tif", "webp", "png"])
def test_of_several_pages_none_is_dropped(folder, suffix):
  pages = [
    PIL.Image.fromarray(helpers.noise([8, 8, 3], seed=i)) for i in (1, 2)
  ]
  pages[0].save(f"p/b.{suffix}", save_all=True, append_images=pages[1:])
  with pytest.raises(errors.UserError, match=f"`p/b.{suffix}` has 2 images"):
    list(images("p").batches("test"))


def test_a_stack_without_a_background(folder, capsys):
  np.savez("s.npz", image=IMAGE[None], mask=STACK[None])
  own = data.Arrays(path="s.npz", batch_size=1)
  assert list(owners(own)[0, :, 0]) == [0, 0, 0, -1, -1, 1, 1, 1]
  assert "where none is stored give `data.background=[]`" in (
    capsys.readouterr().out
  )
  own = data.Arrays(path="s.npz", batch_size=1, background=[])
  assert own.num_true_objects == 3
  assert np.array_equal(owners(own)[0], LABELS)
  assert list(scene(own)["visibility"][0]) == [1, 1, 1]
  assert "background" not in capsys.readouterr().out


def test_of_masks_that_overlap_the_later_one_wins(folder, capsys):
  whole = np.ones_like(STACK[:1])
  stack = np.concatenate([whole, STACK])
  np.savez("s.npz", image=IMAGE[None], mask=stack[None])
  own = data.Arrays(path="s.npz", batch_size=1)
  assert np.array_equal(owners(own)[0], LABELS)
  assert "masks that overlap: the later one wins" in capsys.readouterr().out


def test_several_entities_may_be_the_background(folder):
  stack = np.eye(4, dtype=np.uint8)[np.arange(64).reshape(8, 8) % 4]
  stack = np.moveaxis(stack, -1, 0)
  np.savez(
    "s.npz",
    image=IMAGE[None],
    mask=stack[None],
    visibility=np.float32([[1, 1, 1, 0]]),
    **{"factors/size": np.float32([[5, 6, 7, 8]])},
  )
  own = data.Arrays(path="s.npz", batch_size=1, background=[0, 2])
  assert own.num_true_objects == 3
  expected = np.array([0, 1, 0, 2])[np.arange(64).reshape(8, 8) % 4]
  assert np.array_equal(owners(own)[0], expected)
  batch = scene(own)
  assert list(batch["visibility"][0]) == [1, 1, 0]
  assert list(batch["factors"]["size"][0, :, 0]) == [5, 6, 8]
  with pytest.raises(errors.UserError, match="`data.background` is .*4 ent"):
    scene(data.Arrays(path="s.npz", batch_size=1, background=[0, 4]))


def test_records_have_a_background_of_several_parts(tmp_path):
  layout = data.ObjectsRoom(path="x", batch_size=1).layout
  rng = np.random.default_rng(0)
  numbers = rng.integers(0, 7, (64, 64))
  mask = 255 * (numbers == np.arange(7)[:, None, None])[..., None]
  image = rng.integers(0, 256, layout.features["image"].shape)
  path = str(tmp_path / "room.tfrecords")
  record = {"image": image.astype(np.uint8), "mask": mask.astype(np.uint8)}
  helpers.write_records(path, [record])
  options = {"path": path, "batch_size": 1}
  whole = data.ObjectsRoom(**options, background=[0, 1, 2, 3])
  assert np.array_equal(owners(whole)[0], np.maximum(numbers - 3, 0))
  assert np.array_equal(owners(data.ObjectsRoom(**options))[0], numbers)
  # Perfect objects and one slot for all that is behind them.
  slots = np.eye(4, dtype=np.float32)[np.maximum(numbers - 3, 0)]
  slots = slots.transpose(2, 0, 1)[None, ..., None]
  scores = [
    float(metrics.mask_ari(scene(x)["mask"][:, 0], slots, foreground=True)[0])
    for x in (whole, data.ObjectsRoom(**options))
  ]
  assert scores[0] == 1.0 and scores[1] < 0.6


def test_other_images_of_a_folder_are_told_or_excluded(folder):
  save("p/a_depth.png", np.uint16(LABELS))
  save("p/a_flat.png", LABELS)
  own = images("p")
  assert len(list(own("test"))) == 3
  assert "of several kinds: `p/a.png` (8 x 8 RGB), `p/a_depth.png` (8 x" in (
    own.about()
  )
  own = images("p", exclude=["*_depth*"], masks="p/{name}_flat.png")
  assert len(list(own("test"))) == 1 and "kinds" not in own.about()
  assert np.array_equal(owners(own)[0], LABELS)


# -------------------------------------------------------------- as stored


def colored(path):
  colors = np.uint8([[0, 0, 0], [0, 9, 255], [255, 0, 0]])
  save(path, colors[LABELS])


def with_palette(path):
  image = PIL.Image.fromarray(LABELS)
  image.putpalette([*range(9)])
  image.save(path)


@pytest.mark.parametrize("write", [colored, with_palette])
def test_colours_and_palettes(folder, write):
  write("p/a.mask.png")
  assert np.array_equal(owners(images("p"))[0], LABELS)


def test_a_form_can_be_said(folder):
  colored("p/a.mask.png")
  with pytest.raises(errors.UserError, match="no label image"):
    scene(images("p", mask_form="labels"))
  # One file for one object.
  assert np.array_equal(owners(images("p", mask_form="files"))[0], LABELS > 0)


@pytest.mark.parametrize(
  "names, masks",
  [
    ("p/a_{}.mask.png", None),
    ("m/a/{}.png", "m"),
    ("m/a_{}.png", "m"),
    ("p/a-object-{}.png", "p/{name}-object-*.png"),
    ("m/a/{}.png", "m/{name}/*.png"),
  ],
)
def test_a_file_for_each_object(folder, names, masks):
  # By their numbers: 2 before 10.
  save(names.format(2), 255 * STACK[0].astype(np.uint8))
  save(names.format(10), STACK[1])
  assert np.array_equal(owners(images("p", masks=masks))[0], LABELS)


def test_files_that_overlap_are_told(folder, capsys):
  save("p/a_1.mask.png", np.ones_like(LABELS))
  save("p/a_2.mask.png", STACK[1])
  assert np.array_equal(owners(images("p"))[0], 1 + STACK[1])
  assert "overlap: the later one wins" in capsys.readouterr().out


@pytest.mark.parametrize(
  "masks", ["p/{name}_flat.png", "{folder}/{stem}_flat.png"]
)
def test_names_of_masks_by_a_pattern(folder, masks):
  os.remove("p/a.png")
  for shard in "01":
    save(f"p/{shard}/x_1.png", IMAGE)
    save(f"p/{shard}/x_1_flat.png", LABELS)
  own = images("p", masks=masks)
  assert len(list(own("test"))) == 2
  (first, _) = own("test")
  assert np.array_equal(first["mask"][0, 0, ..., 0].numpy().argmax(0), LABELS)


@pytest.mark.parametrize(
  "masks, part",
  [
    ("p/{name}_no.png", "1 of 1 images have no such file, such as `p/a.png`"),
    ("p/{title}.png", "in braces give one of name, folder, stem, number"),
    ("p/{name.png", "in braces give one of"),
    ("p/{name}.png", "such as none"),
  ],
)
def test_patterns_that_find_nothing(folder, masks, part):
  with pytest.raises(errors.UserError, match=part):
    scene(images("p", masks=masks))


def test_masks_beside_frames_under_other_names(folder):
  for i in range(3):
    save(f"films/v/rgba_{i:05}.png", helpers.noise([8, 8, 3], seed=i))
    save(f"films/v/segmentation_{i:05}.png", np.roll(LABELS, i, axis=0))
    save(f"films/v/depth_{i:05}.tiff", LABELS)
  own = data.Films(
    path="films",
    masks="{folder}/segmentation_{number}.png",
    exclude="depth_*",
    batch_size=1,
    image_dim=[8, 8],
  )
  assert own.num_frames == 3
  expected = [np.roll(LABELS, i, axis=0) for i in range(3)]
  assert np.array_equal(owners(own), expected)


# ------------------------------------------------------------- everything else


def test_averaging_leaves_nothing_of_a_checkerboard(folder):
  board = 255 * (np.indices([256, 256]).sum(0) % 2).astype(np.uint8)
  board = np.repeat(board[..., None], 3, 2)
  save("b/board.png", board)
  np.savez("b.npz", image=board[None], mask=(board[None, ..., 0] > 0))
  for own in (
    images("b", image_dim=[14, 14]),
    data.Arrays(path="b.npz", batch_size=1, image_dim=[14, 14]),
  ):
    assert np.std(scene(own)["image"]) > 0.1
    own.antialias = True
    own.__post_init__()
    batch = scene(own)
    assert np.std(batch["image"]) < 0.02
    assert batch["image"].shape == (1, 1, 14, 14, 3)
  # One geometry with the mask.
  assert batch["mask"].shape == (1, 1, 2, 14, 14, 1)


def test_the_public_data_sets_are_not_averaged():
  assert not hasattr(data.CLEVR(path="x", batch_size=1), "antialias")


def test_npy_files_and_visibility_of_frames(folder):
  films = helpers.noise([2, 3, 8, 8, 3])
  np.save("images.npy", films)
  np.save("masks.npy", np.broadcast_to(LABELS, [2, 3, 8, 8]))
  own = data.Arrays(path="images.npy", masks="masks.npy", batch_size=2)
  (batch,) = own("test")
  assert np.array_equal(np.round(255 * batch["image"]), films)
  assert np.array_equal(owners(own)[2], LABELS)
  visibility = np.float32([[[1, 1, 1], [0, 0, 1], [0, 0, 0]]] * 2)
  mask = np.broadcast_to(LABELS, [2, 3, 8, 8])
  np.savez("v.npz", image=films, mask=mask, visibility=visibility)
  (batch,) = data.Arrays(path="v.npz", batch_size=2)("test")
  assert np.array_equal(batch["visibility"], [[1, 1, 0]] * 2)
  own = data.Arrays(path="v.npz", batch_size=2, min_num_objects=3)
  with pytest.raises(errors.UserError, match="none is chosen"):
    list(own.batches("test"))


def test_avif_is_read(folder):
  save("p/b.avif", np.full([8, 8, 3], 200, np.uint8), quality=100)
  _, second = images("p").batches("test")
  assert np.abs(255 * second["image"] - 200).max() < 3
