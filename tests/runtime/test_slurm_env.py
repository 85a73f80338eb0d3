"""Tasks of srun become ranks; shells that only look like tasks do not."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.cli import main
from fixres.errors import UserError
from fixres.runtime.slurm_env import adopt_slurm, first_host

# As a step of two nodes with two tasks each had them, under Slurm 22.05; this is the third task.
STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "n[1-3]",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_STEP_ID": "1",
    "SLURM_STEP_NODELIST": "n[2-3]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_TASKS_PER_NODE": "2(x3)",
}


def test_a_task_becomes_a_rank() -> None:
    environment = dict(STEP)
    assert adopt_slurm(environment)
    added = {name: value for name, value in environment.items() if name not in STEP}
    assert added == {
        "RANK": "2",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "n2",
        "MASTER_PORT": "24712",
    }


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"SLURM_STEP_ID": None, "SLURM_STEP_NUM_TASKS": None}, id="the shell of sbatch or salloc"),
        pytest.param({"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"}, id="an interactive step"),
        pytest.param({"RANK": "0"}, id="torchrun inside srun"),
        pytest.param({"OMPI_COMM_WORLD_RANK": "0"}, id="mpirun, whose helpers are tasks"),
    ],
)
def test_what_is_no_task_stays_alone(changed: dict[str, str | None]) -> None:
    environment = {name: value for name, value in {**STEP, **changed}.items() if value is not None}
    before = dict(environment)
    assert not adopt_slurm(environment)
    assert environment == before


def test_an_address_and_a_port_that_were_chosen_are_kept() -> None:
    environment = {**STEP, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "5000"}
    adopt_slurm(environment)
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("10.0.0.1", "5000")


def test_one_machine_needs_no_host_names() -> None:
    environment = {**STEP, "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_NODEID": "0", "SLURM_LOCALID": "2"}
    adopt_slurm(environment)
    assert environment["MASTER_ADDR"] == "127.0.0.1"
    assert (environment["LOCAL_RANK"], environment["LOCAL_WORLD_SIZE"]) == ("2", "4")


def test_nodes_with_different_numbers_of_tasks() -> None:
    found = []
    for node in range(4):
        environment = {**STEP, "SLURM_STEP_NUM_TASKS": "9", "SLURM_STEP_TASKS_PER_NODE": "3,2(x2),1"}
        environment["SLURM_NODEID"] = str(node)
        adopt_slurm(environment)
        found.append(environment["LOCAL_WORLD_SIZE"])
    assert found == ["3", "2", "2", "1"]


@given(st.integers(1, 2**31 - 1), st.integers(0, 2**16))
def test_the_port_is_the_steps_and_no_ephemeral_one(job: int, step: int) -> None:
    ports = set()
    for rank in range(2):
        environment = {**STEP, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step), "SLURM_PROCID": str(rank)}
        adopt_slurm(environment)
        ports.add(int(environment["MASTER_PORT"]))
    assert len(ports) == 1
    assert 1024 < ports.pop() < 32768


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"SLURM_PROCID": "4"}, "task 4 of 4"),
        ({"SLURM_NODEID": "2"}, "node 2 of 2"),
        ({"SLURM_PROCID": "two"}, "SLURM_PROCID is 'two'"),
        ({"SLURM_LOCALID": ""}, "SLURM_LOCALID is missing"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x)"}, r"SLURM_STEP_TASKS_PER_NODE is '2\(x\)'"),
        ({"SLURM_STEP_NODELIST": "n[3-1]"}, r"'n\[3-1\]' is no list of hosts"),
    ],
)
def test_variables_that_make_no_sense_are_named(changed: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        adopt_slurm({**STEP, **changed})


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("login", "login"),
        ("n[01-03,7]", "n01"),
        ("n[09-11]", "n09"),
        ("a1,n[1-2]-ib,b.example", "a1"),
        ("n[1-2]-ib,b.example", "n1-ib"),
        ("r[1-2]n[3-4]", "r1n3"),
    ],
)
def test_lists_of_hosts(text: str, host: str) -> None:
    assert first_host(text) == host


@given(st.lists(st.integers(0, 9999), min_size=1, max_size=8), st.integers(1, 5))
def test_any_numbers_come_back(numbers: list[int], width: int) -> None:
    names = [str(number).zfill(width) for number in numbers]
    assert first_host(f"gpu-[{','.join(names)}]") == f"gpu-{names[0]}"
    assert first_host(",".join(f"gpu-{name}" for name in names)) == f"gpu-{names[0]}"


@pytest.mark.parametrize("text", ["", "n[1-", "n]1[", "n[a-b]", "n[]", "n[3-1]", "a b", "n[1-2"])
def test_no_list_of_hosts(text: str) -> None:
    with pytest.raises(UserError, match=r"no list of hosts; expected names like n\[01-03,7\],login"):
        first_host(text)


@pytest.mark.parametrize(("command", "is_adopted"), [("train", True), ("fix", True), ("eval", True), ("slurm", False)])
def test_commands_that_run_on_several_processes_adopt_them(
    command: str, is_adopted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(STEP))
    adopted = []
    monkeypatch.setattr(main, "adopt_slurm", lambda: adopted.append(command))
    with pytest.raises(SystemExit):
        main._dispatch([command, "--help"])
    assert bool(adopted) is is_adopted
