"""The command line: parse, call, print. It adds choice and explanation, and no safety of its own."""

import sys
import traceback
from collections.abc import Sequence

import click

from vecmigrate.cli import backup, changing, reading
from vecmigrate.cli.output import print_json
from vecmigrate.cli.root import cli
from vecmigrate.environment import terminable
from vecmigrate.errors import InterruptedRunError, VecmigrateError
from vecmigrate.journal import described

__all__ = ["backup", "changing", "cli", "main", "reading"]


def main() -> None:
    """Run the command line, with the exit codes of the README."""
    with terminable() as received:
        arguments = sys.argv[1:]
        try:
            code = cli.main(arguments, standalone_mode=False)
        except VecmigrateError as error:
            code = _explain(error, arguments)
        except click.ClickException as error:
            code = _explain_usage(error, arguments)
        except (KeyboardInterrupt, click.Abort):
            code = _explain(_interruption(received), arguments)
        except Exception as error:  # noqa: BLE001 - -v shows it whole
            code = _explain(_unexpected(error), arguments)
    sys.exit(code if isinstance(code, int) else 0)


def _interruption(received: Sequence[int]) -> InterruptedRunError:
    error = InterruptedRunError(
        "Stopped by a signal. What had not been committed is rolled back, so the database is whole.",
        next_step="run the same command again",
    )
    error.exit_code = 128 + received[0] if received else 130
    return error


def _unexpected(error: Exception) -> VecmigrateError:
    # Its text is left out, because it may quote contents of rows.
    failure = VecmigrateError(
        f"Unexpected {type(error).__name__}; what had not been committed is rolled back.",
        next_step="run the same command with -v before the command's name, and report the traceback",
    )
    failure.__cause__ = error
    return failure


def _explain(error: VecmigrateError, arguments: Sequence[str]) -> int:
    if _wants(arguments, "v", "--verbose"):
        click.echo("".join(_traceback(error)), err=True)
    click.echo(f"Error: {error}", err=True)
    if "--json" in arguments:
        print_json(
            {
                "error": {
                    "exit_code": error.exit_code,
                    "type": type(error).__name__,
                    "message": error.message,
                    "backup": error.backup,
                    "next": error.next_step,
                }
            }
        )
    return error.exit_code


def _traceback(error: BaseException) -> list[str]:
    """Return the traceback without what errors say themselves, because that may quote contents of rows."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = [*_traceback(cause), "\nwhich led to:\n\n"] if cause else []
    calls = traceback.format_tb(error.__traceback__)
    return [*before, "Traceback (most recent call last):\n", *calls, f"{described(error)}\n"]


def _wants(arguments: Sequence[str], letter: str, long: str) -> bool:
    return long in arguments or any(
        word.startswith("-") and not word.startswith("--") and letter in word for word in arguments
    )


def _explain_usage(error: click.ClickException, arguments: Sequence[str]) -> int:
    error.show()
    if "--json" in arguments:
        print_json(
            {
                "error": {
                    "exit_code": error.exit_code,
                    "type": "UsageError",
                    "message": error.format_message(),
                    "next": "vecmigrate --help",
                }
            }
        )
    return error.exit_code
