"""The command `micro-step`: the one list of all commands, each with the place of its function.

A command's module is imported when that command is used: `micro-step --help` loads no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import typer

import analysis
import app as web
import benchmarks
import data
import evals
import model
import serving
import trainer
from micro_step.old_commands import translated


@dataclass(frozen=True)
class Verb:
    """A command: its function, and one line for the list of commands."""

    room: ModuleType
    function: str  # module of the room, and name: "uncertainty.cli:score"
    help: str

    def load(self) -> Callable[..., None]:
        module, _, name = self.function.partition(":")
        found: Callable[..., None] = getattr(import_module(f"{self.room.__name__}.{module}"), name)
        return found

    def stand_in(self) -> Callable[..., None]:
        """A function of no options, for the list of commands."""

        def listed() -> None:
            pass

        return listed


GROUPS = {
    "": "How sure language models are at each token, and how much faster they could write.",
    "corpus": "A corpus, scored once into a store, and what can be said of it.",
    "model": "The models that have a name: list them, fetch them, look at one.",
    "data": "Training data: sources, mixes, cleaning, self-distillation, preparation.",
    "eval": "Benchmarks of any model, the speed-up beside the score.",
    "bench": "Speed and memory, beside the alternatives.",
}
VERBS = {
    "score": Verb(analysis, "uncertainty.cli:score", "Entropy, confidence, surprisal and rank of every token."),
    "compare": Verb(analysis, "uncertainty.cli:compare_command", "Two models on one text: means and differences."),
    "segment": Verb(analysis, "segmentation.cli:segment_command", "Divide a text where the model is unsure."),
    "solve": Verb(analysis, "segmentation.cli:solve_command", "The parameter that gives a mean segment length."),
    "generate": Verb(analysis, "generation.cli:generate", "Answer a prompt in segments, beside the base model."),
    "attention": Verb(analysis, "attention.cli:attention", "Attention maps, and the statistics of all heads."),
    "micro-attention": Verb(analysis, "attention.micro.cli:micro_attention", "Attention inside the micro decoder."),
    "depth": Verb(analysis, "depth.cli:depth", "What every layer predicts, and where tokens are decided."),
    "depth-study": Verb(analysis, "depth.study_cli:depth_study", "Are tokens decided early where models are sure?"),
    "attribute": Verb(analysis, "attribution.cli:attribute", "What a number at a token depends on."),
    "evenness": Verb(analysis, "attention.evenness.cli:evenness", "Are all context states used evenly?"),
    "runs": Verb(analysis, "runs.cli:runs_command", "Training runs from their logs."),
    "train": Verb(trainer, "cli:train", "Train from a recipe, or resume the training."),
    "serve": Verb(serving, "cli:serve", "Serve a model over OpenAI's API, segment by segment."),
    "app": Verb(web, "cli:serve", "Open the app in a browser."),
    "examples": Verb(web, "cli:examples_command", "Recompute the results that come with the app."),
    "corpus score": Verb(analysis, "corpus.cli:corpus_command", "Score a corpus into a store; resumable."),
    "corpus report": Verb(analysis, "corpus.report_cli:report_command", "Judge strategies on a store."),
    "corpus table": Verb(analysis, "words.cli:corpus_table_command", "A store's scores by word or by token."),
    "corpus gather": Verb(analysis, "corpus.report_cli:gather_command", "Add what some strategies need to a store."),
    "corpus change": Verb(analysis, "corpus.change_cli:change_command", "What fine-tuning changed on a corpus."),
    "corpus rank": Verb(analysis, "ranking.cli:rank_command", "Documents by their score, or by what changed."),
    "corpus study": Verb(analysis, "corpus.study_cli:study_command", "Strategies on several corpora, two models."),
    "model list": Verb(model, "cli:list_models", "Names, licences, and which models are on this machine."),
    "model fetch": Verb(model, "cli:fetch_model", "Fetch a model, and print the folder that holds it."),
    "model show": Verb(model, "cli:show_model", "What a model is, and what scoring a text takes."),
    "model convert": Verb(model, "convert.cli:convert_command", "Write a model as another tool reads it."),
    "data sources": Verb(data, "cleaning.cli:sources_command", "The sources that a mix can name."),
    "data mixes": Verb(data, "cleaning.cli:mixes_command", "The mixes of the project."),
    "data clean": Verb(data, "cleaning.cli:clean_command", "Clean a mix, and say what each rule did."),
    "data distill": Verb(data, "distill.cli:distill_command", "Let a base answer the prompts of a mix."),
    "data prepare": Verb(data, "prepare_cli:prepare_command", "Clean a mix and score it under a base."),
    "data held-out": Verb(data, "held_out_cli:held_out_command", "Write the examples that training leaves out."),
    "eval run": Verb(evals, "cli:run_command", "Run benchmarks, or resume them."),
    "eval report": Verb(evals, "cli:report_command", "Tables and figures of evaluations."),
    "eval samples": Verb(evals, "cli:samples_command", "Samples of one evaluation, or of two side by side."),
    "eval list": Verb(evals, "cli:list_benchmarks", "The benchmarks that there are."),
    "eval ablate": Verb(evals, "ablation.cli:ablate_command", "Variants of a recipe, several seeds each."),
    "bench score": Verb(benchmarks, "cli:score", "Scoring a text."),
    "bench words": Verb(benchmarks, "cli:words", "Word surprisal of many texts, beside minicons."),
    "bench corpus": Verb(benchmarks, "cli:corpus", "Scoring documents, beside vLLM."),
    "bench segment": Verb(benchmarks, "cli:segment", "Segmenting stored scores."),
    "bench decode": Verb(benchmarks, "speed.cli:decode_command", "Answers, beside the base's."),
    "bench drafts": Verb(benchmarks, "cli:drafts", "What drafts save, without writing any."),
    "bench harness": Verb(benchmarks, "cli:harness", "Evaluation, beside lm-evaluation-harness's own class."),
    "bench train": Verb(benchmarks, "cli:train", "Training, beside transformers' Trainer."),
    "bench train-step": Verb(benchmarks, "cli:train_step", "Forward and backward, beside the base's."),
    "bench serve": Verb(benchmarks, "cli:serve", "The server under several clients, beside one prompt at a time."),
    "bench app": Verb(benchmarks, "cli:first_minute", "The app's first figures, in a browser."),
    "bench load": Verb(benchmarks, "cli:load", "The app under many visitors at once."),
    "bench attention": Verb(benchmarks, "cli:attention", "Overview and one map of attention."),
    "bench depth": Verb(benchmarks, "cli:depth", "The scores of every layer."),
    "bench families": Verb(
        benchmarks, "families.cli:families_command", "Every feature on every family of transformers."
    ),
}


def run(program: str = "") -> Any:
    """Run the command that `sys.argv` gives.

    Args:
        program: analysis, model, ... where it was started as `python -m PROGRAM`, with the commands of then.

    Returns:
        An exit code, or None.
    """
    sys.argv = ["micro-step", *translated(program, sys.argv[1:])]
    return command(sys.argv[1:])(prog_name="micro-step", standalone_mode=False)


def command(words: Sequence[str]) -> typer.Typer:
    """The command line, of which only the command that these words name is imported."""
    wanted = " ".join(words[: 2 if words and words[0] in GROUPS else 1])
    found = {name: _app(name, text) for name, text in GROUPS.items()}
    for name, each in VERBS.items():
        group, _, last = name.rpartition(" ")
        if name == wanted:
            found[group].command(last)(each.load())
        else:
            found[group].command(last, help=each.help)(each.stand_in())
    for name, group_app in found.items():
        if name:
            found[""].add_typer(group_app, name=name)
    return found[""]


def _app(name: str, text: str) -> typer.Typer:
    return typer.Typer(name=name, help=text, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
