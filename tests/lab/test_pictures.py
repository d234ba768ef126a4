"""Pictures of every kind that files hold: shown as by transformers' own loader, scaled, or refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import attrs
import numpy as np
import pytest
from PIL import Image
from transformers.image_utils import load_image

from headwise import DataError
from headwise_lab.benchmarks import Question
from headwise_lab.benchmarks.pictures import check, rgb, size_of
from headwise_lab.benchmarks.prompting import check_questions

NOISE = np.random.default_rng(0).integers(0, 256, (6, 9, 4), dtype=np.uint8)
COLOUR = Image.fromarray(NOISE[:, :, :3].copy())
FRAMES = [Image.new("RGB", (9, 6), colour) for colour in ("red", "green", "blue")]


def written(path: Path, picture: Image.Image, **options) -> Path:
    picture.save(path, **options)
    return path


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


STOCK = {
    "rgb.png": (COLOUR, {}),
    "rgb.jpg": (COLOUR, {}),
    "grey.png": (COLOUR.convert("L"), {}),
    "one-bit.png": (COLOUR.convert("1"), {}),
    "rgba.png": (Image.fromarray(NOISE), {}),
    "la.png": (Image.fromarray(NOISE).convert("LA"), {}),
    "palette.png": (COLOUR.quantize(16), {}),
    "see-through.png": (COLOUR.quantize(4), {"transparency": bytes([0, 128, 255, 7])}),
    "see-through.gif": (COLOUR.quantize(16), {"transparency": 3}),
    "cmyk.jpg": (COLOUR.convert("CMYK"), {}),
    "cmyk.tif": (COLOUR.convert("CMYK"), {}),
    "moving.gif": (FRAMES[0], {"save_all": True, "append_images": FRAMES[1:]}),
    "moving.webp": (FRAMES[0], {"save_all": True, "append_images": FRAMES[1:], "lossless": True}),
    "progressive.jpg": (COLOUR, {"progressive": True}),
    **{f"turned{i}.jpg": (COLOUR, {"exif": turned(i)}) for i in range(1, 9)},
    **{f"turned{i}.png": (COLOUR, {"exif": turned(i)}) for i in (3, 6)},
}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("name", STOCK)
def test_a_picture_is_what_transformers_makes_of_it(name, tmp_path):
    picture, options = STOCK[name]
    path = written(tmp_path / name, picture, **options)
    with Image.open(path) as opened:
        found, stock = rgb(path), load_image(opened)
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), np.asarray(stock))
    assert size_of(path) == check(path) == stock.size


def test_a_turned_picture_stands_upright(tmp_path):
    left_red = Image.new("RGB", (8, 4), "blue")
    left_red.paste("red", (0, 0, 4, 4))
    lying = left_red.transpose(Image.Transpose.ROTATE_90)  # as a camera held on its side writes it
    path = written(tmp_path / "a.png", lying, exif=turned(6))
    assert size_of(path) == (8, 4)
    assert np.array_equal(np.asarray(rgb(path)), np.asarray(left_red))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_become_eight_by_scale(name, tmp_path):
    values = np.array([[0, 128, 129, 257], [25700, 32768, 65407, 65535]], dtype=np.uint16)
    found = np.asarray(rgb(written(tmp_path / name, Image.fromarray(values))))
    assert found.tolist() == [[[v] * 3 for v in row] for row in ((0, 0, 1, 1), (100, 128, 255, 255))]


def test_sixteen_bits_of_a_turned_picture_are_scaled_as_well(tmp_path):
    values = np.array([[0, 65535]], dtype=np.uint16)
    found = rgb(written(tmp_path / "a.png", Image.fromarray(values), exif=turned(6)))
    assert np.asarray(found)[:, 0, 0].tolist() == [0, 255]


@pytest.mark.parametrize(("kind", "told"), [(np.float32, "floats"), (np.int32, "32-bit numbers")])
def test_values_without_a_scale_are_refused(kind, told, tmp_path):
    path = written(tmp_path / "a.tif", Image.fromarray(np.full((3, 3), 70000, dtype=kind)))
    for look in (rgb, check):
        with pytest.raises(DataError, match=rf"a\.tif has {told} for pixels, whose scale is unknown; save it with 8"):
            look(path)


def png(width: int, height: int, *more: bytes) -> bytes:
    """The beginning of a PNG that claims a size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunk(name, b"") for name in more)


def truncated(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()[:-900]


BROKEN = {
    "empty": (b"", "is in no format that can be read"),
    "text": (b"no picture at all", "is in no format that can be read"),
    "html": (b"<html><body>404</body></html>", "is in no format that can be read"),
    "bomb": (png(60000, 60000, b"IDAT", b"IEND"), "is too large to be opened safely"),
    "no-pixels": (png(4, 4, b"IEND"), "cannot be read"),
    "cut.jpg": (truncated("JPEG"), "cannot be read: image file is truncated"),
    "cut.png": (truncated("PNG"), "cannot be read"),
    "cut.webp": (truncated("WEBP"), "cannot be read"),
    "no-area.gif": (
        b"GIF89a\0\0\0\0\0\0\0,\0\0\0\0\0\0\0\0\0\x02\x02L\x01\0;",
        "is (empty|in no format)",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_picture_is_one_sentence(name, tmp_path):
    content, told = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content)
    for look in (rgb, check):
        with pytest.raises(DataError, match=rf"^the picture {path} ({told})[^\n]*$"):
            look(path)


def test_a_folder_and_a_missing_file_are_one_sentence(tmp_path):
    for path, told in ((tmp_path, "Is a directory"), (tmp_path / "none.png", "No such file or directory")):
        with pytest.raises(DataError, match=rf"^the picture {path} cannot be read: {told}$"):
            check(path)


def test_questions_are_looked_at_before_any_is_asked(tmp_path):
    good = Question("1", "1", written(tmp_path / "a.png", COLOUR), "What color?", ("red",), "kind")
    (tmp_path / "b.png").write_bytes(b"")
    check_questions(None, [good])
    with pytest.raises(DataError, match=rf"^question 2: the picture {tmp_path}/b\.png is in no format"):
        check_questions(None, [good, attrs.evolve(good, id="2", image=tmp_path / "b.png")])


class Marked:
    image_token = "<|image_pad|>"
    video_token = None


def test_a_mark_for_a_picture_within_a_question_is_refused(tmp_path):
    path = written(tmp_path / "a.png", COLOUR)
    asked = Question("7", "7", path, "What is <|image_pad|> for?", ("red",), "kind")
    with pytest.raises(DataError, match=rf"^question 7 \(picture {path}\) has <\|image_pad\|> in its text, which the"):
        check_questions(Marked(), [asked])
