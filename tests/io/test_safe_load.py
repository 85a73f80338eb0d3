"""A file of an unknown author: nothing in it runs, and nothing is allocated that it does not hold."""

from __future__ import annotations

import argparse
import collections
import copy
import json
import pickle
import resource
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from fixres.errors import UserError
from fixres.io import pickle_scan, safe_load
from fixres.io.safe_load import open_safetensors, read_checkpoint
from fixres.io.tensors import read_weights
from tests.support.hostile_files import HUGE, MARKER, PLACES, Claim, Evil, Hidden, save


@pytest.fixture(autouse=True)
def _within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand in an empty folder, and let nothing allocate gigabytes unseen."""
    monkeypatch.chdir(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 * (1 if sys.platform != "darwin" else 1024) * 1024, f"allocated {grown} kB"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("bad", [Evil, Hidden])
def test_code_in_a_file_is_named_and_never_runs(place: str, legacy: bool, name: str, bad: Callable[[], Any]) -> None:
    path = save(PLACES[place](bad()), name, legacy=legacy)
    for reader in (read_checkpoint, read_weights):
        with pytest.raises(UserError, match=r"(posix|nt)\.system\n.*would run code.*\n.*\n.*--trust"):
            reader(path)
    assert not Path(MARKER).exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_trust_runs_it_after_a_warning_that_names_it(legacy: bool) -> None:
    path = save(PLACES["beside tensors"](Evil()), "w.safetensors", legacy=legacy)
    with pytest.warns(UserWarning, match=r"w\.safetensors: loading it RUNS CODE.*system"):
        content = read_checkpoint(path, trust=True)
    assert Path(MARKER).exists()
    assert torch.equal(content["conv.weight"], torch.zeros(3))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_settings_beside_the_weights_need_trust(legacy: bool) -> None:
    path = save({"state_dict": {"w": torch.ones(2)}, "args": argparse.Action([], "model")}, legacy=legacy)
    with pytest.raises(UserError, match=r"argparse\.Action"):
        read_checkpoint(path)
    with pytest.warns(UserWarning, match=r"argparse\.Action"):
        assert read_checkpoint(path, trust=True)["args"].dest == "model"


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_plain_data_passes_whole_and_trust_changes_nothing(legacy: bool) -> None:
    shared = torch.randn(4, 6)
    content = {
        "tensors": [shared, shared.t(), shared[1:, 2:], torch.empty(0, 3), torch.tensor(3.5), torch.zeros(5).bool()],
        "types": [torch.zeros(3, dtype=t) for t in (torch.bfloat16, torch.complex64, torch.int16, torch.float64)],
        "parameter": nn.Parameter(torch.ones(2)),
        "state": nn.BatchNorm2d(3).state_dict(),
        "values": {"size": torch.Size([1, 2]), "set": {1, 2}, "bytes": b"\x00\xff", "z": 1j, "big": 2**70, "no": None},
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "array": bytearray(b"ab"),
    }
    path = save(content, legacy=legacy)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for trust in (False, True):
            read = read_checkpoint(path, trust=trust)
            for ours, theirs in zip(
                read["tensors"] + read["types"], content["tensors"] + content["types"], strict=True
            ):
                assert ours.dtype == theirs.dtype
                assert ours.stride() == theirs.stride()
                assert torch.equal(ours, theirs)
            assert read["values"] == content["values"]
            assert isinstance(read["parameter"], nn.Parameter)
            assert read["state"].keys() == content["state"].keys()
            assert (read["dtype"], read["array"]) == (torch.float16, bytearray(b"ab"))


ALLOCATORS: dict[str, Any] = {
    "bytearray": Claim(bytearray, HUGE),
    "tensor type": Claim(torch.Tensor, HUGE),
    "float tensor": Claim(torch.FloatTensor, HUGE),
    "behind a call that is allowed": Claim(torch._tensor._rebuild_from_type_v2, bytearray, torch.Tensor, (HUGE,), {}),
    "meta tensor": torch.empty(HUGE, device="meta"),
    "sparse tensor": torch.sparse_coo_tensor(torch.zeros(1, 1), torch.ones(1), (HUGE,), check_invariants=True),
}


@pytest.mark.parametrize("what", ALLOCATORS)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_what_allocates_by_a_number_is_refused(what: str, legacy: bool) -> None:
    # How far torch's reader gets with it depends on the memory there is.
    says = {
        "bytearray": "of a number",
        "meta tensor": "not an ordinary array",
        "sparse tensor": "not an ordinary array",
    }
    says |= dict.fromkeys(("tensor type", "float tensor"), "no checkpoint|more than its file holds")
    with pytest.raises(UserError, match=says.get(what, "holds more than tensors and plain values")):
        read_checkpoint(save({"w": ALLOCATORS[what]}, legacy=legacy))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("called", [set, collections.Counter, torch.Size, collections.OrderedDict])
def test_what_goes_through_a_repeated_tensor_is_refused(called: Any, legacy: bool) -> None:
    repeated = torch.zeros(1, 2).expand(HUGE, 2)
    for content in (
        Claim(called, repeated),
        Claim(torch._tensor._rebuild_from_type_v2, called, called, (repeated,), {}),
    ):
        with pytest.raises(UserError, match=r"of an object|as a value"):
            read_checkpoint(save({"w": content}, legacy=legacy))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((HUGE,), (0,), 0), ((HUGE,), (1,), 0), ((2, 2), (HUGE, 1), 0), ((1,), (1,), HUGE), ((2,) * 65, (0,) * 65, 0)],
    ids=["repeated", "long", "strided", "shifted", "dimensions"],
)
def test_a_tensor_larger_than_its_storage_is_refused(
    size: tuple[int, ...], stride: tuple[int, ...], offset: int, legacy: bool
) -> None:
    class Beyond:
        def __reduce__(self) -> Any:
            four = torch.ones(4).untyped_storage()
            storage = torch.storage.TypedStorage(wrap_storage=four, dtype=torch.float32, _internal=True)
            return torch._utils._rebuild_tensor_v2, (storage, offset, size, stride, False, {})

    path = save({"w": Beyond()}, legacy=legacy)
    with pytest.raises(UserError, match=r"more than its file holds" if stride == (0,) else "no checkpoint|more than"):
        read_checkpoint(path)


def test_a_repeated_tensor_is_refused_under_trust_too() -> None:
    path = save({"args": argparse.Namespace(), "deep": [{"w": torch.zeros(1).expand(HUGE)}]})
    with pytest.raises(UserError, match="more than its file holds"):
        read_checkpoint(path, trust=True)
    with pytest.raises(UserError, match="'w' is 40,000,000,000 bytes spread over a storage of 4"):
        safe_load.check_tensors({"deep": [({"w": torch.zeros(1).expand(HUGE)},)]}, "FILE")


def test_containers_that_hold_themselves_are_walked_once() -> None:
    ring: list[Any] = [torch.zeros(2)]
    ring.append({"again": ring})
    many: Any = [torch.zeros(1)]
    for _ in range(60):
        many = [many, many, many]
    safe_load.check_tensors([ring, many], "FILE")
    assert read_checkpoint(save(ring))[1]["again"][0].shape == (2,)
    deep: Any = torch.zeros(1)
    for _ in range(200):
        deep = [deep]
    with pytest.raises(UserError, match="nested more than 100 deep"):
        read_checkpoint(save(deep))


def repack(source: Path, change: Callable[[zipfile.ZipFile, zipfile.ZipInfo, bytes], None]) -> Path:
    """Write the archive again, entry by entry, through `change`."""
    path = source.with_name("changed.pt")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about duplicate names
        for info in old.infolist():
            change(new, info, old.read(info))
    return path


def deflated(new: zipfile.ZipFile, info: zipfile.ZipInfo, content: bytes) -> None:
    bomb = info.filename.endswith("data/0")
    kind = zipfile.ZIP_DEFLATED if bomb else zipfile.ZIP_STORED
    new.writestr(info.filename, b"\0" * 2**24 if bomb else content, kind)


def doubled(new: zipfile.ZipFile, info: zipfile.ZipInfo, content: bytes) -> None:
    for _ in range(2 if info.filename.endswith("data.pkl") else 1):
        new.writestr(info.filename, content)


def outside(new: zipfile.ZipFile, info: zipfile.ZipInfo, content: bytes) -> None:
    new.writestr(info.filename.replace("data/0", "data/../../0"), content)


def shortened(new: zipfile.ZipFile, info: zipfile.ZipInfo, content: bytes) -> None:
    new.writestr(info.filename, content[:-4] if info.filename.endswith("data/0") else content)


def without_storage(new: zipfile.ZipFile, info: zipfile.ZipInfo, content: bytes) -> None:
    if not info.filename.endswith("data/0"):
        new.writestr(info.filename, content)


def program(new: zipfile.ZipFile, info: zipfile.ZipInfo, content: bytes) -> None:
    new.writestr(info.filename, content)
    if info.filename.endswith("data.pkl"):
        new.writestr(info.filename.replace("data.pkl", "constants.pkl"), content)


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (deflated, "is compressed"),
        (doubled, "comes twice"),
        (outside, "leaves the archive"),
        (shortened, "truncated or no checkpoint"),
        (without_storage, "truncated or no checkpoint"),
        (program, "TorchScript"),
    ],
)
def test_an_archive_that_torch_did_not_write_is_refused(change: Any, says: str, trust: bool) -> None:
    path = repack(save({"w": torch.arange(1000.0)}), change)
    with pytest.raises(UserError, match=says):
        read_checkpoint(path, trust=trust)


def test_entries_that_share_their_bytes_cannot_multiply_them() -> None:
    path = Path("w.pt")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data/0", bytes(4000))
        for number in range(1, 4):
            again = copy.copy(archive.filelist[0])
            again.filename = f"w/data/{number}"
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
    assert path.stat().st_size < 8000
    with pytest.raises(UserError, match="its entries claim 16,000 bytes: more than its file holds"):
        read_checkpoint(path)


def test_an_archive_repacked_as_it_was_passes() -> None:
    path = repack(save({"w": torch.arange(1000.0)}), lambda new, info, content: new.writestr(info.filename, content))
    assert torch.equal(read_checkpoint(path)["w"], torch.arange(1000.0))


def test_a_zip_of_other_things_is_no_checkpoint() -> None:
    with zipfile.ZipFile("w.pt", "w") as archive:
        archive.writestr("photos/cat.jpg", b"x")
    with pytest.raises(UserError, match=r"no checkpoint \(it holds photos/cat\.jpg\)"):
        read_checkpoint(Path("w.pt"))


@pytest.mark.parametrize("trust", [False, True])
def test_a_legacy_file_that_claims_more_than_it_holds_is_refused(trust: bool) -> None:
    path = save({"w": torch.zeros(1003)}, legacy=True)
    content = path.read_bytes()
    count = b"M" + struct.pack("<H", 1003)  # BININT2, once in the storage and once in the shape
    assert content.count(count) == 2
    path.write_bytes(content.replace(count, b"J" + struct.pack("<i", 2**31 - 1)))
    with pytest.raises(UserError, match="truncated or no checkpoint"):
        read_checkpoint(path, trust=trust)


def test_a_legacy_file_without_its_storages_shows_no_uninitialised_memory() -> None:
    path = save({"w": torch.zeros(5)}, legacy=True)
    content = path.read_bytes()
    at = content.rindex(b"\x80\x02]q\x00")
    path.write_bytes(content[:at] + b"\x80\x02]q\x00." + b"\0" * 400)
    with pytest.raises(UserError, match="its tensors take 20 bytes: more than its file holds"):
        read_checkpoint(path)


class WithViews(pickle.Pickler):
    """Writes a tensor of 10 numbers whose storage is a view, as PyTorch before 0.4 did."""

    def __init__(self, file: Any, view: tuple[str, int, int]) -> None:
        super().__init__(file, 2)
        self.view = view

    def persistent_id(self, value: Any) -> Any:
        return ("storage", torch.FloatStorage, "1", "cpu", 10, self.view) if value is Ellipsis else None


@pytest.mark.parametrize(
    ("view", "size", "says"),
    [
        (("2", 4, 6), 6, None),
        (("2", 4, 7), 6, None),
        (("2", -1, 6), 6, "truncated or no checkpoint"),
        (("2", 4, 6), 7, "truncated or no checkpoint"),
    ],
)
def test_views_of_old_files_stay_within_their_storage(view: tuple[str, int, int], size: int, says: str | None) -> None:
    path = save({}, legacy=True)
    start = path.read_bytes()[: -len(pickle.dumps({}, 2) + pickle.dumps([], 2))]
    with path.open("wb") as file:
        file.write(start)
        claim = Claim(torch._utils._rebuild_tensor_v2, ..., 0, (size,), (1,), False, collections.OrderedDict())
        WithViews(file, view).dump({"w": claim})
        pickle.dump(["1"], file, 2)
        file.write(struct.pack("<q10f", 10, *range(10)))
    if says is None:
        assert read_checkpoint(path)["w"].tolist() == [4, 5, 6, 7, 8, 9]
    else:
        with pytest.raises(UserError, match=says):
            read_checkpoint(path)


class StateOf:
    """A pickle that makes an object of a harmless kind and then sets its state."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], state: Any) -> None:
        self.parts = (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.parts


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_the_state_of_a_tensor_cannot_be_set(legacy: bool) -> None:
    tensor = torch.ones(2)
    arguments = (tensor.untyped_storage(), 0, (2,), (1,), False, collections.OrderedDict(), torch.float32)
    bad = StateOf(torch._utils._rebuild_tensor_v3, arguments, (tensor.untyped_storage(), 0, (10,), (1,)))
    with pytest.raises(UserError, match=r"truncated or no checkpoint|more than its file holds"):
        read_checkpoint(save({"w": bad}, legacy=legacy))


def test_torch_itself_is_always_asked_for_plain_data(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: (asked.append(k["weights_only"]), load(*a, **k))[1])
    path = save({"w": torch.ones(1)})
    read_checkpoint(path)
    read_checkpoint(path, trust=True)
    with pytest.raises(UserError):
        read_checkpoint(save({"w": Evil()}))
    assert asked == [True, True]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("trust", [False, True])
def test_a_bare_pickle_is_never_loaded(protocol: int, trust: bool) -> None:
    path = Path("w.pt")
    path.write_bytes(pickle.dumps({"w": Evil()}, protocol))
    with pytest.raises(UserError, match=r"bare pickle.*system" if protocol > 1 else "no checkpoint|text"):
        read_checkpoint(path, trust=trust)
    assert not Path(MARKER).exists()


def test_a_newer_pickle_protocol_needs_trust() -> None:
    torch.save({"w": torch.ones(2)}, "w.pt", pickle_protocol=4)
    with pytest.raises(UserError, match="kind of pickle"):
        read_checkpoint(Path("w.pt"))
    with pytest.warns(UserWarning, match="RUNS CODE"):
        assert torch.equal(read_checkpoint(Path("w.pt"), trust=True)["w"], torch.ones(2))


def test_trusted_code_that_is_not_installed_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("their_package")
    module.Config = type("Config", (), {"__module__": "their_package"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_package", module)
    path = save({"config": module.Config()})
    monkeypatch.delitem(sys.modules, "their_package")
    with pytest.raises(UserError, match=r"their_package\.Config"):
        read_checkpoint(path)
    with pytest.warns(UserWarning, match="Config"), pytest.raises(UserError, match="No module named 'their_package'"):
        read_checkpoint(path, trust=True)


def safetensors_file(header: dict[str, Any] | bytes, data: bytes = b"\0" * 16, length: int | None = None) -> Path:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = Path("w.safetensors").absolute()
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + data)
    return path


GOOD = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    ("header", "length", "says"),
    [
        ({"w": GOOD}, 2**40, "its header claims"),
        ({"w": GOOD}, 2**63 + 1, "its header claims"),
        ({"w": {**GOOD, "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}, None, "'w' ends after the file"),
        ({"w": {**GOOD, "data_offsets": [-4, 12]}}, None, "'w' ends after the file"),
        ({"w": {**GOOD, "shape": [HUGE]}}, None, "truncated or no checkpoint"),
        ({"w": {**GOOD, "data_offsets": ["a", None]}}, None, "truncated or no checkpoint"),
        ({"w": 3}, None, "'w' ends after the file"),
        (b'{"w":' * 5000 + b"1" + b"}" * 5000, None, "nested too deep"),
        ({str(i): GOOD for i in range(3)}, None, "truncated or no checkpoint"),
    ],
)
def test_a_safetensors_header_that_lies_is_refused(header: Any, length: int | None, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_checkpoint(safetensors_file(header, length=length))


def test_a_long_safetensors_header_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    header = json.dumps({f"w{i}": GOOD for i in range(200_000)}).encode()
    path = safetensors_file(header)
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("it is read"))
    says = rf"its header is {len(header):,} bytes, more than 10,000,000: no network needs as many"
    for reader in (read_checkpoint, read_weights, open_safetensors):
        with pytest.raises(UserError, match=says):
            reader(path)


def test_a_mapped_safetensors_file_is_checked_as_one_that_is_read() -> None:
    save_file({"w": torch.ones(3)}, "w.safetensors")
    with open_safetensors(Path("w.safetensors")) as file:
        assert file.get_tensor("w").tolist() == [1, 1, 1]
    with pytest.raises(UserError, match="'w' ends after the file"):
        open_safetensors(safetensors_file({"w": {**GOOD, "data_offsets": [0, 4 * HUGE]}}))


def test_counts_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {f"w{i}": torch.zeros(1) for i in range(6)}
    save_file(state, "w.safetensors")
    path = save(state)
    with monkeypatch.context() as patched:
        patched.setattr(safe_load, "MAX_ENTRIES", 5)
        for file, says in ((path, r"entries, more than 5"), (Path("w.safetensors"), "6 tensors, more than 5")):
            with pytest.raises(UserError, match=says):
                read_checkpoint(file)
    monkeypatch.setattr(safe_load, "MAX_PICKLE", 100)
    with pytest.raises(UserError, match=r"its pickle is .* more than 100"):
        read_checkpoint(path)
    monkeypatch.setattr(pickle_scan, "MAX_OPCODES", 50)
    with pytest.raises(UserError, match="more than 50 operations"):
        read_checkpoint(save(state, legacy=True))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", "Git LFS pointer"),
        (b"\n <!DOCTYPE html><html><body>404</body></html>", "HTML page: the download failed"),
        (b"AccessDenied: you may not\n", "looks like text, not a checkpoint: 'AccessDenied"),
        (b"\x1f\x8b\x08\x00rest", "gzip"),
        (b"\x93NUMPY\x01\x00", "NumPy array"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "no checkpoint"),
        (b"a/storages".ljust(257, b"\0") + b"ustar\x00", "tar archive"),
    ],
)
def test_other_files_are_told_for_what_they_look_like(content: bytes, says: str) -> None:
    Path("w.pt").write_bytes(content)
    for trust in (False, True):
        with pytest.raises(UserError, match=says):
            read_checkpoint(Path("w.pt"), trust=trust)


def test_a_missing_file_is_said() -> None:
    with pytest.raises(UserError, match="no such file: nowhere"):
        read_checkpoint(Path("nowhere"))


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_anywhere_is_one_message_and_never_loaded_by_force(kind: str) -> None:
    state = {"a": torch.randn(40), "b": torch.randn(3, 5)}
    path = Path("w.pt").absolute()
    if kind == "safetensors":
        save_file(state, path)
    else:
        save(state, legacy=kind == "legacy")
    whole = path.read_bytes()
    cuts = {*range(0, len(whole) - 1, 13), *range(1, 40), *range(len(whole) - 40, len(whole) - 1)}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for cut in sorted(cuts):
            path.write_bytes(whole[:cut])
            with pytest.raises(UserError, match="cannot read"):
                read_checkpoint(path, trust=True)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_bytes_give_data_or_a_message(kind: str, changes: list[tuple[float, int]]) -> None:
    state = {"a": torch.arange(9.0), "b": {"c": [torch.ones(2, 2)], "d": "text"}}
    path = Path("w.pt").absolute()
    if kind == "safetensors":
        save_file({"a": torch.arange(9.0)}, path)
    else:
        save(state, legacy=kind == "legacy")
    damaged = bytearray(path.read_bytes())
    # The pickle or header comes first and decides the most.
    reach = min(len(damaged), 500)
    for place, byte in changes:
        damaged[int(place * (reach - 1))] = byte
    path.write_bytes(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            content = read_checkpoint(path)
        except UserError:
            return
    safe_load.check_tensors(content, "what was read")
