"""`python -m training COMMAND`: options are read, or explained, before anything is imported that takes seconds."""

import argparse
import importlib
import sys

from visionserve.errors import BundleError

# command: (module of that name in options, which reads the command line, and in commands, which runs; what it does)
COMMANDS = {
    "data manifest": ("manifest", "list, check, hash and divide the photographs of a data set"),
    "data describe": ("describe", "report on a data set: balance, sizes, twins, broken files"),
    "fit": ("fit", "train a recipe; goes on where it was stopped"),
    "lr-find": ("lr_find", "raise the learning rate until the loss runs away; suggest one"),
    "sweep": ("sweep", "search a space of recipes for the best validation accuracy; resumes"),
    "bundle": ("bundle", "make model_store/NAME from a finished run: quantize, calibrate, prove"),
    "all": ("everything", "fit, then bundle"),
    "evaluate": ("evaluate", "measure a bundle on photographs, as served and in fp32"),
    "parts": ("parts", "on which parts of the birds of CUB-200-2011 a bundle's heatmaps peak"),
    "export": ("export", "write a bundle's network as a fp32 or half precision ONNX file"),
    "quantize": ("quantize", "write a bundle's network as an int8 ONNX file"),
    "golden": ("golden", "write a bundle's golden answers anew"),
    "resize": ("resize", "a bundle's network for another input: fewer pixels are faster"),
    "prune": ("prune", "narrow a bundle's network, to be fine-tuned by fit --init"),
    "compare": ("compare", "bundles and precisions side by side: accuracy, work, size, speed"),
    "package": ("package", "pack a bundle into a .mar archive for TorchServe"),
}


def main(arguments: list[str]) -> int:
    """Run one command and return the exit status: 0, 1 with a sentence on what is wrong, or 2 for wrong usage."""
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name, rest = " ".join(arguments[:words]), arguments[words:]
    if name not in COMMANDS:
        wanted_help = arguments[:1] in (["-h"], ["--help"])
        print(_overview(), file=sys.stdout if wanted_help else sys.stderr)
        return 0 if wanted_help else 2
    module, what = COMMANDS[name]
    options = importlib.import_module(f"training.options.{module}")
    parser = options.parser() if hasattr(options, "parser") else argparse.ArgumentParser()
    parser.prog, parser.description = f"python -m training {name}", what
    options.add_arguments(parser)
    try:
        given = parser.parse_args(rest)
        return int(importlib.import_module(f"training.commands.{module}").run(given))
    except BundleError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1


def _overview() -> str:
    lines = [f"  {name:<13} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["python -m training COMMAND [--help]", "", *lines])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
