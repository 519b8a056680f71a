"""What the browser tests serve: the app, or with `?case=` in the address a page with nothing but the token strip."""

from __future__ import annotations

import runpy
from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent
SCRIPT = HERE / "strip_page.py" if "case" in st.query_params else HERE.parent.parent / "app" / "main.py"

runpy.run_path(str(SCRIPT), run_name="__main__")
