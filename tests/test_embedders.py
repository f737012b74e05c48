"""Embedders as they are named on the command line: a module and a callable in it, or a ready one."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import pytest

from doors import ROOT, run_python
from vecmigrate.embedding import embedders
from vecmigrate.errors import EmbedderError

MODEL = "some/model"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty current folder; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refused(spec: str) -> EmbedderError:
    with pytest.raises(EmbedderError) as raised:
        embedders.load(spec, model=MODEL)
    return raised.value


def test_a_function_of_a_module_in_the_current_folder_is_found(folder: Path) -> None:
    """The module may import others of that folder, also later, when it is called."""
    (folder / "length_of_text.py").write_text("def of(text):\n    return [float(len(text))]\n")
    (folder / "my_embedder.py").write_text(
        "def embed(texts):\n    import length_of_text\n    return [length_of_text.of(text) for text in texts]\n"
    )
    embedder = embedders.load("my_embedder:embed", model=MODEL)

    assert [[3.0], [1.0]] == embedder(["abc", "x"])


def test_a_method_of_an_object_in_a_package_is_found(folder: Path) -> None:
    """Both sides of the colon may have dots."""
    (folder / "company").mkdir()
    (folder / "company" / "models.py").write_text(
        "class Small:\n    def embed(self, texts):\n        return [(1.0,)] * len(texts)\n\nsmall = Small()\n"
    )
    embedder = embedders.load("company.models:small.embed", model=MODEL)

    assert [(1.0,), (1.0,)] == embedder(["abc", "x"])


@pytest.mark.parametrize("spec", ["", "my_embedder", "my_embedder:", ":embed", "my_embedder.py:embed", "./my:embed"])
def test_what_is_no_module_and_callable_names_none(spec: str, folder: Path) -> None:
    """Nothing is imported, and the error says how an embedder is named."""
    (folder / "my_embedder.py").write_text("raise RuntimeError\n")
    error = refused(spec)

    assert 1 == error.exit_code
    assert f"{spec!r} names no embedder. No vector was written." == error.message
    assert "--embedder my_embedder:embed" in error.next_step


@pytest.mark.parametrize("spec", ["no_such_module:embed", "company.no_such_module:embed"])
def test_a_module_that_is_not_there_is_named(spec: str, folder: Path) -> None:
    """The error says which one, and where it was looked for."""
    (folder / "company").mkdir()
    (folder / "company" / "__init__.py").touch()
    error = refused(spec)

    assert f"there is no module {spec.partition(':')[0]} in {folder} or among the packages" in error.message


def test_a_package_that_is_missing_within_the_module_is_named(folder: Path) -> None:
    """It is not the module that was not found, but one that it imports."""
    (folder / "my_embedder.py").write_text("\nimport no_such_package\n")
    error = refused("my_embedder:embed")

    assert f"No module named 'no_such_package' in {folder / 'my_embedder.py'}, line 2." in error.message
    assert "mend it until this works: python -c 'import my_embedder'" == error.next_step


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def embed(:\n", "SyntaxError in {file}, line 1"),
        ("key = 'secret-text'\nint(key)\n", "ValueError in {file}, line 2"),
        ("import sys\nsys.exit('secret-text')\n", "SystemExit in {file}, line 2"),
        ("import os\nos.no_such_thing\n", "AttributeError in {file}, line 2"),
    ],
)
def test_a_module_that_fails_is_told_by_kind_and_place(source: str, told: str, folder: Path) -> None:
    """What the error says is not shown, because it may be made of a value."""
    (folder / "my_embedder.py").write_text(source)
    error = refused("my_embedder:embed")
    expected = told.format(file=folder / "my_embedder.py")

    assert f"The embedder my_embedder:embed cannot be imported: {expected}. No vector was written." == error.message
    assert "secret-text" not in f"{error}{error.__cause__}"


def test_a_callable_that_is_not_there_is_named(folder: Path) -> None:
    """The error names the file that was looked into."""
    (folder / "my_embedder.py").touch()
    error = refused("my_embedder:embed")

    assert f"{folder / 'my_embedder.py'} has no embed." in error.message


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("embed = None\n", "cannot be called: it is of type NoneType."),
        ("async def embed(texts):\n    return []\n", "is a coroutine function"),
    ],
)
def test_what_cannot_be_called_for_vectors_is_no_embedder(source: str, told: str, folder: Path) -> None:
    """It is refused before any chunk is read."""
    (folder / "my_embedder.py").write_text(source)

    assert told in refused("my_embedder:embed").message


READY = {"sentence-transformers": "sentence_transformers", "fastembed": "fastembed", "openai": "openai"}


@pytest.mark.parametrize("name", READY)
def test_a_ready_one_without_its_package_names_the_extra(name: str) -> None:
    """The command that installs it works when pasted, and there is an extra of that name."""
    code = (
        f"import sys; sys.modules[{READY[name]!r}] = None\n"
        "from vecmigrate.embedding import embedders\n"
        "from vecmigrate.errors import EmbedderError\n"
        f"try: embedders.load('{name}:small', model='some/model')\n"
        "except EmbedderError as error: print(error)"
    )
    extras = metadata("vecmigrate").get_all("Provides-Extra") or []

    assert [
        f"The embedder {name} cannot be used: its package is not installed. No vector was written.",
        f'Next: pip install "vecmigrate[{name}]"',
    ] == run_python(code).out.splitlines()
    assert name in extras


@pytest.mark.parametrize("name", READY)
def test_a_ready_one_whose_package_is_broken_says_so(name: str, folder: Path) -> None:
    """A package that lacks another, as one installed by halves does, is not called missing."""
    (folder / f"{READY[name]}.py").write_text("import no_such_package\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from vecmigrate.embedding import embedders\n"
        "from vecmigrate.errors import EmbedderError\n"
        f"try: embedders.load('{name}:small', model='some/model')\n"
        "except EmbedderError as error: print(error.message)"
    )
    why = "ModuleNotFoundError: No module named 'no_such_package'"

    assert [
        f"The embedder {name} cannot be used: its package cannot be imported: {why}. No vector was written."
    ] == run_python(code, folder).out.splitlines()


def test_a_package_is_imported_only_when_it_is_named(folder: Path) -> None:
    """An embedder of one's own brings in none of the packages of the ready ones."""
    (folder / "my_embedder.py").write_text("def embed(texts):\n    return texts\n")
    code = (
        "import os, sys; os.chdir(sys.argv[1])\n"
        "from vecmigrate.embedding import embedders\n"
        "embedders.load('my_embedder:embed', model='some/model')\n"
        f"print(sorted(set(sys.modules) & {set(READY.values())!r}))"
    )

    assert "[]" == run_python(code, folder).out.strip()


SENTENCE_TRANSFORMERS = """
class SentenceTransformer:
    def __init__(self, name, trust_remote_code):
        if name == "brings/code" and not trust_remote_code:
            raise ValueError("Please pass the argument `trust_remote_code=True` to allow custom code to be run.")
        if name == "no/such":
            raise OSError("secret-text")
        self.name = name
    def encode(self, texts, show_progress_bar, convert_to_numpy):
        assert not show_progress_bar and convert_to_numpy
        return [[self.name, text] for text in texts]
"""
FASTEMBED = """
class TextEmbedding:
    def __init__(self, model_name):
        if model_name != "some/model":
            raise ValueError("secret-text")
    @classmethod
    def list_supported_models(cls):
        return [{"model": "some/Model"}, {"model": "far/away"}]
    def passage_embed(self, texts):
        yield from (["passage", text] for text in texts)
"""
"""Stand in for the packages, which are large: as much of them as is called, in words that the real ones took."""


@pytest.fixture
def packages(folder: Path) -> Path:
    """Put the stand-ins where they are imported from."""
    (folder / "sentence_transformers.py").write_text(SENTENCE_TRANSFORMERS)
    (folder / "fastembed.py").write_text(FASTEMBED)
    sys.path.insert(0, str(folder))
    return folder


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(("spec", "name"), [("sentence-transformers", MODEL), ("sentence-transformers:a:b", "a:b")])
def test_sentence_transformers_takes_the_model_by_its_name(spec: str, name: str) -> None:
    """Without a name of its own it is the one that vectors are wanted of."""
    assert [[name, "x"]] == embedders.load(spec, model=MODEL)(["x"])


def test_a_model_that_asks_for_a_prompt_before_documents_gets_it(packages: Path) -> None:
    """From version 5 on the package knows which texts are documents."""
    document = "    def encode_document(self, texts, **options):\n        return ['document']\n"
    (packages / "sentence_transformers.py").write_text(SENTENCE_TRANSFORMERS + document)

    assert ["document"] == embedders.load("sentence-transformers", model=MODEL)(["x"])


@pytest.mark.usefixtures("packages")
def test_code_of_a_model_runs_only_where_it_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes from whoever wrote the model; the error names the variable that allows it."""
    error = refused("sentence-transformers:brings/code")
    assert "it brings code of its own, which is not run unasked" in error.message
    assert "set VECMIGRATE_TRUST_REMOTE_CODE=1" in error.next_step
    monkeypatch.setenv("VECMIGRATE_TRUST_REMOTE_CODE", "1")

    assert [["brings/code", "x"]] == embedders.load("sentence-transformers:brings/code", model=MODEL)(["x"])


@pytest.mark.usefixtures("packages")
def test_fastembed_takes_texts_as_passages() -> None:
    """Some models want another prefix before these than before a question."""
    assert [["passage", "x"]] == embedders.load("fastembed", model=MODEL)(["x"])


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    ("spec", "why", "step"),
    [
        ("sentence-transformers:no/such", "OSError", "--embedder sentence-transformers:NAME"),
        ("fastembed:no/such", "fastembed does not know it", "list_supported_models"),
        ("fastembed:far/away", "ValueError", "FASTEMBED_CACHE_PATH"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_named(spec: str, why: str, step: str) -> None:
    """Before any chunk is read, and without what the package says."""
    error = refused(spec)

    assert f"The model {spec.partition(':')[2]} cannot be loaded: {why}. No vector was written." == error.message
    assert step in error.next_step
    assert "secret-text" not in f"{error}{error.__cause__}"


def test_the_examples_of_the_document_are_embedders(folder: Path) -> None:
    """Each module that it shows can be named as it says."""
    text = (ROOT / "docs" / "embedders.md").read_text(encoding="utf-8")
    shown = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", text, re.DOTALL)
    assert shown
    for name, source in shown:
        (folder / f"{name}.py").write_text(source)
        vectors = list(embedders.load(f"{name}:embed", model=MODEL)(["one text", "another"]))
        assert [768, 768] == [len(vector) for vector in vectors]
        assert vectors[0] != vectors[1]
        assert f"{name}:embed" in text
