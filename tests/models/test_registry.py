import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import msgspec
import pytest

from models.errors import InvalidReference, ModelNotFound, RegistryUnavailable, TamperedModel
from models.manifest import Draft, Sample
from models.reference import ModelReference
from models.registry import ABANDONED_S, Registry
from models.signature import Feature, Signature

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
FILES = {"model.onnx": b"graph", "model.skops": b"estimator"}
DELAY = ModelReference("delay", 1)


def draft(name: str = "delay") -> Draft:
    return Draft(
        name=name,
        signature=Signature((Feature("distance", "number"),), "probability"),
        runtime="onnx",
        float_width=32,
        libraries={"onnxruntime": "1.31.1"},
        sample=Sample(({"distance": 1.0},), (0.5,)),
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", clock=lambda: NOON)


def test_registry_gives_back_what_was_published(registry: Registry) -> None:
    assert registry.publish(draft(), FILES) == DELAY
    manifest = registry.verify(DELAY)
    assert manifest.reference == DELAY
    assert manifest.created_at == NOON
    assert manifest.signature == draft().signature
    assert {file: registry.read(DELAY, file) for file in manifest.files} == FILES


def test_registry_lists_names_versions_and_references(registry: Registry) -> None:
    for name in ("delay", "fare", "delay"):
        registry.publish(draft(name), FILES)
    (registry.root / "empty").mkdir()
    (registry.root / "notes.txt").touch()
    assert registry.names() == ("delay", "fare")
    assert registry.versions("delay") == (1, 2)
    assert registry.versions("price") == ()
    assert registry.latest("delay") == ModelReference("delay", 2)
    assert [str(reference) for reference in registry.references()] == ["delay@1", "delay@2", "fare@1"]


def test_registry_orders_versions_as_numbers(registry: Registry) -> None:
    for _ in range(11):
        registry.publish(draft(), {})
    assert registry.latest("delay") == ModelReference("delay", 11)


def test_registry_says_what_it_holds_instead(registry: Registry) -> None:
    registry.publish(draft(), FILES)
    with pytest.raises(ModelNotFound, match=r"no model delay@2 in .*; versions of 'delay': 1"):
        registry.manifest(ModelReference("delay", 2))
    with pytest.raises(ModelNotFound, match=r"no model fare@1 in .*; versions of 'fare': none"):
        registry.verify(ModelReference("fare", 1))
    with pytest.raises(ModelNotFound, match=r"no model 'fare' in .*; it holds delay"):
        registry.latest("fare")


@pytest.mark.parametrize("name", ["../delay", "", "Delay", "a/b"])
def test_registry_never_leaves_its_folder(registry: Registry, name: str) -> None:
    for action in (registry.versions, registry.latest, lambda name: registry.publish(draft(name), FILES)):
        with pytest.raises(InvalidReference):
            action(name)
    with pytest.raises(InvalidReference):
        registry.path(ModelReference(name, 1))


def test_registry_without_a_folder_says_how_to_get_one(registry: Registry) -> None:
    for action in (registry.names, registry.references, lambda: registry.latest("delay")):
        with pytest.raises(RegistryUnavailable, match="publish a model there or set TURNOUT_REGISTRY"):
            action()


def test_registry_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RegistryUnavailable, match=r"registry .*file/registry: Not a directory"):
        Registry(tmp_path / "file" / "registry").publish(draft(), FILES)


def test_registry_whose_folder_goes_away_meanwhile_is_named(registry: Registry) -> None:
    def remove() -> datetime:
        (registry.root / "delay").rmdir()
        return NOON

    with pytest.raises(RegistryUnavailable, match="No such file"):
        Registry(registry.root, clock=remove).publish(draft(), FILES)
    assert list(registry.root.iterdir()) == []


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b" ")


def test_published_files_can_be_read_by_others(registry: Registry) -> None:
    registry.publish(draft(), FILES)
    umask = os.umask(0)
    os.umask(umask)
    assert registry.path(DELAY).stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda folder: append(folder / "model.onnx"), "model.onnx is not what was published"),
        (lambda folder: (folder / "model.skops").unlink(), "model.skops is missing"),
        (lambda folder: (folder / "extra.pkl").touch(), "extra.pkl was added"),
        (lambda folder: (folder / "extra").mkdir(), "extra was added"),
        (lambda folder: append(folder / "manifest.json"), "manifest.json was edited"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.sha256").unlink(), "manifest.sha256 is missing"),
        (lambda folder: (folder / "manifest.sha256").write_bytes(b"\xff"), "manifest.json was edited"),
    ],
)
def test_verify_refuses_a_changed_version(registry: Registry, tamper: Callable[[Path], None], message: str) -> None:
    registry.publish(draft(), FILES)
    tamper(registry.path(DELAY))
    with pytest.raises(TamperedModel, match=f"delay@1: {message}"):
        registry.verify(DELAY)


def test_verify_refuses_a_version_copied_to_another_number(registry: Registry) -> None:
    registry.publish(draft(), FILES)
    folder = registry.path(DELAY)
    folder.rename(folder.with_name("2"))
    with pytest.raises(TamperedModel, match=r"delay@2: manifest\.json describes delay@1"):
        registry.verify(ModelReference("delay", 2))


def test_verify_refuses_a_manifest_of_another_form(registry: Registry) -> None:
    registry.publish(draft(), FILES)
    folder = registry.path(DELAY)
    (folder / "manifest.json").write_bytes(b"{}")
    (folder / "manifest.sha256").write_text("44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\n")
    with pytest.raises(TamperedModel, match="not a manifest of this version of Turnout"):
        registry.verify(DELAY)


def test_read_refuses_a_file_that_was_not_published(registry: Registry) -> None:
    registry.publish(draft(), FILES)
    (registry.path(DELAY) / "extra").write_bytes(b"")
    with pytest.raises(TamperedModel, match="extra is not what was published"):
        registry.read(DELAY, "extra")


def test_read_of_a_folder_in_the_place_of_a_file_is_named(registry: Registry) -> None:
    registry.publish(draft(), FILES)
    file = registry.path(DELAY) / "model.onnx"
    file.unlink()
    file.mkdir()
    with pytest.raises(RegistryUnavailable, match=r"delay@1: .*model.onnx cannot be read"):
        registry.verify(DELAY)


def test_digest_changes_with_any_file(registry: Registry) -> None:
    published = [registry.publish(draft(), FILES | {"model.onnx": content}) for content in (b"one", b"two")]
    assert len({registry.digest(reference) for reference in published}) == 2


def test_manifest_is_readable_json(registry: Registry) -> None:
    registry.publish(draft(), FILES)
    text = (registry.path(DELAY) / "manifest.json").read_text()
    assert text.count("\n") > 20
    assert msgspec.json.decode(text)["created_at"] == "2013-01-01T12:00:00Z"


def test_publish_sweeps_what_killed_publishers_left_long_ago(registry: Registry) -> None:
    registry.publish(draft(), FILES)
    old, young = registry.root / ".staging-old", registry.root / ".staging-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, time.time() - ABANDONED_S - 1))
    registry.publish(draft(), FILES)
    assert not old.exists()
    assert young.exists()


def publish_some(root: Path) -> list[int]:
    return [Registry(root).publish(draft(), FILES).version for _ in range(20)]


def test_concurrent_publishers_get_distinct_consecutive_versions(registry: Registry) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        claimed = [version for versions in pool.map(publish_some, [registry.root] * 3) for version in versions]
    assert sorted(claimed) == list(range(1, 61)) == list(registry.versions("delay"))
    assert {registry.verify(reference).version for reference in registry.references()} == set(claimed)


def publish_and_die(root: Path, steps: int) -> None:
    """Publish a version, killed with no warning at the given input or output operation."""
    left = iter(range(steps))

    def count_down(event: str, _: object) -> None:
        if event in {"open", "os.mkdir", "os.listdir", "os.rename", "os.rmdir"} and next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count_down)
    Registry(root).publish(draft(), FILES)


def test_publisher_killed_at_any_step_leaves_only_whole_versions(registry: Registry) -> None:
    exit_codes: list[int | None] = []
    while 0 not in exit_codes:
        process = get_context("fork").Process(target=publish_and_die, args=(registry.root, len(exit_codes)))
        process.start()
        process.join()
        exit_codes.append(process.exitcode)
        published = registry.references() if registry.root.exists() else ()
        assert [registry.verify(reference).version for reference in published] == list(range(1, len(published) + 1))
    assert exit_codes[:-1] == [-signal.SIGKILL] * (len(exit_codes) - 1)
    assert len(exit_codes) > 8
    assert registry.publish(draft(), FILES).version == len(registry.references())


def test_publisher_ignores_a_staging_folder_that_vanishes_while_it_looks(registry: Registry) -> None:
    registry.publish(draft(), FILES)
    # A dangling link is listed but cannot be looked at, as a folder that another publisher has just renamed.
    (registry.root / ".staging-vanished").symlink_to(registry.root / "renamed")
    assert registry.publish(draft(), FILES).version == 2
