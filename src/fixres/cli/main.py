"""The command line: finds the command, and turns errors into exit codes.

Nothing heavy is imported here: a command's module is imported when the command is known.
"""

from __future__ import annotations

import codecs
import importlib
import json
import keyword
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fixres.config.plugins import load_plugins
from fixres.errors import (
    EXIT_STOPPED,
    EXIT_USER_ERROR,
    Notice,
    Stopped,
    UserError,
    did_you_mean,
    explain_os_error,
    fixres_version,
    printable,
    started_rank,
)
from fixres.runtime.cpus import let_waiting_threads_sleep
from fixres.runtime.slurm_env import adopt_slurm

EXIT_INTERRUPTED = 130
_EXIT_BROKEN_PIPE = 141
_FIRST_WORD_SECONDS = 3.0
_PARALLEL = ("train", "fix", "eval", "predict", "extract", "study")
"""Commands that run on several processes."""


COMMANDS = {
    "demo": "the whole method on real photographs, in minutes",
    "train": "train a recipe: small first, then the fix",
    "fix": "adapt the end of a trained network to a larger size",
    "eval": "accuracy of a checkpoint at any sizes",
    "advise": "which size to test and to fix at, and why",
    "predict": "classify pictures",
    "extract": "embeddings and probabilities of every picture as NumPy files",
    "score": "accuracy from such files, without PyTorch",
    "study": "one recipe over several seeds: mean, spread, paired difference",
    "slurm": "a recipe as a job for a cluster, which goes on after its time limit",
    "export": "one file for other programs: ONNX, torch.export, OpenVINO",
    "serve": "predictions over HTTP, and a page to see the effect of size",
    "report": "one HTML page about one or more runs",
    "models": "list architectures: parameters, GMACs, sizes, last norm",
    "import": "any checkpoint to a model folder, strictly and safely",
    "average": "one network with the mean of several's weights",
    "data": "check, describe, draw, split, pack and prepare collections",
    "fetch": "download released weights, with resume and checksum",
    "recipes": "the shipped recipes by system and table, or one of them",
    "plan": "what recipes cost, before they run: steps, GMACs, memory, hours",
    "tables": "the published tables, ours beside theirs, from finished runs",
    "bench": "speed of reading, training and evaluating, beside torchvision and timm",
    "doctor": "what this machine has, and what it lacks",
}
"""The commands, each with its line of help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 2 the user's mistake, 75 stopped and saved, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with _plain_notices(), _any_name_on(sys.stdout):
            code = _dispatch(words)
            sys.stdout.flush()
    except UserError as error:
        _complain(error)
        return EXIT_USER_ERROR
    except Stopped:
        return EXIT_STOPPED
    except KeyboardInterrupt:
        print("fixres: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_BROKEN_PIPE
    except OSError as error:
        explained = explain_os_error(error)
        if explained is None:
            raise
        _complain(explained)
        return EXIT_USER_ERROR
    except MemoryError:
        _complain(UserError("there is not enough memory for this\n  try a smaller batch or size, or fewer workers"))
        return EXIT_USER_ERROR
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    else:
        return code


@contextmanager
def _plain_notices() -> Iterator[None]:
    """Print our own warnings as one line each, without the place in the code that Python adds."""
    show = warnings.showwarning

    def say(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, Notice):
            print(f"fixres: {printable(str(message))}", file=sys.stderr)
        else:
            show(message, category, *where, **more)

    warnings.showwarning = say
    try:
        yield
    finally:
        warnings.showwarning = show


@contextmanager
def _any_name_on(stream: Any) -> Iterator[None]:
    """Let a stream take every name: bytes that are no text as they are, what its encoding lacks spelt out."""
    errors = getattr(stream, "errors", None)
    if errors != "strict" or not hasattr(stream, "reconfigure"):
        yield
        return
    codecs.register_error("fixres", _spelt_out)
    stream.reconfigure(errors="fixres")
    try:
        yield
    finally:
        with suppress(ValueError):  # closed meanwhile
            stream.reconfigure(errors=errors)


def _spelt_out(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError), "it is given to streams that are written to"
    part = error.object[error.start : error.end]
    try:
        return part.encode(error.encoding, "surrogateescape"), error.end
    except UnicodeEncodeError:
        return codecs.backslashreplace_errors(error)


def _complain(error: UserError) -> None:
    """Print a message for people; of several processes the first has the word, since most mistakes are everyone's."""
    rank = started_rank()
    if rank:
        # When the first process ends, what started them ends the others before they repeat it.
        time.sleep(_FIRST_WORD_SECONDS)
    who = f"fixres (process {rank})" if rank else "fixres"
    text = f"{who}: {printable(str(error))}"
    print(text, file=sys.stderr)
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        # torchrun ends with a traceback of its own and repeats below it what it finds here.
        with suppress(OSError):
            Path(report).write_text(json.dumps({"message": text, "timestamp": int(time.time())}), encoding="utf-8")


def overview(usage: str, about: str, summaries: Mapping[str, str], hint: str) -> str:
    """Return the help of what has commands, each with its line."""
    width = max(map(len, summaries))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in summaries.items()]
    return "\n".join([f"usage: {usage}", "", about, "", *lines, "", hint, ""])


def _dispatch(words: list[str]) -> int:
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("-h", "--help"):
        about = "Train small, measure accuracy against size, fix at the best size, ship."
        hint = "'fixres COMMAND --help' explains a command; 'fixres --version' prints the version."
        sys.stdout.write(overview("fixres COMMAND [...]", about, COMMANDS, hint))
        return 0
    if words[0] in ("-V", "--version"):
        print(f"fixres {fixres_version()}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        raise _unknown_command(words)
    if name in _PARALLEL:
        # Before the command's module imports PyTorch and Accelerate, which look for the rank.
        adopt_slurm()
    elif "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(f"'{name}' runs on one process\n  these run on several: {', '.join(_PARALLEL)}")
    if "torch" not in sys.modules:
        let_waiting_threads_sleep()
    load_plugins()
    return body_of(name)(rest) or 0


def _unknown_command(words: list[str]) -> UserError:
    """Return the error for a line whose first word is no command; pictures and recipes are to be trained on."""
    name = words[0]
    hint = did_you_mean(name, COMMANDS)
    if not (hint and name.isalpha()) or Path(name).exists():
        # A slip of the pen is answered without the recipe, which takes longer to load.
        from fixres.cli.habits import as_command
        from fixres.cli.parse import retyped

        said, line = as_command(words)
        if said:
            return UserError(f"'{name}' {said} and is no command\n  {retyped(words) or line}")
    return UserError(f"unknown command '{name}'" + (hint or f"\n  commands: {', '.join(COMMANDS)}"))


def body_of(name: str) -> Callable[[list[str]], int | None]:
    """Return what runs a command, called with its words: the function of its name in its module in `cli.commands`."""
    # `import` is a word of Python's.
    name = f"{name}_" if keyword.iskeyword(name) else name
    run: Callable[[list[str]], int | None] = getattr(importlib.import_module(f"fixres.cli.commands.{name}"), name)
    return run
