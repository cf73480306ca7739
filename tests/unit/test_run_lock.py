"""Two runs in one folder: the second is refused, and what a killed one left is taken. A full memory names the cure."""

from __future__ import annotations

import errno
import importlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
from dataclasses import replace

import ownmodel
import pytest
import torch

from facexai import evaluate, images
from facexai.evaluate import _lock, manifest
from facexai.evaluate._lock import locked
from facexai.evaluate.engine import run_number

running = importlib.import_module("facexai.evaluate.run")


def write(folder, *, host=None, pid=1, age=0.0, text=None, rank=0, run="theirs"):
    file = folder / f"lock-{rank}.json"
    content = {"host": platform.node() if host is None else host, "pid": pid, "run": run}
    file.write_text(json.dumps(content) if text is None else text)
    os.utime(file, (time.time() - age,) * 2)
    return file


def taken(folder, rank=0):
    with locked(folder, rank, "ours"):
        written = json.loads((folder / f"lock-{rank}.json").read_text())
        return written == {"host": platform.node(), "pid": os.getpid(), "run": "ours"}


def test_a_lock_goes_with_its_run(tmp_path):
    assert taken(tmp_path)
    with pytest.raises(ZeroDivisionError), locked(tmp_path, 0):
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path, 0), locked(tmp_path, 1):  # ranks of one run
        assert len(list(tmp_path.iterdir())) == 2


def test_a_run_in_another_thread_is_refused(tmp_path):
    refused = []

    def second():
        try:
            with locked(tmp_path, 0):
                pass
        except ValueError as error:
            refused.append(str(error))

    with locked(tmp_path, 0):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "another run (in this process) is at work in" in refused[0]
    assert "delete lock-0.json" in refused[0]


def test_a_process_that_lives_is_respected_and_one_that_ended_is_not(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    write(tmp_path, pid=other.pid)
    with pytest.raises(ValueError, match=rf"another run \(process {other.pid}\) is at work"):
        taken(tmp_path)
    other.communicate(b"\n")
    assert taken(tmp_path)
    write(tmp_path, pid=os.getpid())  # of a process that had this number before
    assert taken(tmp_path)


def test_another_machine_is_given_up_after_some_minutes(tmp_path):
    write(tmp_path, host="elsewhere", pid=7, age=300)
    with pytest.raises(ValueError, match=r"process 7 on elsewhere"):
        taken(tmp_path)
    write(tmp_path, host="elsewhere", pid=7, age=700)
    assert taken(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": "a"}'])
def test_a_lock_that_was_cut_off(tmp_path, text):
    write(tmp_path, text=text)
    with pytest.raises(ValueError, match="which has only begun"):
        taken(tmp_path)
    write(tmp_path, text=text, age=60)
    assert taken(tmp_path)


def test_ranks_of_one_run_know_each_other_and_those_of_another_run_are_refused(tmp_path):
    write(tmp_path, host="elsewhere", rank=1, run="ours")
    assert taken(tmp_path)
    write(tmp_path, host="elsewhere", rank=1, run="theirs")
    with pytest.raises(ValueError, match=r"process 1 on elsewhere.*delete lock-1\.json"):
        taken(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock-1.json"]  # the refused one leaves nothing
    write(tmp_path, host="elsewhere", rank=1, run="theirs", age=700)
    assert taken(tmp_path)
    assert list(tmp_path.iterdir()) == []  # of a run that was killed nothing is left


def test_a_rank_that_is_writing_its_lock_is_waited_for(tmp_path):
    write(tmp_path, rank=1, text="")
    finished = threading.Timer(0.3, lambda: write(tmp_path, host="elsewhere", rank=1, run="ours"))
    finished.start()
    assert taken(tmp_path)
    finished.join()


def test_of_two_runs_that_find_a_stale_lock_the_second_finds_the_first(tmp_path, monkeypatch):
    file, replace = write(tmp_path, host="elsewhere", pid=7, age=700), os.replace

    def beaten(source, target):
        monkeypatch.undo()
        write(tmp_path, host="elsewhere", pid=8)  # another run was quicker
        replace(source, target)

    monkeypatch.setattr("os.replace", beaten)
    with pytest.raises(ValueError, match="process 8 on elsewhere"):
        taken(tmp_path)
    assert json.loads(file.read_text())["pid"] == 8
    assert [path.name for path in tmp_path.iterdir()] == ["lock-0.json"]


def test_a_full_disk_leaves_no_half_lock(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("facexai.evaluate._lock.json.dumps", full)
    with pytest.raises(OSError, match=r"cannot write into .*No space left on device.*choose another folder"):
        taken(tmp_path)
    assert list(tmp_path.iterdir()) == []


RANKS = {"MASTER_ADDR": "a", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"}


def test_ranks_have_one_number_and_two_processes_have_two(monkeypatch):
    for name, value in RANKS.items():
        monkeypatch.setenv(name, value)
    assert run_number(2) == run_number(2) != run_number(1) != run_number(1)
    first = run_number(2)
    monkeypatch.setenv("MASTER_PORT", "2")
    assert run_number(2) != first


def test_two_runs_that_begin_together_do_not_mix(tmp_path, monkeypatch):
    """The manifest is written by the run that has the folder."""
    root, out, model = data(tmp_path), tmp_path / "out", ownmodel.make_small()

    def second(*_, **__):
        with pytest.raises(ValueError, match="is at work in"):
            evaluate.run(replace(CONFIG, seed=3), out, model=model, base=root)
        assert not (out / "manifest.json").exists()
        monkeypatch.undo()
        return manifest.claim(*_, **__)

    monkeypatch.setattr(running, "claim", second)
    evaluate.run(CONFIG, out, model=model, base=root)
    assert json.loads((out / "manifest.json").read_text())["config seed"] == 0


def test_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(_lock, "_BEAT", 0.01)
    with locked(tmp_path, 0):
        file = tmp_path / "lock-0.json"
        os.utime(file, (1, 1))
        end = time.monotonic() + 20
        while file.stat().st_mtime < 2:
            assert time.monotonic() < end
            time.sleep(0.01)


CONFIG = evaluate.Config("faces", explainers=("cam",), metrics=("narrowness",), enrol=1, scale=9.0)


def data(folder):
    for k in range(4):
        (folder / "faces" / f"p{k % 2}").mkdir(parents=True, exist_ok=True)
        images.save(torch.rand(3, 20, 20), folder / "faces" / f"p{k % 2}" / f"{k}.png")
    return folder


def test_a_run_refuses_a_folder_that_is_worked_in(tmp_path):
    root, model, out = data(tmp_path), ownmodel.make_small(), tmp_path / "out"
    evaluate.run(CONFIG, out, model=model, base=root)
    names = sorted(path.name for path in out.iterdir())
    assert not [name for name in names if name.startswith("lock")]
    for rank in (0, 1):
        with locked(out, rank), pytest.raises(ValueError, match="is at work in"):
            evaluate.run(CONFIG, out, model=model, base=root)
    evaluate.run(CONFIG, out, model=model, base=root)


ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
]


@pytest.mark.parametrize("error", ERRORS, ids=["python", "cuda", "cpu"])
@pytest.mark.parametrize("where", ["facexai.evaluate.context.RunContext.face", "facexai.models.FaceModel.embed"])
def test_a_full_memory_names_the_cure(tmp_path, monkeypatch, where, error):
    root, out, model = data(tmp_path), tmp_path / "out", ownmodel.make_small()

    def full(*_, **__):
        raise error

    work = running.opened_work(CONFIG, root, out, model, None)
    monkeypatch.setattr(running, "opened_work", lambda *_: work)
    monkeypatch.setattr(running, "check", lambda *_: None)
    monkeypatch.setattr(where, full)
    cure = r"out of memory \(.*\); what is committed stays: .*fewer readers \(now 3\) .*smaller micro_batch \(now 16\)"
    with pytest.raises(MemoryError, match=cure) as raised:
        evaluate.run(CONFIG, out, model=model, base=root, readers=3)
    assert "\n" not in str(raised.value)
    monkeypatch.undo()
    assert len(evaluate.run(CONFIG, out, model=model, base=root)) == 2


def test_other_errors_of_the_network_stay_as_they_are(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    root, model = data(tmp_path), ownmodel.make_small()
    work = running.opened_work(CONFIG, root, tmp_path / "out", model, None)
    monkeypatch.setattr(running, "opened_work", lambda *_: work)
    monkeypatch.setattr(running, "check", lambda *_: None)
    monkeypatch.setattr("facexai.models.FaceModel.embed", broken)
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2"):
        evaluate.run(CONFIG, tmp_path / "out", model=model, base=root)
