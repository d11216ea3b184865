"""Draws docs/pictures/perplexity-{light,dark}.svg from docs/results/2026-11-26-smollm2.csv: perplexity against bits
per weight.
"""
import csv
import math
import pathlib

import generated

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TABLE = ROOT / "docs/results/2026-11-26-smollm2.csv"
WIDTH, HEIGHT = 790, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 240, 46, 56
BITS, PERPLEXITY = (2.0, 4.6), (22.0, 210.0)
# Inputs a row of SmolLM2 has on average: 3,538,944 weights of a block in 5,184 rows.
INPUTS_PER_ROW = 3538944 / 5184

THEMES = {
    "light": {"text": "#1f2328", "faint": "#59636e", "grid": "#d8dee4", "colors": ["#8c959f", "#bf5a00", "#0969da", "#1a7f37"]},
    "dark": {"text": "#e6edf3", "faint": "#9198a1", "grid": "#373e47", "colors": ["#7d8590", "#f0883e", "#58a6ff", "#3fb950"]},
}
LINES = ["GPTQ as published", "AutoRound 0.16", "gptq", "gptq --best"]
MARKS = {"GPTQModel 7.7": "GPTQModel", "GPTQModel 7.7 with mse and gptaq": "GPTQModel, mse and gptaq"}


def bits_per_weight(bits, group_size):
    """Bits of a code, and the share of a weight in the 16 bits of its group's scale."""
    return bits + 16 / (INPUTS_PER_ROW if group_size < 0 else group_size)


def read():
    """The points of each series: (bits per weight, perplexity), and the float model's perplexity."""
    points, unquantized = {}, None
    for row in csv.DictReader(TABLE.open()):
        if row["series"] == "float":
            unquantized = float(row["perplexity"])
        else:
            place = bits_per_weight(int(row["bits"]), int(row["group_size"])), float(row["perplexity"])
            points.setdefault(row["series"], []).append(place)
    return {name: sorted(places) for name, places in points.items()}, unquantized


def x_of(bits):
    return LEFT + (bits - BITS[0]) / (BITS[1] - BITS[0]) * (WIDTH - LEFT - RIGHT)


def y_of(perplexity):
    low, high = math.log(PERPLEXITY[0]), math.log(PERPLEXITY[1])
    return HEIGHT - BOTTOM - (math.log(perplexity) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def text(x, y, words, color, anchor="start", size=13):
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" text-anchor="{anchor}" font-size="{size}">{words}</text>'


def axes(theme, unquantized):
    right = WIDTH - RIGHT
    out = []
    for perplexity in (25, 30, 40, 60, 100, 200):
        y = y_of(perplexity)
        out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="{theme["grid"]}"/>')
        out.append(text(LEFT - 8, y + 4, perplexity, theme["faint"], "end", 12))
    for bits in (2, 2.5, 3, 3.5, 4, 4.5):
        out.append(text(x_of(bits), HEIGHT - BOTTOM + 20, f"{bits:g}", theme["faint"], "middle", 12))
    y = y_of(unquantized)
    out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="{theme["text"]}" stroke-dasharray="5 4"/>')
    out.append(text(right + 8, y + 4, f"not quantized, {unquantized:.2f}", theme["text"]))
    out.append(text(LEFT, 22, "SmolLM2-135M: perplexity on WikiText-2 (lower is better)", theme["text"], size=15))
    out.append(text((LEFT + right) / 2, HEIGHT - 14, "bits per weight: codes and scales", theme["faint"], "middle"))
    return out


def legend(theme, place, name, color, mark):
    y = TOP + 24 + 24 * place
    x = WIDTH - RIGHT + 16
    return [mark(x, y - 4, color), text(x + 14, y, name, theme["text"])]


def dot(x, y, color):
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>'


def diamond(x, y, color):
    return f'<path d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z" fill="none" stroke="{color}" stroke-width="2"/>'


def draw(theme):
    points, unquantized = read()
    out = axes(theme, unquantized)
    for place, (name, color) in enumerate(zip(LINES, theme["colors"])):
        shown = [(x_of(b), y_of(p)) for b, p in points[name] if p <= PERPLEXITY[1]]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in shown)
        out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        out += [dot(x, y, color) for x, y in shown]
        out += legend(theme, place, name, color, dot)
    for place, (series, name) in enumerate(MARKS.items()):
        color = theme["text"] if place else theme["faint"]
        out += [diamond(x_of(b), y_of(p), color) for b, p in points[series]]
        out += legend(theme, len(LINES) + place, name, color, diamond)
    out.append(text(WIDTH - RIGHT + 8, TOP + 24 + 24 * 6, "2 bits as published: above 6,000", theme["faint"], size=12))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif">\n'
            f'<title>Perplexity of SmolLM2-135M against bits per weight</title>\n' + "\n".join(out) + "\n</svg>\n")


def update(check):
    """Writes the files, or with `check` returns a line for each that holds anything else."""
    problems = []
    for name, theme in THEMES.items():
        file, drawn = ROOT / f"docs/pictures/perplexity-{name}.svg", draw(theme)
        problems += generated.settle(file, file.read_text() if file.exists() else None, drawn, check,
                                     f"{file.relative_to(ROOT)} is not what its table says: run scripts/docs --update")
    return problems
