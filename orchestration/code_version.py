"""Versions of code that change when what the code does may change, and not when it is only reformatted."""

import inspect
import textwrap
from hashlib import sha256
from types import CodeType
from typing import Any

_LENGTH = 12  # hex digits; enough to tell versions apart, short enough to read in the user interface
_WITHOUT_DOCSTRINGS = 2


def code_version(*parts: Any) -> str:
    """Hash of modules, functions and classes by their byte code, and of anything else by its `repr`.

    Comments, layout and docstrings do not count. Another minor version of Python makes other byte code.
    """
    return sha256("\n".join(_text(part) for part in parts).encode()).hexdigest()[:_LENGTH]


def _text(part: Any) -> str:
    if not (inspect.ismodule(part) or inspect.isfunction(part) or inspect.isclass(part)):
        return repr(part)
    source = textwrap.dedent(inspect.getsource(part))
    # Compiling the source, rather than taking what is loaded, treats modules like functions, and leaves out docstrings.
    return _described(compile(source, part.__name__, "exec", dont_inherit=True, optimize=_WITHOUT_DOCSTRINGS))


def _described(constant: Any) -> str:
    """Byte code with all it refers to, but no line numbers; a set in a fixed order, as its own changes by process."""
    if isinstance(constant, CodeType):
        names = (constant.co_names, constant.co_varnames, constant.co_freevars, constant.co_cellvars)
        return f"{constant.co_code.hex()} {names} [{', '.join(map(_described, constant.co_consts))}]"
    if isinstance(constant, frozenset):
        return f"{{{', '.join(sorted(map(repr, constant)))}}}"
    return repr(constant)
