"""Versions of code that change when what the code does may change, and not when it is only reformatted."""

import ast
import inspect
import textwrap
from hashlib import sha256
from typing import Any

_LENGTH = 12  # hex digits; enough to tell versions apart, short enough to read in the user interface


def code_version(*parts: Any) -> str:
    """Hash of modules, functions and classes by their syntax tree, and of anything else by its `repr`.

    Comments, layout and docstrings do not count.
    """
    return sha256("\n".join(_text(part) for part in parts).encode()).hexdigest()[:_LENGTH]


def _text(part: Any) -> str:
    if inspect.ismodule(part) or inspect.isfunction(part) or inspect.isclass(part):
        tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
        return ast.dump(_without_docstrings(tree))
    return repr(part)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(
            node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        ) and _is_documented(node):
            node.body = node.body[1:]
    return tree


def _is_documented(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    return ast.get_docstring(node, clean=False) is not None
