"""The `husai` command line: exit codes, one-line errors, and the list of commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from husai.commands import audit, browse, check, data, gate, jobs, keys, policies, repeat, server, verify
from husai.errors import Exit, HusaiError, Usage
from husai.terminal import Terminal

app = typer.Typer(
    name="husai",
    add_completion=False,
    help="Decides whether a sparse autoencoder can be released, and lets anybody check the decision.",
    epilog="Exit codes: 0 ok or pass, 1 fail, 2 usage, 3 timeout, 4 inconclusive or blocked, 5 failed, 6 mismatch.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (server, check, jobs, browse, data, repeat, verify):
    app.add_typer(group.app)
app.add_typer(gate.app, name="gate")
app.add_typer(policies.app, name="policies")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        code = Exit.PIPE
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def run(words: Sequence[str]) -> int:
    """Run one command; every expected error becomes one line and an exit code.

    Raises:
        BrokenPipeError: nobody reads the output any more.
    """
    terminal = Terminal("--json" in words)
    try:
        code = app(words, prog_name="husai", standalone_mode=False)
        return int(code or 0)
    except HusaiError as error:
        terminal.error(error)
        return error.exit_code
    except typer.TyperException as error:
        terminal.error(Usage(" ".join(error.format_message().split())))
        return Exit.USAGE
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED
    except SystemExit as error:  # how typer and rich end a command when its pipe breaks
        raise BrokenPipeError from error
    except UnicodeEncodeError as error:
        terminal.error(Usage(f"{ascii(error.object)[:200]} holds characters that cannot be written as text"))
        return Exit.USAGE
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        terminal.error(Usage(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")))
        return Exit.USAGE


if __name__ == "__main__":
    main()
