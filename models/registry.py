"""A folder of immutable model versions, `name/version/`, published atomically and verified by digest."""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from models.errors import ModelNotFound, RegistryUnavailable, TamperedModel
from models.manifest import Draft, Manifest
from models.reference import NAME, VERSION, ModelReference, checked_name

MANIFEST = "manifest.json"
DIGEST = "manifest.sha256"
STAGING = ".staging-"
ABANDONED_S = 86_400.0


def utc_now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


class Registry:
    """Model versions under one root folder, shared by any number of publishers and readers.

    A version's manifest holds the digest of every file, and `manifest.sha256` that of the manifest: damage,
    lost files and careless edits are noticed. That does not stop somebody who may write to the folder from
    replacing a file and its digests together: keep `digest(reference)` elsewhere to notice that.
    """

    def __init__(self, root: Path, clock: Callable[[], datetime] = utc_now) -> None:
        self.root = root
        self._clock = clock

    def names(self) -> tuple[str, ...]:
        """Names of all models that have a version, sorted."""
        with _available(self.root):
            entries = sorted(entry.name for entry in self.root.iterdir() if NAME.fullmatch(entry.name))
        return tuple(name for name in entries if self.versions(name))

    def versions(self, name: str) -> tuple[int, ...]:
        """Published versions of a model in rising order; none for an unknown name."""
        folder = self.root / checked_name(name)
        with _available(self.root):
            entries = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        return tuple(sorted(int(entry) for entry in entries if VERSION.fullmatch(entry)))

    def references(self) -> tuple[ModelReference, ...]:
        """All published versions of all models, sorted."""
        return tuple(ModelReference(name, version) for name in self.names() for version in self.versions(name))

    def latest(self, name: str) -> ModelReference:
        """The highest version of a model; raises ModelNotFound."""
        if not (versions := self.versions(name)):
            raise ModelNotFound(f"no model {name!r} in {self.root}; it holds {', '.join(self.names()) or 'none'}")
        return ModelReference(name, versions[-1])

    def path(self, reference: ModelReference) -> Path:
        """The folder of a published version; raises ModelNotFound."""
        if reference.version not in self.versions(reference.name):
            known = ", ".join(map(str, self.versions(reference.name))) or "none"
            raise ModelNotFound(f"no model {reference} in {self.root}; versions of {reference.name!r}: {known}")
        return self.root / reference.name / str(reference.version)

    def digest(self, reference: ModelReference) -> str:
        """SHA-256 of the manifest, which pins every file of the version."""
        return _sha256(self._manifest_bytes(reference))

    def manifest(self, reference: ModelReference) -> Manifest:
        """The manifest, after comparison with its own digest; raises ModelNotFound or TamperedModel."""
        try:
            manifest = msgspec.json.decode(self._manifest_bytes(reference), type=Manifest)
        except msgspec.DecodeError as error:
            raise TamperedModel(
                f"{reference}: {MANIFEST} is not a manifest of this version of Turnout: {error}"
            ) from error
        if manifest.reference != reference:
            raise TamperedModel(f"{reference}: {MANIFEST} describes {manifest.reference}; was the folder copied?")
        return manifest

    def read(self, reference: ModelReference, file: str) -> bytes:
        """The content of one file of a version, compared with its digest."""
        content = _content(self.path(reference) / file, reference)
        if _sha256(content) != self.manifest(reference).files.get(file):
            raise TamperedModel(f"{reference}: {file} is not what was published; publish a new version")
        return content

    def verify(self, reference: ModelReference) -> Manifest:
        """Hash every file again; raises TamperedModel for a changed, missing or extra one."""
        manifest = self.manifest(reference)
        with _available(self.root):
            present = {entry.name for entry in self.path(reference).iterdir()} - {MANIFEST, DIGEST}
        if extra := sorted(present - manifest.files.keys()):
            raise TamperedModel(f"{reference}: {', '.join(extra)} was added after publication; remove it")
        for file in manifest.files:
            self.read(reference, file)
        return manifest

    def publish(self, draft: Draft, files: Mapping[str, bytes]) -> ModelReference:
        """Store the files as the next version of `draft.name`, visible only once complete and on disk.

        Publishers may run side by side; each gets its own version.
        """
        digests = {file: _sha256(content) for file, content in files.items()}
        with _available(self.root):
            (self.root / checked_name(draft.name)).mkdir(parents=True, exist_ok=True)
            self._sweep()
            staging = self.root / f"{STAGING}{uuid.uuid4().hex}"
            staging.mkdir()
            try:
                for file, content in files.items():
                    _write(staging / file, content)
                return self._claim_version(staging, draft, digests)
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def _claim_version(self, staging: Path, draft: Draft, digests: dict[str, str]) -> ModelReference:
        version = max(self.versions(draft.name), default=0)
        fields = {field: getattr(draft, field) for field in Draft.__struct_fields__}
        while True:
            version += 1
            manifest = Manifest(**fields, version=version, created_at=self._clock(), files=digests)
            content = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
            _write(staging / MANIFEST, content)
            _write(staging / DIGEST, f"{_sha256(content)}\n".encode())
            _sync_folder(staging)
            # A folder cannot be renamed onto another that has files, so one of several publishers wins.
            if _renamed(staging, self.root / draft.name / str(version)):
                _sync_folder(self.root / draft.name)
                _sync_folder(self.root)
                return manifest.reference

    def _manifest_bytes(self, reference: ModelReference) -> bytes:
        folder = self.path(reference)
        content = _content(folder / MANIFEST, reference)
        if _content(folder / DIGEST, reference).decode(errors="replace").strip() != _sha256(content):
            raise TamperedModel(f"{reference}: {MANIFEST} was edited after publication; publish a new version")
        return content

    def _sweep(self) -> None:
        """Remove what killed publishers left behind long enough ago that none can still be at work."""
        for staging in self.root.glob(f"{STAGING}*"):
            # Another publisher may rename or remove its folder at any moment.
            with suppress(FileNotFoundError):
                if time.time() - staging.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(staging, ignore_errors=True)


def registry_at(registry: Registry | Path | str | None) -> Registry:
    """The registry that a publisher names: itself, its folder, or by default $TURNOUT_REGISTRY or var/registry."""
    if isinstance(registry, Registry):
        return registry
    return Registry(Path(registry or os.environ.get("TURNOUT_REGISTRY") or "var/registry"))


@contextmanager
def _available(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RegistryUnavailable(
            f"registry {root}: {error.strerror or error}; publish a model there or set TURNOUT_REGISTRY"
        ) from error


def _content(path: Path, reference: ModelReference) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise TamperedModel(f"{reference}: {path.name} is missing; publish a new version") from error
    except OSError as error:
        raise RegistryUnavailable(f"{reference}: {path} cannot be read: {error.strerror}") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _renamed(staging: Path, target: Path) -> bool:
    try:
        staging.rename(target)
    except OSError:
        if target.exists():
            return False
        raise
    return True
