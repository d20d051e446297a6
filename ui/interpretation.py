"""What an answer means, in sentences: how sure the model is, and whether the image is of a kind that it knows."""

from typing import Literal

# Shares of the validation images that look more like their label than this image does like its own. By definition one
# in twenty and one in a hundred ordinary images are beyond them.
UNUSUAL = 0.95
UNFAMILIAR = 0.99
# An unusual image about which the model is less sure than this counts as unfamiliar: images of its labels are seldom
# both, images of other things mostly.
DOUBTFUL = 0.8
# Fewer test images than this say nothing about how often an answer with some probability is right.
FEW_IMAGES = 100

Familiarity = Literal["familiar", "unusual", "unfamiliar"]


def familiarity(novelty: float, probability: float, reference: int | None = None) -> Familiarity:
    """Judge an answer by its novelty and its best label's probability, both 0-1.

    ``reference`` is the number of validation images that the novelty is a rank among: of few, even the strangest says
    no more than unusual.
    """
    if novelty >= UNFAMILIAR or (novelty >= UNUSUAL and probability < DOUBTFUL):
        return "unusual" if _weak(reference) else "unfamiliar"
    return "unusual" if novelty >= UNUSUAL else "familiar"


def warning(kind: Familiarity, novelty: float, model: str, labels: int, reference: int | None = None) -> str:
    """Return the warning about an image unlike those that the model was tested with; empty for a familiar one."""
    if kind == "unusual" and _weak(reference):
        return (
            f"This may be an unusual image for this model, but only {reference} images tell what is usual: too few to "
            "be sure. Look twice."
        )
    share = "all" if novelty >= 1 else percent(novelty)
    subject = f"{labels} {model}" if labels else model
    if kind == "unfamiliar":
        return (
            f"This does not look like any of the {subject} that the model knows: {share} of the images that it was "
            "tested with look more like theirs. The labels below are only the nearest."
        )
    if kind == "unusual":
        return (
            f"An unusual image for this model: {share} of those that it was tested with are more typical. Look twice."
        )
    return ""


def _weak(reference: int | None) -> bool:
    return reference is not None and reference < FEW_IMAGES


def heading(kind: Familiarity, label: str) -> str:
    """Return the answer in large letters: the best label only as far as the model can know it."""
    if kind == "unfamiliar":
        return f"Nearest label: {label}"
    return f"Possibly {label}" if kind == "unusual" else label


def sureness(kind: Familiarity, label: str, probability: float, tested: int | None = None) -> str:
    """Return what a calibrated probability means; calibration holds for images like those of the test only.

    ``tested`` is the number of those images; of few of them nobody knows how often such answers are right.
    """
    if kind == "unfamiliar":
        return f"for {label}. The percentage means little for an image unlike those the model was tested with."
    if tested is not None and tested < FEW_IMAGES:
        return f"for {label}. The model was tested with only {tested} images: too few to say how often this is right."
    right = round(probability * 100)
    share = "more than 99" if right >= 100 else "fewer than 1" if right < 1 else f"about {right}"
    sentence = f"Of 100 answers this sure {share} are right, for images like those the model was tested with"
    return f"{sentence}; this one is not typical of them." if kind == "unusual" else f"{sentence}."


def percent(share: float) -> str:
    """Return a share, 0-1, as a percentage with one decimal, never rounded to a certainty that it is not."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{share * 100:.1f} %"
