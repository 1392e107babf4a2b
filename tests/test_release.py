"""What is released, and how: wheels for every platform, their versions, the container.

With ANAPHORA_WHEELS=FOLDER the wheels of that folder are examined, one for each processor of Linux.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import anaphora

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PYTHONS = ("cp311", "cp312", "cp313", "cp314")
PLATFORMS = {
    ("linux", "x86_64"): ("manylinux_x86_64", "musllinux_x86_64"),
    ("linux", "aarch64"): ("manylinux_aarch64", "musllinux_aarch64"),
    ("macos", "arm64"): ("macosx_arm64",),
    ("macos", "x86_64"): ("macosx_x86_64",),
    ("windows", "AMD64"): ("win_amd64",),
}


@pytest.fixture(scope="module")
def workflow():
    """The workflow that builds and publishes wheels."""
    yaml = pytest.importorskip("yaml")
    text = (ROOT / ".github" / "workflows" / "wheels.yml").read_text("utf-8")
    return yaml.load(text, yaml.BaseLoader)  # in which `on` is a word


@pytest.mark.parametrize(("platform", "architecture"), PLATFORMS)
def test_wheels_are_built_and_tested_for_every_python(platform, architecture):
    pytest.importorskip("cibuildwheel")
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers"]
    command += ["--platform", platform, "--archs", architecture, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tags = PLATFORMS[platform, architecture]
    assert sorted(done.stdout.split()) == sorted(f"{p}-{tag}" for p in PYTHONS for tag in tags)


def test_the_first_python_is_the_one_that_the_package_requires():
    major, minor = re.fullmatch(r">=(\d)\.(\d+)", PROJECT["project"]["requires-python"]).groups()
    assert PYTHONS[0] == f"cp{major}{minor}"
    assert PROJECT["tool"]["cibuildwheel"]["build"] == [f"{python}-*" for python in PYTHONS]


def test_a_wheel_without_the_engine_fails_its_test():
    """The build backend makes one where the engine does not compile."""
    command = PROJECT["tool"]["cibuildwheel"]["test-command"][0]
    code = re.search(r'-c "(.*)"', command)[1]
    command = [sys.executable, "-W", "error", "-c", code]
    environment = {"ANAPHORA_ENGINE": "numpy", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "AssertionError" in done.stderr


# The wheels themselves

OBJDUMP = {"x86_64": "objdump", "aarch64": "aarch64-linux-gnu-objdump"}
SYSTEM = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"}
"""What every Linux with glibc has, besides its loader."""

INSTRUCTIONS = {
    ("x86_64", "avx2"): r"\bvfmadd\w+ps\b.*%ymm",
    ("x86_64", "avx512"): r"\bvfmadd\w+ps\b.*%zmm",
    ("x86_64", "avx512, bfloat16"): r"\bvdpbf16ps\b.*%zmm",
    ("x86_64", "avx512, int8"): r"\bvpdpbusd\b.*%zmm",
    ("x86_64", "amx, bfloat16"): r"\btdpbf16ps\b.*%tmm",
    ("x86_64", "amx, int8"): r"\btdpbssd\b.*%tmm",
    ("aarch64", "neon"): r"\bfmla\b.*\bv\d+\.4s",
}
"""What each instruction set computes products with, as objdump writes it."""


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The wheel of each processor, and its engine's module, unpacked."""
    given = os.environ.get("ANAPHORA_WHEELS")
    if not given:
        pytest.skip("ANAPHORA_WHEELS names no folder of wheels")
    found = {}
    for processor in OBJDUMP:
        (wheel,) = Path(given).glob(f"anaphora-*_{processor}.whl")
        folder = tmp_path_factory.mktemp(processor)
        zipfile.ZipFile(wheel).extractall(folder)
        (module,) = (folder / "anaphora" / "engine").glob("_native*.so")
        found[processor] = wheel, module
    return found


@pytest.mark.parametrize("processor", OBJDUMP)
def test_a_wheel_needs_nothing_newer_than_its_tag(modules, processor):
    image = PROJECT["tool"]["cibuildwheel"]["linux"][f"manylinux-{processor}-image"]
    newest = tuple(map(int, image.removeprefix("manylinux_").split("_")))
    tag = re.search(r"-manylinux_(\d+)_(\d+)_", modules[processor][0].name)  # auditwheel's
    assert tuple(map(int, tag.groups())) <= newest
    command = ["readelf", "--wide", "--dynamic", "--version-info", str(modules[processor][1])]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    libraries = set(re.findall(r"\(NEEDED\).*\[(.*)\]", shown))
    assert "libc.so.6" in libraries
    assert {name for name in libraries if not name.startswith("ld-linux-")} <= SYSTEM
    versions = set(re.findall(r"Name: (\S+)", shown))
    assert versions
    numbers = [re.fullmatch(r"GLIBC_(\d+)\.(\d+)(?:\.\d+)?", version) for version in versions]
    assert all(numbers), versions
    assert max((int(number[1]), int(number[2])) for number in numbers) <= newest


@pytest.mark.parametrize(("processor", "instruction_set"), INSTRUCTIONS)
def test_a_wheel_has_code_for_every_instruction_set(modules, processor, instruction_set):
    if not shutil.which(OBJDUMP[processor]):
        pytest.skip(f"needs {OBJDUMP[processor]}")
    command = [
        OBJDUMP[processor],
        "--disassemble",
        "--no-show-raw-insn",
        str(modules[processor][1]),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert len(re.findall(INSTRUCTIONS[processor, instruction_set], shown)) >= 8


def widest_instruction_set():
    """The one that this machine has, as Linux describes it."""
    flags = set(re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)[1].split())
    avx512 = {"fma", "avx2", "avx512f", "avx512vl", "avx512bw", "avx512dq"}
    if avx512 | {"avx512_vnni", "amx_tile", "amx_int8", "amx_bf16"} <= flags:
        return "amx"
    if avx512 <= flags:
        return "avx512"
    return "avx2" if {"fma", "avx2"} <= flags else "baseline"


REPORT = """
import numpy as np, anaphora
from anaphora import engine, nn, random
random.seed(1)
layer = nn.LSTM(9, 17)
y, _ = layer(np.random.default_rng(2).standard_normal((6, 5, 9), np.float32))
print(anaphora.__file__, engine.info()["engine"], engine.info()["instruction_set"])
print(*y.data.ravel())
"""


@pytest.mark.parametrize("name", [None, "amx", "avx512", "avx2", "baseline"])
def test_a_wheel_chooses_its_instruction_set_at_import(modules, name):
    machine = os.uname().machine
    if machine != "x86_64" or f"cpython-{sys.version_info[0]}{sys.version_info[1]}-" not in (
        modules[machine][1].name
    ):
        pytest.skip("needs x86-64 and the Python of the wheel")
    root = modules[machine][1].parents[2]
    narrower = ["baseline", "avx2", "avx512", "amx"]
    widest = widest_instruction_set()

    def run(**environment):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", REPORT],
            env={"PYTHONPATH": str(root), "ANAPHORA_NUM_THREADS": "2", **environment},
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.split(), done.stderr

    code, shown, errors = run(**({"ANAPHORA_INSTRUCTION_SET": name} if name else {}))
    if name and narrower.index(name) > narrower.index(widest):
        assert code != 0
        assert f"ANAPHORA_INSTRUCTION_SET is '{name}', which this machine or build" in errors
        return
    assert code == 0, errors
    assert shown[:3] == [str(root / "anaphora" / "__init__.py"), "native", name or widest]
    code, expected, errors = run(ANAPHORA_ENGINE="numpy")
    assert code == 0, errors
    values, right = ([float(number) for number in text[3:]] for text in (shown, expected))
    assert len(values) == 6 * 5 * 17
    assert values == pytest.approx(right, rel=1e-4, abs=1e-5)


# How they are published


def test_the_workflow_covers_every_platform_and_publishes_tags_alone(workflow):
    jobs = workflow["jobs"]
    runners = {
        one["platform"]: one["runner"] for one in jobs["wheels"]["strategy"]["matrix"]["include"]
    }
    assert set(runners) == {"-".join(key).lower() for key in PLATFORMS}
    assert runners["linux-aarch64"].endswith("-arm")  # natively
    assert runners["macos-x86_64"].endswith("-intel")
    assert workflow["on"]["push"] == {"tags": ["v*"]}
    publish = jobs["publish"]
    assert set(publish["needs"]) == set(jobs) - {"publish"}
    assert publish["if"] == "startsWith(github.ref, 'refs/tags/')"
    assert publish["permissions"] == {"id-token": "write"}
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in json.dumps(workflow)


def test_the_release_checks_the_version_where_it_stands(workflow):
    steps = {step.get("name"): step for step in workflow["jobs"]["sdist"]["steps"]}
    expression = re.search(r"sed -n '(.*?)'", steps["The tag is the version"]["run"])[1]
    command = ["sed", "-n", expression, str(ROOT / "src" / "anaphora" / "__init__.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == anaphora.__version__


def test_the_citation_has_the_version_and_the_license():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == anaphora.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["keywords"] == PROJECT["project"]["keywords"]


def test_the_container_runs_anaphora_as_an_unprivileged_user():
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    last = lines[max(k for k, line in enumerate(lines) if line.startswith("FROM")) :]
    users = [line.split()[1] for line in last if line.startswith("USER ")]
    assert users == ["anaphora"]
    assert 'ENTRYPOINT ["anaphora"]' in last
    extras = next(line for line in last if line.startswith("ARG EXTRAS="))
    assert set(extras.partition("=")[2].split(",")) <= set(
        PROJECT["project"]["optional-dependencies"]
    )


def test_the_container_is_given_what_the_wheel_is_built_from(tmp_path):
    """Not, for instance, environments, builds and models that lie in the checkout."""
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert kept == {"CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml", "src"}
    assert all((ROOT / name).exists() for name in kept)
