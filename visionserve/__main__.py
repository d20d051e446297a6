"""`python -m visionserve`: the command `visionserve`, where its script is not on the PATH."""

from visionserve.cli.__main__ import program

if __name__ == "__main__":
    program()
