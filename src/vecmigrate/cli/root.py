"""The group that every command hangs on."""

import logging
import sys

import click

from vecmigrate.cli.output import Commands, Context

__all__ = ["cli"]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vecmigrate")
@click.option("--database-url", metavar="URL", help="The database, as an SQLAlchemy URL.")
@click.option("--db-path", metavar="FILE", help="The database, as the path of an SQLite file.")
@click.option("--config", metavar="FILE", help="An alembic.ini with a section [vecmigrate].")
@click.option("-v", "--verbose", count=True, help="Tell more; twice, also SQL.")
@click.option("-q", "--quiet", is_flag=True, help="Tell only errors.")
@click.pass_context
def cli(
    ctx: click.Context, database_url: str | None, db_path: str | None, config: str | None, verbose: int, *, quiet: bool
) -> None:
    """Migrate the schema and the embedding model of a service's vector stores.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 migrate
    """
    # At DEBUG a driver quotes what is wrong in the query of a URL.
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    if verbose > 1:
        # SQLAlchemy sets its own logger to WARNING.
        logging.getLogger("sqlalchemy.engine").setLevel(logging.INFO)
    ctx.obj = Context(url=database_url, path=db_path, config=config, verbosity=-1 if quiet else verbose)
