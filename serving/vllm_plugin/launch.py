"""What is the same wherever this project starts vLLM: the environment, the plugin, and what is refused before."""

from __future__ import annotations

import os
from importlib.util import find_spec

from model.command_options import LoadOptions
from model.errors import MicroStepError
from serving.vllm_plugin.guard import check_registered
from serving.vllm_plugin.hooks import register

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine runs in this process, so that each of its steps is seen
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # it takes no proposers of others
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; vLLM's default is half of the memory
}
AT_ONCE = 2048  # tokens that vLLM reads in one step at most, unless a prompt has more


def need_vllm(loading: LoadOptions) -> None:
    """Refuse an environment without vLLM, and options that it has no equal of.

    Raises:
        MicroStepError: it is not installed, or an option was given.
    """
    if find_spec("vllm") is None:
        raise MicroStepError("vLLM is not installed here: see requirements-vllm.txt, or leave out --engine")
    if loading != LoadOptions(loading.dtype):
        raise MicroStepError("with --engine vllm, of the options that load a model only --dtype can be given")


def prepare_vllm(threads: int | None = None) -> None:
    """Set vLLM's environment variables that are not set, and put the plugin's hooks in place, before it is used.

    Args:
        threads: of a processor; None: vLLM's own choice.

    Raises:
        MicroStepError: the version is not supported.
    """
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    register()
    check_registered()
