"""What the pages say is what the code says."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def tracked() -> list[Path]:
    """Return the files of the project: those in git, or, outside a checkout, those of its folders."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def requirements() -> list[Requirement]:
    """Return what pyproject.toml asks for, to run, build and test."""
    groups = PROJECT["dependency-groups"]
    texts = [*PROJECT["project"]["dependencies"], *groups["build"], *groups["dev"]]
    return [Requirement(text) for text in texts if isinstance(text, str)]


def locked(name: str) -> dict[str, str]:
    """Return the versions that a lock file names, by package."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[[^]]*\])?==([^ ]+)", text, flags=re.MULTILINE))


def test_the_generated_pages_are_those_that_the_code_gives() -> None:
    done = subprocess.run(
        [sys.executable, "tools/write_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_link_between_pages_leads_to_a_file() -> None:
    for page in (path for path in tracked() if path.suffix == ".md"):
        links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
        for link in links:
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)} links to {link}"


def test_every_page_of_the_docs_is_linked_from_an_index() -> None:
    for page in (path for path in tracked() if path.is_relative_to(ROOT / "docs") and path.suffix == ".md"):
        index = page.parent / "index.md"
        assert page == index or f"]({page.name})" in index.read_text(encoding="utf-8"), page.name


def test_every_dependency_has_its_reason() -> None:
    reasons = (ROOT / "docs/decisions/dependencies.md").read_text(encoding="utf-8")
    named = {Requirement(name).name for name in re.findall(r"^\| `([^`]+)`", reasons, flags=re.MULTILINE)}
    assert named == {requirement.name for requirement in requirements()}


def test_the_lock_files_give_what_pyproject_asks_for() -> None:
    runtime, everything = locked("requirements.lock"), locked("requirements-dev.lock")
    for requirement in requirements():
        assert requirement.specifier.contains(everything[requirement.name]), requirement
    assert runtime.items() <= everything.items()


def test_lock_files_name_hashes_and_no_host() -> None:
    for path in tracked():
        if path.suffix == ".lock" or path.name == "package-lock.json":
            text = path.read_text(encoding="utf-8")
            assert "sha256:" in text or '"integrity"' in text, path.name
            assert not re.search(r'"resolved"|--index-url|--find-links|@ (?:https?|file):', text), path.name


def test_no_file_names_the_machine_it_was_written_on() -> None:
    place = re.compile(rb"(?<![\w.$}])/(?:home|root|work|Users)/[\w.]")
    for path in tracked():
        found = place.search(path.read_bytes())
        assert not found, f"{path.relative_to(ROOT)}: {found and found[0]!r}"


def test_the_readme_names_the_commands_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md", "docs/promises.md"):
        verbs = re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert verbs, page
        assert set(verbs) <= targets, page


def test_the_version_is_said_once() -> None:
    assert importlib.metadata.version("lowtide") == PROJECT["project"]["version"]
