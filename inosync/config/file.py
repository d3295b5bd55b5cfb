"""A configuration file on disk: it is read if it can be trusted, and run as Python."""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import posixpath
import sys
import types
import warnings
from collections.abc import Iterator, Sequence
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from typing import Any

from inosync.config import trust
from inosync.config.errors import ConfigError, ConfigProblem, Invalid
from inosync.text import without_password


def run(path: str) -> tuple[dict[str, int], dict[str, Any]]:
    """Return the line that sets each name, and the values; ConfigError if the file cannot be run."""
    tree, code = _compiled(path, _read(path))
    namespace: dict[str, Any] = {"__file__": path, "__name__": posixpath.basename(path).removesuffix(".py")}
    with _imports_from(os.path.dirname(os.path.abspath(path))):
        try:
            exec(code, namespace)
        except Invalid as error:
            raise _untrusted(error) from None
        except BaseException as problem:  # noqa: BLE001 - whatever it is, SystemExit too, the file raised it
            raise ConfigError(ConfigProblem(path, _described(problem), "", _line_of(problem, path))) from None
    return _assignments(tree), namespace


def literal(path: str, name: str) -> Any:
    """Return the literal that a file sets ``name`` to in a line of its own, or None. The file is not run."""
    try:
        lines = _read(path).splitlines()
    except ConfigError:
        return None
    found = None
    for line in (line for line in lines if name in line):
        with contextlib.suppress(ConfigError, ValueError, TypeError):  # not a statement, or not a literal
            match _compiled(path, line)[0].body:
                case [ast.Assign(targets=[ast.Name(id=given)], value=value)] if given == name:
                    found = ast.literal_eval(value)
    return found


def _read(path: str) -> str:
    try:
        content, _ = trust.read(path, "name a configuration file with -c, or write one: inosync --init")
    except Invalid as error:
        raise _untrusted(error) from None
    return _decoded(path, content)


def _untrusted(error: Invalid) -> ConfigError:
    return ConfigError(
        *(ConfigProblem(str(problem.value), problem.problem, problem.hint) for problem in error.problems)
    )


def _decoded(path: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise ConfigError(
            ConfigProblem(path, "is not UTF-8", "convert it with iconv -t UTF-8", line)
        ) from None


def _compiled(path: str, source: str) -> tuple[ast.Module, types.CodeType]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\." in a pattern works
            tree = ast.parse(source, path)
            return tree, compile(tree, path, "exec", dont_inherit=True)
    except SyntaxError as problem:
        raise ConfigError(
            ConfigProblem(path, f"{type(problem).__name__}: {problem.msg}", "", problem.lineno)
        ) from None
    except (ValueError, RecursionError, MemoryError, OverflowError) as problem:
        raise ConfigError(ConfigProblem(path, _described(problem))) from None


@contextlib.contextmanager
def _imports_from(directory: str) -> Iterator[None]:
    """Let modules be imported from a directory; they leave no bytecode, and are forgotten afterwards."""
    path, finders, writes_none = sys.path, sys.meta_path, sys.dont_write_bytecode
    importlib.invalidate_caches()
    beside = _Beside(directory, finders)
    sys.path, sys.meta_path, sys.dont_write_bytecode = [*path], [beside, *finders], True
    try:
        yield
    finally:
        sys.path, sys.meta_path, sys.dont_write_bytecode = path, finders, writes_none
        # Otherwise a reload would get the modules as they were.
        for name in [name for name in sys.modules if _top(name) in beside.found]:
            del sys.modules[name]


class _Beside:
    """Finds modules beside the configuration file that no other finder finds, so they hide none of ours.

    It has the interface of importlib.abc.MetaPathFinder, the import of which costs each start 5 ms.
    """

    def __init__(self, directory: str, finders: Sequence[Any]) -> None:
        self._directory, self._finders = directory, finders
        self.found: set[str] = set()
        """Top-level names of modules found here. What is in their packages is found here as well."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is None:
            for finder in self._finders:
                if finder.find_spec(name, None, target) is not None:
                    return None  # that finder is asked next
            path = [self._directory]
        elif _top(name) not in self.found:
            return None
        for place in path:
            spec = FileFinder(place, (_Trusted, SOURCE_SUFFIXES)).find_spec(name, target)
            if spec is not None:
                self.found.add(_top(name))
                return spec
        return None


class _Trusted(SourceFileLoader):
    """Runs a module from its source if that can be trusted; bytecode beside it could differ."""

    def get_data(self, path: str) -> bytes:
        content, _ = trust.read(path, "import a module that only its owner can write")
        return content

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _top(name: str) -> str:
    return name.partition(".")[0]


def _described(problem: BaseException) -> str:
    try:
        text = without_password(str(problem))
    except Exception:  # noqa: BLE001 - a class of the file's own
        text = ""
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__


def _line_of(problem: BaseException, path: str) -> int | None:
    """Return the innermost line of the file that an exception came through."""
    line, trace = None, problem.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _assignments(tree: ast.Module) -> dict[str, int]:
    """Return the last line that sets each name outside of functions and classes."""
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
