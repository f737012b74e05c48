"""Embedders: what turns a list of texts into vectors, named as one names it on the command line."""

import importlib
import inspect
import operator
import os
import sys
import traceback
from collections.abc import Callable, Collection
from typing import Any

from vecmigrate.causes import described, told
from vecmigrate.errors import EmbedderError

__all__ = ["Embedder", "load"]

Embedder = Callable[[list[str]], Collection[Any]]
"""Takes texts and returns one vector for each, in their order."""

_READY = {"sentence-transformers": "sentence_transformers", "fastembed": "fastembed", "openai": "openai"}
"""The extra of each ready embedder, and the package that the extra installs."""


def load(spec: str, *, model: str) -> Embedder:
    """Return the embedder that a spec names.

    ``module:callable`` is imported with the current folder on the path, where it stays: the module may import others
    later. ``sentence-transformers[:NAME]``, ``fastembed[:NAME]`` and ``openai:NAME`` are ready, and import their
    package only here; without NAME the first two take ``model``, the one that vectors are wanted of.

    What a ready one cannot do it raises as EmbedderError, after the tries that its library makes: one that comes out
    of a call is final. Raises EmbedderError where there is no such embedder or its package is not installed.
    """
    name, _, attribute = spec.partition(":")
    if name in _READY:
        return _ready(name, attribute or model, spec)
    is_module = all(part.isidentifier() for part in name.split(".")) and not name.endswith(".py")
    if not is_module or not attribute:
        raise EmbedderError(
            f"{spec!r} names no embedder. No vector was written.",
            next_step="name one as MODULE:CALLABLE, for example --embedder my_embedder:embed for the function embed "
            "of my_embedder.py in this folder, or a ready one: " + ", ".join(_READY),
        )
    return _checked(_found(name, attribute, spec), spec)


def _ready(name: str, model: str, spec: str) -> Embedder:
    if spec in {"openai", "openai:"}:
        raise EmbedderError(
            "The embedder openai needs the name of a model as its server has it. No vector was written.",
            next_step="name it, for example --embedder openai:text-embedding-3-small",
        )
    try:
        home = importlib.import_module(f"vecmigrate.embedding.{_READY[name]}_embedder")
    except Exception as error:  # noqa: BLE001 - raised on, without what it says
        is_missing = isinstance(error, ModuleNotFoundError) and error.name == _READY[name]
        why = "its package is not installed" if is_missing else f"its package cannot be imported: {described(error)}"
        raise EmbedderError(
            f"The embedder {name} cannot be used: {why}. No vector was written.",
            next_step=f'pip install "vecmigrate[{name}]"',
        ) from told(error)
    embedder: Embedder = home.load(model)
    return embedder


def _found(name: str, attribute: str, spec: str) -> object:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    module = name
    try:
        found = importlib.import_module(name)
        module = found.__file__ or name
        return operator.attrgetter(attribute)(found)
    except AttributeError as error:
        if module == name:
            raise _unusable(error, spec, name) from told(error)
        raise EmbedderError(
            f"The embedder {spec} was not found: {module} has no {attribute}. No vector was written.",
            next_step=f"name a function that {module} has: --embedder {name}:FUNCTION",
        ) from None
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise _unusable(error, spec, name) from told(error)
        raise EmbedderError(
            f"The embedder {spec} was not found: there is no module {error.name} in {folder} or among the packages of "
            f"{sys.prefix}. No vector was written.",
            next_step=f"run it in the folder that holds {error.name}, or install its package there",
        ) from None
    # A module that is a program too may end it when it is imported.
    except (Exception, SystemExit) as error:  # noqa: BLE001 - raised on, without what it says
        raise _unusable(error, spec, name) from told(error)


def _unusable(error: BaseException, spec: str, name: str) -> EmbedderError:
    return EmbedderError(
        f"The embedder {spec} cannot be imported: {described(error)}{_place(error)}. No vector was written.",
        next_step=f"mend it until this works: python -c 'import {name}'",
    )


def _place(error: BaseException) -> str:
    """Return where an import failed: the line that cannot be read, or the last one that ran."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" in {error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    run = [each for each in frames if each.filename not in {__file__, importlib.__file__} and each.filename[0] != "<"]
    return f" in {run[-1].filename}, line {run[-1].lineno}" if run else ""


def _checked(found: Any, spec: str) -> Embedder:
    if not callable(found):
        raise EmbedderError(
            f"The embedder {spec} cannot be called: it is of type {type(found).__name__}. No vector was written.",
            next_step="name a function that takes a list of texts and returns their vectors",
        )
    if inspect.iscoroutinefunction(found):
        raise EmbedderError(
            f"The embedder {spec} is a coroutine function, so calling it returns no vectors. No vector was written.",
            next_step="name a plain function, for example one that calls it with asyncio.run",
        )
    embedder: Embedder = found
    return embedder
