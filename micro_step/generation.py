"""`generate`: a micro_step model answers a prompt in segments, and its base alone answers the same prompt."""

from __future__ import annotations

from analysis.answer import Result
from analysis.generation.figures import FIGURES, draw
from analysis.generation.provenance import origin
from analysis.generation.request import GenerationRequest
from analysis.generation.result import Decoding, Generation
from analysis.generation.summary import finding
from analysis.generation.tables import answer_table, segment_table
from analysis.generation.view import GenerationView
from analysis.score_registry import Unit
from analysis.strips.generation import generation_strip
from analysis.token_strip.notebook import NotebookStrip
from micro_step.inputs import ModelLike, Models, TextLike, as_text_input
from model.arguments import checked
from model.scoring.scores import Sampling


@checked
def generate(
    model: ModelLike,
    prompt: TextLike,
    *,
    confidence: float = 0.8,
    rule: str = "confidence",
    max_segment_length: int = 4,
    lossless: bool | None = None,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    repetition_penalty: float = 1.0,
    eps: float = 1.0,
    chat: bool = False,
    force_bos: bool = False,
    unit: Unit = "nats",
) -> Result[Generation]:
    """Answer a prompt in segments, and by the base alone.

    A model that is no micro_step model gets untrained modules around it, always the same ones.

    Args:
        model: a name, a path, a specification, or a loaded model.
        prompt: a text, a `Document`, or a list of messages.
        confidence: tau of the rule that ends segments; above 1 the base alone writes.
        rule: confidence, product or stop_head.
        max_segment_length: M, the most tokens of a segment.
        lossless: the base checks every draft. None: what the model was trained for.
        max_new_tokens: of the answer.
        temperature: of sampling; 0 is greedy.
        top_p: sample from the likeliest tokens of this total probability.
        seed: of sampling.
        repetition_penalty: as transformers has it; 1 is none.
        eps: below 1, the base also keeps a drafted token that it gives at least this share of its likeliest token's
            probability; the answer is then no longer lossless.
        chat: apply the model's chat template.
        force_bos: put BOS first even if the tokenizer does not.
        unit: bits or nats, of the nll in the table.

    Returns:
        A row a token of both answers in `table`. Columns of seconds are of this run on this machine. `raw.micro.text`
        is the answer.

    Raises:
        MicroStepError: the model or the prompt cannot be read, or a setting does not suit the model.
    """
    models = Models()
    how = Decoding(
        rule,
        confidence,
        max_segment_length,
        lossless,
        max_new_tokens,
        Sampling(temperature, top_p, seed),
        repetition_penalty,
        eps,
    )
    request = GenerationRequest(models.spec(model), as_text_input(prompt, chat, force_bos), how)
    generation = request.run(models.load)
    return Result(
        "generate",
        generation,
        tuple(FIGURES),
        GenerationView(unit=unit),
        lambda: answer_table(generation, unit),
        lambda: f"{'|'.join(segment_table(generation)['text'])}\n{finding(generation)}",
        lambda name, view: draw(name, generation, view),
        lambda _, view: origin(request, generation, view),
        generation.notes,
        lambda view: NotebookStrip(generation_strip(generation, view.unit), view.pinned),
    )
