"""A command line whose first command after an upgrade migrates the user's database.

Needs ``pip install click``. Run it: ``python click_app.py --db sessions.sqlite3 stores``
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import click

import vecmigrate


@click.group()
@click.option("--db", default="sessions.sqlite3", type=click.Path(dir_okay=False, path_type=Path), help="The database.")
@click.pass_context
def app(ctx: click.Context, db: Path) -> None:
    """Look at vector stores."""
    # No command has been parsed yet, and --help is not to touch the database.
    ctx.obj = db


def bring_up_to_date(database: Path) -> None:
    """Migrate the database if need be; end the command if it may not be used."""
    try:
        # Cheap enough for every command: on a database that is current it reads one row.
        report = vecmigrate.ensure_current(database, on_failure="raise")
    except vecmigrate.VecmigrateError as error:
        click.echo(f"Error: {error}", err=True)
        click.get_current_context().exit(error.exit_code)
    if report.state == "migrated" and report.backup:
        click.echo(f"The database was upgraded to revision {report.after}. Backup: {report.backup}", err=True)
    for note in report.notes:
        click.echo(note, err=True)


@app.command()
@click.pass_obj
def stores(database: Path) -> None:
    """Print the id of every vector store."""
    bring_up_to_date(database)
    with closing(sqlite3.connect(database)) as connection:
        for (store,) in connection.execute("SELECT vector_store_id FROM vector_stores ORDER BY vector_store_id"):
            click.echo(store)


if __name__ == "__main__":
    app()
