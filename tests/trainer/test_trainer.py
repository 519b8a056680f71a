"""The trainer: what is learnt, in which order, with which loss; that it falls; that a stopped run goes on as before."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoTokenizer

from data.prepared import Prepared
from data.run_folder import LogLine, Run, read_lines, read_run
from data.segmentation_config import SegmentationConfig
from data.training_rows import TokenRows
from model.decoding.generation_config import end_ids
from model.errors import ExportError, MicroStepError, ModelBroken
from model.hub.loading import ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from model.micro_step.saving import MODULES
from model.one_writer import one_writer
from model.text.document import Document, Message, TextInput
from model.text.encoding import encode
from tests.support.browser import ROOT
from tests.support.command import call
from tests.support.processes import program
from tests.support.tiny import save_tiny
from tests.support.training import make_prepared, recipe, same_curve, write_recipe
from trainer import checkpoint
from trainer.batches import sampler
from trainer.batches.dataset import training_rows
from trainer.batches.hidden_state_cache import positions
from trainer.budgets.time_budget import fitted_to
from trainer.draft_objective import DraftObjective
from trainer.loop import RunInterrupted, Trainer, accelerator_for
from trainer.objectives import LanguageModelObjective, MicroStepObjective
from trainer.optimizer import choose, factor
from trainer.recipe import Recipe, StageConfig, read_recipe
from trainer.setup import build

pytestmark = pytest.mark.slow

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


def quiet(message: str, fraction: float | None) -> None:
    """Says nothing."""


def trained(chosen: Recipe, prepared: Prepared, out: Path, tell: Any = quiet) -> Run:
    built = build(chosen, prepared, out.parent / "states", "cpu", quiet)
    return Trainer(built, out, accelerator_for(chosen, "cpu"), tell).run()


def figures(path: Path) -> list[dict[str, Any]]:
    """What a log says, without what the clock decides."""
    lines = [json.loads(line) for line in (path / "log.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k not in ("tokens_per_second", "seconds")} for line in lines]


# --- rows


def test_the_answer_and_the_token_that_closes_it_are_learnt(prepared: Prepared, model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = training_rows(prepared, SegmentationConfig(rule="fixed", parameters={"k": 3}))
    assert len(rows.train) + len(rows.held_out) == 48 and len(rows.held_out) == 6
    texts = {True: 0, False: 0}
    for part in (rows.train, rows.held_out):
        for i in range(len(part)):
            one = part.take(np.array([i]))
            said = tokenizer.decode(one.ids[one.loss_mask])
            assert said.startswith("Here: ")
            texts[said.endswith(".<|im_end|>")] += 1
            assert one.starts[~one.loss_mask].all()  # the prompt is never merged
            assert one.loss_mask[-1] and one.starts[np.flatnonzero(one.loss_mask)[0]]
            run = np.diff(np.append(np.flatnonzero(one.starts[one.loss_mask]), one.loss_mask.sum()))
            assert (run[:-1] == 3).all()
    assert texts == {True: 39, False: 9}  # every fifth answer was cut off: its end is not learnt


def test_of_several_turns_the_last_answer_is_learnt(model: Path, tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": "Say one."}, {"role": "assistant", "content": "One."},
        {"role": "user", "content": "Say two."}, {"role": "assistant", "content": "Two."},
    ]  # fmt: skip
    rows = training_rows(make_prepared(tmp_path / "p", model, messages=[talk]), None).train
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert tokenizer.decode(rows.ids[rows.loss_mask]) == "Two.<|im_end|>"
    document = Document(tuple(Message(**turn) for turn in talk))
    for count, given in ((4, len(rows.prompt(0))), (3, None)):  # what views take for the prompt is what training does
        encoded = encode(TextInput(replace(document, messages=document.messages[:count]), chat=True), tokenizer)
        assert encoded.given == (len(encoded) if given is None else given)
    assert encode(TextInput(Document.plain("Say one.")), tokenizer).given == 1


def test_a_target_length_is_solved_for(prepared: Prepared) -> None:
    wanted = SegmentationConfig(rule="entropy", target_length=1.7)
    assert training_rows(prepared, wanted).train.mean_length == pytest.approx(1.7, abs=0.1)
    with pytest.raises(MicroStepError, match="window"):
        training_rows(prepared, SegmentationConfig(rule="limited_history"))
    with pytest.raises(MicroStepError, match="did you mean 'entropy'"):
        training_rows(prepared, SegmentationConfig(rule="entrpy"))


# --- steps


def test_an_epoch_reads_each_row_as_often_as_it_is_repeated() -> None:
    lengths, repeat = np.arange(5, 45), np.ones(40, dtype=np.int64)
    repeat[3] = 3
    seen: list[int] = []
    for chosen in sampler.steps(lengths, repeat, 100, seed=1):
        assert len(chosen) * lengths[chosen].max() <= 100
        seen += chosen.tolist()
        if len(seen) >= 42:
            break
    assert sorted(seen) == sorted(np.repeat(np.arange(40), repeat).tolist())
    first, again = (list(islice(sampler.steps(lengths, repeat, 100, seed=1), 30)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other = list(islice(sampler.steps(lengths, repeat, 100, seed=2), 30))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    with pytest.raises(MicroStepError, match="batch.tokens"):
        next(sampler.steps(lengths, repeat, 20, seed=1))


def test_what_a_step_counts_is_what_the_model_counts(prepared: Prepared, model: Path) -> None:
    built = build(recipe(model), prepared, Path("unused"), "cpu", quiet)
    rows = built.feed.train  # type: ignore[attr-defined]
    for chosen in islice(built.feed.steps(), 3):
        _, tally = built.objective(built.feed.part(chosen), (1, 1))
        assert built.feed.counts(chosen) == (tally.tokens, int(tally.other[0])) == sampler.counts(rows, chosen, 4)


def test_the_rate_warms_up_and_falls_to_its_floor() -> None:
    stage = StageConfig(name="s", steps=110, rates={"new": 1.0}, warmup=10, floor=0.2)
    assert factor(stage, 0) == pytest.approx(0.1, abs=1e-3) and factor(stage, 109) == pytest.approx(0.2)
    assert factor(stage, 59) == pytest.approx(0.6)  # half of the way from the peak to the end


@pytest.mark.parametrize("steps", [1, 2, 6, 20, 21, 40, 100])
@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_the_peak_rate_is_the_peak(steps: int, decay: str) -> None:
    """The fall once began with the first step: with the default warm-up a run of 40 steps reached 58% of its peak."""
    stage = StageConfig(name="s", steps=steps, rates={"new": 1.0}, decay=decay)  # type: ignore[arg-type]
    rates = [factor(stage, done) for done in range(steps)]
    top = min(stage.warmup, steps) - 1
    assert rates[top] == max(rates) == pytest.approx(1)
    assert all(a < b for a, b in zip(rates[:top], rates[1 : top + 1], strict=True))
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(1.0 if decay == "constant" or steps <= 20 else stage.floor)


# --- losses


def test_the_plain_loss_is_transformers_own(prepared: Prepared, model: Path) -> None:
    built = build(recipe(model, "control"), prepared, Path("unused"), "cpu", quiet)
    assert isinstance(built.objective, LanguageModelObjective)
    batch = built.feed.part(next(built.feed.steps()))
    n = int((batch.labels[:, 1:] != -100).sum())  # type: ignore[attr-defined]
    loss, tally = built.objective(batch, (n, 0))
    theirs = built.model(input_ids=batch.ids, attention_mask=batch.mask.long(), labels=batch.labels).loss  # type: ignore[attr-defined]
    assert float(loss) == pytest.approx(float(theirs), rel=1e-5) == pytest.approx(tally.token_loss, rel=1e-5)


def test_the_draft_loss_is_that_of_the_micro_decoder_position_by_position(
    prepared: Prepared, model: Path, tmp_path: Path
) -> None:
    chosen = recipe(model, "draft", draft={"vocabulary": 24})
    built = build(chosen, prepared, tmp_path, "cpu", quiet)
    micro, objective = built.model, built.objective
    assert isinstance(micro, MicroStepForCausalLM) and isinstance(objective, DraftObjective)
    words = micro.config.draft_vocabulary
    assert len(words) == 24 and set(end_ids(micro)) <= set(words)
    rows = built.feed.train.rows  # type: ignore[attr-defined]
    row, token = positions(rows)
    some = np.arange(0, len(row), 7)[:9]
    micro.double()
    objective._head = [objective._head[0].double()]
    _, tally = objective(built.feed.part(some).__class__(*_exact(micro, rows, row[some], token[some])), (1, 1))
    nll, right, counted = np.zeros(4), np.zeros(4), np.zeros(4)
    head = micro.base.get_output_embeddings().weight.double()[words]
    for r, t in zip(row[some], token[some], strict=True):
        ids = torch.from_numpy(rows.ids[rows.offsets[r] : rows.offsets[r + 1]])[None]
        at = int(t - rows.offsets[r])
        with torch.no_grad():
            embed = micro.get_input_embeddings()
            macro = micro.macro(embed(ids), torch.ones_like(ids), torch.arange(ids.shape[1])[None])
            for j in range(1, min(4, ids.shape[1] - at - 1)):
                state, _ = micro.micro(macro.context[:, at], embed(ids[:, at + 1 : at + 1 + j]))
                scores = (head @ state[0, -1]).log_softmax(-1)
                target = int(ids[0, at + 1 + j])
                counted[j] += 1
                if target in words:
                    nll[j] -= float(scores[words.index(target)])
                    right[j] += int(scores.argmax()) == words.index(target)
    assert tally.position[0].tolist() == counted.tolist() and counted[1:].all()
    np.testing.assert_allclose(tally.position[1].numpy(), nll, rtol=1e-6)  # logits are float32
    assert tally.position[2].tolist() == right.tolist()


def test_a_drafts_loss_is_a_mean_over_the_words_it_can_draft(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    """Training once divided by all learnt tokens and a validation by these: 1.26 beside 2.55 with nothing learnt."""
    built = build(recipe(model, "draft", draft={"vocabulary": 8}), prepared, tmp_path, "cpu", quiet)
    chosen = next(built.feed.steps())
    loss, tally = built.objective(built.feed.part(chosen), built.feed.counts(chosen))
    known = int(tally.position[3].sum())
    assert built.feed.counts(chosen)[0] == known < built.feed.loss_tokens(chosen) == tally.tokens
    assert loss.item() == pytest.approx(tally.token_loss, rel=1e-5)


@pytest.mark.parametrize(("objective", "teacher"), [("micro_step", False), ("micro_step", True), ("draft", True)])
def test_a_lines_loss_is_the_sum_of_its_parts(
    objective: str, teacher: bool, prepared: Prepared, model: Path, tmp_path: Path
) -> None:
    """Of a train line it was a mean over steps, and its parts over tokens: four steps of other sizes did not add up."""
    chosen = recipe(model, objective, 8, teacher=teacher, log_every=4, batch={"tokens": 96})
    run = trained(chosen, prepared, tmp_path / "run")
    config = load(ModelSpec(str(run.model))).model.config
    for line in run.lines:
        whole = line.token_loss + (config.stop_weight * line.stop_loss if line.stop_loss is not None else 0)
        if not teacher:
            assert line.loss == pytest.approx(whole, rel=1e-9)
        else:  # most tokens have a teacher, and the others count as matched
            assert line.teacher_loss is not None
            assert whole < line.loss <= whole + config.teacher_weight * line.teacher_loss * (1 + 1e-9)


def test_a_taught_draft_learns_what_the_base_expects_among_the_drafted_words(
    prepared: Prepared, model: Path, tmp_path: Path
) -> None:
    chosen = recipe(model, "draft", draft={"vocabulary": 24}, teacher=True)
    built = build(chosen, prepared, tmp_path, "cpu", quiet)
    micro, objective, states = built.model, built.objective, built.feed.train  # type: ignore[attr-defined]
    assert isinstance(micro, MicroStepForCausalLM) and isinstance(objective, DraftObjective)
    some = np.arange(0, len(states), 5)[:12]
    batch = built.feed.part(some)
    loss, tally = objective(batch, (1, 1))
    words = micro.config.draft_vocabulary
    head = micro.base.get_output_embeddings().weight[words].double()
    micro_states, _ = micro.micro(batch.context.float(), micro.get_input_embeddings()(batch.ids[:, :-1]))  # type: ignore[attr-defined]
    expected, without = 0.0, 0
    rows = states.rows
    for i, p in enumerate(some):
        first, end = int(states.token[p]), int(rows.offsets[states.row[p] + 1])
        ids = torch.from_numpy(rows.ids[rows.offsets[states.row[p]] : end])[None]
        with torch.no_grad():
            theirs = micro.base(ids, output_hidden_states=True).hidden_states[-1][0]
        for j in range(1, 4):
            if first + 1 + j >= end or int(rows.ids[first + 1 + j]) not in words:
                continue
            if first + 1 + j == end - 1:  # the state before a row's last token is not stored
                without += 1
                continue
            state = theirs[first + j - int(rows.offsets[states.row[p]])].to(torch.bfloat16).double()
            theirs_p, mine_p = (head @ state).log_softmax(-1), (head @ micro_states[i, j - 1].double()).log_softmax(-1)
            expected += float((theirs_p.exp() * (theirs_p - mine_p)).sum().detach())
    assert without and float(tally.other[4]) == pytest.approx(expected, rel=1e-4) and expected > 0.01
    assert float(loss.detach()) == pytest.approx(float(tally.position[1].sum()) + expected, rel=1e-4)


def test_a_taught_model_matches_the_base_as_it_was_at_every_token_whose_state_is_stored(
    prepared: Prepared, model: Path, tmp_path: Path
) -> None:
    built = build(recipe(model, teacher=True), prepared, tmp_path, "cpu", quiet)
    micro, feed = built.model, built.feed
    batch = feed.part(next(feed.steps()))
    loss, tally = built.objective(batch, (1, 1))
    out = micro(batch.ids, batch.mask, batch.starts)  # type: ignore[attr-defined]
    expected, without, taught = 0.0, 0, 0
    for i, row in enumerate(batch.ids):  # type: ignore[attr-defined]
        length = int(batch.mask[i].sum())  # type: ignore[attr-defined]
        with torch.no_grad():
            theirs = micro.base(row[None, :length], output_hidden_states=True).hidden_states[-1][0]
        for t in np.flatnonzero(batch.labels[i].numpy() != -100):  # type: ignore[attr-defined]
            if t == length - 1:  # the state before a row's last token is not stored
                without += 1
                continue
            taught += 1
            state = theirs[t - 1].to(torch.bfloat16).float()
            theirs_p = micro.base.lm_head(state).double().log_softmax(-1)
            mine_p = out.logits[i, t - 1].double().log_softmax(-1)
            expected += float((theirs_p.exp() * (theirs_p - mine_p)).sum().detach())
    assert without and float(tally.other[3]) == taught
    assert float(tally.other[4]) == pytest.approx(expected, rel=1e-4) and expected > 0.01
    stop = float(tally.other[2]) * micro.config.stop_weight
    assert float(loss.detach()) == pytest.approx(float(tally.position[1].sum()) + expected + stop, rel=1e-4)


def test_a_teacher_of_all_tokens_is_the_one_of_states_and_fewer_tokens_bound_it_from_below(
    prepared: Prepared, model: Path, tmp_path: Path
) -> None:
    """By the log-sum inequality, tokens that count as one event cannot diverge more than apart."""
    losses = {}
    for k in (None, 4, 10**6):
        built = build(recipe(model, teacher=True, teacher_top=k), prepared, tmp_path, "cpu", quiet)
        loss, tally = built.objective(built.feed.part(next(built.feed.steps())), (1, 1))
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in built.model.micro.parameters() if p.grad is not None])  # type: ignore[attr-defined]
        losses[k] = tally.other[3:5], gradient
    assert losses[None][0][0] == losses[4][0][0] == losses[10**6][0][0] > 0  # tokens
    torch.testing.assert_close(losses[10**6][0][1], losses[None][0][1], rtol=5e-3, atol=0.0)  # states are bfloat16
    difference = (losses[10**6][1] - losses[None][1]).norm() / losses[None][1].norm()
    assert difference < 1e-2
    assert 0 < losses[4][0][1] < 0.99 * losses[None][0][1]


@pytest.mark.parametrize("merge_layer", [0, 1])
def test_a_prompt_read_without_gradients_gives_the_same_loss(
    merge_layer: int, prepared: Prepared, model: Path, tmp_path: Path
) -> None:
    """And the same gradients of the new modules, which no prompt depends on; an adapter's lose what prompts gave."""
    gradients, losses = [], []
    for whole in (True, False):
        chosen = recipe(
            model, teacher=True, prompt_gradients=whole, adapter=LORA,
            stages=[{"name": "only", "steps": 2, "rates": {"new": 1e-3, "adapter": 1e-3}}],
        ).model_copy(update={"model": {"merge_layer": merge_layer}})  # fmt: skip
        built = build(chosen, prepared, tmp_path, "cpu", quiet)
        named = dict(built.model.named_parameters())
        torch.manual_seed(0)
        for name, parameter in named.items():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        choose(built.objective, "micro_step", {"new": 1.0, "adapter": 1.0})
        batch = built.feed.part(next(built.feed.steps()))
        assert len(set((batch.labels != -100).long().argmax(1).tolist())) > 1  # type: ignore[attr-defined]
        loss, _ = built.objective(batch, (1, 1))
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append({name: p.grad for name, p in named.items() if p.grad is not None})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        if "lora_" not in name:
            torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-3)
    assert any(
        not torch.allclose(gradients[1][name], gradient, rtol=0.05)
        for name, gradient in gradients[0].items()
        if "lora_B" in name
    )


def test_a_model_trained_with_its_adapter_off_for_prompts_writes_so_when_it_is_loaded(
    prepared: Prepared, model: Path, tmp_path: Path
) -> None:
    chosen = recipe(
        model, teacher=True, prompt_gradients=False, adapter=LORA,
        stages=[{"name": "only", "steps": 3, "rates": {"new": 1e-2, "adapter": 1e-1}}],
    ).model_copy(update={"model": {"merge_layer": 1, "prompt_adapter": False}})  # fmt: skip
    loaded = load(ModelSpec(str(trained(chosen, prepared, tmp_path / "run").model)))
    assert any("adapter is off for the prompt" in note for note in loaded.facts.approximations)
    prompt = torch.tensor([training_rows(prepared, None).train.prompt(0)])
    found = loaded.model.generate_segments(prompt, confidence=0.0, max_new_tokens=12)
    whole, n = found.sequences, prompt.shape[1]
    starts = torch.cat([torch.ones_like(prompt, dtype=torch.bool), found.segment_starts], 1)
    with torch.no_grad():
        read, other = (
            loaded.model(whole, segment_starts=starts, prompt=torch.tensor([given])).logits[0, n - 1 : -1]
            for given in (n, 0)
        )
    assert read.argmax(-1).tolist() == whole[0, n:].tolist()
    assert not torch.allclose(read, other, atol=1e-3)


def test_a_draft_step_reads_nothing_back_from_the_device(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    """Reading a value (`item`, `bool`, `nonzero`) makes the host wait for a GPU."""

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = function.name()
            if any(part in name for part in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero")):
                reads.append(name)
            return function(*args, **(kwargs or {}))

    reads: list[str] = []
    built = build(recipe(model, "draft", teacher=True, draft={"vocabulary": 24}), prepared, tmp_path, "cpu", quiet)
    steps = built.feed.steps()
    for number in range(2):  # the first step tries whether the layers take causal masks
        reads.clear()
        batch = built.feed.part(next(steps))
        with Reads():
            loss, _ = built.objective(batch, (1, 1))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(built.model.micro.parameters(), 1.0)  # type: ignore[attr-defined]
        assert number == 0 or not reads


def _exact(micro: MicroStepForCausalLM, rows: TokenRows, row: Any, token: Any) -> tuple[torch.Tensor, ...]:
    """A draft batch with states in float64 instead of the stored bfloat16."""
    contexts, after, learnt = [], [], []
    for r, t in zip(row, token, strict=True):
        ids = torch.from_numpy(rows.ids[rows.offsets[r] : rows.offsets[r + 1]])[None]
        with torch.no_grad():
            e = micro.get_input_embeddings()(ids)
            macro = micro.macro(e, torch.ones_like(ids), torch.arange(ids.shape[1])[None])
        at = int(t - rows.offsets[r])
        contexts.append(macro.context[0, at])
        places = torch.arange(at + 1, at + 5)
        learnt.append(places < ids.shape[1])
        after.append(ids[0, places.clamp(max=ids.shape[1] - 1)])
    return torch.stack(contexts), torch.stack(after), torch.stack(learnt)


def test_gradients_reach_exactly_the_groups_of_a_stage(prepared: Prepared, model: Path) -> None:
    chosen = recipe(model, adapter=LORA, stages=[{"name": "a", "steps": 1, "rates": {"adapter": 1e-3, "new": 1e-3}}])
    built = build(chosen, prepared, Path("unused"), "cpu", quiet)
    assert isinstance(built.objective, MicroStepObjective)
    for rates in ({"new": 1.0}, {"adapter": 1.0}, {"base": 1.0}, {"new": 1.0, "adapter": 1.0}):
        built.objective.zero_grad()
        groups = choose(built.objective, "micro_step", rates)
        loss, _ = built.objective(built.feed.part(next(built.feed.steps())), (1, 1))
        loss.backward()
        for name, parameter in built.model.named_parameters():
            group = "adapter" if "lora_" in name else "base" if name.startswith("base.") else "new"
            assert (parameter.grad is not None) <= (group in rates), name
        assert all(parameters for parameters in groups.values())


# --- starting from another run


def test_a_run_starts_with_the_micro_decoder_of_another(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    draft = trained(recipe(model, "draft", steps=4), prepared, tmp_path / "draft")
    assert draft.model is not None
    built = build(recipe(model, start=str(draft.model)), prepared, Path("unused"), "cpu", quiet)
    fresh = build(recipe(model), prepared, Path("unused"), "cpu", quiet)
    saved = load_file(draft.model / MODULES)
    for name, weight in built.model.micro.state_dict().items():
        assert torch.equal(weight, saved[f"micro.{name}"].float()), name
    moved = [
        not torch.equal(w, fresh.model.micro.state_dict()[name]) for name, w in built.model.micro.state_dict().items()
    ]
    assert any(moved)
    for part in ("merger", "stop"):
        for a, b in zip(getattr(built.model, part).parameters(), getattr(fresh.model, part).parameters(), strict=True):
            assert torch.equal(a, b), part


def test_a_run_goes_on_where_another_ended(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    stages = [{"name": "a", "steps": 4, "rates": {"adapter": 1e-2, "new": 1e-2}}]
    first = trained(recipe(model, adapter=LORA, stages=stages), prepared, tmp_path / "first")
    assert first.model is not None
    further = recipe(model, adapter=LORA, stages=stages, start=str(first.model), start_with="all", teacher=True)
    built = build(further, prepared, tmp_path / "states", "cpu", quiet)
    saved, there = load_file(first.model / MODULES), built.model.state_dict()
    assert any("lora_B" in name and weight.any() for name, weight in saved.items())
    for name, weight in saved.items():
        assert torch.equal(there[name], weight.float()), name

    fresh = build(recipe(model, teacher=True), prepared, tmp_path / "others", "cpu", quiet)
    sampler = [next(iter(each.feed.steps())) for each in (built, fresh)]
    taught, untouched = (each.feed.part(batch).teacher for each, batch in zip((built, fresh), sampler, strict=True))
    assert torch.equal(taught.nan_to_num(), untouched.nan_to_num()), "the adapter that was started with teaches nothing"
    ids = torch.randint(5, 100, (1, 9))
    with torch.no_grad():
        assert not torch.equal(built.model.base(ids).logits, fresh.model.base(ids).logits), "but it is there"

    with pytest.raises(MicroStepError, match=r"has adapter \{.*\}, but this model has None"):
        build(recipe(model, start=str(first.model), start_with="all"), prepared, tmp_path, "cpu", quiet)
    with pytest.raises(ValueError, match="name a model there"):
        recipe(model, start_with="all")


def test_a_recipe_says_after_which_layer_segments_are_merged(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    """The adapter leaves the lower layers out; a start must merge where the model does."""
    lora = {**LORA, "layers_to_transform": [1, 2]}
    stages = [{"name": "a", "steps": 20, "rates": {"adapter": 1e-2, "new": 1e-2}, "warmup": 2}]
    chosen = recipe(model, adapter=lora, stages=stages, teacher=True).model_copy(update={"model": {"merge_layer": 1}})
    run = trained(chosen, prepared, tmp_path / "run")
    measured = [line.loss for line in run.lines if line.split == "validation"]
    assert run.model is not None and measured[-1] < 0.9 * measured[0]
    assert load(ModelSpec(str(run.model))).model.config.merge_layer == 1
    weights = load_file(run.model / MODULES)
    assert any("layers.2" in name and "lora_B" in name and weight.any() for name, weight in weights.items())
    other = chosen.model_copy(
        update={"model": {"merge_layer": 2}, "start": str(run.model), "start_with": "all", "teacher": False}
    )
    with pytest.raises(MicroStepError, match="has merge_layer 1, but this model has 2"):
        build(other, prepared, tmp_path, "cpu", quiet)


def test_a_stage_has_its_own_weights_of_the_loss(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    """The last stage follows the teacher alone; a run that is stopped in it goes on with its weights."""
    rates = {"rates": {"new": 1e-2}}
    stages = [
        {"name": "both", "steps": 2, **rates},
        {"name": "teacher", "steps": 2, "weights": {"token_weight": 0, "stop_weight": 0, "teacher_weight": 2}, **rates},
        {"name": "both again", "steps": 1, **rates},
    ]
    chosen = recipe(model, stages=stages, teacher=True, validation={"every": 1}, checkpoint={"every": 1, "keep": 9})
    run = trained(chosen, prepared, tmp_path / "run")
    known = {line.step: line.teacher_loss for line in run.lines}
    for line in run.lines:
        parts = line.loss - line.token_loss - 0.5 * line.stop_loss  # what is left is the teacher's, by its weight
        if line.stage == "teacher":
            assert 0 < line.loss <= 2 * line.teacher_loss * (1 + 1e-6)
        else:
            assert 0 < parts <= line.teacher_loss * (1 + 1e-6)
    assert len(known) == 5 and {line.stage for line in run.lines} == {"both", "teacher", "both again"}
    shutil.rmtree(tmp_path / "run" / "model")
    for step in (4, 5):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{step:08d}")
    again = trained(chosen, prepared, tmp_path / "run")
    assert [line.loss for line in again.lines] == [line.loss for line in run.lines]


def test_the_states_of_the_base_are_matched_where_a_recipe_asks_for_it(
    prepared: Prepared, model: Path, tmp_path: Path
) -> None:
    """A line's loss is the sum of its parts; a run that was stopped between two lines goes on to the same ones."""
    stages = [
        {"name": "states", "steps": 4, "rates": {"adapter": 1e-2, "new": 1e-2}, "weights": {"hidden_weight": 20}},
        {"name": "without", "steps": 2, "rates": {"new": 1e-2}},
    ]
    chosen = recipe(model, adapter=LORA, stages=stages, teacher=True, log_every=3, checkpoint={"every": 2, "keep": 9})
    run = trained(chosen, prepared, tmp_path / "run")
    assert run.lines and all(line.hidden_loss for line in run.lines)
    for line in run.lines:
        rest = line.loss - line.token_loss - 0.5 * line.stop_loss  # teacher and states, of the tokens that have them
        most = line.teacher_loss + (20 if line.stage == "states" else 0) * line.hidden_loss
        assert (0.5 if line.stage == "states" else 0) * most < rest <= most * (1 + 1e-6)
    shutil.rmtree(tmp_path / "run" / "model")
    for step in (4, 6):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{step:08d}")
    assert figures_of(trained(chosen, prepared, tmp_path / "run")) == figures_of(run)
    old = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    del old["hidden_loss"]
    (tmp_path / "old.jsonl").write_text(json.dumps(old) + "\n")
    assert read_lines(tmp_path / "old.jsonl")[0].hidden_loss is None


def figures_of(run: Run) -> list[tuple[Any, ...]]:
    return [(line.step, line.split, line.loss, line.hidden_loss, line.token_loss) for line in run.lines]


def test_weights_that_leave_nothing_to_minimise_are_refused(model: Path) -> None:
    def with_weights(objective: str, weights: dict[str, float], **more: Any) -> Recipe:
        rates = {"control": {"base": 1e-3}}.get(objective, {"new": 1e-3})
        return recipe(model, objective, stages=[{"name": "a", "steps": 1, "rates": rates, "weights": weights}], **more)

    with pytest.raises(ValueError, match="stage 'a' follows neither tokens nor a teacher: set teacher to true"):
        with_weights("micro_step", {"token_weight": 0})
    with pytest.raises(ValueError, match="the loss of control"):
        with_weights("control", {"token_weight": 2})
    with pytest.raises(ValueError, match="a hidden_weight needs the states of a teacher"):
        with_weights("micro_step", {"hidden_weight": 20})
    with pytest.raises(ValueError, match="leave out the hidden_weight of 'a'"):
        with_weights("draft", {"hidden_weight": 20}, teacher=True)
    with pytest.raises(ValueError, match="a draft has no stop head"):
        with_weights("draft", {"stop_weight": 2})
    assert with_weights("draft", {"token_weight": 0}, teacher=True)


def test_a_start_that_does_not_fit_is_refused(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    draft = trained(recipe(model, "draft", steps=2), prepared, tmp_path / "draft")
    start = str(draft.model)
    cuts = {"rule": "fixed", "parameters": {"k": 2}}
    with pytest.raises(MicroStepError, match=r"at most 4 tokens, but this model of 5"):
        longer = {**cuts, "max_length": 5}
        build(recipe(model, start=start, segmentation=longer), prepared, Path("unused"), "cpu", quiet)
    cut_short = recipe(model, start=start, segmentation={**cuts, "max_length": 3})
    shorter = build(cut_short, prepared, tmp_path, "cpu", quiet)
    assert shorter.positions == 3  # a micro decoder that writes longer segments writes shorter ones too
    with pytest.raises(MicroStepError, match="holds no modules"):
        build(recipe(model, start=str(model)), prepared, Path("unused"), "cpu", quiet)
    other = save_tiny(tmp_path / "other", "llama", seed=4, chat=True)
    with pytest.raises(MicroStepError, match="was trained on other weights"):
        build(recipe(other, start=start), prepared, Path("unused"), "cpu", quiet)
    with pytest.raises(ValueError, match="control"):
        recipe(model, "control", start=start)


# --- runs


@pytest.mark.parametrize("objective", ["micro_step", "draft", "control"])
def test_the_loss_falls_and_the_checkpoint_opens(
    objective: str, prepared: Prepared, model: Path, tmp_path: Path
) -> None:
    run = trained(recipe(model, objective, steps=30, log_every=5), prepared, tmp_path / "run")
    losses = [line.token_loss for line in run.lines if line.split == "train"]
    assert losses[-1] < 0.85 * losses[0]
    measured = [line for line in run.lines if line.split == "validation"]
    assert measured[-1].token_loss < measured[0].token_loss
    held = measured[-1]
    assert len(held.row_counts) == len(held.accuracy_errors) == 1 + len(held.position_tokens)
    if objective != "draft":  # whose places are of no one row
        assert held.row_counts[0] > 2 and 0 < (held.accuracy_errors[0] or 0) < 0.5
        assert all(not line.row_counts for line in run.lines if line.split == "train")
    assert run.finished and run.lines[-1].step == run.facts.steps == 30
    assert run.lines[-1].seen == sum(line.tokens for line in run.lines if line.split == "train")
    found = load(ModelSpec(str(run.model)))
    assert (found.facts.micro_step is not None) == (objective != "control")
    assert run.model is not None and read_run(tmp_path / "run") == run


def test_a_run_without_held_out_examples_measures_none(model: Path, tmp_path: Path) -> None:
    prepared = make_prepared(tmp_path / "p", model, examples=12, every=99)
    for objective in ("micro_step", "draft"):
        run = trained(recipe(model, objective, steps=3), prepared, tmp_path / objective)
        assert run.finished and {line.split for line in run.lines} == {"train"}


def test_an_adapter_control_opens_by_its_folder_alone(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    stage = {"name": "a", "steps": 4, "rates": {"adapter": 1e-2}}
    run = trained(recipe(model, "control", adapter=LORA, stages=[stage]), prepared, tmp_path / "run")
    found, base = load(ModelSpec(str(run.model))), load(ModelSpec(str(model)))
    ids = torch.tensor([[5, 6, 7, 8]])
    assert not torch.allclose(found.model(ids).logits, base.model(ids).logits)
    assert found.facts.revision != base.facts.revision and any("adapter" in note for note in found.facts.approximations)


def test_stages_follow_each_other_and_train_what_they_say(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    stages = [
        {"name": "first", "steps": 3, "rates": {"new": 1e-3}},
        {"name": "second", "steps": 3, "rates": {"new": 1e-3, "base": 3e-2}},
    ]
    run = trained(recipe(model, stages=stages, checkpoint={"every": 3, "keep": 5}), prepared, tmp_path / "run")
    assert [stage.last for stage in run.facts.stages] == [3, 6]
    assert [set(line.rates) for line in run.lines if line.split == "train"] == [{"new"}] * 3 + [{"new", "base"}] * 3
    plain = load(ModelSpec(str(model))).model.state_dict()
    for path, same in zip(run.checkpoints, (True, False), strict=True):
        found = load(ModelSpec(str(path / "model"))).model.state_dict()
        assert (
            all(torch.allclose(found[f"base.{name}"], weight, atol=1e-3, rtol=1e-2) for name, weight in plain.items())
            == same
        )


def test_parts_of_a_step_add_up_to_the_whole(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    whole = trained(recipe(model), prepared, tmp_path / "whole")
    parts = trained(recipe(model, batch={"tokens": 512, "accumulate": 3}), prepared, tmp_path / "parts")
    same_curve(whole.lines, parts.lines)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_goes_on_to_the_same_losses_bit_for_bit(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    chosen = recipe(
        model, steps=12, checkpoint={"every": 3, "keep": 2}, log_every=2, adapter=LORA,
        stages=[
            {"name": "first", "steps": 8, "rates": {"new": 1e-3}},
            {"name": "second", "steps": 64, "rates": {"new": 1e-3, "adapter": 1e-3}},
        ],
    )  # fmt: skip
    whole = trained(chosen, prepared, tmp_path / "whole")
    file, out = write_recipe(chosen, tmp_path / "r.yaml"), tmp_path / "killed"
    after = random.Random(time.time_ns()).randint(2, 40)  # of 72: it must not end before it is killed
    process = program("trainer", file, "--out", out, "--prepared", prepared.path, "--device", "cpu")
    process.until(lambda: any(line.step >= after for line in _lines(out)))
    assert process.killed() == -signal.SIGKILL
    assert 0 < len(figures(out)) < len(figures(tmp_path / "whole"))
    trained(chosen, prepared, out)
    assert figures(out) == figures(tmp_path / "whole")
    assert (out / "model/micro_step.safetensors").read_bytes() == (
        tmp_path / "whole/model/micro_step.safetensors"
    ).read_bytes()
    assert whole.finished


def test_runs_that_share_a_plan_equal_one_run(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    """One schedule, one optimizer, one order of the data: the second run begins inside the second stage."""
    stages = [
        {"name": "first", "steps": 2, "rates": {"new": 1e-3}},
        {"name": "second", "steps": 5, "rates": {"new": 1e-3, "adapter": 1e-3}},
    ]
    shared: dict[str, Any] = {"stages": stages, "adapter": LORA, "validation": {"every": 1}}
    trained(recipe(model, **shared), prepared, tmp_path / "whole")
    trained(recipe(model, **shared, until=4), prepared, tmp_path / "one")
    second = recipe(model, **shared, continues=str(tmp_path / "one"))
    trained(second, prepared, tmp_path / "two")
    assert figures(tmp_path / "one") + figures(tmp_path / "two") == figures(tmp_path / "whole")
    weights = [(tmp_path / name / "model/micro_step.safetensors").read_bytes() for name in ("whole", "one", "two")]
    assert weights[0] == weights[2] != weights[1]
    with pytest.raises(MicroStepError, match="done 4 steps"):
        trained(second.model_copy(update={"until": 4}), prepared, tmp_path / "three")
    with pytest.raises(MicroStepError, match="seed"):
        trained(second.model_copy(update={"seed": 1}), prepared, tmp_path / "three")


@pytest.mark.parametrize(
    "groups",
    [
        ("new", "base"),
        ("base", "new"),
        ("new base adapter", "adapter", "new"),
    ],
)
def test_a_stop_in_any_stage_keeps_what_the_stages_before_it_trained(
    groups: tuple[str, ...], prepared: Prepared, model: Path, tmp_path: Path
) -> None:
    """A checkpoint once held the present stage's parameters alone, and a resumed run lost the others' training."""
    stages = [
        {"name": f"{i}", "steps": 2, "rates": dict.fromkeys(names.split(), 1e-2)} for i, names in enumerate(groups)
    ]
    adapter = LORA if any("adapter" in names for names in groups) else None
    chosen = recipe(model, stages=stages, adapter=adapter, checkpoint={"every": 1, "keep": 9})
    trained(chosen, prepared, tmp_path / "whole")
    for stop in range(2 * len(groups) - 2, 2 * len(groups) + 1):  # the end of a stage, inside the next, the run's end
        shutil.copytree(tmp_path / "whole", tmp_path / "again")
        shutil.rmtree(tmp_path / "again/model")
        for path in (tmp_path / "again/checkpoints").iterdir():
            if int(path.name[5:]) > stop:
                shutil.rmtree(path)
        trained(chosen, prepared, tmp_path / "again")
        assert figures(tmp_path / "again") == figures(tmp_path / "whole")
        for file in (tmp_path / "whole/model").glob("*.safetensors"):
            assert file.read_bytes() == (tmp_path / "again/model" / file.name).read_bytes()
        shutil.rmtree(tmp_path / "again")


def test_a_checkpoint_that_lacks_an_earlier_stage_is_refused(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    """As versions wrote that lost it: to go on from one would train on from the start of what is missing."""
    stages = [{"name": name, "steps": 2, "rates": {name: 1e-2}} for name in ("base", "new")]
    chosen = recipe(model, stages=stages, checkpoint={"every": 3})
    trained(chosen, prepared, tmp_path / "run")
    for path in (tmp_path / "run/checkpoints").iterdir():
        weights = load_file(path / checkpoint.WEIGHTS)
        save_file({k: w for k, w in weights.items() if ".base." not in k}, path / checkpoint.WEIGHTS)
    with pytest.raises(ModelBroken, match="lacks weights that an earlier stage trained.*another folder"):
        trained(chosen, prepared, tmp_path / "run")


def _lines(out: Path) -> list[LogLine]:
    return read_lines(out / "log.jsonl")


def test_ctrl_c_leaves_a_checkpoint_of_the_last_step(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    def stop(message: str, fraction: float | None) -> None:
        if "step 5 of" in message:
            os.kill(os.getpid(), signal.SIGINT)

    chosen = recipe(model, steps=9, checkpoint={"every": 100})
    with pytest.raises(RunInterrupted):
        trained(chosen, prepared, tmp_path / "run", stop)
    (last,) = read_run(tmp_path / "run").checkpoints
    assert last.name in ("step-00000005", "step-00000006")
    assert load(ModelSpec(str(last / "model"))).facts.micro_step is not None
    trained(chosen, prepared, tmp_path / "run")
    trained(chosen, prepared, tmp_path / "whole")
    assert figures(tmp_path / "run") == figures(tmp_path / "whole")


def test_a_full_disk_leaves_the_checkpoint_before(
    prepared: Prepared, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    def tell(message: str, fraction: float | None) -> None:
        if "step 5 of" in message:
            monkeypatch.setattr(checkpoint, "save_file", full)
            monkeypatch.setattr(safetensors.torch, "save_file", full)

    chosen = recipe(model, steps=9)
    with pytest.raises(ExportError, match="No space left on device.*the one before is complete"):
        trained(chosen, prepared, tmp_path / "run", tell)
    monkeypatch.undo()
    run = read_run(tmp_path / "run")
    assert [path.name for path in run.checkpoints] == ["step-00000002", "step-00000004"]
    assert load(ModelSpec(str(run.model))).facts.micro_step is not None
    trained(chosen, prepared, tmp_path / "run")
    assert figures(tmp_path / "run")[-1]["step"] == 9


def test_another_recipe_or_other_data_do_not_go_into_a_begun_folder(
    prepared: Prepared, model: Path, tmp_path: Path
) -> None:
    trained(recipe(model, steps=2), prepared, tmp_path / "run")
    with pytest.raises(ExportError, match="another recipe"):
        trained(recipe(model, steps=3), prepared, tmp_path / "run")
    other = make_prepared(tmp_path / "other", model, examples=20)
    with pytest.raises(ExportError, match="other data"):
        trained(recipe(model, steps=2), other, tmp_path / "run")


def test_a_run_does_not_go_on_with_other_weights_of_its_base(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    base = shutil.copytree(model, tmp_path / "base")
    trained(recipe(base, steps=2), prepared, tmp_path / "run")
    save_tiny(base, "llama", seed=4, chat=True)
    with pytest.raises(ExportError, match="other weights"):
        trained(recipe(base, steps=2), prepared, tmp_path / "run")


# --- a budget


def test_stages_share_a_budget_as_they_share_the_steps(model: Path) -> None:
    stages = [{"name": "a", "steps": 2, "rates": {"new": 1e-3}}, {"name": "b", "steps": 6, "rates": {"base": 1e-3}}]
    chosen = recipe(model, stages=stages, minutes=1.0, validation={"every": 10})
    by_hand = fitted_to(chosen, [1.0, 2.0])  # 60 s over a quarter of 1 s and three quarters of 2 s: 34.3 steps
    assert [stage.steps for stage in by_hand.stages] == [8, 25]
    # each tenth step validates for 5 s, and so does the end of each stage: 50 s over 1.75 + .5 s: 22.2 steps
    assert [stage.steps for stage in fitted_to(chosen, [1.0, 2.0], 5.0).stages] == [5, 16]
    assert fitted_to(chosen, [1e9, 1e9]).steps == 2  # a step of each stage at least
    assert by_hand.minutes == 1.0 and by_hand.stages[1].rates == chosen.stages[1].rates


def test_a_budget_becomes_steps_and_leaves_no_trace_in_what_is_trained(
    prepared: Prepared, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.budgets import time_budget
    from trainer.run import RunPaths, run_recipe

    monkeypatch.setattr(time_budget, "_SECONDS", 0.0)
    chosen, places = recipe(model, steps=50, minutes=0.01), RunPaths(tmp_path / "run", prepared=prepared.path)
    run = run_recipe(chosen, places, "cpu", quiet)
    assert run is not None and run.finished
    there = read_recipe(tmp_path / "run/recipe.yaml")
    assert there.minutes == 0.01 and there.steps == run.facts.steps == run.lines[-1].step == run.facts.stages[-1].last
    plain = there.model_copy(update={"minutes": None})
    trained(plain, prepared, tmp_path / "plain")
    assert figures(tmp_path / "run") == figures(tmp_path / "plain"), "the steps that were measured train nothing"
    shutil.rmtree(tmp_path / "run/model")
    monkeypatch.setattr(time_budget, "_seconds_a_step", None)  # a begun run is not measured again
    again = run_recipe(chosen, places, "cpu", quiet)
    assert again is not None and again.facts == run.facts and again.lines == run.lines
    with one_writer(tmp_path / "run"), pytest.raises(ExportError, match="another process"):
        run_recipe(chosen, places, "cpu", quiet)


# --- recipes


def test_every_recipe_of_the_project_parses() -> None:
    from data.mixes import read_mix

    names = sorted(path.stem for path in (ROOT / "trainer/recipes").glob("*.yaml"))
    assert len(names) >= 5
    for name in names:
        read_mix(read_recipe(name).data.mix)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stagez": []}, "unknown key 'stagez'; did you mean 'stages'"),
        (
            {"stages": [{"name": "a", "step": 3, "rates": {"new": 1.0}}]},
            "unknown key 'stages.0.step'; did you mean 'steps'",
        ),
        (
            {"stages": [{"name": "a", "steps": "3", "rates": {"new": 1.0}}]},
            "stages.0.steps: Input should be a valid integer",
        ),
        ({"stages": [{"name": "a", "steps": 3, "rates": {"old": 1.0}}]}, "stages.0.rates.old"),
        ({"stages": []}, "stages"),
        ({"objective": "control"}, "train adapter, base, not new"),
        ({"adapter": LORA}, "both or none"),
        ({"model": {"prompt_adapter": False}}, "prompt_adapter"),
        ({"name": "../up"}, "name"),
    ],
)
def test_a_wrong_recipe_is_one_line(change: dict[str, Any], said: str, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(json.dumps({**json.loads(recipe(model).model_dump_json()), **change}), "utf-8")  # JSON is YAML
    with pytest.raises(MicroStepError) as caught:
        read_recipe(file)
    assert said in str(caught.value) and "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_the_command_says_what_is_wrong_in_one_line(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    for words, said in (
        (["nowhere.yaml"], "there is no recipe"),
        ([str(tmp_path / "x.yaml")], "not valid YAML"),
        ([str(write_recipe(recipe(model), tmp_path / "r.yaml")), "--prepared", str(tmp_path)], "no prepared data"),
        ([str(write_recipe(recipe(tmp_path / "no"), tmp_path / "s.yaml")), "--dry-run"], "no"),
    ):
        code = call(monkeypatch, "train", *words, "--out", tmp_path / "o")
        err = capsys.readouterr().err
        assert code == 1 and said in err and len(err.strip().splitlines()) == 1 and not (tmp_path / "o").exists()


def test_a_dry_run_estimates_and_writes_nothing(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    from trainer.dry_run import plan
    from trainer.run import RunPaths

    for objective in ("micro_step", "draft", "control"):
        chosen = recipe(model, objective, steps=100)
        found = plan(chosen, RunPaths(tmp_path / "o", prepared=prepared.path), "cpu", quiet)
        built = build(chosen, prepared, tmp_path / objective, "cpu", quiet)
        assert found.parameters == built.facts.parameters
        assert found.tokens == pytest.approx(100 * built.facts.tokens_per_step, rel=0.5)
        assert found.memory > 0 and found.seconds and found.epochs and "min" in found.text
        assert (found.states is not None) == (objective == "draft")
    # an epoch reads the first example twice, as its mix says
    control = recipe(model, "control", steps=100)
    found = plan(control, RunPaths(tmp_path / "o", prepared=prepared.path), "cpu", quiet)
    feed = build(control, prepared, tmp_path, "cpu", quiet).feed
    rows = training_rows(prepared, None)
    assert rows.repeat.max() == 2 and found.tokens and found.epochs
    assert found.tokens / found.epochs == pytest.approx(
        sum(map(feed.loss_tokens, np.repeat(np.arange(42), rows.repeat)[:, None]))
    )
    unprepared = plan(recipe(model), RunPaths(tmp_path / "o"), "cpu", quiet)
    assert unprepared.tokens is None and "not prepared" in unprepared.text
    assert not (tmp_path / "o").exists()
