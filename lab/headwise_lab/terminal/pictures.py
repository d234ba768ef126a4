"""Pictures in a terminal: kitty's graphics protocol, iTerm2's inline images, sixel, or half-blocks; and which it shows.

No library on PyPI does all of them under a free licence and is kept up, so these few lines do. A terminal is asked
nothing, because an answer would have to be waited for: what its variables do not tell, it is taken to lack.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

AUTO, BLOCKS, NONE = "auto", "blocks", "none"
PROTOCOLS = ("kitty", "iterm", "sixel")
WAYS = (AUTO, *PROTOCOLS, BLOCKS, NONE)
USUAL_CELL = (10, 20)
"""Pixels of a letter, width and height, where the terminal does not tell."""

_CHUNK = 4096  # bytes of text in one command of kitty's
_COLOURS = 255  # of a sixel picture

Flags = npt.NDArray[np.bool_]


def protocol_of(environment: Mapping[str, str]) -> str | None:
    """The protocol that the terminal speaks, as its variables tell; None where they tell of none.

    Inside tmux and screen that is None, too: whether they hand pictures on depends on their settings.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if multiplexer(environment):
        return None
    if environment.get("KITTY_WINDOW_ID") or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return "sixel" if term.partition("-")[0] in ("foot", "mlterm", "contour", "yaft", "vt340") else None


def multiplexer(environment: Mapping[str, str]) -> str | None:
    """``tmux`` or ``screen``, where the terminal is inside one."""
    term = environment.get("TERM", "")
    if environment.get("TMUX") or term.startswith("tmux"):
        return "tmux"
    return "screen" if environment.get("STY") or term.startswith("screen") else None


def cell_of(stream: IO[str]) -> tuple[int, int]:
    """Width and height of a letter in pixels, as the terminal behind the stream tells, else USUAL_CELL."""
    try:
        import fcntl
        import struct
        import termios

        found = fcntl.ioctl(stream.fileno(), termios.TIOCGWINSZ, bytes(8))
        rows, columns, width, height = struct.unpack("HHHH", found)
    except (ImportError, OSError, ValueError):  # no such call on this system, or no terminal behind the stream
        return USUAL_CELL
    return (width // columns, height // rows) if min(rows, columns, width, height) else USUAL_CELL


def placed(image: Image.Image, protocol: str, size: tuple[int, int], environment: Mapping[str, str]) -> str:
    """What shows a picture in ``size``, (columns, rows), and leaves the cursor in the line below it.

    The lines are made beforehand, so that the picture does not begin where the screen ends. tmux is asked to hand it on
    (``set -g allow-passthrough on``); sixel it understands itself.
    """
    columns, rows = size
    drawn = sixel(image) if protocol == "sixel" else _ENCODERS[protocol](_png(image), columns, rows)
    if protocol != "sixel" and multiplexer(environment) == "tmux":
        drawn = "\x1bPtmux;" + drawn.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    return "\n" * rows + f"\x1b[{rows}A\x1b7{drawn}\x1b8\x1b[{rows}B\r"


def kitty(png: bytes, columns: int, rows: int) -> str:
    """The picture in so many columns and rows, which moves no cursor and asks for no answer."""
    text = base64.b64encode(png).decode("ascii")
    parts = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    heads = [f"a=T,f=100,q=2,C=1,c={columns},r={rows},", *[""] * (len(parts) - 1)]
    more = [*[1] * (len(parts) - 1), 0]
    return "".join(f"\x1b_G{head}m={m};{part}\x1b\\" for head, m, part in zip(heads, more, parts, strict=True))


def iterm(png: bytes, columns: int, rows: int) -> str:
    """The picture in so many columns and rows."""
    options = f"inline=1;size={len(png)};width={columns};height={rows};preserveAspectRatio=0;doNotMoveCursor=1"
    return f"\x1b]1337;File={options}:{base64.b64encode(png).decode('ascii')}\x07"


_ENCODERS = {"kitty": kitty, "iterm": iterm}


def sixel(image: Image.Image) -> str:
    """The picture, a pixel for a pixel; transparent ones are left as they are."""
    opaque = np.asarray(image.convert("RGBA"))[..., 3] > 127
    reduced = image.convert("RGB").quantize(_COLOURS)
    numbers, palette = np.asarray(reduced), reduced.getpalette() or []
    used = np.unique(numbers[opaque]).tolist()
    colours = "".join(
        f"#{one};2;" + ";".join(str(round(value * 100 / 255)) for value in palette[3 * one : 3 * one + 3])
        for one in used
    )
    bands = [_band(numbers[top : top + 6], opaque[top : top + 6]) for top in range(0, image.height, 6)]
    return f'\x1bP0;1;0q"1;1;{image.width};{image.height}{colours}{"-".join(bands)}\x1b\\'


def _band(numbers: npt.NDArray[np.uint8], opaque: Flags) -> str:
    """Six lines, colour by colour."""
    weights = (1 << np.arange(len(numbers)))[:, None]
    drawn = []
    for one in np.unique(numbers[opaque]).tolist():
        bits = (weights * ((numbers == one) & opaque)).sum(axis=0)
        ends = np.flatnonzero(np.diff(bits, append=-1)) + 1
        counts = np.diff(ends, prepend=0)
        runs = zip(bits[ends - 1].tolist(), counts.tolist(), strict=True)
        drawn.append(f"#{one}" + "".join(f"!{count}{chr(63 + mask)}" for mask, count in runs))
    return "$".join(drawn)


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
