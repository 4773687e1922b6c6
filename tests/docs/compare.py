"""What a program printed beside what the documentation shows."""

import itertools
import re

# A figure with a point may be off by this, absolutely and relatively: number formats, processors and trainings differ.
NEAR = 0.02
FIGURE = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")


def pattern(line):
    """The shown line as a regular expression: … stands for any text, white space for any white space, a figure for any other."""
    parts = []
    for piece in re.split(r"(…|\s+|-?\d+\.\d+(?:e[-+]?\d+)?)", line.strip()):
        if piece == "…":
            parts.append(".*?")
        elif piece.isspace():
            parts.append(r"\s+")
        elif FIGURE.fullmatch(piece):
            parts.append(r"(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)")
        else:
            parts.append(re.escape(piece))
    return "".join(parts)


def line_is(shown, printed):
    found = re.fullmatch(pattern(shown), printed.strip())
    if not found:
        return False
    figures = FIGURE.findall(shown)
    return all(abs(float(a) - float(b)) <= NEAR * (1 + abs(float(a))) for a, b in zip(figures, found.groups(), strict=True))


def difference(shown, printed):
    """None if `printed` is what is shown, else a text that says where it is not. A line "..." stands for any lines."""
    wanted, got = shown.rstrip("\n").splitlines(), printed.rstrip("\n").splitlines()
    groups = [list(group) for skip, group in itertools.groupby(wanted, lambda line: line.strip() == "...") if not skip]
    begin_open, end_open = wanted[:1] == ["..."], wanted[-1:] == ["..."]
    at = 0
    for i, group in enumerate(groups):
        places = range(at, len(got) - len(group) + 1)
        if i == 0 and not begin_open:
            places = places[:1]
        if i == len(groups) - 1 and not end_open:
            places = [place for place in places if place == len(got) - len(group)]
        for place in places:
            if all(map(line_is, group, got[place : place + len(group)])):
                at = place + len(group)
                break
        else:
            wrong = next((f"shown:   {a}\nprinted: {b}" for a, b in zip(group, got[at:]) if not line_is(a, b)), group[-1])
            return f"{wrong}\nall that was printed:\n{printed}"
    return None if wanted or not got else f"nothing is shown, and printed was:\n{printed}"
