"""How much memory can be allocated now, on an accelerator or the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def available_memory(device: torch.device | str) -> int:
    """Return the bytes that can be allocated now, on a CUDA device or on the machine (or in its container)."""
    kind = str(device).split(":")[0]
    if kind == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        # torch keeps freed blocks for itself and can use them again
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + reserved)
    import psutil

    free = int(psutil.virtual_memory().available)
    limit = _container_free()
    return free if limit is None else min(free, limit)


def spoken_bytes(size: float) -> str:
    """An amount of memory in words: "2.1 GB", "45 MB", "under 1 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB" if size >= 1e6 else "under 1 MB"


def _container_free() -> int | None:
    """Return what a Linux control group leaves to its processes, or None if there is no limit."""
    from pathlib import Path

    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        # The page cache counts as used, though the kernel gives it up first.
        cache = next(
            int(line.split()[1])
            for line in (group / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, ValueError, StopIteration):
        return None
    return None if limit == "max" else max(0, int(limit) - used + cache)
