"""What an answer means, in sentences: how sure the model is, and whether the image is of a kind that it knows."""

from typing import Literal

# Shares of the validation images that look more like their label than this image does like its own. By definition one
# in twenty and one in a hundred ordinary images are beyond them.
UNUSUAL = 0.95
UNFAMILIAR = 0.99
# An unusual image about which the model is less sure than this counts as unfamiliar: images of its labels are seldom
# both, images of other things mostly.
DOUBTFUL = 0.8

Familiarity = Literal["familiar", "unusual", "unfamiliar"]


def familiarity(novelty: float, probability: float) -> Familiarity:
    """Judge an answer by its novelty and its best label's probability, both 0-1."""
    if novelty >= UNFAMILIAR or (novelty >= UNUSUAL and probability < DOUBTFUL):
        return "unfamiliar"
    return "unusual" if novelty >= UNUSUAL else "familiar"


def warning(kind: Familiarity, novelty: float, model: str, labels: int) -> str:
    """Return the warning about an image unlike those that the model was tested with; empty for a familiar one."""
    share = "all" if novelty >= 1 else percent(novelty)
    subject = f"{labels} {model}" if labels else model
    if kind == "unfamiliar":
        return (
            f"This does not look like any of the {subject} that the model knows: {share} of the images that it was "
            "tested with look more like theirs. What follows is only the nearest."
        )
    if kind == "unusual":
        return (
            f"An unusual image for this model: {share} of those that it was tested with are more typical. Look twice."
        )
    return ""


def sureness(kind: Familiarity, probability: float) -> str:
    """Return what a calibrated probability means; calibration says nothing of what the model was never tested with."""
    if kind == "unfamiliar":
        return "That would be its sureness for an image of that label."
    right = round(probability * 100)
    if right >= 100:
        return "More than 99 of 100 answers this sure are right."
    if right < 1:
        return "Fewer than 1 of 100 answers this sure are right."
    return f"About {right} of 100 answers this sure are right."


def percent(share: float) -> str:
    """Return a share, 0-1, as a percentage with one decimal, never rounded to a certainty that it is not."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{share * 100:.1f} %"
