"""Commands about embedding models: reembed, and those under ``embeddings``."""

from contextlib import suppress
from dataclasses import asdict

import click

from vecmigrate.cli.looks import counted
from vecmigrate.cli.output import Context, Output, command, echo
from vecmigrate.cli.root import cli
from vecmigrate.embedding import inventory
from vecmigrate.embedding.reembed import missing
from vecmigrate.embedding.reembed import reembed as run
from vecmigrate.embedding.worker import Reembedding
from vecmigrate.errors import InterruptedRunError, VecmigrateError
from vecmigrate.shell import quoted
from vecmigrate.signals import exit_code, finishing

__all__ = ["embeddings", "reembed"]

_MOST_TEXTS = 10_000


@command(cli)
@click.option(
    "--embedder", metavar="E", required=True, help="MODULE:CALLABLE, or one that is ready, such as fastembed."
)
@click.option(
    "--batch-size", default=64, show_default=True, type=click.IntRange(1, _MOST_TEXTS), help="Texts in one call of it."
)
@click.option("--dimensions", type=click.IntRange(1), help="Record these of a model that has no vector yet.")
@click.option("--limit", type=click.IntRange(1), help="End after so many vectors.")
@click.option("--no-swap", is_flag=True, help="Do not make the model the active one when none is missing.")
@click.option("--dry-run", is_flag=True, help="Tell what is missing, and change nothing.")
def reembed(
    context: Context,
    out: Output,
    *,
    embedder: str,
    batch_size: int,
    dimensions: int | None,
    limit: int | None,
    no_swap: bool,
    dry_run: bool,
) -> None:
    """Make the vectors that are missing, beside the service, and swap the models when none is.

    Can be stopped at any time, and goes on where it was. Several at once share the work.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 reembed --embedder my_embedder:embed
    """
    if dry_run:
        _show_missing(out, missing(context.migrator(), dimensions=dimensions), limit=limit)
        return
    migrator = context.migrator()
    with finishing(lambda: _say_stopping(out)) as received:
        done = run(
            migrator,
            embedder,
            batch_size=batch_size,
            dimensions=dimensions,
            swap=not no_swap,
            limit=limit,
            on_progress=out.shown.show,
            should_stop=lambda: bool(received),
        )
    if received:
        raise _stopped(received, done.embedded, done.remaining)
    made = counted(done.embedded, "vector")
    lines = [f"{made} of {done.model} made in {done.duration_seconds:.2f} s; {done.remaining:,} missing."]
    if done.swapped:
        lines.append(f"{done.model} is the active model now.")
    elif not done.remaining and no_swap:
        activate = f"vecmigrate {migrator.database.option} embeddings activate {quoted(done.model)}"
        lines.append(out.pasteable(f"Activate it when you like: {activate}"))
    out.answer(asdict(done) | {"duration_seconds": round(done.duration_seconds, 6)}, lines)


def _show_missing(out: Output, found: Reembedding, *, limit: int | None) -> None:
    wanted = found.remaining if limit is None else min(limit, found.remaining)
    lines = [f"Would make {wanted:,} of the {found.remaining:,} vectors of {found.model} that are missing."]
    document = asdict(found) | {"dry_run": True, "duration_seconds": round(found.duration_seconds, 6)}
    out.answer(document, lines)


def _say_stopping(out: Output) -> None:
    # The signal may have come in the middle of a line to the same stream, which takes no other then.
    with suppress(RuntimeError, OSError, VecmigrateError):
        out.shown.end()
        echo("Stopping after the batch in flight; once more to stop at once.", err=True)


def _stopped(received: list[int], embedded: int, remaining: int) -> InterruptedRunError:
    error = InterruptedRunError(
        f"Stopped by a signal after the batch in flight. {embedded} vectors made are kept; {remaining} are missing.",
        next_step="run the same command again, and it goes on",
    )
    error.exit_code = exit_code(received)
    return error


@cli.group()
def embeddings() -> None:
    """List embedding models, swap them by hand, and drop vectors of retired ones.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 embeddings list
    """


@command(embeddings, "list")
def embeddings_list(context: Context, out: Output) -> None:
    """List every model with its state, dimensions, vectors, and how many chunks lack one. Writes nothing.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 embeddings list
    """
    migrator = context.migrator()
    found = inventory.listing(migrator)
    rows = [["NAME", "STATE", "DIMENSIONS", "VECTORS", "MISSING", "BYTES"]]
    keys = ("name", "state", "dimensions", "vectors", "missing", "bytes")
    rows += [[_shown(each[key]) for key in keys] for each in found["models"]]
    lines = [counted(found["chunks"], "chunk"), *out.screen.table(rows, whole=range(len(keys)))]
    building = next((each for each in found["models"] if each["state"] == "building"), None)
    if building:
        way = "reembed --embedder E" if building["missing"] else f"embeddings activate {quoted(building['name'])}"
        lines.append(out.pasteable(f"Next: vecmigrate {migrator.database.option} {way}"))
    out.answer(found, lines)


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


@command(embeddings, "activate")
@click.argument("model")
def embeddings_activate(context: Context, out: Output, *, model: str) -> None:
    """Make a model the active one and retire the one before. Refuses one that a chunk lacks a vector of.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 embeddings activate Salesforce/SFR-Embedding-Code-400M_R
    """
    inventory.activate(context.migrator(), model)
    out.answer({"active": model}, [f"{model} is the active model now."])


@command(embeddings, "purge")
@click.argument("model", required=False)
@click.option("--yes", is_flag=True, help="Confirm it.")
@click.option("--dry-run", is_flag=True, help="Tell what would be dropped, and change nothing.")
def embeddings_purge(context: Context, out: Output, *, model: str | None, yes: bool, dry_run: bool) -> None:
    """Drop the vectors of retired models, or of one. To go back to it, they have to be made anew.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 embeddings purge --yes
    """
    if dry_run:
        found = inventory.purgeable(context.migrator(), model)
        lines = [f"Would drop {count:,} vectors of {name}." for name, count in found.items()]
        out.answer({"dry_run": True, "purged": found}, lines or ["No model is retired."])
        return
    if not yes:
        raise click.UsageError("purge drops vectors for good; confirm with --yes.")
    purged = inventory.purge(context.migrator(), model)
    lines = [f"{counted(count, 'vector')} of {name} dropped." for name, count in purged.items()]
    out.answer({"purged": purged}, lines or ["No model is retired."])
