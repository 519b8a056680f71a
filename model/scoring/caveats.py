"""Notes that a reader of scores must know about the model and the text."""

from model.hub.loading import LoadedModel
from model.text.encoding import EncodedText


def remarks(loaded: LoadedModel, encoded: EncodedText, chat: bool) -> tuple[str, ...]:
    """Return the notes to show beside these scores."""
    notes = list(loaded.facts.approximations)
    if (micro := loaded.facts.micro_step) is not None:
        name = f", {micro.base}," if micro.base else ""
        notes.append(f"a micro_step model: its base{name} was scored token by token, as training left it")
    if chat and not encoded.chat:
        notes.append("this model has no chat template, so it read the raw text")
    notes += encoded.notes
    if not encoded.exact:
        notes.append("token positions are the tokenizer's own, which trim white space")
    if loaded.facts.dtype != "float32":
        notes.append(f"the model computed in {loaded.facts.dtype}: the entropy error is about 0.1 nats")
    return tuple(notes)
