"""Run a generated program in an isolated process."""
