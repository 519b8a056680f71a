"""The scores of a layer's prediction, with their titles and colour scales."""

from __future__ import annotations

from dataclasses import replace

from analysis.score_registry import SCORES, Score

LAYER_SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        replace(
            SCORES["entropy"],
            meaning="H = −Σ p ln p of the layer's prediction: how open the choice is.",
        ),
        replace(SCORES["confidence"], meaning="The probability of the layer's likeliest token."),
        Score(
            "kl",
            "KL to the final prediction",
            "Σ p_final ln(p_final / p_layer): what is lost if the layer's prediction is taken for the final one.",
            low="as in the end",
            high="far from the end",
            top_bits=16,
            rise="B is farther from its final prediction",
            drop="B is nearer to its final prediction",
            information=True,
        ),
        Score(
            "js",
            "JS to the final prediction",
            "Jensen-Shannon divergence between the layer's prediction and the final one: at most 1 bit.",
            low="as in the end",
            high="far from the end",
            top_bits=1,
            rise="B is farther from its final prediction",
            drop="B is nearer to its final prediction",
            information=True,
        ),
        Score(
            "final_rank",
            "rank of the final word",
            "log10 of the rank that the layer gives the word that is likeliest in the end: 0 where it is first.",
            low="first already",
            high="far behind",
            top_bits=4,
            rise="B ranks its final word lower",
            drop="B ranks its final word higher",
            plain_unit="log10 of the rank",
        ),
        replace(SCORES["surprisal"], meaning="−ln p of the actual token under the layer's prediction."),
        Score(
            "rank",
            "rank of the actual token",
            "log10 of the rank that the layer gives the token that really comes: 0 where it is first.",
            low="first",
            high="far behind",
            top_bits=4,
            rise="B ranks the text lower",
            drop="B ranks the text higher",
            plain_unit="log10 of the rank",
        ),
    )
}
