"""Two runs in one folder: the second is refused, and what a killed one left is taken."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time

import pytest

from facexai.evaluate import _lock
from facexai.evaluate._lock import locked


def write(folder, *, host=None, pid=1, age=0.0, text=None):
    file = folder / "lock-0.json"
    file.write_text(
        json.dumps({"host": platform.node() if host is None else host, "pid": pid}) if text is None else text
    )
    os.utime(file, (time.time() - age,) * 2)
    return file


def taken(folder, rank=0):
    with locked(folder, rank):
        written = json.loads((folder / f"lock-{rank}.json").read_text())
        return written == {"host": platform.node(), "pid": os.getpid()}


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


def test_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(_lock, "_BEAT", 0.01)
    with locked(tmp_path, 0):
        file = tmp_path / "lock-0.json"
        os.utime(file, (1, 1))
        end = time.monotonic() + 20
        while file.stat().st_mtime < 2:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_run_refuses_a_folder_that_is_worked_in(tmp_path):
    import ownmodel
    import torch

    from facexai import evaluate, images

    for k in range(4):
        (tmp_path / "faces" / f"p{k % 2}").mkdir(parents=True, exist_ok=True)
        images.save(torch.rand(3, 20, 20), tmp_path / "faces" / f"p{k % 2}" / f"{k}.png")
    config = evaluate.Config("faces", explainers=("cam",), metrics=("narrowness",), enrol=1, scale=9.0)
    model, out = ownmodel.make_small(), tmp_path / "out"
    evaluate.run(config, out, model=model, base=tmp_path)
    names = sorted(path.name for path in out.iterdir())
    assert not [name for name in names if name.startswith("lock")]
    with locked(out, 0), pytest.raises(ValueError, match="is at work in"):
        evaluate.run(config, out, model=model, base=tmp_path)
    evaluate.run(config, out, model=model, base=tmp_path)
