"""The model card of a demonstration model, written from what :mod:`data.make_demo` measured.

It knows the wording and the licences; it measures nothing.
"""

from __future__ import annotations

from typing import Any

from data.sources.registry import SOURCES

WHAT = {
    False: (
        "A Llama pretrained from random weights on plain text: documents packed into rows of 1024 tokens with "
        "`<|endoftext|>` between them. It has never read `<|im_start|>` or `<|im_end|>`."
    ),
    True: (
        "`tiny-base`, fine-tuned on (prompt, response) pairs under a ChatML template, every second one with a system "
        "message. Only the response and the `<|im_end|>` that closes it were scored, never the prompt nor padding."
    ),
}
LICENCE = {False: "apache-2.0", True: "cc-by-sa-3.0"}
RIGHTS = {
    False: (
        "Weights: Apache-2.0, as the project. CDLA-Sharing-1.0 puts no terms on results computed from its data; the "
        "MIT-licensed data are named above."
    ),
    True: (
        "Weights: CC-BY-SA-3.0. Whether weights are an adaptation of what they were trained on is not settled, so the "
        "attribution (Databricks' dolly, MosaicML's dolly_hhrlhf, Anthropic's hh-rlhf) and the share-alike of dolly "
        "are passed on. What tiny-base was trained on is in its own card."
    ),
}


def card(report: dict[str, Any]) -> str:
    """Return the card as Markdown with a front matter.

    Args:
        report: what ``training.json`` holds: stage, documents, parameters, training, held_out, versions, threads, seed.
    """
    stage, training, chat = report["stage"], report["training"], report["stage"]["chat"]
    data = "\n".join(_data_row(use, report["documents"][use["source"]]) for use in stage["uses"])
    before, after = report["held_out"]["before"], report["held_out"]["after"]
    figures = "\n".join(_figure_row(view, before[view], after[view]) for view in after)
    versions = ", ".join(f"{package} {version}" for package, version in report["versions"].items())
    return f"""---
license: {LICENCE[chat]}
language: en
library_name: transformers
pipeline_tag: text-generation
---
# {stage["name"]}

{WHAT[chat]}

{report["parameters"]:,} parameters: 6 layers, width 128, 4 heads over 2 key-value heads, context 1024, bfloat16;
a byte-level BPE of 2048 words, the same in tiny-base and tiny-sft. The pair exists so that micro_step can compare a
pretrained and a fine-tuned model with no download.

**Limits.** It writes simple sentences and the shape of an answer, states falsehoods, cannot reckon, knows English and
some Python, and nothing was done to make it safe. Use it to look at uncertainty, not for what it says.

## Training

{training["steps"]:,} steps of AdamW (peak rate {stage["peak_rate"]}, warm-up, cosine to a tenth, clipped at 1.0),
{training["tokens"]:,} tokens read, {training["scored"]:,} of them scored, in {training["seconds"] / 60:.0f} minutes
on {report["threads"]} CPU threads in bfloat16 autocast; seed {report["seed"]}.
Made by `python -m data.make_demo` with {versions}.

| data | hub id | licence | documents | repeated |
|---|---|---|---|---|
{data}

## Held out

Every 50th document of each source was kept from training (of a novel or a play, the passages around it were not).
*Before* is {"tiny-base" if chat else "the random weights"}, *after* this model. Loss and entropy are nats a token;
*chat* is the response under the chat template, without the closing `<|im_end|>`.

| text | tokens | loss before | after | bits/byte before | after | entropy before | after |
|---|---|---|---|---|---|---|---|
{figures}

## Licence

{RIGHTS[chat]}
"""


def _data_row(use: dict[str, Any], documents: int) -> str:
    source = SOURCES[use["source"]]
    return f"| {source.title} | {source.hub or '-'} | {source.licence} | {documents:,} | {use['repeat']} |"


def _figure_row(view: str, before: dict[str, float], after: dict[str, float]) -> str:
    pairs = (f"{before[key]:.3f} | **{after[key]:.3f}**" for key in ("loss", "bits_per_byte", "entropy"))
    return f"| {view} | {after['tokens']:,} | {' | '.join(pairs)} |"
