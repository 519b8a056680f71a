"""The Hugging Face hub: check that it can be reached, find models in its local cache, and fetch models.

Only safetensors, JSON, tokenizer and template files are fetched, never pickled weights; code only on request.
"""

import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from model.access import model_access, need_fetching
from model.atomic_files import need_disk
from model.errors import LicenceNeeded, ModelError, ModelNotFound
from model.progress import Tell, silent

PROBE_SECONDS = 3.0

_WANTED = (".json", ".safetensors", ".jinja", ".model", ".txt", ".md")
_UNWANTED = ("consolidated",)  # a second copy of the weights in Mistral's own layout


@lru_cache(maxsize=1)
def reachable() -> bool:
    """True if the hub answers within about three seconds. Asked once per process; `HF_HUB_OFFLINE` is respected."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return False
    answers: list[bool] = []

    def probe() -> None:
        from huggingface_hub.utils._http import get_session

        try:
            reply = get_session().head(f"{constants.ENDPOINT}/robots.txt", timeout=PROBE_SECONDS)
            answers.append(reply.status_code < 400)
        except Exception:  # noqa: BLE001 - any failure of the probe means "not reachable"
            answers.append(False)

    # In a thread, since a name lookup may block for longer than the client's time-out.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS + 0.2)
    return bool(answers and answers[0])


def is_repo_id(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def offered(name: str) -> bool:
    """True if a name may be looked for on the hub, and among what was fetched from it."""
    access = model_access()
    return access.folders is None or (access.hub_cache and is_repo_id(name))


def snapshot(repo: str, revision: str | None = None) -> Path | None:
    """Return the repository's folder in the local hub cache, complete or not, without a network."""
    from huggingface_hub import constants

    if revision is not None and ".." in revision:
        return None
    home = Path(constants.HF_HUB_CACHE) / ("models--" + repo.replace("/", "--"))
    try:
        commit = (home / "refs" / (revision or "main")).read_text().strip()
    except (OSError, ValueError):
        commit = revision or ""
    if not commit or "/" in commit or ".." in commit:
        return None
    folder = home / "snapshots" / commit
    return folder if folder.is_dir() else None


def cached(repo: str, revision: str | None = None) -> Path | None:
    """Return the repository's model in the local hub cache, without a network; None if it is not complete."""
    from model.checkpoint_files import find_problem

    folder = snapshot(repo, revision)
    return folder if folder is not None and find_problem(folder) is None else None


def commit_of(folder: Path) -> str | None:
    """Return the commit of a snapshot folder of the hub cache; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and len(folder.name) == 40 else None


def repo_of(folder: Path) -> str | None:
    """Return the repository of a snapshot folder of the hub cache; None for any other folder."""
    if commit_of(folder) is None:
        return None
    home = folder.parent.parent.name
    return home.removeprefix("models--").replace("--", "/", 1) if home.startswith("models--") else None


def download(
    repo: str, revision: str | None = None, progress: Tell = silent, *, code: bool = False, adapter: bool = False
) -> Path:
    """Fetch a repository into the hub cache and return its snapshot folder.

    Raises:
        ModelNotFound: no such repository or revision, or it holds no safetensors.
        LicenceNeeded: the repository is gated and this machine is not logged in, or access was not granted.
        TooLarge: the disk is too full.
        ModelError: the connection failed; finished parts are kept, so a second try resumes.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    need_fetching(repo)
    at = f"{repo} at revision {revision}" if revision else repo
    try:
        progress(f"asking the hub for {at}", None)
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=20)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        files = _choose(sizes, at, code, adapter)
        total = sum(sizes[name] for name in files)
        need_disk(Path(constants.HF_HUB_CACHE), 1.05 * total, at, "free some, or set HF_HOME to another disk")
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=files, tqdm_class=_bar(progress, repo, total)
        )
    except GatedRepoError as error:
        raise LicenceNeeded(
            f"{repo} is gated: accept its terms at https://huggingface.co/{repo}, then log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelNotFound(f"{repo} has no revision {revision!r} on the hub") from error
    except RepositoryNotFoundError as error:
        raise ModelNotFound(
            f"the hub has no model {repo!r}, or it is private and this machine is not logged in"
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(f"the hub refused {at}: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise ModelError(f"fetching {at} from the hub failed ({error}); try again, finished parts are kept") from error
    return Path(folder)


def _choose(sizes: dict[str, int], at: str, code: bool, adapter: bool) -> list[str]:
    """Return the files to fetch: from the repository's top folder, no pickles, no second copies."""
    suffixes = (*_WANTED, ".py") if code else _WANTED
    files = [name for name in sizes if "/" not in name and name.endswith(suffixes) and not name.startswith(_UNWANTED)]
    if not any(name.endswith(".safetensors") for name in files):
        others: Sequence[str] = [name for name in sizes if name.endswith((".bin", ".gguf", ".pt", ".pth"))]
        held = f"only {others[0]}" if others else "no weights"
        advice = (
            "download that file and give its path"
            if others and others[0].endswith(".gguf")
            else "only safetensors are read, since pickled weights can run code; ask the authors for safetensors"
        )
        raise ModelNotFound(f"{at} has {held}: {advice}")
    if "adapter_config.json" in files and "config.json" not in files and not adapter:
        raise ModelNotFound(
            f"{at} is an adapter, not a whole model: give its base as the model and this as the adapter"
        )
    return files


def _bar(progress: Tell, repo: str, total: int) -> Any:
    """Return a progress bar class for the hub client that draws nothing and reports the bytes written."""
    from huggingface_hub.utils.tqdm import tqdm

    done = 0
    counting = threading.Lock()

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            self.counts = options.get("name") == "huggingface_hub.snapshot_download"
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            nonlocal done
            if self.counts and total:
                with counting:
                    done += int(n or 0)
                    progress(f"fetching {repo} from the hub", min(1.0, done / total))

    return Bar
