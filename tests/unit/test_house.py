"""The house: what may import what, what an import costs, what the README promises."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import facexai

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "facexai"
FLOORS = [
    "_locks",
    "_errors",
    "_csv_cells",
    "_photo_names",
    "_json",
    "_html",
    "_progress",
    "_registry",
    "_renamed",
    "_explainers",
    "functional",
    "io",
    "_tensor_store",
    "_toml",
    "input_spec",
    "images",
    "perturb",
    "plots",
    "kernels",
    "turns",
    "_row_passes",
    "hooks",
    "results",
    "models",
    "decisions",
    "denoisers",
    "zoo",
    "explainers",
    "metrics",
    "baselines",
    "evaluate",
    "demo",
    "report",
    "cli",
    "__main__",
]
"""From the ground up; a module may import from its own floor and from those below."""


def floor_of(name: str) -> int | None:
    parts = name.split(".")
    return FLOORS.index(parts[1]) if len(parts) > 1 and parts[1] in FLOORS else None


def module_of(path: Path) -> str:
    return "facexai." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def imports(path: Path, *, typing: bool = False):
    """The modules and names that a file imports, those for type checkers only where asked for."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not typing
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_arrows_point_down():
    upward = []
    files = [p for p in SOURCE.rglob("*.py") if p != SOURCE / "__init__.py"]
    assert len(files) > 25
    for path in files:
        name = module_of(path)
        own = floor_of(name)
        assert own is not None, f"{name} has no floor: add it to FLOORS"
        for imported in imports(path):
            floor = floor_of(imported)
            if floor is not None and floor > own:
                upward.append(f"{name} imports {imported}")
    assert upward == []


def test_files_do_not_import_each_other_in_circles():
    """Types and imports inside functions count; FaceModel.gallery makes a Gallery, which keeps its FaceModel."""
    files = {module_of(path).removesuffix(".__init__"): path for path in SOURCE.rglob("*.py")}
    del files["facexai"]  # names load when they are first used
    arrows = {
        name: {to if to in files else to.rpartition(".")[0] for to in imports(path, typing=True)} & files.keys()
        for name, path in files.items()
    }
    left = {name: set(to) for name, to in arrows.items()}
    while free := [name for name, to in left.items() if not to & left.keys()]:
        for name in free:
            del left[name]
    known = {f"facexai.models.{name}" for name in ("enroll", "face_model", "gallery")}
    above = {name for name in left if not any(name in arrows[other] for other in left)}
    while above:  # what only imports from a circle is in none
        left = {name: to for name, to in left.items() if name not in above}
        above = {name for name in left if not any(name in arrows[other] for other in left)}
    assert left.keys() == known


@pytest.mark.parametrize("heavy", ["torch", "matplotlib", "numpy", "PIL", "cv2", "scipy"])
def test_importing_the_package_is_free(heavy):
    code = f"import sys, facexai; dir(facexai); facexai.__version__; assert {heavy!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_exists_and_is_documented():
    for name in facexai.__all__:
        assert getattr(facexai, name).__doc__, name
    assert set(facexai.__all__) <= set(dir(facexai))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = facexai.nothing


def test_no_file_and_no_function_holds_two_ideas():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 400, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                assert length <= 50, f"{path.name}: {node.name} has {length} lines"


def test_heavy_optional_libraries_stay_out():
    banned = {"torchvision", "timm", "torchmetrics", "pickle"}
    for path in SOURCE.rglob("*.py"):
        assert not banned & {name.split(".")[0] for name in imports(path)}, path


def test_ci_runs_the_readmes_own_commands():
    readme, script = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    commands = re.findall(r"^pip install -c constraints\.txt .*$", readme, re.M)
    assert len(commands) == 2
    for command in commands:
        assert command in script


def test_the_installed_set_is_the_pinned_one():
    from importlib.metadata import version

    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"
    )
    assert pins["torch"] == "2.13.0"
    if version("torch").split("+")[0] == pins["torch"]:
        for name in ("numpy", "pillow", "captum", "torchcam"):
            assert version(name) == pins[name]


def test_the_readmes_numbers_are_the_measured_ones():
    readme = " ".join((ROOT / "README.md").read_text().split())
    results = ROOT / "benchmarks" / "results"
    centred, plain = json.loads((results / "identification.json").read_text())["rows"][:2]
    for number in (f"{centred['AUC']:.4f}"[1:], f"{plain['AUC']:.4f}"[1:], f"{100 * centred['rank-1']:.2f} %"):
        assert number in readme
    assert f"{centred['pairs']:,} pairs" in readme
    facenet = next(
        r for r in json.loads((results / "identification.json").read_text())["rows"] if r["network"] == "facenet_casia"
    )
    for number in (f"{facenet['AUC']:.4f}"[1:], f"{100 * facenet['rank-1']:.2f} %"):
        assert number in readme
    errors = json.loads((results / "completeness.json").read_text())["rows"]
    assert max(r["largest error"] for r in errors if r["precision"] == "float32") < 1e-7
    assert max(r["largest error"] for r in errors if r["precision"] == "float64") < 1e-16
    costs = json.loads((results / "class_maps.json").read_text())["rows"]
    for batch, tasks in (
        (16, ["facexai CAM"]),
        (1, ["facexai CAM"]),
        (16, ["captum Grad-CAM"]),
        (16, ["torchcam Grad-CAM"]),
        (16, ["facexai Grad-CAM", "facexai HiResCAM"]),
    ):
        times = [r["in forward passes"] for r in costs if r["batch"] == batch and r["task"] in tasks]
        assert f"{min(times):.1f} to {max(times):.1f}" in readme, (batch, tasks)


def test_the_readmes_price_of_score_cam_is_measured():
    readme = " ".join((ROOT / "README.md").read_text().split())
    same, one, five = {}, {}, {}
    for part in ("", "_iresnet18", "_facenet", "_deep", "_iresnet50"):
        rows = json.loads((ROOT / "benchmarks" / "results" / f"scorecam{part}.json").read_text())["rows"]
        for network in {r["network"] for r in rows}:
            s = {r["task"]: r["s"] for r in rows if r["network"] == network}
            theirs = s["torchcam, own network"]
            same[network, part] = s["facexai, own network"] / theirs
            one[network, part] = s["facexai, faster copy"] / theirs
            five[network, part] = 5 * theirs / s["facexai SDD of five, faster copy"]
    slower, slow, few = (found.pop(("mobileface", "")) for found in (same, one, five))
    assert len(one) == 5
    assert f"takes {min(same.values()):.2f} to {max(same.values()):.2f} of torchcam's time" in readme
    assert f"verified copy {min(one.values()):.2f} to {max(one.values()):.2f}" in readme
    assert f"five classes take {min(five.values()):.1f} to {max(five.values()):.1f} times less" in readme
    assert f"one class takes {slow:.1f} to {slower:.1f} times as long, five take {few:.1f} times less" in readme


def test_the_readmes_gain_by_engines_is_measured():
    readme = " ".join((ROOT / "README.md").read_text().split())
    rows = json.loads((ROOT / "benchmarks" / "results" / "engines.json").read_text())["rows"]
    single, half = ([row["ratio"] for row in rows if row["engine"] == f"openvino{of}"] for of in ("", " bf16"))
    assert len(single) == len(half) == 5
    assert f"takes {min(single):.2f} to {max(single):.2f} of the time of eager PyTorch in float32" in readme
    assert f"{min(half):.2f} to {max(half):.2f} in bfloat16" in readme


def test_the_readmes_price_of_a_pair_is_measured():
    readme = " ".join((ROOT / "README.md").read_text().split())
    names = ("pairs", "pairs_facenet")
    rows = [r for n in names for r in json.loads((ROOT / "benchmarks" / "results" / f"{n}.json").read_text())["rows"]]
    s = {(r["network"], r["task"]): r["s"] for r in rows}
    networks = {r["network"] for r in rows}

    def times(theirs, ours):
        found = [s[n, theirs] / s[n, ours] for n in networks]
        assert len(found) == 3
        return min(found), max(found)

    first = "facexai FGGB, first pair"
    frozen, loop = times("FGGB, literal loop, frozen weights", first), times("FGGB, literal loop", first)
    assert f"FGGB's first pair is {frozen[0]:.1f} to {frozen[1]:.1f} times faster" in readme
    assert f"dimension, {loop[0]:.1f} to {loop[1]:.1f} times where the loop computes" in readme
    assert times("FGGB, literal loop", "facexai FGGB, further partner")[0] > 2000
    slower = times("facexai CorrRISE, first pair", "CorrRISE, literal recipe")
    assert f"takes {slower[0]:.2f} to {slower[1]:.2f} times as long as its literal recipe" in readme


def test_the_readmes_price_of_frequencies_is_measured():
    readme = " ".join((ROOT / "README.md").read_text().split())
    rows = json.loads((ROOT / "benchmarks" / "results" / "frequency.json").read_text())["rows"]
    by = {(r["network"], r["task"].split(" (")[0]): r for r in rows}
    networks = sorted({r["network"] for r in rows})

    def spread(value, digits=2):
        values = [value(n) for n in networks]
        return f"{min(values):.{digits}f} to {max(values):.{digits}f}"

    def seconds(network, task):
        return by[network, f"{task}, one pair"]["s"]

    def error(network, task):
        return by[network, task]["relative L1"]

    many = "1000 pairs of 100 images"
    told = {
        "s": spread(lambda n: seconds(n, "facexai exact"), 1),
        "exact": spread(lambda n: seconds(n, "facexai exact") / seconds(n, "naive loop")),
        "many": spread(lambda n: by[n, f"naive loop, {many}"]["s"] / by[n, f"facexai exact, {many}"]["s"], 0),
        "hybrid": spread(lambda n: seconds(n, "facexai hybrid")),
        "off": spread(lambda n: error(n, "facexai hybrid, one pair")),
        "zero": spread(lambda n: error(n, "zero fill")),
    }
    assert f"takes {told['s']} s on two networks, {told['exact']} of a loop over bands" in readme
    assert f"1,000 pairs of 100 photos {told['many']} times less than that loop" in readme
    assert f"hybrid takes {told['hybrid']} s and is off by {told['off']} of its magnitude" in readme
    assert f"zeros for its cheap bands would be off by {told['zero']}" in readme


def test_the_readmes_sobering_sentence_is_measured():
    readme = " ".join((ROOT / "README.md").read_text().split())
    results = ROOT / "benchmarks" / "results"
    tuned = json.loads((results / "truth.json").read_text())["rows"]
    mine = [r for r in tuned if r["map"] == "SDD(HiResCAM)"]
    assert len(mine) == 4
    assert all(r["beats random"] for r in mine)
    content = json.loads((results / "held_out.json").read_text())
    assert content["faces"]["name"] != json.loads((results / "truth.json").read_text())["faces"]["name"]
    assert {(fact["people"], fact["probes"]) for fact in content["facts"].values()} == {(40, 80)}
    rows = content["rows"]

    def of(name, against, scheme="deletion"):
        return {
            (r["network"], r["fill"]): r
            for r in rows
            if (r["map"], r["against"], r["scheme"]) == (name, against, scheme)
        }

    def spread(found):
        return f"{min(r['better by'] for r in found):.1f} to {max(r['better by'] for r in found):.1f}"

    elsewhere = of("SDD(HiResCAM)", "its own region elsewhere").values()
    assert {r["verdict"] for r in elsewhere} == {"better"}
    assert f"holds again, by {spread(elsewhere)} points" in readme
    base = of("SDD(HiResCAM)", "its base")
    same = base.pop(("dlib_resnet29", "black"))
    assert {r["verdict"] for r in base.values()} == {"better"}
    assert same["verdict"] == "not decided"
    assert f"three of the four cells (by {spread(base.values())})" in readme
    assert f"the same ({same['better by']:+.1f}, 95 %: {same['95 %']})" in readme
    for scheme in ("deletion", "retention"):
        assert "better" not in {r["verdict"] for r in of("SDD(CAM)", "its base", scheme).values()}
    centre = "the centre of the picture"
    for name in {r["map"] for r in rows} - {"CorrRISE"}:
        lost, kept = of(name, centre), of(name, centre, "retention")
        assert not any((lost[cell]["verdict"], kept[cell]["verdict"]) == ("better", "better") for cell in lost), name
    lost, kept = of("CorrRISE", centre), of("CorrRISE", centre, "retention")
    told = []
    for fill in ("black", "blur"):
        cells = lost["dlib_resnet29", fill], kept["dlib_resnet29", fill]
        assert {r["verdict"] for r in cells} == {"better"}
        told.append(f"{fill}: {cells[0]['better by']:+.1f} and {cells[1]['better by']:+.1f}")
        assert {lost["mobileface", fill]["verdict"], kept["mobileface", fill]["verdict"]} == {"not decided"}
    assert f"on dlib's network ({'; '.join(told)})" in readme


def test_what_a_region_does_on_other_people_is_measured():
    page = " ".join((ROOT / "docs" / "metrics.md").read_text().split())
    rows = json.loads((ROOT / "benchmarks" / "results" / "held_out.json").read_text())["rows"]
    told = []
    for fill in ("black", "blur"):
        ratios = [
            r["ratio"]
            for r in rows
            if r["fill"] == fill and r["map"] in ("HiResCAM", "SDD(HiResCAM)") and r["against"].endswith("elsewhere")
            if r["scheme"] == "deletion"
        ]
        assert len(ratios) == 4
        told.append(f"{min(ratios):.1f} to {max(ratios):.1f}")
    assert f"it was {told[0]} and {told[1]} times" in page


def test_what_is_said_about_maps_of_pairs_is_what_was_measured():
    results, page = ROOT / "benchmarks" / "results", " ".join((ROOT / "docs" / "pairs.md").read_text().split())
    said = {
        network: json.loads((results / f"verification_{network}.json").read_text())
        for network in ("dlib", "mobileface", "facenet")
    }
    measures = ("deletion", "deletion cosine", "insertion", "insertion cosine")
    beaten, over_centre = {}, []
    for network, content in said.items():
        for row in content["rows"]:
            if "patch" in row["question"]:
                assert not row["average precision beats centre"]
                continue
            if row["insertion beats centre"]:
                over_centre.append((network, row["map"]))
                levels = f"{row['insertion']:.1f} against {row['insertion, centre']:.1f}"
                assert levels in page
            if row["question"] == "epfl-inferred, similar":
                beaten.setdefault(row["map"], []).extend(row[f"{measure} beats other-pair"] for measure in measures)
    assert over_centre == [("dlib", "CorrRISE patches"), ("facenet", "CorrRISE patches")]
    assert {name for name, held in beaten.items() if all(held)} == {"CorrRISE patches"}
    assert sum(beaten["CorrRISE grid"]) == 4 + 4 + 3
    assert {name for name, held in beaten.items() if not any(held)} == {"FGGB", "xSSAB"}
    assert sum(beaten["captum Lime"]) == 7


def test_what_is_said_of_the_cost_of_runs_was_measured():
    content = json.loads((ROOT / "benchmarks" / "results" / "throughput.json").read_text())
    (row,), memory = content["rows"], content["memory"]
    page = " ".join((ROOT / "docs" / "evaluate.md").read_text().split())
    assert f"takes {row['of bare forward passes']:.2f} times the bare forward passes" in page
    assert f"are {row['two ranks, times faster']:.2f} times as fast" in page
    for stage in ("maps", "measure"):
        assert memory[f"{stage}: MiB at the end"] < 1.01 * memory[f"{stage}: MiB after a tenth"]


def test_what_is_said_of_sdd_is_what_was_measured():
    page = " ".join((ROOT / "docs" / "benchmarks.md").read_text().split())
    shares = []
    default = {"dlib": ("stage2", "17x17"), "mobileface": ("layers.minimumscalar13", "14x14")}
    default |= {"facenet": ("repeat_1", "17x17")}
    for network, (layer, cells) in default.items():
        content = json.loads((ROOT / "benchmarks" / "results" / f"sdd_study_{network}.json").read_text())
        ours = [row for row in content["rows"] if "published" not in row["head"]]
        for head in {row["head"] for row in ours}:
            rows = {row["map"]: row for row in ours if row["head"] == head}
            for base in ("HiResCAM", "Score-CAM"):
                own, plain = rows[f"SDD({base}), {layer}"], rows[f"{base}, {layer}"]
                assert own["cells"] == cells
                for scheme, more in (("deletion", True), ("retention", False)):
                    for what in (scheme, f"{scheme} changes"):
                        assert (own[what] > own[f"{what}, random"]) == more
                gain = own["deletion"] - plain["deletion"]
                if base == "HiResCAM" and network == "facenet":
                    assert abs(gain) < 0.5
                else:
                    assert (gain > 0) == (base == "HiResCAM")
                if head.startswith("gallery"):
                    assert f"{own['deletion']:.1f} against {plain['deletion']:.1f}" in page
            assert ("CAM" in rows) == (network != "facenet" or head.startswith("gallery"))
            if "CAM" in rows:
                assert rows["SDD(CAM)"]["deletion"] < rows["CAM"]["deletion"]
            for row in rows.values():
                assert row["retention"] > row["retention, centre"]
                if row["map"].endswith(layer) and row["map"].startswith("SDD"):
                    beats = row["deletion, p centre"] < 0.05
                    only = network == "facenet" and head.startswith("linear") and "HiResCAM" in row["map"]
                    assert beats == (network == "dlib" or only)
                    if only:
                        assert f"({row['deletion']:.1f} against {row['deletion, centre']:.1f})" in page
                if row["map"].startswith("SDD("):
                    inner, _, where = row["map"].removeprefix("SDD(").partition(")")
                    share = row["half of the mass"] / rows[f"{inner}{where}"]["half of the mass"]
                    shares.append(share)
                    if inner in ("CAM", "Score-CAM"):
                        assert row["overlap after"] < row["overlap before"]
            if network == "dlib" and head.startswith("gallery"):
                told = rows[f"SDD(HiResCAM), {layer}"]
                for scheme in ("deletion", "retention"):
                    assert f"{told[scheme]:.1f} against {told[f'{scheme}, random']:.1f}" in page
            if network == "facenet" and head.startswith("gallery"):
                coarse = [row for row in rows.values() if row["cells"] == "8x8" and "HiResCAM" in row["map"]]
                told = {row["map"].startswith("SDD"): row["deletion"] for row in coarse}
                assert f"({told[True]:.1f} against {told[False]:.1f})" in page
            if network == "mobileface" and head.startswith("gallery"):
                wider = rows[f"SDD(HiResCAM), {layer}"]
                assert f"gallery: {wider['overlap before']:.2f} before, {wider['overlap after']:.2f} after)" in page
    assert f"takes {100 * min(shares):.0f} to {100 * max(shares):.0f} % of the area" in page


def test_what_is_said_of_counterfactuals_is_what_was_measured():
    page = " ".join((ROOT / "docs" / "benchmarks.md").read_text().split())
    rows = json.loads((ROOT / "benchmarks" / "results" / "counterfactual.json").read_text())["rows"]
    large = [row["of the bare calls"] for row in rows if row["batch"] > 1]
    alone = max(row["of the bare calls"] for row in rows if row["batch"] == 1)
    assert f"take {min(large):.2f} to {max(large):.2f} times their bare calls" in page
    assert f"up to {alone:.2f} times" in page
    dime = next(row for row in rows if row["variant"] == "dime")["times fastdime at batch 1"]
    many = next(row for row in rows if row["variant"] == "fastdime" and row["batch"] == 16)
    assert f"{dime:.0f} times faster" in page
    assert f"{many['times fastdime at batch 1']:.2f} of the time" in page


@pytest.mark.filterwarnings("ignore:. rivals asked for", "ignore:probabilities are saturated")
def test_the_readmes_drop_is_what_its_block_gives(enrolled, dlib_model):
    people = dlib_model.gallery(enrolled / "enrolled", align="auto")
    photo = facexai.images.align(facexai.images.load(enrolled / "who.jpg"), dlib_model.spec)
    why = facexai.SDD(facexai.HiResCAM(people), rivals=4)(photo.image)
    gone = facexai.metrics.deletion(people, photo.image, why)
    assert repr(gone) in " ".join((ROOT / "README.md").read_text().split())


def test_the_oldest_versions_are_tested_as_they_are_declared():
    script, run = (ROOT / ".ci" / "oldest").read_text(), (ROOT / ".ci" / "run").read_text()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert all(re.fullmatch(r"[a-z-]+>=\d+(\.\d+)+", name) for name in declared), "read so by .ci/oldest"
    pages = (ROOT / "docs" / "stability.md").read_text()
    for name, version in (wanted.split(">=") for wanted in declared):
        assert f"{name} {version}" in pages
    assert 'pyproject.toml").read_text())["project"]["dependencies"]' in script
    files = re.findall(r"tests/unit/\S+\.py", run[run.index("oldest") :].split("step ")[0])
    assert files
    assert all((ROOT / file).is_file() for file in files)
