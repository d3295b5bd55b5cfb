"""A configuration file on disk: read if it can be trusted, and run as the Python that it is."""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import posixpath
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

from inosync import trusted
from inosync.policy.mistakes import ConfigError, Invalid, Mistake
from inosync.policy.shown import redacted


def run(path: str) -> tuple[dict[str, int], dict[str, Any]]:
    """The lines that settings stand in, and what the file has set. ConfigError if it cannot be run."""
    tree, code = _compiled(path, _read(path))
    namespace: dict[str, Any] = {"__file__": path, "__name__": posixpath.basename(path).removesuffix(".py")}
    with _imports_from(os.path.dirname(os.path.abspath(path))):
        try:
            exec(code, namespace)
        except BaseException as problem:  # noqa: BLE001 - whatever it is, SystemExit too, the file raised it
            raise ConfigError(Mistake(path, _told(problem), "", _line_of(problem, path))) from None
    return _assignments(tree), namespace


def _read(path: str) -> str:
    try:
        content, _ = trusted.read(path, "name a configuration file with -c")
    except Invalid as invalid:
        faults = invalid.faults
        raise ConfigError(
            *(Mistake(str(fault.value), fault.wrong, fault.right) for fault in faults)
        ) from None
    return _decoded(path, content)


def _decoded(path: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise ConfigError(Mistake(path, "is not UTF-8", "convert it with iconv -t UTF-8", line)) from None


def _compiled(path: str, source: str) -> tuple[ast.Module, types.CodeType]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\." in a pattern works
            tree = ast.parse(source, path)
            return tree, compile(tree, path, "exec", dont_inherit=True)
    except SyntaxError as problem:
        raise ConfigError(
            Mistake(path, f"{type(problem).__name__}: {problem.msg}", "", problem.lineno)
        ) from None
    except (ValueError, RecursionError, MemoryError, OverflowError) as problem:
        raise ConfigError(Mistake(path, _told(problem))) from None


@contextlib.contextmanager
def _imports_from(directory: str) -> Iterator[None]:
    """For a while, modules can be imported from a directory; they leave no bytecode and no trace."""
    path, writes_none, known = sys.path, sys.dont_write_bytecode, set(sys.modules)
    importlib.invalidate_caches()
    # At the end, as in 0.2.3: a file beside the configuration hides nothing from us.
    sys.path, sys.dont_write_bytecode = [*path, directory], True
    try:
        yield
    finally:
        sys.path, sys.dont_write_bytecode = path, writes_none
        # Or else SIGHUP would find the modules as they were.
        for name in [name for name in sys.modules if name not in known and _comes_from(directory, name)]:
            del sys.modules[name]


def _comes_from(directory: str, name: str) -> bool:
    """Whether a module, or the package that it is in, lies in a directory."""
    file = getattr(sys.modules.get(name.partition(".")[0]), "__file__", None)
    if not isinstance(file, str):
        return False
    return os.path.dirname(file.removesuffix("/__init__.py")) == directory


def _told(problem: BaseException) -> str:
    try:
        text = redacted(str(problem))
    except Exception:  # noqa: BLE001 - a class of the file's own
        text = ""
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__


def _line_of(problem: BaseException, path: str) -> int | None:
    """The innermost line of the file that an exception came through."""
    line, trace = None, problem.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _assignments(tree: ast.Module) -> dict[str, int]:
    """For each name that is set outside of functions and classes the last line that does it."""
    lines: dict[str, int] = {}
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            lines[node.id] = max(node.lineno, lines.get(node.id, 0))
        todo.extend(ast.iter_child_nodes(node))
    return lines
