"""Command lines to values: recipe overrides for `train`, plain flags for every other command.

Both accept hyphens for underscores, `--key=value`, true/false/yes/no/on/off, and lists by commas or spaces. Flags are
the fields of a frozen dataclass, and the docstrings below them their help; recipe overrides go the way of the recipe
file, so that the file's and the command line's mistakes come out together and in the same words.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import shlex
import textwrap
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from fixres.checkpoints.network_of import with_network
from fixres.cli import habits
from fixres.cli.help import RECIPE_HELP, Entry, print_help, recipe_groups
from fixres.cli.old_flags import dashed, unknown_flags
from fixres.cli.subject import what_is
from fixres.config.loading import load
from fixres.config.messages import Kind, expected, find_field, kind_of, kind_of_field, section_of
from fixres.config.recipe import Recipe
from fixres.config.stage import Above0
from fixres.config.yaml_text import parse_value
from fixres.errors import UserError, did_you_mean
from fixres.training.start_checks import StartChecks

T = TypeVar("T")

_TRUE = ("true", "yes", "on")
_FALSE = ("false", "no", "off")
_HELP = ("-h", "--help")
_KWARGS = "model.kwargs."
_NUMBER = r"[-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"


@dataclass(frozen=True)
class Positional:
    """Marks a field that is given as a word, without `--name`: `Annotated[str, Positional("CHECKPOINT")]`."""

    metavar: str
    """Its name in the help and in messages."""


@dataclass(frozen=True)
class TrainOptions:
    """The options of `train` that are not part of the recipe."""

    out: Path | None = None
    """Run folder; takes the place of output.dir."""
    resume: bool = False
    """Go on from the last checkpoint in the run folder."""
    extend: bool = False
    """With --resume: allow more epochs than the run was started with."""
    take_over: bool = False
    """Count a run on another machine that holds the run folder as dead, before 5 minutes without a sign of life."""
    check_data: bool = False
    """Keep a hash of every picture file when the run begins; with --resume, compare them. Else sizes and times are."""
    accept_data: bool = False
    """With --resume: go on with picture files that changed since the run began."""
    dry_run: bool = False
    """Print the plan, the cost and the first batch, then stop."""
    minutes: Above0 | None = None
    """With PHOTOS: how long it may take in all, start-up and report included; 3 when left out."""
    models: str = ""
    """With PHOTOS: networks to try, A,B by timm name, package:NAME or folder; left out: the small ones on this disk."""
    final: bool = False
    """With PHOTOS: at the end train what was chosen on everything that has a label, into OUT/final."""
    seeds: str = ""
    """Run several: 3, that many from `seed` on, or 0,1,5; into OUT/seed-0 and so on, and report mean and spread."""
    quiet: bool = False
    """Print results only."""
    verbose: bool = False
    """Print more."""

    @property
    def checks(self) -> StartChecks:
        """How sure the run has to be of its folder and its pictures."""
        return StartChecks(**{name: getattr(self, name) for name in ("take_over", "check_data", "accept_data")})


Options = TypeVar("Options", bound=TrainOptions)


@dataclass(frozen=True)
class Asked(Generic[Options]):
    """A command line about a recipe: the checked recipe, the other options, and the recipe as it was written."""

    recipe: Recipe
    options: Options
    name: str
    """The recipe as it was named: a shipped name, a YAML file, or empty for the defaults."""
    overrides: dict[str, Any]
    """What was given for keys of the recipe, by dotted key."""
    words: dict[str, list[str]]
    """The words of each override."""


@dataclass(frozen=True)
class _Option:
    """What may follow `--name`: values of a kind, or nothing at all (`is_switch`). A word has no `--name` before it."""

    kind: Kind
    shown: Entry
    hint: Any = Any
    is_switch: bool = False
    is_word: bool = False
    is_required: bool = False
    field: str = ""
    """Field of the flags; empty for a key of the recipe."""


@dataclass
class _Scan:
    """A command line taken apart: loose words, options with their words, and what was wrong."""

    words: list[str] = field(default_factory=list)
    options: dict[str, list[str]] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)


def parse_recipe(
    argv: Sequence[str], cls: type[Options], prog: str = "fixres train", description: str = RECIPE_HELP
) -> Asked[Options]:
    """Return what `[RECIPE] [--section.key VALUE ...]` asks for; the fields of `cls` are its options beside the keys.

    `--help` prints every key with the value it has in RECIPE and raises SystemExit(0). Raises UserError otherwise:
    unknown flags first, all at once; then whatever is wrong with the file and the values, all at once.
    """
    flags = _options(cls)
    find = _finder(flags)
    scan = _scan([word for word in argv if word not in _HELP], find)
    name = scan.words.pop(0) if scan.words else ""
    if set(_HELP) & set(argv):
        groups = recipe_groups(load(name or None))
        word = Entry("RECIPE", "", None, "A shipped recipe, a YAML file, or pictures; none: the defaults.")
        groups[""] = [word, *(option.shown for option in flags.values()), *groups[""]]
        print_help(f"{prog} [RECIPE] [--option VALUE ...] [--section.key VALUE ...]", description, groups)
    scan.mistakes.extend(_unexpected(word) for word in scan.words)
    scan.mistakes.extend(unknown_flags([key for key in scan.options if find(key) is None], flags, with_recipe=True))
    values = _values(flags, scan)
    _raise_mistakes(scan.mistakes, prog, lambda: retyped(argv, cls, prog))
    overrides: dict[str, Any] = {}
    for key, words in scan.options.items():
        if key not in flags and (option := _recipe_option(key)) is not None:
            try:
                overrides[key] = read_value(option.kind, words)
            except UserError as error:
                raise UserError(f"--{key}: {error}") from None
    if not name and "data.uri" not in overrides:
        raise UserError(f"which recipe?\n  {prog} RECIPE      ('fixres recipes' lists them)\n  {prog} --data.uri DIR")
    try:
        recipe = load(name or None, overrides, require_data=True)
    except UserError as error:
        if name and what_is(name) in ("nothing", "pictures") and (line := retyped(argv, cls, prog)):
            raise UserError(f"{error}\n  {line}") from None
        raise
    return Asked(with_network(recipe), cls(**values), name, overrides, {key: scan.options[key] for key in overrides})


def retyped(argv: Sequence[str], cls: type[TrainOptions] = TrainOptions, prog: str = "fixres train") -> str:
    """Return a command line about a recipe in our words, where it was written by habit; empty where it was not."""
    flags = _options(cls)
    find = _finder(flags)
    scan = _scan([habits.SHORT.get(word, word) for word in argv if word not in _HELP], find)
    known = habits.Known(lambda key: find(key) is not None, lambda key: key in flags and flags[key].is_switch)
    line = habits.for_recipe(prog, scan.words, scan.options, known)
    return "" if scan.mistakes or line == f"{prog} {shlex.join(argv)}" else line


def first_word(argv: Sequence[str], cls: type[Any] = TrainOptions) -> str:
    """Return the first word that belongs to no option, empty where there is none: what `fixres train` is about."""
    return next(iter(_scan([word for word in argv if word not in _HELP], _finder(_options(cls))).words), "")


def _finder(flags: Mapping[str, _Option]) -> Callable[[str], _Option | None]:
    return lambda key: flags.get(key) or _recipe_option(key)


def parse_flags(argv: Sequence[str], cls: type[T], prog: str, description: str = "") -> T:
    """Return an instance of the dataclass `cls` from `argv`; its fields are the flags.

    A field marked `Positional` is a word, `Annotated[int, Field(ge=1)]` is checked, a name that Python keeps for
    itself ends in `_`. `--help` prints and raises SystemExit(0). Raises UserError for anything wrong, all unknown
    flags and wrong values at once.
    """
    fields = _options(cls)
    words = {name: option for name, option in fields.items() if option.is_word}
    options = {name: option for name, option in fields.items() if not option.is_word}
    if set(_HELP) & set(argv):
        print_help(_usage(prog, fields.values()), description, {"": [o.shown for o in (words | options).values()]})
    scan = _scan(argv, options.get)
    scan.mistakes.extend(unknown_flags([key for key in scan.options if key not in options], options))
    for name, word in words.items():
        if given := scan.words[: None if word.kind.elements else 1]:
            scan.options[name] = given
            del scan.words[: len(given)]
    scan.mistakes.extend(f"unexpected '{word}'" for word in scan.words)
    if "data" in fields and (named := scan.options.get("checkpoint")):
        scan.mistakes.extend(filter(None, [habits.pictures_as_checkpoint(prog, named[0])]))
    values = _values(fields, scan)
    if not scan.mistakes:
        missing = (option for name, option in fields.items() if option.is_required and name not in scan.options)
        scan.mistakes.extend(f"{option.shown.name} is missing" for option in missing)

    def again() -> str:
        typed = _scan([habits.SHORT.get(word, word) for word in argv], options.get)
        known = habits.Known(options.__contains__, lambda key: options[key].is_switch, tuple(words))
        line = habits.for_command(prog, typed.words, typed.options, known)
        return "" if typed.mistakes or line == f"{prog} {shlex.join(argv)}" else line

    _raise_mistakes(scan.mistakes, prog, again)
    return cls(**values)


def read_value(kind: Kind, words: Sequence[str]) -> Any:
    """Return the words of an option as the plain value a YAML file would hold for `kind`.

    Words that do not fit stay a text, for the validation to refuse.
    """
    text = words[0]
    for member in kind.alternatives:
        if text in member.choices and len(words) == 1:
            return text
        if member.elements is not None:
            element, number = member.elements
            length = element.elements[1] or 1 if element.elements else 1
            parts = _split(words)
            groups = [parts[start : start + length] for start in range(0, len(parts), length)]
            values = [read_value(element, group) for group in groups]
            if len(kind.alternatives) == 1 or number in (None, len(values)):
                return values
        elif member.type is bool and text.lower() in (*_TRUE, *_FALSE):
            return text.lower() in _TRUE
        elif member.type is int and re.fullmatch(r"[-+]?[0-9][0-9_]*", text):
            return int(text)
        elif member.type is float and re.fullmatch(_NUMBER, text):
            return float(text)
        elif member.type is Any or typing.get_origin(member.type) is dict:
            return parse_value(text)
    return text


def _scan(argv: Sequence[str], find: Callable[[str], _Option | None]) -> _Scan:
    """Take `argv` apart; `find` tells how many words belong to an option. The last of a repeated option counts."""
    scan = _Scan()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            scan.words.extend(rest)
            break
        if not _is_option(word):
            scan.words.append(word)
            continue
        if not word.startswith("--"):
            scan.mistakes.append(f"unknown option '{word}' (options are written --name)")
            continue
        key, equals, inline = word[2:].partition("=")
        key = key.replace("-", "_")
        option = find(key)
        words = [inline] if equals else _take(option, rest)
        if option is not None and not words:
            scan.mistakes.append(f"{option.shown.name}: no value given; expected {expected(option.kind)}")
        else:
            scan.options[key] = words
    return scan


def _take(option: _Option | None, rest: list[str]) -> list[str]:
    """Remove the words that belong to `option` from the front of `rest` and return them."""
    if option is not None and option.is_switch:
        return [rest.pop(0)] if rest and rest[0].lower() in (*_TRUE, *_FALSE) else ["true"]
    taken: list[str] = []
    while rest and not _is_option(rest[0]):
        if option is not None and taken and not _continues(option.kind, rest[0]):
            break
        taken.append(rest.pop(0))
    return taken


def _is_option(word: str) -> bool:
    return re.match(r"--|-[A-Za-z]", word) is not None


def _continues(kind: Kind, word: str) -> bool:
    """Whether `word` can be one more element of a list; a list of paths goes on to the next option."""
    element = _element(kind)
    if element is None:
        return any(member.elements is not None for member in kind.alternatives)
    return all(part in element.choices or re.fullmatch(_NUMBER, part) for part in _split([word]))


def _element(kind: Kind) -> Kind | None:
    """Return the kind of the elements when the value is a list of numbers or fixed words, or may be one.

    A list of paths is not taken apart: commas are legal in file names.
    """
    found = next((member.elements for member in kind.alternatives if member.elements is not None), None)
    return found[0] if found and (found[0].type in (int, float) or found[0].choices) else None


def _split(words: Sequence[str]) -> list[str]:
    return [part for word in words for part in re.split(r"[,\s]+", word.strip("[]() ")) if part]


def _recipe_option(key: str) -> _Option | None:
    """Return the option of a recipe key; None for a section and an unknown key."""
    found = find_field(key)
    if key.startswith(_KWARGS) and key.count(".") == 2 and key != _KWARGS:
        kind = Kind(Any, {})
    elif found is None or section_of(found.annotation) is not None or re.fullmatch(r"stages(\.\d+)?", key):
        return None
    else:
        kind = kind_of_field(found)
    return _Option(kind, Entry(f"--{key}", expected(kind), None, ""))


def _options(cls: type[Any]) -> dict[str, _Option]:
    """Return the words and options of a dataclass by the name they are given by, that of the field without a last _."""
    hints, texts = typing.get_type_hints(cls, include_extras=True), _docstrings(cls)
    options = {}
    for entry in dataclasses.fields(cls):
        name, hint = entry.name.rstrip("_"), hints[entry.name]
        kind = kind_of(hint)
        kind = kind.alternatives[0] if len(kind.alternatives) == 1 else kind
        mark = next((mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Positional)), None)
        is_switch, is_required = kind.type is bool, entry.default is dataclasses.MISSING
        label, is_bare = mark.metavar if mark else dashed(name), mark or (is_switch and not entry.default)
        default = None if is_bare or is_required else entry.default
        shown = Entry(label, "" if is_bare else expected(kind), default, texts[entry.name])
        options[name] = _Option(kind, shown, hint, is_switch, mark is not None, is_required, entry.name)
    return options


def _docstrings(cls: type[Any]) -> dict[str, str]:
    """Return the docstring below each field, from the class nearest to `cls` that has one."""
    texts = dict.fromkeys((entry.name for entry in dataclasses.fields(cls)), "")
    for base in reversed(cls.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for entry, below in itertools.pairwise(body):
            match entry, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    texts[name] = " ".join(text.split())
    return texts


def _usage(prog: str, fields: Iterable[_Option]) -> str:
    parts = [prog]
    for option in fields:
        if option.is_word:
            label = option.shown.name + (" ..." if option.kind.elements else "")
            parts.append(label if option.is_required else f"[{label}]")
        elif option.is_required:
            parts.append(f"{option.shown.name} VALUE")
    return " ".join([*parts, "[--option VALUE ...]"])


def _values(options: Mapping[str, _Option], scan: _Scan) -> dict[str, Any]:
    """Return what was given for known options by field; what is wrong with it is added to the mistakes."""
    values = {}
    for key, words in scan.options.items():
        if (option := options.get(key)) is None:
            continue
        kind = option.kind
        # Commas are legal in file names: a list of texts or paths is not taken apart.
        value = list(words) if kind.elements and _element(kind) is None else read_value(kind, words)
        try:
            values[option.field] = TypeAdapter(option.hint).validate_python(value)
        except ValidationError:
            hint = did_you_mean(words[0], [word for member in kind.alternatives for word in member.choices])
            scan.mistakes.append(f"{option.shown.name}: expected {expected(kind)}, got {' '.join(words)!r}{hint}")
    return values


def _unexpected(word: str) -> str:
    key, equals, value = word.partition("=")
    if equals and _recipe_option(key):
        return f"unexpected '{word}' - did you mean '--{key} {value}'?"
    return f"unexpected '{word}'; one recipe at a time, and every setting needs its --section.key"


def _raise_mistakes(mistakes: Sequence[str], prog: str, again: Callable[[], str]) -> None:
    """Raise UserError for what is wrong; `again` returns the same line as it should be, or nothing."""
    if not mistakes:
        return
    advice = again() or f"'{prog} --help' lists the flags"
    lines = mistakes if len(mistakes) == 1 else [f"{len(mistakes)} problems", *(f"  {one}" for one in mistakes)]
    raise UserError("\n".join([*lines, f"  {advice}"]))
