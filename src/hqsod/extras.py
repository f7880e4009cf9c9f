"""What the ordinary installation leaves out, asked for before any work begins."""

from __future__ import annotations

from importlib.util import find_spec

from hqsod.errors import SettingsError

# The packages that tell whether an extra of pyproject.toml is installed, by their import names.
EXTRAS = {
    "torch": ("torch",),
    "train": ("torch", "accelerate", "skimage", "scipy", "tensorboard"),
    "matting": ("pymatting",),
    "onnx": ("torch", "onnx", "onnxscript"),
    "review": ("fastapi", "uvicorn"),
    "serve": ("fastapi", "uvicorn", "prometheus_client"),
    "export": ("pyarrow",),
    "s3": ("upath", "fsspec"),
}


def is_installed(extra: str) -> bool:
    """Whether all packages of an extra are there. None of them is imported."""
    return not _missing(extra)


def require(extra: str, what: str) -> None:
    """Check that an extra is installed.

    Args:
        extra: of `EXTRAS`.
        what: needs it; begins the sentence that the user reads.

    Raises:
        SettingsError: a package is missing; the message has the command that installs it.
    """
    if missing := _missing(extra):
        raise SettingsError(
            f"{what} needs {' and '.join(missing)}, not installed here",
            fix=f"pip install 'hqsod[{extra}]'",
        )


def _missing(extra: str) -> list[str]:
    return [package for package in EXTRAS[extra] if not _is_there(package)]


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # a half-made module in its place
        return False
