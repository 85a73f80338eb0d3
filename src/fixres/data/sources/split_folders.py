"""Which folders of a tree are splits, by their names and by what lies in them, and which only look so."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fixres.errors import UserError
from fixres.io.folder_walk import entries, is_folder, is_hidden

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MISNAMED = frozenset(
    {
        "training",
        "trainset",
        "testing",
        "tests",
        "testset",
        "dev",
        "eval",
        "evaluation",
        "valset",
        "traindata",
        "testdata",
        "valdata",
    }
)
_WORD = re.compile("|".join(sorted({*_SPLITS, *_MISNAMED}, key=len, reverse=True)))
_ORDER = ("train", "val", "test")
_NAMED = 6


@dataclass
class Recognised:
    """What the folders of a tree were taken for."""

    folders: dict[str, str] = field(default_factory=dict)
    """Split name -> folder name, in the order of `_ORDER`; empty for a tree of classes."""
    notes: list[str] = field(default_factory=list)
    faults: list[UserError] = field(default_factory=list)


def folders_in(folder: Path) -> set[str]:
    """Return the names of the folders in a folder, without hidden ones and those of systems."""
    return {entry.name for entry in entries(folder) if not is_hidden(entry.name) and is_folder(entry)}


def recognise(root: Path) -> Recognised:
    """Return which folders of `root` are splits.

    They are where they are called train, val, valid, validation or test and hold folders; or where what their names
    have in front of such a word, or behind it, is the same, and they hold folders of which some have the same names.
    """
    inside = {name: folders_in(root / name) for name in sorted(folders_in(root)) if _readings(name)}
    plain = {name: name.lower() for name in inside if name.lower() in _SPLITS and inside[name]}
    if plain:
        return _with_misnamed(root, _splits(root, plain), inside)
    misnamed = [name for name in inside if name.lower() in _MISNAMED]
    if any(inside[name] for name in misnamed):
        told = f"{root} holds {', '.join(misnamed)}, which looks like a split and not like a class\n"
        return Recognised(faults=[UserError(told + "  rename the folders to train, val and test")])
    alike = [names for names in _alike(inside).values() if len({word.lower() for word in names.values()}) > 1]
    found = [members for names in alike if (members := _overlapping(names, inside))]
    if len(found) > 1:
        told = " and ".join(", ".join(members) for members in found)
        several = f"{root} holds more than one set of splits: {told}\n  move all but one away"
        return Recognised(faults=[UserError(several)])
    if found:
        result = _with_misnamed(root, _splits(root, found[0]), inside)
        told = ", ".join(f"{split} in {name}" for split, name in result.folders.items())
        result.notes.append(f"splits recognised by their names: {told}")
        return result
    result = Recognised()
    words = {name: _readings(name)[0][1] for name in inside}
    if not alike and set(inside) == folders_in(root) and _overlapping(words, inside):
        told = (
            f"{' and '.join(inside)} of {root} look like splits and not like classes, but their names have no stem in "
        )
        told += "common\n  rename the folders to train, val and test"
        return Recognised(faults=[UserError(told)])
    for names in alike:
        _say_of_classes(root, names, inside, result)
    return result


def one_level_down(root: Path, within: Sequence[str] = ()) -> str:
    """Return what to say where the classes or splits of a tree lie in its only folder with any; empty elsewhere.

    `within` are the folders with pictures, where that is known.
    """
    if not within and (deeper := _deeper(root, list(recognise(root).folders.values()))):
        return _all_deeper(root, deeper)
    names = list(within) or sorted(folders_in(root))
    if len(names) != 1:
        return ""
    below = root / names[0]
    splits, folders = recognise(below).folders, sorted(folders_in(below))
    if not splits and len(folders) < 2:
        return ""
    what = f"splits ({', '.join(splits)})" if splits else f"classes ({_some(folders)})"
    return f"the {what} lie one level down, in {names[0]}: give {below}"


def splits_in_classes(first_and_last: Mapping[str, tuple[str, str]], root: Path) -> Recognised:
    """Return what to say of a tree in which every class holds splits; `first_and_last` are pictures of each class."""
    result, depth = Recognised(), 0
    for pair in first_and_last.values():
        below = [path.split("/")[1:] for path in pair]
        if not all(len(parts) > 1 and parts[0].lower() in _SPLITS for parts in below):
            return result
        depth = max(depth, *map(len, below))
    names = list(first_and_last)
    if not names:
        return result
    if depth > 2:
        told = f"the splits of {root} lie one level down, in {_some(names)}\n  give one of them: {root / names[0]}"
        result.faults.append(UserError(told))
    else:
        told = f"the folders called as splits inside the classes {_some(names)} are not told apart"
        result.notes.append(f"{told}: splits lie above the classes, train/{names[0]}")
    return result


def _readings(name: str) -> list[tuple[str, str, str]]:
    """Return (before, word, behind) for every word in a name that can name a split."""
    found = []
    for match in _WORD.finditer(name.lower()):
        before, word, behind = name[: match.start()], name[match.start() : match.end()], name[match.end() :]
        # A word of its own: "contest" holds no test, "imagesTrain" and "train2017" do name one.
        starts = not before[-1:].isalpha() or (before[-1].islower() and word[0].isupper())
        ends = not behind[:1].isalpha() or (word[-1].islower() and behind[0].isupper())
        if starts and ends:
            found.append((before, word, behind))
    return found


def _alike(names: Mapping[str, object]) -> dict[tuple[str, str], dict[str, str]]:
    """Return, by what is before and behind the word, folder name -> word."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for name in names:
        for before, word, behind in _readings(name):
            groups.setdefault((before.lower(), behind.lower()), {})[name] = word
    return groups


def _overlapping(names: Mapping[str, str], inside: Mapping[str, set[str]]) -> dict[str, str]:
    """Return those of the folders that hold class folders by names they share; empty where these are no two splits."""
    able = {name: word.lower() for name, word in names.items() if word.lower() in _SPLITS and inside[name]}
    if not able:
        return {}
    first = min(able, key=lambda name: (_ORDER.index(_SPLITS[able[name]]), -len(inside[name])))
    shared = {name: word for name, word in able.items() if _forms(inside[name]) & _forms(inside[first])}
    return shared if len({_SPLITS[word] for word in shared.values()}) > 1 else {}


def _forms(names: set[str]) -> set[str]:
    return {unicodedata.normalize("NFC", name) for name in names}


def _splits(root: Path, words: Mapping[str, str]) -> Recognised:
    """Return the splits that folders are, by folder name -> word."""
    result = Recognised()
    folders: dict[str, str] = {}
    for name, word in words.items():
        split = _SPLITS[word]
        if split in folders:
            told = f"{root} holds both {folders[split]} and {name}; only one may be the split '{split}'"
            result.faults.append(UserError(f"{told}\n  move the other one away"))
        else:
            folders[split] = name
    result.folders = {split: folders[split] for split in _ORDER if split in folders}
    deeper = _deeper(root, list(result.folders.values()))
    # A split of one class may be all that is measured; a class is not called as a split, nor else in every split.
    if deeper and (any(map(_readings, deeper.values())) or 1 < len(deeper) == len(set(deeper.values()))):
        result.faults.insert(0, UserError(_all_deeper(root, deeper)))
    return result


def _with_misnamed(root: Path, result: Recognised, inside: Mapping[str, set[str]]) -> Recognised:
    """Refuse splits without train where another folder with the same classes looks like it."""
    if "train" in result.folders:
        return result
    shared = set().union(*(_forms(inside[name]) for name in result.folders.values()))
    for name in inside:
        words = {word.lower() for _, word, _ in _readings(name)}
        if name not in result.folders.values() and words & _MISNAMED and _forms(inside[name]) & shared:
            told = f"{root} holds {', '.join(result.folders.values())} and {name}, which looks like a split as well\n"
            result.faults.append(UserError(f"{told}  rename it: splits are called {', '.join(_SPLITS)}"))
    return result


def _deeper(root: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the only folder of each of the folders, where there is one in each and folders in it; else nothing."""
    lower = {name: sorted(folders_in(root / name)) for name in names}
    is_so = all(len(below) == 1 and folders_in(root / name / below[0]) for name, below in lower.items())
    return {name: below[0] for name, below in lower.items()} if is_so else {}


def _all_deeper(root: Path, deeper: Mapping[str, str]) -> str:
    places = [f"{name}/{below}" for name, below in deeper.items()]
    return (
        f"the class folders of {root} lie one level down, in {', '.join(places)}\n"
        f"  move them up: {places[0].rpartition('/')[0]}/CLASS, not {places[0]}/CLASS"
    )


def _say_of_classes(root: Path, names: Mapping[str, str], inside: Mapping[str, set[str]], result: Recognised) -> None:
    """Refuse folders that look like splits and are not such, or say that they are taken for classes."""
    told, able = " and ".join(names), [name for name in names if inside[name]]
    is_all = set(names) == folders_in(root)
    deeper = _deeper(root, list(names)) if able else {}
    if deeper and (is_all or all(map(_readings, deeper.values()))):
        result.faults.append(UserError(_all_deeper(root, deeper)))
        return
    lacking = [name for name in names if not inside[name]]
    misnamed = [word.lower() for word in names.values() if word.lower() in _MISNAMED]
    why = f"{lacking[0]} holds no class folders" if lacking else "no class folder has the same name in both"
    if misnamed and not lacking:
        why = f"{misnamed[0]} is no word for a split here ({', '.join(_SPLITS)})"
    is_plain = all(name.lower() == word.lower() for name, word in names.items())
    if is_all and (able or is_plain):
        result.faults.append(
            UserError(
                f"{told} of {root} look like splits and not like classes, but {why}\n"
                "  splits are called train, val and test and hold one folder per class; rename them if they are classes"
            )
        )
    else:
        result.notes.append(f"{told} are taken for classes and not for splits: {why}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
