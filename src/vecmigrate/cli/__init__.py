"""The command line: parse, call, print. It adds choice and explanation, and no safety of its own."""

import contextlib
import io
import sys
from collections.abc import Mapping, Sequence

import click

from vecmigrate.cli import adopting, authoring, backup, changing, diagnosing, embedding, reading
from vecmigrate.cli.output import complain, echo, print_json
from vecmigrate.cli.root import cli
from vecmigrate.errors import InterruptedRunError, VecmigrateError
from vecmigrate.redaction import redacted
from vecmigrate.signals import exit_code, terminable

__all__ = ["adopting", "authoring", "backup", "changing", "cli", "diagnosing", "embedding", "main", "reading"]


def main() -> None:
    """Run the command line, with the exit codes of the README."""
    with terminable() as received:
        try:
            code = _run(sys.argv[1:], received)
        except KeyboardInterrupt:
            # Once more, while it was told how the command ended.
            code = exit_code(received)
    sys.exit(code)


def _run(arguments: Sequence[str], received: Sequence[int]) -> int:
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
    return code if isinstance(code, int) else 0


def _interruption(received: Sequence[int]) -> InterruptedRunError:
    error = InterruptedRunError(
        "Stopped by a signal. What had not been committed is rolled back, so the database is whole.",
        next_step="run the same command again",
    )
    error.exit_code = exit_code(received)
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
    complain(error, verbose=_wants(arguments, "v", "--verbose"))
    _print_error(arguments, error.as_dict())
    return error.exit_code


def _complain(text: str) -> None:
    with contextlib.suppress(VecmigrateError):
        echo(text, err=True)


def _print_error(arguments: Sequence[str], described: Mapping[str, object]) -> None:
    """Print the document of an error, if ``--json`` asks for one."""
    if "--json" not in arguments:
        return
    with contextlib.suppress(VecmigrateError):
        print_json({"error": described})


def _wants(arguments: Sequence[str], letter: str, long: str) -> bool:
    return long in arguments or any(
        word.startswith("-") and not word.startswith("--") and letter in word for word in arguments
    )


def _explain_usage(error: click.ClickException, arguments: Sequence[str]) -> int:
    shown = io.StringIO()
    error.show(shown)
    _complain(redacted(shown.getvalue().rstrip()))
    place = _right_place(error)
    if place:
        _complain(f"Next: {place}")
    context = getattr(error, "ctx", None)
    next_step = place or f"{context.command_path if context else 'vecmigrate'} --help"
    described = {"exit_code": error.exit_code, "type": "UsageError", "message": redacted(error.format_message())}
    _print_error(arguments, described | {"backup": None, "next": next_step})
    return error.exit_code


def _right_place(error: click.ClickException) -> str | None:
    """Return the command with an option where it belongs, if it only stands on the wrong side of the command."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return None
    if isinstance(error.ctx.command, click.Group) and error.option_name == "--json":
        return f"{error.ctx.command_path} COMMAND --json"
    root, _, command = error.ctx.command_path.partition(" ")
    general = next((each for each in cli.params if error.option_name in each.opts), None)
    if general is None or not command:
        return None
    return " ".join(filter(None, [root, error.option_name, general.metavar, command]))
