"""What do many calls leave behind, and does a fault anywhere leave the network as it was?"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from common import arguments, report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from everything import calls, keeping, network
from faults import BACKWARD, fail_everywhere
from leftovers import growth

from facexai import FaceXAIWarning


def row(name: str, found: Any, faults: int, seconds: float) -> dict[str, Any]:
    return {
        "what": name,
        "calls": found.calls,
        "MiB": round(found.resident, 2),
        "objects": found.objects,
        "tensors": found.tensors,
        "hooks": found.hooks,
        "open files": found.files,
        "threads": found.threads,
        "temporary files": found.temporary,
        "faults injected": faults,
        "clean": found.clean,
        "s": round(seconds, 1),
    }


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], faces=False)
    parser.add_argument("--calls", type=int, default=1000, help="of everything")
    parser.add_argument("--seconds", type=float, default=30.0, help="after which slow calls may stop at 100")
    parser.add_argument("--faults", type=int, default=40, help="at most, of each call; 0: none")
    parser.add_argument("--only", help="calls whose name has this in it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", FaceXAIWarning)
    net, rows = network(), []
    with tempfile.TemporaryDirectory() as folder:
        tasks = calls(net) | keeping(net, Path(folder))
        for name, call in tasks.items():
            if options.only and options.only not in name:
                continue
            start, faults = time.perf_counter(), 0
            call()
            each = time.perf_counter() - start
            count = max(min(options.calls, 100), min(options.calls, int(options.seconds / each)))
            found = growth(call, net, count, Path(folder))
            if options.faults and name in calls(net):
                faults = fail_everywhere(name, most=options.faults)
                if name in BACKWARD:
                    faults += fail_everywhere(name, most=options.faults, backward=True)
            rows.append(row(name, found, faults, time.perf_counter() - start))
            print(rows[-1], flush=True)
    clean, faults = all(r["clean"] for r in rows), sum(r["faults injected"] for r in rows)
    grown, counts = max(r["MiB"] for r in rows), [r["calls"] for r in rows]
    times = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    sentences = [
        f"{len(rows)} calls of the library on one small network, each {times} times after a tenth of that to warm up, "
        f"{sum(counts)} in all: "
        + ("nothing was left behind" if clean else "something was left behind")
        + f"; the process grew by at most {grown:.1f} MiB during any of them.",
        f"{faults} faults (RuntimeError, KeyboardInterrupt, MemoryError, OutOfMemoryError) at calls of modules and in "
        f"backward passes, at most {options.faults} of a kind for each call: every time the network was as before, and "
        "the next call was right.",
    ]
    report(options, rows, sentences=sentences)


if __name__ == "__main__":
    main()
