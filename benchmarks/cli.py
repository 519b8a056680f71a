"""`micro-step bench NAME`, for the benchmarks of one function. Torch waits until a benchmark is run."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks import options
from benchmarks.options import Out
from benchmarks.report import check_file, show, write
from model.command_options import flatten_options
from model.terminal import progress_bar


def measuring(module: str, kind: type) -> Callable[..., None]:
    """The command that measures, shows the reports, and writes them.

    Args:
        module: of this folder, whose `measure` takes the options.
        kind: the dataclass of the options, whose docstring is the command's help.
    """

    def measure(given: Any, out: Out = None) -> None:
        check_file(out, "json")
        with progress_bar() as tell:
            report = import_module(f"{__package__}.{module}").measure(given, tell)
        for each in report if isinstance(report, list) else [report]:
            show(each)
        write(report, out)

    measure.__doc__, measure.__annotations__ = kind.__doc__, {"given": kind, "out": Out, "return": None}
    return flatten_options(measure)


score = measuring("score", options.ScoreOptions)
words = measuring("words", options.WordsOptions)
segment = measuring("segment", options.SegmentTimingOptions)
drafts = measuring("speed.drafts", options.DraftsOptions)
harness = measuring("harness", options.HarnessOptions)
train_step = measuring("train_step", options.TrainStepOptions)
train = measuring("train", options.TrainOptions)
serve = measuring("speed.serve", options.ServeOptions)
attention = measuring("attention", options.AttentionOptions)
corpus = measuring("speed.corpus", options.CorpusTimingOptions)
depth = measuring("depth", options.DepthOptions)
first_minute = measuring("app", options.AppOptions)
load = measuring("load.measure", options.VisitorsOptions)
