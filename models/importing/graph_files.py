"""An ONNX graph read from its file, whole: a registry keeps one file of it, and runs that one."""

from pathlib import Path
from typing import Any

from models.errors import UnsupportedModel
from models.libraries import installed_version
from models.onnx_graph import session_of

_CANNOT_RUN = "export it with standard operators and an opset that this onnxruntime knows"
_REMEDIES = {
    # skl2onnx puts it behind every classifier, unless told not to; it takes float32 only.
    "ZipMap": "convert it with skl2onnx.to_onnx(.., options={'zipmap': False})",
    "External data": "save it with all its numbers in one file, or install onnx, which does so: pip install onnx",
}


def read_graph(path: Path) -> tuple[bytes, Any]:
    """The graph and the session of onnxruntime that runs it; raises UnsupportedModel, with what to do about it."""
    content = path.read_bytes()
    try:
        return content, session_of(content)
    except UnsupportedModel as error:
        if "External data" in str(error) and installed_version("onnx") is not None:
            whole = _with_numbers_inside(path)
            return whole, session_of(whole)
        remedy = next((remedy for sign, remedy in _REMEDIES.items() if sign in str(error)), _CANNOT_RUN)
        raise UnsupportedModel(f"{str(error).rstrip('.')}: {remedy}") from error


def _with_numbers_inside(path: Path) -> bytes:
    import onnx

    try:
        content: bytes = onnx.load(path).SerializeToString()
    except Exception as error:  # onnx and protobuf have no base of their own
        raise UnsupportedModel(f"the files beside {path.name} that hold its numbers cannot be read: {error}") from error
    return content
