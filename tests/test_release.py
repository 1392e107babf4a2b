"""What is released, and how: wheels for every platform, their versions, the container."""

import json
import re
import subprocess
import sys
import tomllib
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
