"""The image in a form, as `curl -F file=@photo.jpg` and web pages send it (RFC 7578)."""

from __future__ import annotations

from email.message import Message

from hqsod.errors import InputError

EXPECTED = "a form with one file in it, or the file itself as the body"


def file_in(form: bytes, content_type: str) -> bytes:
    """The one file that a multipart form carries.

    Args:
        form: the request's body.
        content_type: its header, which names the boundary between the form's fields.

    Raises:
        InputError: there is no boundary, no file, or another field.
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not boundary.isascii():
        raise InputError("a form without a boundary", expected=EXPECTED)
    opening, *fields = (b"\r\n" + form).split(b"\r\n--" + boundary.encode())
    if len(fields) != 2 or opening or not fields[1].startswith(b"--"):
        count = max(0, len(fields) - 1)
        raise InputError(f"a form of {count} fields", expected=EXPECTED)
    about, _, content = fields[0].partition(b"\r\n\r\n")
    if b"filename" not in about.lower():
        raise InputError("a form without a file", expected=EXPECTED)
    return content
