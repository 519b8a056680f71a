"""What axe-core finds wrong with a page for readers who see little or use no mouse."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe


def serious_faults(page: Any) -> list[str]:
    """The serious faults of a page that has settled, each as its rule, what is wrong, and its element."""
    found = []
    for violation in Axe().run(page).response["violations"]:
        for node in violation["nodes"] if violation["impact"] in ("serious", "critical") else ():
            why = "; ".join(each["message"] for kind in ("any", "all", "none") for each in node[kind])
            found.append(f"{violation['id']}: {why}: {node['target']} {node['html'][:200]}")
    return found
