"""`attention`, `attribute` and `depth`: where a model looks, what a number depends on, and what each layer predicts."""

from __future__ import annotations

from pathlib import Path

from analysis.answer import Result
from analysis.attention.answer import AttentionMaps, origin
from analysis.attention.figures import FIGURES, draw
from analysis.attention.micro.figures import FIGURES as MICRO_FIGURES
from analysis.attention.micro.figures import draw as draw_micro
from analysis.attention.micro.options import MicroView
from analysis.attention.micro.provenance import origin as micro_origin
from analysis.attention.micro.request import MicroRequest
from analysis.attention.micro.result import MicroAttention
from analysis.attention.micro.tables import finding as micro_finding
from analysis.attention.micro.tables import weight_table
from analysis.attention.pooling import Pool
from analysis.attention.result import AttentionRequest, AttentionView
from analysis.attribution.answer import attribution
from analysis.attribution.options import (
    AttributionOptions,
    AttributionUnit,
    AttributionView,
    Baseline,
    Features,
    Method,
    Quantity,
)
from analysis.attribution.view import ShownAttribution
from analysis.depth.answer import depth_answer
from analysis.depth.options import DepthView
from analysis.depth.request import DepthRequest, lens_files
from analysis.depth.result import Depth
from analysis.figures.figure import Figure
from analysis.generation.options import TAU
from analysis.generation.result import Decoding
from analysis.score_registry import Unit
from analysis.segmentation.strategy import Segmenter, Strategy
from analysis.strips.attention import attention_strip
from analysis.token_strip.notebook import NotebookStrip
from micro_step.inputs import ModelLike, Models, TextLike, as_strategy, as_text_input
from model.arguments import checked
from model.errors import MicroStepError
from model.segmentation.features import FeatureOptions
from model.segmentation.segment import MAX_LENGTH


@checked
def attention(
    model: ModelLike,
    text: TextLike,
    *,
    b: ModelLike | None = None,
    strategy: str | Strategy = "word",
    max_length: int = MAX_LENGTH,
    prompt_apart: bool | None = None,
    pool: Pool = "max",
    chat: bool = False,
    force_bos: bool = False,
) -> Result[AttentionMaps]:
    """Look at the attention of all layers and heads.

    Args:
        model: a name, a path, a specification, or a loaded model.
        text: a text, a `Document`, or a list of messages.
        b: a second model; figures then show B minus A.
        strategy: the segments that maps are read by, and that a micro_step model merges.
        max_length: M, the most tokens that a segment has.
        prompt_apart: each token that the assistant did not write is a segment. None: in a chat that holds an answer.
        pool: max or mean: what a cell of several weights holds.
        chat: apply the model's chat template.
        force_bos: put BOS first even if the tokenizer does not.

    Returns:
        A row a layer and head in `table`, with statistics that are means over queries. Figures take layer, head,
        source, level, queries and keys; another layer may run the model again. `raw.weights(layer, head)` is a map in
        full.

    Raises:
        MicroStepError: the model or the text cannot be read, or the two models do not read the same tokens.
    """
    models = Models()
    segmenter = Segmenter(as_strategy(strategy), max_length, FeatureOptions(prompt_apart=prompt_apart))
    request = AttentionRequest(models.named(model, b), as_text_input(text, chat, force_bos), segmenter, pool)
    maps = AttentionMaps(request, models.load)
    return Result(
        "attention",
        maps,
        tuple(FIGURES),
        AttentionView(),
        maps.table,
        lambda: maps.summary,
        lambda name, view: draw(name, maps.result(view, name)),
        lambda _, view: origin(maps.result(view)),
        tuple(note for reading in maps.readings for note in reading.notes),
        lambda view: NotebookStrip(attention_strip(maps.result(view, "row")), view.pinned),
    )


@checked
def micro_attention(
    model: ModelLike,
    text: TextLike,
    *,
    strategy: str | Strategy | None = None,
    written: bool = False,
    rule: str = "confidence",
    confidence: float = TAU,
    lossless: bool | None = None,
    max_new_tokens: int = 64,
    max_length: int | None = None,
    prompt_apart: bool | None = None,
    chat: bool = False,
    force_bos: bool = False,
) -> Result[MicroAttention]:
    """Look at the attention of a micro_step model's micro decoder, inside the segments of a text.

    Args:
        model: a name, a path, a specification, or a loaded model; one that is no micro_step model is wrapped.
        text: a text, a `Document`, or a list of messages.
        strategy: of the segments. None: as in the model's training.
        written: the model answers the text, and its own segments are looked at; the next four are of this answer.
        rule: confidence, product or stop_head.
        confidence: tau of the rule.
        lossless: the base checks every draft. None: what the model was trained for.
        max_new_tokens: of the answer.
        max_length: M, the most tokens of a segment. None: 4, or the model's if that is less.
        prompt_apart: each token that the assistant did not write is a segment. None: in a chat that holds an answer.
        chat: apply the model's chat template.
        force_bos: put BOS first even if the tokenizer does not.

    Returns:
        A row a layer, head, micro position and slot in `table`, with 95% intervals over segments. Figures take layer
        and segment.

    Raises:
        MicroStepError: the model or the text cannot be read, or no segment has two tokens.
    """
    models = Models()
    if written and strategy is not None:
        raise MicroStepError("give either a strategy, or written for the segments that the model writes")
    request = MicroRequest(
        models.spec(model),
        as_text_input(text, chat, force_bos),
        None if strategy is None else as_strategy(strategy),
        Decoding(rule, confidence, MAX_LENGTH, lossless, max_new_tokens) if written else None,
        max_length,
        FeatureOptions(prompt_apart=prompt_apart),
    )
    found = request.run(models.load)

    def drawn(name: str, view: MicroView) -> Figure:
        found.check(view.segment, view.layer)
        return draw_micro(name, found, view)

    return Result(
        "micro_attention",
        found,
        tuple(MICRO_FIGURES),
        MicroView(),
        lambda: weight_table(found, None),
        lambda: micro_finding(found.sums),
        drawn,
        lambda _, view: micro_origin(request, found, view),
        (f"segments: {found.cut}", *found.notes),
    )


@checked
def attribute(
    model: ModelLike,
    text: TextLike,
    *,
    b: ModelLike | None = None,
    quantity: Quantity = "entropy",
    at: int | None = None,
    method: Method = "integrated_gradients",
    baseline: Baseline = "mean",
    features: Features | None = None,
    group_by: AttributionUnit | None = None,
    strategy: str | Strategy | None = None,
    max_length: int = MAX_LENGTH,
    prompt_apart: bool | None = None,
    chat: bool = False,
    force_bos: bool = False,
    unit: Unit = "nats",
) -> Result[ShownAttribution]:
    """Attribute a number that a model gives at one token to the tokens before it.

    Args:
        model: a name, a path, a specification, or a loaded model.
        text: a text, a `Document`, or a list of messages.
        b: a second model, for kl and nothing else.
        quantity: entropy, surprisal, kl, micro_confidence or stop.
        at: the token, from 0. None: the one of greatest entropy among the first that can be.
        method: integrated_gradients, input_x_gradient, feature_ablation or shapley_sampling.
        baseline: mean, zero or eos: the embedding that replaces a removed token.
        features: tokens or words: what ablation and Shapley sampling move. None: the method's own.
        group_by: tokens, words, segments or lines: what values are summed over. None: words where these were moved,
            else tokens.
        strategy: of segments, where these are asked for; word if not given.
        max_length: M, the most tokens that a segment has.
        prompt_apart: each token that the assistant did not write is a segment. None: in a chat that holds an answer.
        chat: apply the model's chat template.
        force_bos: put BOS first even if the tokenizer does not.
        unit: bits or nats, of entropy, surprisal and kl.

    Returns:
        A row a token, word, segment or line in `table`.

    Raises:
        MicroStepError: the model or the text cannot be read, the quantity is not defined at the token, or options do
            not go together.
    """
    models = Models()
    return attribution(
        models.named(model, b),
        as_text_input(text, chat, force_bos),
        AttributionOptions(quantity, at, method, baseline, features),
        Segmenter(as_strategy(strategy or "word"), max_length, FeatureOptions(prompt_apart=prompt_apart)),
        AttributionView(group_by, unit),
        models.load,
    )


@checked
def depth(
    model: ModelLike,
    text: TextLike,
    *,
    b: ModelLike | None = None,
    tuned_lens: str | Path | None = None,
    b_tuned_lens: str | Path | None = None,
    chat: bool = False,
    force_bos: bool = False,
    unit: Unit = "nats",
) -> Result[Depth]:
    """Look at what every layer predicts (the logit lens), and at which layer each token is decided.

    Args:
        model: a name, a path, a specification, or a loaded model.
        text: a text, a `Document`, or a list of messages.
        b: a second model; its layers stand beside the first one's, with the difference B - A.
        tuned_lens: a tuned lens that was trained for `model`: a folder with params.pt or params.safetensors, or such a
            file. None: the logit lens.
        b_tuned_lens: the same for `b`.
        chat: apply the model's chat template.
        force_bos: put BOS first even if the tokenizer does not.
        unit: bits or nats, of entropy, surprisal, KL and JS.

    Returns:
        A row a layer in `table`: means over the tokens with their 95% intervals. Figures take score, lens, role, start,
        segments and pinned. `raw.sides[0].layers` has every score of every layer and token.

    Raises:
        MicroStepError: the model or the text cannot be read, the model's layers cannot be read one by one, or a tuned
            lens does not fit its model.
    """
    models = Models()
    named = models.named(model, b)
    lenses = lens_files(tuned_lens, b_tuned_lens, len(named))
    request = DepthRequest(named, as_text_input(text, chat, force_bos), lenses)
    return depth_answer(request, DepthView(unit=unit), models.load)
