"""Run benchmarks: one model, some benchmarks, some values of tau. Each batch of samples is stored when it is done.

The batches of a benchmark depend only on its documents and the options, and each has a seed of its own, so a run that
was stopped anywhere resumes with the same samples.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data.corpus.store import MANIFEST
from data.corpus.store_writer import writing
from data.ray_pool import RayItem, RayOptions, require_ray, work_on_ray
from evals.benchmark import Benchmark, data_hash, documents, task_of
from evals.harness import HarnessAnswer, MicroStepLM, RecordedLM
from evals.options import EvalOptions
from evals.samples import FORMAT, Head, Sample, SampleFile, SampleWriter, WrittenAnswer, begin, file_name, read_manifest
from evals.sandbox.runner import NOT_ALLOWED, Sandbox
from evals.scoring import JUDGES, Response, ScoringContext
from model.errors import MicroStepError, ModelError, TooLarge
from model.hub.loading import LoadedModel
from model.micro_step.modeling import MicroStepForCausalLM
from model.progress import Meter, Tell, silent
from model.text.chat_template import template_settings
from model.text.template_process import TemplateRefusal, apply_chat_template

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

_LOGGER = logging.getLogger(__name__)
_DEFAULT_NEW_TOKENS = 256  # the harness's default


def evaluate(
    load_model: Callable[[], LoadedModel],
    chosen: Sequence[Benchmark],
    confidences: Sequence[float],
    out: Path,
    local: Path | None = None,
    options: EvalOptions | None = None,
    tell: Tell = silent,
    limits: Mapping[str, int] | None = None,
    cluster: RayOptions | None = None,
) -> list[SampleFile]:
    """Evaluate a model, or resume a run that was stopped.

    Args:
        load_model: called once the folder's lock is held.
        chosen: the benchmarks.
        confidences: values of tau; a plain model has none and runs once.
        out: folder of the samples, created if needed.
        local: folder with the data sets; None: the hub.
        options: the other options that decide the samples.
        tell: receives progress.
        limits: by benchmark name, use only this many documents, instead of the options' limit.
        cluster: share the batches on a cluster of Ray.

    Raises:
        MicroStepError: a benchmark runs programs without permission, the machine cannot isolate them, the cluster of
            Ray cannot be used, or its actors die again and again.
        ExportError: the folder cannot be used, or holds samples of something else.
        TextError: a data set cannot be read.
        TooLarge: prompts and answers do not fit the model's context.
    """
    options, limits = options or EvalOptions(), limits or {}
    sandbox = sandbox_for(chosen, options)
    if cluster is not None and cluster.ray:
        require_ray()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with writing(out):
        loaded = load_model()
        taus = list(confidences) if isinstance(loaded.model, MicroStepForCausalLM) else [None]
        if taus == [None] and (options.verify is not None or options.eps is not None or options.by_cost):
            raise MicroStepError(
                f"{loaded.facts.name} is a plain model and drafts nothing; leave out --verify, --eps and --by-cost"
            )
        if not taus:
            raise MicroStepError(f"{loaded.facts.name} is a micro_step model: give at least one --confidence")
        if options.chat and loaded.tokenizer.chat_template:  # a run that resumes on another day keeps its date
            begun = read_manifest(out)["options"].get("template_date") if (out / MANIFEST).exists() else None
            requested_date = options.template_date or begun
            _, date = template_settings(loaded.tokenizer, options.template or (), requested_date)
            options = replace(options, template_date=date or requested_date)
        runs = []
        for benchmark in chosen:  # all of them first, so that problems are reported before anything runs
            records = documents(benchmark, local, limits.get(benchmark.name, options.limit))
            runs += [_BenchmarkRun(loaded, benchmark, records, tau, options, sandbox, tell) for tau in taus]
        begin(out, _manifest(loaded, options))
        batches = ((run, number) for run in runs for number in run.begin(out))
        if cluster is None or not cluster.ray:
            for run, number in batches:
                run.keep(number, run.compute(number))
        else:
            _run_on_ray(loaded, runs, batches, cluster, tell)
        return [run.kept for run in runs]


def _run_on_ray(
    loaded: LoadedModel,
    runs: list[_BenchmarkRun],
    batches: Iterator[tuple[_BenchmarkRun, int]],
    cluster: RayOptions,
    tell: Tell,
) -> None:
    """Let actors compute batches; they are kept in the order in which one process would compute them."""
    items = (
        RayItem(f"batch {number} of {run.title}", (place, runs.index(run), number))
        for place, (run, number) in enumerate(batches)
    )
    asked = [(run.benchmark, run.documents, run.tau) for run in runs]
    make = partial(_BatchActor, asked, runs[0].options, runs[0].context.sandbox)
    held: dict[int, tuple[_BenchmarkRun, int, list[Sample]]] = {}
    done = 0
    with closing(work_on_ray(loaded, make, items, cluster, tell)) as finished:
        for item, samples in finished:
            place, which, number = item.value
            held[place] = runs[which], number, samples
            while done in held:
                run, number, samples = held.pop(done)
                run.keep(number, samples)
                done += 1


class _BatchActor:
    """Computes one batch after another, as an actor of Ray."""

    def __init__(
        self,
        asked: list[tuple[Benchmark, list[dict[str, Any]], float | None]],
        options: EvalOptions,
        sandbox: Sandbox | None,
        loaded: LoadedModel,
    ) -> None:
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        if sandbox is not None:
            sandbox.check()
        self._runs = cache(lambda number: _BenchmarkRun(loaded, *asked[number], options, sandbox, silent))

    def __call__(self, value: tuple[int, int, int]) -> list[Sample]:
        _, which, number = value
        return self._runs(which).compute(number)


def sandbox_for(chosen: Sequence[Benchmark], options: EvalOptions) -> Sandbox | None:
    """Return the sandbox for the programs of these benchmarks; None if they have none."""
    running = [benchmark.name for benchmark in chosen if benchmark.runs_code]
    if not running:
        return None
    if options.isolation is None:
        raise MicroStepError(f"{running[0]}: {NOT_ALLOWED}")
    sandbox = Sandbox(options.isolation)
    for sentence in sandbox.check():
        _LOGGER.warning("the sandbox is weaker on this machine: %s", sentence)
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
    """Check that the model accepts such a conversation; the harness would silently drop a system prompt."""
    if options.chat and not loaded.tokenizer.chat_template:
        raise ModelError(f"{loaded.facts.name} has no chat template; leave out --chat")
    if (options.template or options.template_date) and not options.chat:
        raise MicroStepError("--template-arg and --template-date belong to a chat template: give --chat, too")
    if options.system and not options.chat:
        raise MicroStepError("a system prompt is part of a conversation: give --chat, too")
    if options.system:
        turns = [{"role": "system", "content": options.system}, {"role": "user", "content": "Hello!"}]
        try:
            rendered = apply_chat_template(loaded.tokenizer, turns, **arguments)
        except TemplateRefusal as error:
            raise ModelError(f"the chat template of {loaded.facts.name} refuses a system prompt: {error}") from None
        if options.system.strip() not in rendered:
            raise ModelError(f"the chat template of {loaded.facts.name} drops a system prompt; leave it out")


def requests_of(
    benchmark: Benchmark, task: ConfigurableTask, lm: HFLM, options: EvalOptions
) -> dict[int, list[Instance]]:
    """Return the harness's requests for each document of a benchmark's task."""
    template = lm.apply_chat_template if options.chat else None
    requests: dict[int, list[Instance]] = {}
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
        requests[number] = built if isinstance(built, list) else [built]
        if options.chat and benchmark.judge == "tokens":  # the template already starts the turn
            for request in requests[number]:
                request.arguments = (request.args[0], request.args[1].lstrip())
    return requests


class _BenchmarkRun:
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
        self.benchmark, self.documents, self.tau, self.options, self._tell = benchmark, found, tau, options, tell
        rows = options.batch_rows
        self.lm = (
            RecordedLM(loaded, rows, per_token=benchmark.judge == "tokens")
            if tau is None
            else MicroStepLM(
                loaded, tau, options.likelihood, rows, verify=options.verify, eps=options.eps, by_cost=options.by_cost
            )
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
                f"{benchmark.name}: answers may have {self._new_tokens()} tokens, but the model's context holds"
                f" {self.lm.max_length}; lower --max-new-tokens"
            )
        self.context = ScoringContext(bool(self.task.config.gen_prefix), sandbox)

    def _new_tokens(self) -> int:
        if not self.benchmark.generates:
            return 0
        return int(self.task.config.generation_kwargs.get("max_gen_toks", _DEFAULT_NEW_TOKENS))

    def begin(self, folder: Path) -> Iterator[int]:
        """Begin the file of samples, or resume it; yield the numbers of batches that it lacks."""
        path = folder / file_name(self.benchmark.name, self.tau)
        self._head = Head(self.benchmark.name, self.tau, len(self.documents), data_hash(self.documents))
        self._writer = SampleWriter(path, self._head)
        stored = {sample.document for sample in self._writer.samples}
        self._meter = _SampleProgress(self._tell, self.title, len(self.documents), len(stored))
        for number, batch in enumerate(self._batches):
            if not stored.issuperset(document for document, _ in batch):
                yield number

    def keep(self, number: int, samples: list[Sample]) -> None:
        """Add those samples of a batch to the file that it lacks."""
        stored = {sample.document for sample in self._writer.samples}
        new = [sample for sample in samples if sample.document not in stored]
        self._writer.add(new)
        self._meter.add(new)

    @property
    def kept(self) -> SampleFile:
        return SampleFile(self._head, tuple(self._writer.samples))

    @property
    def title(self) -> str:
        return self.benchmark.name if self.tau is None else f"{self.benchmark.name} at {self.tau:g}"

    @cached_property
    def _batches(self) -> list[list[tuple[int, list[Instance]]]]:
        """Documents of similar lengths, longest first, with about as many requests as a batch has rows."""
        requests = requests_of(self.benchmark, self.task, self.lm, self.options)
        lengths = {
            number: max(len(self.lm.tok_encode("".join(map(str, request.args[:1])))) for request in instances)
            for number, instances in requests.items()
        }
        order = sorted(requests, key=lambda number: (-lengths[number], number))
        batch_size = max(
            1, self.options.batch_rows // max(len(request) * self.options.repeats for request in requests.values())
        )
        return [
            [(number, requests[number]) for number in order[a : a + batch_size]]
            for a in range(0, len(order), batch_size)
        ]

    def compute(self, number: int) -> list[Sample]:
        """Compute a whole batch: its other rows affect the rounding."""
        batch = self._batches[number]
        seed = int(np.random.SeedSequence([self.options.seed, number]).generate_state(1)[0])
        devices = [self.lm.device] if self.lm.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            return self._written(batch) if self.benchmark.generates else self._likelihoods(batch)

    def _written(self, batch: list[tuple[int, list[Instance]]]) -> list[Sample]:
        """Generate answers to the requests of a batch, and score them."""
        rows = [(document, instance) for document, (instance,) in batch for _ in range(self.options.repeats)]
        # the harness sorts by length and text; sorting the same way keeps this order
        rows.sort(key=lambda row: (-len(self.lm.tok_encode(row[1].args[0])), row[1].args[0], row[0]))
        answers: dict[int, list[tuple[str, HarnessAnswer]]] = defaultdict(list)
        for a in range(0, len(rows), self.options.batch_rows):
            chunk = rows[a : a + self.options.batch_rows]
            self.lm.answers.clear()
            texts = self.lm.generate_until([self._sampled(instance) for _, instance in chunk], disable_tqdm=True)
            for (document, _), text, answer in zip(chunk, texts, self.lm.answers, strict=True):
                answers[document].append((text, answer))
        return [self._sample_of_answers(document, instance, answers[document]) for document, (instance,) in batch]

    def _sampled(self, instance: Instance) -> Instance:
        from lm_eval.api.instance import Instance as Request

        prompt, settings = instance.args
        settings = {**settings, "do_sample": False}
        settings.pop("temperature", None)
        if self.options.temperature > 0:
            settings |= {"do_sample": True, "temperature": self.options.temperature, "top_k": 0, "top_p": 0.95}
        return Request("generate_until", instance.doc, (prompt, settings), 0)

    def _sample_of_answers(self, document: int, instance: Instance, answers: list[tuple[str, HarnessAnswer]]) -> Sample:
        responses = [Response(text, answer.ended) for text, answer in answers]
        judged = JUDGES[self.benchmark.judge](self.documents[document], responses, self.context)
        prompt = instance.args[0]
        return Sample(
            document,
            prompt,
            judged.scores,
            judged.detail,
            tuple(self._piece(text, answer) for text, answer in answers),
            sum(len(answer.ids) for _, answer in answers),
            sum(answer.macro_steps for _, answer in answers),
            sum(answer.micro_steps for _, answer in answers),
            sum(answer.seconds for _, answer in answers),
            max(0, len(self.lm.tok_encode(prompt)) - self.room),
        )

    def _piece(self, text: str, answer: HarnessAnswer) -> WrittenAnswer:
        tokens = tuple(self.lm.tokenizer.decode([token]) for token in answer.ids)
        p = answer.probability
        rounded = None if p is None else tuple(round(value, 4) for value in p)
        return WrittenAnswer(text, tokens, answer.ids, answer.starts, rounded, answer.ended)

    def _likelihoods(self, batch: list[tuple[int, list[Instance]]]) -> list[Sample]:
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
            count = len(likely) if rolling else len(several)  # of a text, one per window
            own, at = likely[at : at + count], at + count
            responses = [
                Response(total=likely_part.total, tokens=likely_part.tokens, scored=likely_part.scored)
                for likely_part in own
            ]
            judged = JUDGES[self.benchmark.judge](self.documents[document], responses, self.context)
            tokens, steps = (
                sum(likely_part.tokens for likely_part in own),
                sum(likely_part.macro_steps for likely_part in own),
            )
            prompt, cut = "", 0
            if not rolling:
                prompt = several[0].args[0]
                cut = max(
                    0,
                    max(len(self.lm.tok_encode("".join(likely_part.args))) for likely_part in several) - self.room - 1,
                )
            out.append(Sample(document, prompt, judged.scores, judged.detail, (), tokens, steps, 0, share, cut))
        return out


class _SampleProgress(Meter):
    def __init__(self, tell: Tell, name: str, documents: int, done: int) -> None:
        super().__init__(done)
        self._tell, self._name, self._documents = tell, name, documents
        self._samples: list[Sample] = []
        tell(f"{self._name}: {done:,} of {documents:,}", done / documents)

    def add(self, samples: Sequence[Sample]) -> None:
        self._samples += samples
        self.done += len(samples)
        a_minute = 60 * (self.done - self.before) / self.seconds
        tokens, steps = (sum(getattr(sample, key) for sample in self._samples) for key in ("tokens", "macro_steps"))
        self._tell(
            f"{self._name}: {self.done:,} of {self._documents:,}, {a_minute:,.0f} a minute,"
            f" {tokens / max(1, steps):.2f} tokens per macro step{self.left(self._documents)}",
            self.done / self._documents,
        )
