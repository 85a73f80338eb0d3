"""Command lines to values: recipe overrides for `train`, plain flags for every other command.

Both accept hyphens for underscores, `--key=value`, true/false/yes/no/on/off, and lists by commas or spaces. tyro prints
the help and builds the flags of a command; recipe overrides go the way of the recipe file, so that the file's and the
command line's mistakes come out together and in the same words.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from fixres.cli.help import RECIPE_HELP, print_help, print_recipe_help
from fixres.config.loading import load
from fixres.config.messages import Kind, expected, find_field, keys_of, kind_of, kind_of_field, section_of, suggest_key
from fixres.config.recipe import Recipe
from fixres.config.yaml_text import parse_value
from fixres.errors import UserError, did_you_mean

T = TypeVar("T")

_TRUE = ("true", "yes", "on")
_FALSE = ("false", "no", "off")
_HELP = ("-h", "--help")
_KWARGS = "model.kwargs."
_NUMBER = r"[-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"


@dataclass(frozen=True)
class TrainOptions:
    """The options of `train` that are not part of the recipe."""

    out: Path | None = None
    """Run folder; takes the place of output.dir."""
    resume: bool = False
    """Go on from the last checkpoint in the run folder."""
    extend: bool = False
    """With --resume: allow more epochs than the run was started with."""
    dry_run: bool = False
    """Print the plan, the cost and the first batch, then stop."""
    seeds: str = ""
    """Run several: 3, that many from `seed` on, or 0,1,5; into OUT/seed-0 and so on, and report mean and spread."""
    quiet: bool = False
    """Print results only."""
    verbose: bool = False
    """Print more."""


@dataclass(frozen=True)
class TrainFlags(TrainOptions):
    """What `train` was asked beside the settings of the recipe."""

    recipe: str = ""
    """The recipe as it was named: a shipped name, a YAML file, or empty for the defaults."""


Options = TypeVar("Options", bound=TrainOptions)


@dataclass(frozen=True)
class Asked(Generic[Options]):
    """A command line about a recipe: the checked recipe, the other options, and the recipe as it was written."""

    recipe: Recipe
    options: Options
    name: str
    overrides: dict[str, Any]
    words: dict[str, list[str]]
    """The words of each override."""


@dataclass(frozen=True)
class _Option:
    """What may follow `--name`: values of a kind, or nothing at all (`is_switch`)."""

    kind: Kind
    hint: Any = Any
    default: Any = None
    is_switch: bool = False


@dataclass
class _Scan:
    """A command line taken apart: loose words, options with their words, and what was wrong."""

    words: list[str] = field(default_factory=list)
    options: dict[str, list[str]] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)


def parse_recipe(argv: Sequence[str], prog: str = "fixres train") -> tuple[Recipe, TrainFlags, dict[str, Any]]:
    """Return the checked recipe, the flags and the overrides by dotted key of `[RECIPE] [--section.key VALUE ...]`.

    `--help` prints every key with the value it has in RECIPE and raises SystemExit(0). Raises UserError otherwise:
    unknown flags first, all at once; then whatever is wrong with the file and the values, all at once.
    """
    asked = parse_recipe_with(argv, TrainOptions, prog)
    return asked.recipe, TrainFlags(recipe=asked.name, **vars(asked.options)), asked.overrides


def parse_recipe_with(
    argv: Sequence[str], cls: type[Options], prog: str, description: str = RECIPE_HELP
) -> Asked[Options]:
    """Return what `argv` asks for, as `parse_recipe`, with the fields of `cls` as the options beside the recipe's."""
    flags = _options(cls)

    def find(key: str) -> _Option | None:
        return flags.get(key) or _recipe_option(key)

    scan = _scan([word for word in argv if word not in _HELP], find)
    name = scan.words.pop(0) if scan.words else ""
    if set(_HELP) & set(argv):
        print_recipe_help(prog, load(name or None), cls, description)
    scan.mistakes.extend(_unexpected(word) for word in scan.words)
    scan.mistakes.extend(_unknown_flag(key, flags, with_recipe=True) for key in scan.options if find(key) is None)
    scan.mistakes.extend(_refusals(flags, scan.options))
    _raise_mistakes(scan.mistakes, prog)
    values: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    for key, words in scan.options.items():
        if key in flags:
            values[key] = Path(words[0]) if key == "out" else read_value(flags[key].kind, words)
        elif (option := _recipe_option(key)) is not None:
            try:
                overrides[key] = read_value(option.kind, words)
            except UserError as error:
                raise UserError(f"--{key}: {error}") from None
    if not name and "data.uri" not in overrides:
        raise UserError(
            f"which recipe?\n  {prog} RECIPE          ('fixres recipes' lists them)\n  {prog} --data.uri DIR"
        )
    recipe = load(name or None, overrides, require_data=True)
    return Asked(recipe, cls(**values), name, overrides, {key: scan.options[key] for key in overrides})


def parse_flags(argv: Sequence[str], cls: type[T], prog: str, description: str = "") -> T:
    """Return an instance of the dataclass `cls` from `argv`; its fields are the flags.

    Fields are annotated as for tyro: `tyro.conf.Positional[...]` makes a word, `Annotated[int, Field(ge=1)]` is
    checked. `--help` prints and raises SystemExit(0). Raises UserError for anything wrong, all unknown flags and
    wrong values at once.
    """
    import tyro

    if set(_HELP) & set(argv):
        print_help(cls, prog, description)
    options = _options(cls)
    scan = _scan(argv, options.get)
    args = list(scan.words)
    for key, words in scan.options.items():
        option = options.get(key)
        if option is None:
            scan.mistakes.append(_unknown_flag(key, options))
        elif option.is_switch:
            is_on = words[0].lower() in _TRUE
            args.extend([f"--{key}" if is_on else f"--no-{key}"] if is_on != option.default else [])
        else:
            args.extend([f"--{key}", *(_split(words) if _element(option.kind) else words)])
    scan.mistakes.extend(_refusals(options, scan.options))
    if not scan.mistakes:
        scan.mistakes.extend(_missing(cls, scan))
    _raise_mistakes(scan.mistakes, prog)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(cls, args=args, prog=prog, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_unboxed(errors.getvalue())}\n  '{prog} --help' lists the flags") from None


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
            scan.mistakes.append(f"--{key}: no value given; expected {expected(option.kind)}")
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
    if key.startswith(_KWARGS) and key.count(".") == 2 and key != _KWARGS:
        return _Option(Kind(Any, {}))
    found = find_field(key)
    is_section = found is None or section_of(found.annotation) is not None or re.fullmatch(r"stages(\.\d+)?", key)
    return None if found is None or is_section else _Option(kind_of_field(found))


def _options(cls: type[Any]) -> dict[str, _Option]:
    """Return the options of a dataclass by the name they are given by, words (positional fields) left out."""
    options = {}
    for entry, hint in _fields(cls):
        if not _is_word(hint):
            kind = kind_of(hint)
            kind = kind.alternatives[0] if len(kind.alternatives) == 1 else kind
            options[_option_name(entry, hint)] = _Option(kind, hint, entry.default, is_switch=kind.type is bool)
    return options


def _fields(cls: type[Any]) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return ((entry, hints[entry.name]) for entry in dataclasses.fields(cls))


def _is_word(hint: Any) -> bool:
    return any("Positional" in str(mark) for mark in getattr(hint, "__metadata__", ()))


def _option_name(entry: dataclasses.Field[Any], hint: Any) -> str:
    """Return how an option is spelt: as its field, or by `tyro.conf.arg(name=...)` where Python keeps the word."""
    names = [mark.name for mark in getattr(hint, "__metadata__", ()) if getattr(mark, "name", None)]
    return names[0] if names else entry.name


def _missing(cls: type[Any], scan: _Scan) -> Iterator[str]:
    """Yield the words and options without a default that were not given."""
    num_words = 0
    for entry, hint in _fields(cls):
        if entry.default is not dataclasses.MISSING or entry.default_factory is not dataclasses.MISSING:
            continue
        if _is_word(hint):
            num_words += 1
            metavars = [mark.metavar for mark in hint.__metadata__ if getattr(mark, "metavar", None)]
            if num_words > len(scan.words):
                yield f"{(metavars or [entry.name.upper()])[0]} is missing"
        elif (name := _option_name(entry, hint)) not in scan.options:
            yield f"{_dashed(name)} is missing"


def _refusals(options: Mapping[str, _Option], given: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield what is wrong with the words given for known options."""
    from pydantic import TypeAdapter, ValidationError

    for key, words in given.items():
        if (option := options.get(key)) is None:
            continue
        try:
            TypeAdapter(option.hint).validate_python(read_value(option.kind, words))
        except ValidationError:
            hint = did_you_mean(words[0], [word for member in option.kind.alternatives for word in member.choices])
            yield f"{_dashed(key)}: expected {expected(option.kind)}, got {' '.join(words)!r}{hint}"


def _dashed(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _unknown_flag(key: str, options: dict[str, _Option], with_recipe: bool = False) -> str:
    if hint := did_you_mean(key, [name.replace("_", "-") for name in options]):
        return f"unknown option '{_dashed(key)}'" + hint.replace("'", "'--", 1)
    if not with_recipe:
        return f"unknown option '{_dashed(key)}'"
    found = find_field(key)
    if found is not None:
        examples = [name for name, _ in keys_of(Recipe) if name.startswith(f"{key}.")]
        example = f"--{examples[1]} VALUE" if examples else "--stages.0.lr VALUE"
        return f"'--{key}' is a section of the recipe; name one of its keys, for example {example}"
    return f"unknown option '--{key}'" + suggest_key(key, lambda close: f"--{close}")


def _unexpected(word: str) -> str:
    key, equals, value = word.partition("=")
    if equals and _recipe_option(key):
        return f"unexpected '{word}' - did you mean '--{key} {value}'?"
    return f"unexpected '{word}'; one recipe at a time, and every setting needs its --section.key"


def _raise_mistakes(mistakes: Sequence[str], prog: str) -> None:
    if len(mistakes) == 1:
        raise UserError(f"{mistakes[0]}\n  '{prog} --help' lists the flags")
    if mistakes:
        lines = "\n".join(f"  {mistake}" for mistake in mistakes)
        raise UserError(f"{len(mistakes)} problems\n{lines}\n  '{prog} --help' lists the flags")


def _unboxed(text: str) -> str:
    """Return the message inside tyro's frame, without its repetition of the help."""
    lines = [line.strip("│ ").rstrip() for line in text.splitlines() if line.startswith("│")]
    message = itertools.takewhile(lambda line: not line.startswith("─"), lines)
    return " ".join(line for line in message if line) or text.strip()
