"""Run a generated program in a process that can harm nothing."""
