"""Requirements of evaluation beyond the project's own."""

from importlib.util import find_spec

from model.errors import MicroStepError


def require_harness() -> None:
    """Check that lm-evaluation-harness is installed, without loading it."""
    if find_spec("lm_eval") is None:
        raise MicroStepError(
            "evaluation needs lm-evaluation-harness: pip install 'micro_step[evals]', or in the source tree"
            " pip install -r requirements-evals.txt"
        )
