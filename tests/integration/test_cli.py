"""The command ``chammi75`` as people meet it: a process with an exit status, standard output and standard error."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

COMMANDS = ("quickstart", "build", "convert", "info", "verify", "gallery")


def chammi75(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command and wait for it."""
    return subprocess.run(
        [sys.executable, "-m", "chammi75.cli", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "200"},
        timeout=240,
        check=False,
    )


def assert_one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The command failed with exit status 1 and one line about it; gives that line."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("chammi75: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """What a small quickstart has left, and what it said."""
    folder = tmp_path_factory.mktemp("cli") / "quickstart"
    done = chammi75("quickstart", "--out", folder, "--size", "0.1")
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """A folder of two wells with two channels in files of their own."""
    folder = tmp_path / "plate"
    folder.mkdir()
    random = np.random.default_rng(7)
    for well in ("B02", "B03"):
        for channel in "12":
            pixels = random.integers(0, 4096, (40, 50), dtype=np.uint16)
            tifffile.imwrite(folder / f"P1_{well}_w{channel}.tif", pixels)
    return folder


@pytest.fixture
def recipe(plate: Path) -> Path:
    """The recipe of that folder."""
    path = plate / "recipe.yaml"
    path.write_text('source: p1\ninclude: ["*.tif"]\npattern: "{plate}_{well}_w{channel}"\n')
    return path


def test_quickstart_says_what_it_did_and_what_to_do_next(
    quickstart: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = quickstart
    for words in (
        "Built",
        "Verified",
        "Images by study, organism and channels",
        "Homo sapiens",
        "gallery.html",
        "Next",
    ):
        assert words in done.stdout
    assert "simulated" in done.stdout
    assert (folder / "store" / "manifest.json").is_file()


def test_the_last_words_of_quickstart_run_as_python(
    quickstart: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, done = quickstart
    code = "\n".join(line.strip() for line in done.stdout.split("Next, in Python:\n")[1].splitlines()[:2])
    assert "load_dataset(" in code
    check = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(next(iter(dataset))['image'].shape)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stderr
    assert check.stdout.startswith("(")


def test_quickstart_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    line = assert_one_line(chammi75("quickstart", "--out", tmp_path))
    assert str(tmp_path) in line
    assert "--out" in line
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_gallery_loads_nothing_from_elsewhere(
    quickstart: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    page = (quickstart[0] / "gallery.html").read_text(encoding="utf-8")
    sources = re.findall(r"(?:src|href|srcset|action|data)\s*=\s*\"([^\"]*)", page)
    assert any(source.startswith("data:image/") for source in sources)
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert not re.search(r"url\(\s*['\"]?(?!data:)|@import|<script|<iframe|<link", page)


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['chammi75', '--help']\n"
        "from chammi75.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'datasets', 'pandas', 'pyarrow', 'torch', 'numba', 'duckdb', 'PIL', 'tifffile', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = chammi75(command, "--help")
    assert done.returncode == 0
    assert command in done.stdout


def test_the_version_is_told() -> None:
    from chammi75 import __version__

    assert chammi75("--version").stdout == f"chammi75 {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("sharpen",),
        ("build",),
        ("build", "somewhere"),
        ("build", "somewhere", "--out", "x", "--workers", "0"),
        ("build", "here", "there", "--recipe", "r.yaml", "--plan"),
        ("info",),
        ("info", "store", "--colour"),
        ("gallery", "store"),
        ("convert", "somewhere", "--out", "x", "--codec", "jpeg"),
        ("quickstart", "--size", "none"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = chammi75(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ("build", "nowhere", "--plan"),
        ("build", "nowhere.yaml", "--plan"),
        ("convert", "nowhere", "--out", "store"),
        ("info", "nowhere"),
        ("verify", "nowhere"),
        ("gallery", "nowhere", "--out", "page.html"),
    ],
)
def test_what_is_not_there_is_named_in_one_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    line = assert_one_line(chammi75(*arguments, cwd=tmp_path))
    assert "nowhere" in line
    assert not list(tmp_path.iterdir())


def test_debug_shows_where_an_error_came_from_wherever_it_stands(tmp_path: Path) -> None:
    for arguments in (("--debug", "info", "nowhere"), ("info", "nowhere", "--debug")):
        done = chammi75(*arguments, cwd=tmp_path)
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert "nowhere" in done.stderr.splitlines()[-1]


def test_a_plan_shows_the_grouping_and_writes_nothing(plate: Path, recipe: Path) -> None:
    before = sorted(plate.iterdir())
    done = chammi75("build", recipe, "--plan")
    assert done.returncode == 0, done.stderr
    assert "2 images" in done.stdout
    assert "p1/P1_B02_w*.tif" in done.stdout
    assert "P1_B02_w1.tif" in done.stdout
    assert "Nothing was written" in done.stdout
    assert "--recipe" not in done.stdout
    assert sorted(plate.iterdir()) == before


def test_a_plan_without_a_recipe_says_what_a_recipe_would_change(plate: Path) -> None:
    done = chammi75("build", plate, "--plan")
    assert done.returncode == 0, done.stderr
    assert "4 images" in done.stdout
    assert "--recipe" in done.stdout


def test_a_plan_says_how_much_it_leaves_out(tmp_path: Path) -> None:
    for number in range(25):
        tifffile.imwrite(tmp_path / f"field{number:02d}.tif", np.zeros((16, 16), np.uint8))
    done = chammi75("build", tmp_path, "--plan")
    assert "5 more images are not shown; --json lists all." in done.stdout
    assert len(json.loads(chammi75("build", tmp_path, "--plan", "--json").stdout)[0]["groups"]) == 25


def test_build_info_verify_gallery_go_together(plate: Path, recipe: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    built = chammi75("build", plate, "--recipe", recipe, "--out", store)
    assert built.returncode == 0, built.stderr
    assert "2 images, 4 planes" in built.stdout
    assert "1 shard." in built.stdout
    told = chammi75("info", store)
    assert told.returncode == 0
    assert "2 images, 4 planes, 1 shard;" in told.stdout
    assert chammi75("verify", store).stdout.startswith(f"{store}: sound. 2 images")
    page = tmp_path / "page.html"
    assert chammi75("gallery", store, "--out", page).returncode == 0
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_json_parses_and_has_what_the_table_has(plate: Path, recipe: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    plan = json.loads(chammi75("build", recipe, "--plan", "--json").stdout)
    assert [one["source"] for one in plan] == ["p1"]
    built = json.loads(chammi75("build", recipe, "--out", store, "--json").stdout)
    assert (built["images"], built["planes"], built["failed_images"]) == (2, 4, 0)
    rows = json.loads(chammi75("info", store, "--json").stdout)
    assert [(row["study"], row["images"]) for row in rows] == [("p1", 2)]
    assert json.loads(chammi75("verify", store, "--json").stdout) == []


def test_a_finished_store_is_not_built_over(plate: Path, recipe: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert chammi75("build", recipe, "--out", store).returncode == 0
    before = (store / "manifest.json").read_bytes()
    line = assert_one_line(chammi75("build", recipe, "--out", store))
    assert str(store) in line
    assert (store / "manifest.json").read_bytes() == before


def test_a_file_that_cannot_be_read_is_reported_and_the_build_goes_on(
    plate: Path, recipe: Path, tmp_path: Path
) -> None:
    (plate / "P1_B04_w1.tif").write_bytes(b"II*\0 this is no TIFF")
    done = chammi75("build", recipe, "--out", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert "unreadable" in done.stdout
    assert "P1_B04_w1.tif" in done.stdout
    assert "report.json" in done.stdout
    report = json.loads((tmp_path / "store" / "report.json").read_text(encoding="utf-8"))
    assert any(finding["path"] == "P1_B04_w1.tif" for finding in report["findings"])


def test_a_mistake_in_a_recipe_is_told_with_its_line(recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "patern: x\n")
    line = assert_one_line(chammi75("build", recipe, "--plan"))
    assert "line 4" in line
    assert "'pattern'" in line


def test_a_flipped_byte_is_found_and_the_image_named(plate: Path, recipe: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert chammi75("build", recipe, "--out", store).returncode == 0
    from chammi75 import open_store

    place = open_store(str(store)).index.places(1)
    shard = store / "shards" / "train-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[place.plane_offsets[0] + place.plane_lengths[0] - 9] ^= 1
    shard.write_bytes(content)
    done = chammi75("verify", store)
    assert "is damaged" in assert_one_line(done)
    assert place.image_id in done.stdout
    found = chammi75("verify", store, "--json")
    assert found.returncode == 1
    assert [damage["image_id"] for damage in json.loads(found.stdout)] == [place.image_id]


def test_a_published_copy_is_converted_and_read_in_place(shared_data: Path, tmp_path: Path) -> None:
    published = shared_data / "published"
    table = published / "CHAMMI-75_train_metadata.csv"
    rows = json.loads(chammi75("info", published, "--json").stdout)
    few = json.loads(chammi75("info", published, "--metadata", "CHAMMI-75_small_metadata.csv", "--json").stdout)
    assert 0 < sum(row["images"] for row in few) < sum(row["images"] for row in rows)
    done = chammi75("convert", published, "--metadata", table, "--out", tmp_path / "store", "--codec", "deflate")
    assert done.returncode == 0, done.stderr
    assert "1 finding (1 unresolved)" in done.stdout
    assert chammi75("verify", tmp_path / "store").returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_with_one_line_and_leaves_no_store(tmp_path: Path) -> None:
    out = tmp_path / "quickstart"
    process = subprocess.Popen(
        [sys.executable, "-m", "chammi75.cli", "quickstart", "--out", str(out), "--size", "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (out / "sources").is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert [line for line in errors.splitlines() if line.startswith("chammi75: stopped")]
    assert not (out / "store" / "manifest.json").exists()


@pytest.mark.skipif(shutil.which("head") is None or sys.platform == "win32", reason="needs a POSIX shell")
def test_a_reader_that_stops_reading_makes_no_noise(
    quickstart: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    store = quickstart[0] / "store"
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m chammi75.cli info "{store}" --json | head -n 1'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[\n"
    assert done.stderr == ""
