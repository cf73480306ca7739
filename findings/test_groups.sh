#!/usr/bin/env bash
# Expected: `pytest -n 2 --dist loadgroup` runs all tests marked xdist_group("gpu") in one process, as pytest-xdist documents.
# What happens: they are spread over both processes, without a warning. pytest-xdist 3.8.0 writes the group into Node._nodeid;
#   pytest 9.2.0 builds Node.nodeid from another attribute and never reads that one. With pytest 8.4.2 the groups hold.
# Seen: pytest 9.2.0 with pytest-xdist 3.8.0: processes ['gw0', 'gw1']; pytest 8.4.2: one process.
# Why it matters: suites of face models use groups to load a network, a GPU or a server once; it is loaded in every worker, and
#   tests that must not run at the same time do. `--dist loadfile` is not concerned.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tests"
cat > "$work/tests/test_group.py" <<'PYTHON'
import os
import pathlib

import pytest


@pytest.mark.xdist_group("gpu")
@pytest.mark.parametrize("i", range(8))
def test_where(i):
    with pathlib.Path("workers").open("a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\n")
PYTHON
processes() { # of the tests of one group, with that version of pytest
  python3 -m venv "$work/env-$1"
  "$work/env-$1/bin/pip" install -q "pytest==$1" pytest-xdist==3.8.0
  (cd "$work/tests" && rm -f workers && "../env-$1/bin/pytest" -q -p no:cacheprovider -n 2 --dist loadgroup > /dev/null && sort -u workers | wc -l)
}
old=$(processes 8.4.2)
new=$(processes 9.2.0)
echo "processes of one group: pytest 8.4.2: $old, pytest 9.2.0: $new"
test "$old" = 1 && test "$new" = 2
