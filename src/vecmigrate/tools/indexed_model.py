"""Which model the vectors of an mcp-vector-search folder are of: what its files tell, and what they mean by it."""

from collections.abc import Iterable
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from vecmigrate.errors import AdoptionError
from vecmigrate.tools.index_files import Index
from vecmigrate.tools.project_folder import ProjectFolder

__all__ = ["FIRST_MODEL", "IndexedModel", "indexed_model"]

FIRST_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""The model that a database starts with, before any change of models."""
_CODEBERT = "microsoft/codebert-base"
_UNIXCODER = "microsoft/unixcoder-base"
_SFR = "Salesforce/SFR-Embedding-Code-400M_R"

_DIMENSIONS = {
    FIRST_MODEL: (384,),
    "sentence-transformers/all-MiniLM-L12-v2": (384,),
    "sentence-transformers/all-mpnet-base-v2": (768,),
    _CODEBERT: (768,),
    "microsoft/graphcodebert-base": (768,),
    _UNIXCODER: (768,),
    # Its table of models has 1,024, which is what the model gives; its documents have 768.
    _SFR: (1024, 768),
    "Salesforce/codet5p-110m-embedding": (256,),
    "nomic-ai/CodeRankEmbed": (768,),
}
"""The models that mcp-vector-search offers, each with the dimensions that its vectors may have, the likeliest first."""

_FULL_NAMES = {name.rpartition("/")[2]: name for name in _DIMENSIONS} | {"sfr-400m": _SFR}
_MEANT = {
    _CODEBERT: (("1.2.2", FIRST_MODEL), ("2.3.33", _SFR), (None, _CODEBERT)),
    _UNIXCODER: (("1.2.2", FIRST_MODEL), ("2.3.33", _SFR), (None, _UNIXCODER)),
    "codebert": (("2.3.33", _SFR), (None, _CODEBERT)),
    "unixcoder": (("2.3.33", _SFR), (None, _UNIXCODER)),
}
"""What a configured name stood for in the versions before one: these took another model, and did not say so.

https://github.com/bobmatnyc/mcp-vector-search/blob/v1.2.2/src/mcp_vector_search/core/embeddings.py
"""


@dataclass(frozen=True)
class IndexedModel:
    """A model with the number of its dimensions, and the file, or the option, that it is known from."""

    name: str
    dimensions: int
    source: str


def indexed_model(
    folder: ProjectFolder, index: Index, *, model: str | None, dimensions: int | None, command: str
) -> IndexedModel | None:
    """Return the model that the vectors are of, None where no file names one.

    The index itself counts before ``index_metadata.json``, and the configuration, which says what is to be indexed
    with next, last. ``model`` and ``dimensions`` are what the caller knows of it. Raises AdoptionError, with
    ``command`` and the option to add to it, where the files leave that open, or say otherwise.
    """
    recorded = folder.index_dimensions or index.width
    if model is not None:
        name, source = _FULL_NAMES.get(model, model), "--model"
    elif index.models:
        name, source = _only(index, command), index.source
        recorded = index.width
    elif folder.index_model is not None:
        name, source = _FULL_NAMES.get(folder.index_model, folder.index_model), "index_metadata.json"
    elif folder.config_model is not None:
        name, source = _configured(folder.config_model, folder.index_version, recorded, command), "config.json"
    else:
        return None
    if dimensions is not None and recorded not in {None, dimensions}:
        raise AdoptionError(
            f"--dimensions says {dimensions}, and the vectors of {folder.path} have {recorded}. Nothing was changed.",
            next_step=command,
        )
    found = recorded or dimensions or next(iter(_DIMENSIONS.get(name, ())), None)
    if found is None:
        raise AdoptionError(
            f"The vectors are of {name}, and no file says how many dimensions that has. Nothing was changed.",
            next_step=f"{command} --dimensions N",
        )
    return IndexedModel(name, found, source)


def _only(index: Index, command: str) -> str:
    names = sorted({_FULL_NAMES.get(name, name) for name in index.models})
    if len(names) > 1:
        raise _open(f"{index.source} holds vectors of several models: {', '.join(names)}", command)
    return names[0]


def _configured(name: str, version: str | None, width: int | None, command: str) -> str:
    """Return the model that a configured name stood for when the index was made."""
    full = _FULL_NAMES.get(name, name)
    meant = _MEANT.get(name) or _MEANT.get(full) or ((None, full),)
    if width is not None:
        dimensions = {model: _DIMENSIONS.get(model, (width,)) for _, model in meant}
        fitting = [model for model in dimensions if dimensions[model][0] == width]
        fitting = fitting or [model for model in dimensions if width in dimensions[model]]
        if len(fitting) != 1:
            raise _open(
                f"config.json names {name}, whose vectors do not have {width} dimensions, as the ones there do", command
            )
        return fitting[0]
    if len(meant) == 1:
        return full
    if (known := _parsed(version)) is None:
        models = ", ".join(dict.fromkeys(model for _, model in meant))
        raise _open(f"config.json names {name}, which stood for {models} in turn, and no file tells when", command)
    return _in_version(known, meant)


def _in_version(version: Version, meant: Iterable[tuple[str | None, str]]) -> str:
    return next(model for before, model in meant if before is None or version < Version(before))


def _parsed(version: str | None) -> Version | None:
    try:
        return Version(version) if version is not None else None
    except InvalidVersion:
        return None


def _open(what: str, command: str) -> AdoptionError:
    return AdoptionError(
        f"Which model the vectors are of is not known: {what}. Nothing was changed.",
        next_step=f"{command} --model NAME, with the model that they were made with",
    )
