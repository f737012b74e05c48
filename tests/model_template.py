"""The template of a revision that changes the model, made of the one that did: ``python tests/model_template.py``."""

from pathlib import Path

__all__ = ["TEMPLATE", "rendered"]

_ROOT = Path(__file__).parent.parent
TEMPLATE = _ROOT / "src" / "vecmigrate" / "tools" / "scripts" / "embedding_model.py.txt"
_REVISION = _ROOT / "alembic" / "versions" / "002_codexembed_upgrade.py"

_TOP = '''"""{message}

Another embedding model; metadata only, no vector is touched. Without chunks the new model is active at once. With
chunks it is building, and the one before stays active and searchable, until every chunk has a vector of the new one:
vecmigrate reembed. The way down makes the one before active again, at once.

Revision ID: {revision}
Revises: {below}
"""

'''
_OTHERS = {
    'revision = "002"': 'revision = "{revision}"',
    'down_revision = "001"': 'down_revision = "{below}"',
    'MODEL = "Salesforce/SFR-Embedding-Code-400M_R"\nDIMENSIONS = 768\n': (
        "# The model that vectors are made of from here on: its name, and how many dimensions its vectors have.\n"
        'MODEL = "{model}"\nDIMENSIONS = 384\n'
    ),
    '"002_': '"{revision}_',
    # Of a script without a database the model before is not known, so the database is asked.
    '    old = "sentence-transformers/all-MiniLM-L6-v2"\n': "    old = _newest_retired().scalar_subquery()\n",
}


def rendered() -> str:
    """Return the template. Raises AssertionError where the revision has not what is to be put in its place."""
    text = _REVISION.read_text(encoding="utf-8")
    text = text[text.index("import json") :]
    for one, other in _OTHERS.items():
        assert one in text, one
        text = text.replace(one, other)
    assert "002" not in text
    return _TOP + text


if __name__ == "__main__":
    TEMPLATE.write_text(rendered(), encoding="utf-8", newline="\n")
