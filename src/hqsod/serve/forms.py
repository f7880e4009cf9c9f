"""Images in a form, as `curl -F file=@photo.jpg` and web pages send them (RFC 7578)."""

from __future__ import annotations

import re
from email.message import Message
from typing import NamedTuple

from hqsod.errors import InputError

EXPECTED = (
    "a form with the image's file and, for a cut-out, optionally one named background; or the "
    "image's file itself as the body"
)
BACKGROUND = re.compile(rb'(?<!file)name="background"')


class Sent(NamedTuple):
    """The files of an image and, if there is one, of its background."""

    image: bytes
    background: bytes | None = None


def files_in(form: bytes, content_type: str) -> Sent:
    """The files that a multipart form carries.

    Args:
        form: the request's body.
        content_type: its header, which names the boundary between the form's fields.

    Raises:
        InputError: there is no boundary, no such file, or another field.
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not boundary.isascii():
        raise InputError("a form without a boundary", expected=EXPECTED)
    opening, *fields = (b"\r\n" + form).split(b"\r\n--" + boundary.encode())
    if opening or not fields or not fields.pop().startswith(b"--"):
        raise InputError("a form without its closing boundary", expected=EXPECTED)
    files: dict[bool, bytes] = {}
    for field in fields:
        about, _, content = field.partition(b"\r\n\r\n")
        if b"filename" not in about.lower():
            raise InputError("a form with a field that is no file", expected=EXPECTED)
        files[bool(BACKGROUND.search(about))] = content
    if False not in files or len(files) < len(fields):
        raise InputError(f"a form of {len(fields)} fields", expected=EXPECTED)
    return Sent(files[False], files.get(True))
