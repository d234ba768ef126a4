"""Pictures in a terminal: what is written is read back to pixels, and only a terminal is written any escape to."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from headwise.errors import DataError
from headwise_lab.asking.terminal import side_by_side, way_of
from headwise_lab.terminal import Terminal
from headwise_lab.terminal.pictures import cell_of, multiplexer, placed, protocol_of, sixel

FRAME = re.compile(r"(\n+)\x1b\[(\d+)A\x1b7(.*)\x1b8\x1b\[(\d+)B\r", re.DOTALL)


@pytest.fixture
def picture():
    """A drawn picture with a transparent gap in it, larger than one of kitty's chunks."""
    pixels = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    return side_by_side([Image.fromarray(pixels), Image.new("RGB", (60, 50), (200, 40, 10))], 60, 8)


def framed(text):
    """What stands inside the frame of made lines and a cursor that is put back."""
    lines, up, drawn, down = FRAME.fullmatch(text).groups()
    assert len(lines) == int(up) == int(down)
    return drawn, int(up)


def of_kitty(text):
    """The picture in kitty's commands, and the options of the first."""
    commands = re.findall(r"\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\", text)
    assert "".join(f"\x1b_G{options};{part}\x1b\\" for options, part in commands) == text
    options = [dict(one.split("=") for one in given.split(",")) for given, _ in commands]
    assert [one["m"] for one in options] == ["1"] * (len(options) - 1) + ["0"]
    assert all(len(part) <= 4096 for _, part in commands)
    assert all(len(part) % 4 == 0 for _, part in commands[:-1])
    assert all(one.keys() == {"m"} for one in options[1:])
    return Image.open(io.BytesIO(base64.b64decode("".join(part for _, part in commands)))), options[0]


def of_iterm(text):
    """The picture in iTerm2's sequence, and its options."""
    given, content = re.fullmatch(r"\x1b\]1337;File=([^:]*):([A-Za-z0-9+/=]*)\x07", text).groups()
    options, data = dict(one.split("=") for one in given.split(";")), base64.b64decode(content)
    assert int(options["size"]) == len(data)
    return Image.open(io.BytesIO(data)), options


def of_sixel(text):
    """Pixels (height, width, 4) of a sixel picture, drawn as a terminal draws it."""
    head, width, height, body = re.fullmatch(
        r'\x1bP(0;1;0)q"1;1;(\d+);(\d+)((?:#\d+;2;\d+;\d+;\d+)*.*)\x1b\\', text, re.DOTALL
    ).groups()
    pixels, colours = np.zeros((int(height) + 6, int(width), 4), dtype=np.uint8), {}
    x = y = 0
    for match in re.finditer(r"#(\d+)(?:;2;(\d+;\d+;\d+))?|!(\d+)([?-~])|([$-])", body):
        number, colour, count, mark, turn = match.groups()
        if colour:
            colours[number] = [round(int(share) * 2.55) for share in colour.split(";")]
        elif number:
            pen = colours[number]
        elif turn:
            x, y = 0, y + 6 * (turn == "-")
        else:
            for bit in range(6):
                if ord(mark) - 63 >> bit & 1:
                    pixels[y + bit, x : x + int(count)] = [*pen, 255]
            x += int(count)
    assert head
    assert not pixels[int(height) :].any()
    return pixels[: int(height)]


@pytest.mark.parametrize(("protocol", "read"), [("kitty", of_kitty), ("iterm", of_iterm)])
def test_a_picture_reaches_the_terminal_whole_and_in_its_cells(picture, protocol, read):
    drawn, rows = framed(placed(picture, protocol, (13, 3), {"TERM": "xterm"}))
    found, options = read(drawn)
    assert rows == 3
    assert np.array_equal(np.asarray(found.convert("RGBA")), np.asarray(picture))
    wide, high = ("c", "r") if protocol == "kitty" else ("width", "height")
    assert (options[wide], options[high]) == ("13", "3")


def test_sixel_draws_every_pixel_in_nearly_its_colour_and_no_transparent_one(picture):
    found = of_sixel(sixel(picture)).astype(int)
    wanted = np.asarray(picture).astype(int)
    assert np.array_equal(found[..., 3], wanted[..., 3])
    opaque = wanted[..., 3] > 0
    difference = np.abs(found - wanted)[..., :3][opaque]
    assert difference.mean() < 20  # noise of 900 colours in 255
    even = np.abs(found - wanted)[:50, 68:, :3]
    assert even.max() <= 3  # shares of 100 are coarse


def test_tmux_is_asked_to_hand_pictures_on_and_draws_sixel_itself(picture):
    inside = {"TERM": "tmux-256color", "TMUX": "/tmp/tmux-0/default,1,0"}
    drawn, _ = framed(placed(picture, "kitty", (13, 3), inside))
    start, end = "\x1bPtmux;", "\x1b\\"
    assert drawn.startswith(start)
    assert drawn.endswith(end)
    content = drawn[len(start) : -len(end)]
    assert re.search(r"(?<!\x1b)\x1b(?!\x1b)", content) is None  # tmux would end there
    assert np.array_equal(np.asarray(of_kitty(content.replace("\x1b\x1b", "\x1b"))[0]), np.asarray(picture))
    assert of_sixel(framed(placed(picture, "sixel", (13, 3), inside))[0]).any()


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),  # also where ssh hands on no other variable
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "mlterm-256color"}, "sixel"),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, None),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "vscode"}, None),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "screen-256color", "LC_TERMINAL": "iTerm2"}, None),
        ({}, None),
    ],
)
def test_the_variables_tell_what_a_terminal_shows(environment, protocol):
    assert protocol_of(environment) == protocol


def test_which_way_is_taken_and_what_cannot_be():
    utf = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    there = Terminal(file=utf, force_terminal=True, color_system="truecolor", _environ={"TERM": "xterm-kitty"})
    file, plain = Terminal(file=utf, force_terminal=False), {"TERM": "xterm-256color"}
    assert way_of(there, "auto", {"TERM": "xterm-kitty"}) == "kitty"
    assert way_of(there, "auto", plain) == "blocks"
    assert way_of(there, "sixel", plain) == "sixel"
    assert way_of(file, "auto", {"TERM": "xterm-kitty"}) == "none"
    assert way_of(file, "none", plain) == "none"
    dumb = Terminal(file=utf, force_terminal=True, color_system="truecolor", _environ={"TERM": "dumb"})
    assert way_of(dumb, "auto", {"TERM": "dumb", "KITTY_WINDOW_ID": "1"}) != "kitty"
    assert multiplexer({"STY": "1.pts", "TERM": "xterm"}) == "screen"
    for console, given, environment, told in (
        (there, "png", plain, "--picture 'png' is not one of auto, kitty, iterm, sixel, blocks, none"),
        (file, "kitty", plain, "--picture kitty is for a terminal, and the output is none"),
        (there, "iterm", {"STY": "1.pts"}, "--picture iterm: screen hands no pictures on"),
    ):
        with pytest.raises(DataError, match=told):
            way_of(console, given, environment)
    assert cell_of(utf) == (10, 20)  # no terminal behind it
