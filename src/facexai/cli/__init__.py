"""The command line, ``facexai COMMAND``; one file per command.

Exit codes: 0 done; 1 done, but some images failed or a finding is bad; 2 wrong arguments or input; 3 the network or
facexai failed with an unexpected error; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

from facexai._errors import FaceXAIWarning, told
from facexai.cli import (
    audit,
    compare,
    counterfactual,
    demo,
    doctor,
    evaluate,
    explain,
    frequency,
    models,
    report,
    verify,
)
from facexai.cli.shared import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code and prints errors as one line."""
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", FaceXAIWarning)  # once, not for every photo
            warnings.showwarning = _note
            code: int = options.run(options)
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, ImportError) as error:
        say(f"facexai {options.command}: {told(error)}", file=sys.stderr)
        return 2
    except Exception as error:
        say(f"facexai {options.command}: {type(error).__name__}: {told(error)}", file=sys.stderr)
        return 3


def _note(message: Warning | str, *_: object, **__: object) -> None:
    say(f"note: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    import facexai

    parser = argparse.ArgumentParser(
        prog="facexai",
        description="Explain what a face-recognition model decided.",
        epilog="exit codes: 0 done; 1 some images failed, or a finding is bad; 2 wrong arguments or input; "
        "3 unforeseen; 130 interrupted",
    )
    parser.add_argument("--version", action="version", version=f"facexai {facexai.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for command in (demo, explain, compare, verify, frequency, counterfactual, audit, evaluate, report, doctor, models):
        command.add(commands)
    return parser
