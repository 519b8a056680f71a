"""Running benchmarks: one model, some benchmarks, some values of tau; every batch of samples is kept as it is done.

The batches of a benchmark follow from its documents and the options alone, and each has a seed of its own, so that a
run that was stopped anywhere goes on to the samples that it would have had.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jinja2 import TemplateError

from data.corpus.store import MANIFEST
from data.corpus.store_writer import writing
from evals.benchmark import Benchmark, data_hash, documents, task_of
from evals.harness import HarnessAnswer, Likelihood, MicroStepLM, RecordedLM
from evals.samples import FORMAT, Head, Sample, SampleFile, SampleWriter, WrittenAnswer, begin, file_name, read_manifest
from evals.sandbox.runner import NOT_ALLOWED, Isolation, Sandbox
from evals.scoring import JUDGES, Response, ScoringContext
from model.errors import MicroStepError, ModelError, TooLarge
from model.hub.loading import LoadedModel
from model.micro_step.modeling import MicroStepForCausalLM
from model.progress import Tell, silent
from model.text.chat_template import template_settings

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

_NEW_TOKENS = 256  # the harness's, where a task names no number


@dataclass(frozen=True)
class EvalOptions:
    """What decides the samples, beside model, benchmark and tau."""

    limit: int | None = None  # only the first so many documents
    chat: bool = False  # through the model's chat template
    system: str | None = None  # prompt
    multiturn: bool = False  # examples as turns of the conversation
    batch_rows: int = 8
    max_new_tokens: int | None = None  # instead of the benchmark's own
    repeats: int = 1  # answers to each document
    temperature: float = 0.0
    seed: int = 0
    likelihood: Likelihood = "own"
    isolation: Isolation | None = None  # of generated programs; None: they are not run
    template: tuple[tuple[str, str], ...] | None = None  # arguments of the chat template, as JSON by name
    template_date: str | None = None  # YYYY-MM-DD that the chat template writes as the day's date

    def __post_init__(self) -> None:
        if self.repeats > 1 and self.temperature == 0:
            raise MicroStepError("greedy answers are all the same: more than one of each needs --temperature above 0")


def evaluate(
    load_model: Callable[[], LoadedModel],
    chosen: Sequence[Benchmark],
    confidences: Sequence[float],
    out: Path,
    local: Path | None = None,
    options: EvalOptions | None = None,
    tell: Tell = silent,
    limits: Mapping[str, int] | None = None,
) -> list[SampleFile]:
    """Evaluate a model, or go on where a run was stopped.

    Args:
        load_model: called once the folder's lock is held.
        chosen: the benchmarks.
        confidences: values of tau; a plain model has none and runs once.
        out: folder of the samples, made if it is not there.
        local: folder with the data sets; None: the hub.
        options: what else decides the samples.
        tell: told about the progress.
        limits: only the first so many documents of these benchmarks, by name, instead of the options' limit.

    Raises:
        MicroStepError: a benchmark runs programs and this was not allowed, or the machine cannot shut them off.
        ExportError: the folder cannot be used, or holds samples of something else.
        TextError: a data set cannot be had.
        TooLarge: prompts and answers do not fit the model's context.
    """
    options, limits = options or EvalOptions(), limits or {}
    sandbox = sandbox_for(chosen, options)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with writing(out):
        loaded = load_model()
        taus = list(confidences) if isinstance(loaded.model, MicroStepForCausalLM) else [None]
        if not taus:
            raise MicroStepError(f"{loaded.facts.name} is a micro_step model: give at least one --confidence")
        if options.chat and loaded.tokenizer.chat_template:  # a run that goes on tomorrow goes on with today's date
            begun = read_manifest(out)["options"].get("template_date") if (out / MANIFEST).exists() else None
            asked = options.template_date or begun
            _, date = template_settings(loaded.tokenizer, options.template or (), asked)
            options = replace(options, template_date=date or asked)
        runs = []
        for benchmark in chosen:  # all of them first: what cannot run is said before anything runs
            found = documents(benchmark, local, limits.get(benchmark.name, options.limit))
            runs += [_Run(loaded, benchmark, found, tau, options, sandbox, tell) for tau in taus]
        begin(out, _manifest(loaded, options))
        return [each.run(out) for each in runs]


def sandbox_for(chosen: Sequence[Benchmark], options: EvalOptions) -> Sandbox | None:
    """Where the programs of these benchmarks run; None: they have none.

    Raises:
        MicroStepError: they have, and this was not allowed, or the machine cannot shut them off.
    """
    running = [benchmark.name for benchmark in chosen if benchmark.runs_code]
    if not running:
        return None
    if options.isolation is None:
        raise MicroStepError(f"{running[0]}: {NOT_ALLOWED}")
    sandbox = Sandbox(options.isolation)
    sandbox.check()
    return sandbox


def _manifest(loaded: LoadedModel, options: EvalOptions) -> dict[str, Any]:
    from importlib.metadata import version

    packages = {name: version(name) for name in ("lm_eval", "torch", "transformers", "tokenizers")}
    return {
        "format": FORMAT,
        "model": loaded.facts.to_dict(),
        "options": {**asdict(options), "template": dict(options.template) if options.template else None},
        "packages": packages,
        "threads": torch.get_num_threads(),
    }


def _check_chat(loaded: LoadedModel, options: EvalOptions, arguments: Mapping[str, Any]) -> None:
    """See that the model takes the conversation that is asked for; the harness would leave a system prompt out."""
    if options.chat and not loaded.tokenizer.chat_template:
        raise ModelError(f"{loaded.facts.name} has no chat template; leave out --chat")
    if (options.template or options.template_date) and not options.chat:
        raise MicroStepError("--template-arg and --template-date are of a chat template: give --chat, too")
    if options.system and not options.chat:
        raise MicroStepError("a system prompt is part of a conversation: give --chat, too")
    if options.system:
        turns = [{"role": "system", "content": options.system}, {"role": "user", "content": "Hello!"}]
        try:
            said = str(loaded.tokenizer.apply_chat_template(turns, tokenize=False, **arguments))
        except TemplateError as error:
            raise ModelError(f"the chat template of {loaded.facts.name} refuses a system prompt: {error}") from None
        if options.system.strip() not in said:
            raise ModelError(f"the chat template of {loaded.facts.name} leaves a system prompt out; give none")


def requests_of(
    benchmark: Benchmark, task: ConfigurableTask, lm: HFLM, options: EvalOptions
) -> dict[int, list[Instance]]:
    """The harness's requests of each document of a benchmark's task, as a model is asked."""
    template = lm.apply_chat_template if options.chat else None
    found: dict[int, list[Instance]] = {}
    for number, document in enumerate(task.eval_docs):
        context = task.fewshot_context(
            document,
            num_fewshot=task.config.num_fewshot,
            system_instruction=options.system,
            apply_chat_template=options.chat,
            fewshot_as_multiturn=options.multiturn,
            chat_template=template,
            gen_prefix=task.doc_to_prefix(document),
        )
        built = task.construct_requests(
            document, context, apply_chat_template=options.chat, metadata=(benchmark.name, number, 1)
        )
        found[number] = built if isinstance(built, list) else [built]
        if options.chat and benchmark.judge == "tokens":  # the turn's own start stands before it
            for each in found[number]:
                each.arguments = (each.args[0], each.args[1].lstrip())
    return found


class _Run:
    """One benchmark under one tau."""

    def __init__(
        self,
        loaded: LoadedModel,
        benchmark: Benchmark,
        found: list[dict[str, Any]],
        tau: float | None,
        options: EvalOptions,
        sandbox: Sandbox | None,
        tell: Tell,
    ) -> None:
        self.benchmark, self.found, self.tau, self.options, self._tell = benchmark, found, tau, options, tell
        rows = options.batch_rows
        self.lm = (
            RecordedLM(loaded, rows, per_token=benchmark.judge == "tokens")
            if tau is None
            else MicroStepLM(loaded, tau, options.likelihood, rows)
        )
        if options.chat and loaded.tokenizer.chat_template:
            self.lm.chat_template_args, _ = template_settings(
                loaded.tokenizer, options.template or (), options.template_date
            )
        _check_chat(loaded, options, self.lm.chat_template_args)
        self.task = task_of(benchmark, found, options.max_new_tokens)
        self.room = self.lm.max_length - self._new_tokens()
        if self.room < 1:
            raise TooLarge(
                f"{benchmark.name}: answers may have {self._new_tokens()} tokens, the model's context holds"
                f" {self.lm.max_length}; ask for fewer with --max-new-tokens"
            )
        self.asked = ScoringContext(bool(self.task.config.gen_prefix), sandbox)

    def _new_tokens(self) -> int:
        if not self.benchmark.generates:
            return 0
        return int(self.task.config.generation_kwargs.get("max_gen_toks", _NEW_TOKENS))

    def run(self, folder: Path) -> SampleFile:
        """Write the samples that are not there."""
        path = folder / file_name(self.benchmark.name, self.tau)
        head = Head(self.benchmark.name, self.tau, len(self.found), data_hash(self.found))
        writer = SampleWriter(path, head)
        there = {sample.document for sample in writer.samples}
        meter = _SampleProgress(self._tell, self.benchmark.name, self.tau, len(self.found), len(there))
        for number, batch in enumerate(self._batches(requests_of(self.benchmark, self.task, self.lm, self.options))):
            missing = [document for document, _ in batch if document not in there]
            if missing:  # the whole batch again, as what stands beside a row rounds its numbers
                samples = [sample for sample in self._samples(batch, number) if sample.document in missing]
                writer.add(samples)
                meter.add(samples)
        return SampleFile(head, tuple(writer.samples))

    def _batches(self, requests: Mapping[int, list[Instance]]) -> Iterator[list[tuple[int, list[Instance]]]]:
        """Documents of like lengths, the longest first, with about as many requests as a batch has rows."""
        lengths = {
            number: max(len(self.lm.tok_encode("".join(map(str, each.args[:1])))) for each in instances)
            for number, instances in requests.items()
        }
        order = sorted(requests, key=lambda number: (-lengths[number], number))
        most = max(1, self.options.batch_rows // max(len(each) * self.options.repeats for each in requests.values()))
        for a in range(0, len(order), most):
            yield [(number, requests[number]) for number in order[a : a + most]]

    def _samples(self, batch: list[tuple[int, list[Instance]]], number: int) -> list[Sample]:
        seed = int(np.random.SeedSequence([self.options.seed, number]).generate_state(1)[0])
        devices = [self.lm.device] if self.lm.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            return self._written(batch) if self.benchmark.generates else self._likelihoods(batch)

    def _written(self, batch: list[tuple[int, list[Instance]]]) -> list[Sample]:
        """Answers to the requests of a batch, scored."""
        rows = [(document, instance) for document, (instance,) in batch for _ in range(self.options.repeats)]
        # the harness sorts by length and text: sorted so, its order is this one
        rows.sort(key=lambda row: (-len(self.lm.tok_encode(row[1].args[0])), row[1].args[0], row[0]))
        said: dict[int, list[tuple[str, HarnessAnswer]]] = defaultdict(list)
        for a in range(0, len(rows), self.options.batch_rows):
            chunk = rows[a : a + self.options.batch_rows]
            self.lm.answers.clear()
            texts = self.lm.generate_until([self._sampled(instance) for _, instance in chunk], disable_tqdm=True)
            for (document, _), text, answer in zip(chunk, texts, self.lm.answers, strict=True):
                said[document].append((text, answer))
        return [self._sample_of_answers(document, instance, said[document]) for document, (instance,) in batch]

    def _sampled(self, instance: Instance) -> Instance:
        """The request, with the options of sampling."""
        from lm_eval.api.instance import Instance as Request

        prompt, settings = instance.args
        settings = {**settings, "do_sample": False}
        settings.pop("temperature", None)
        if self.options.temperature > 0:
            settings |= {"do_sample": True, "temperature": self.options.temperature, "top_k": 0, "top_p": 0.95}
        return Request("generate_until", instance.doc, (prompt, settings), 0)

    def _sample_of_answers(self, document: int, instance: Instance, said: list[tuple[str, HarnessAnswer]]) -> Sample:
        responses = [Response(text, answer.ended) for text, answer in said]
        judged = JUDGES[self.benchmark.judge](self.found[document], responses, self.asked)
        prompt = instance.args[0]
        return Sample(
            document,
            prompt,
            judged.scores,
            judged.detail,
            tuple(self._piece(text, answer) for text, answer in said),
            sum(len(answer.ids) for _, answer in said),
            sum(answer.macro_steps for _, answer in said),
            sum(answer.micro_steps for _, answer in said),
            sum(answer.seconds for _, answer in said),
            max(0, len(self.lm.tok_encode(prompt)) - self.room),
        )

    def _piece(self, text: str, answer: HarnessAnswer) -> WrittenAnswer:
        tokens = tuple(self.lm.tokenizer.decode([token]) for token in answer.ids)
        p = answer.probability
        rounded = None if p is None else tuple(round(each, 4) for each in p)
        return WrittenAnswer(text, tokens, answer.ids, answer.starts, rounded, answer.ended)

    def _likelihoods(self, batch: list[tuple[int, list[Instance]]]) -> list[Sample]:
        """Likelihoods of the requests of a batch, scored."""
        if self.benchmark.judge == "text":
            return [sample for document, instances in batch for sample in self._read([(document, instances)])]
        return self._read(batch)

    def _read(self, batch: list[tuple[int, list[Instance]]]) -> list[Sample]:
        instances = [instance for _, several in batch for instance in several]
        rolling = self.benchmark.judge == "text"
        self.lm.likelihoods.clear()
        begun = time.perf_counter()
        (self.lm.loglikelihood_rolling if rolling else self.lm.loglikelihood)(instances, disable_tqdm=True)
        share = (time.perf_counter() - begun) / len(batch)
        likely, at, out = list(self.lm.likelihoods), 0, []
        for document, several in batch:
            count = len(likely) if rolling else len(several)  # of a text, its windows
            mine, at = likely[at : at + count], at + count
            responses = [Response(total=each.total, tokens=each.tokens, scored=each.scored) for each in mine]
            judged = JUDGES[self.benchmark.judge](self.found[document], responses, self.asked)
            tokens, steps = sum(each.tokens for each in mine), sum(each.macro_steps for each in mine)
            prompt, cut = "", 0
            if not rolling:
                prompt = several[0].args[0]
                cut = max(0, max(len(self.lm.tok_encode("".join(each.args))) for each in several) - self.room - 1)
            out.append(Sample(document, prompt, judged.scores, judged.detail, (), tokens, steps, 0, share, cut))
        return out


class _SampleProgress:
    """Tells how far a benchmark is, and how fast."""

    def __init__(self, tell: Tell, name: str, tau: float | None, documents: int, done: int) -> None:
        self._tell, self._documents, self._done, self._before = tell, documents, done, done
        self._name = name if tau is None else f"{name} at {tau:g}"
        self._samples: list[Sample] = []
        self._start = time.monotonic()
        tell(f"{self._name}: {done:,} of {documents:,}", done / documents)

    def add(self, samples: Sequence[Sample]) -> None:
        """Count samples and tell."""
        self._samples += samples
        self._done += len(samples)
        spent = max(time.monotonic() - self._start, 1e-9)
        new = self._done - self._before
        tokens, steps = (sum(getattr(each, key) for each in self._samples) for key in ("tokens", "macro_steps"))
        left = round((self._documents - self._done) * spent / new)
        self._tell(
            f"{self._name}: {self._done:,} of {self._documents:,}, {60 * new / spent:,.0f} a minute,"
            f" {tokens / max(1, steps):.2f} tokens a macro step,"
            f" about {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left",
            self._done / self._documents,
        )
