#!/usr/bin/env python3
"""Draws the figures of a study for a paper, from its results.csv: perplexity (or layer error) against bits a weight.

    plot.py DIR/results.csv figure.pdf [--text NAME] [--log]

matplotlib decides by the name of the figure what it becomes: .pdf, .svg, .png.
"""

import argparse
import csv

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

MARKS = "sovD^Xp"


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def loss_column(rows, text):
    """The column to draw: the perplexity on a text, or at depth layers the error of the layers."""
    columns = [name for name in rows[0] if name.startswith("perplexity[")]
    if not columns:
        return "layer_error"
    if text is None:
        return columns[0]
    if f"perplexity[{text}]" not in columns:
        raise SystemExit(f"plot.py: no text {text}; there are {', '.join(name[11:-1] for name in columns)}")
    return f"perplexity[{text}]"


def front_of(points):
    """The points (bits, loss, row) that no other one beats, by rising bits."""
    front = []
    for point in sorted(points, key=lambda p: p[:2]):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def draw(rows, column, figure_path, logarithmic):
    points = [(float(r["bits_per_weight"]), float(r[column]), r) for r in rows if r["method"] != "float"]
    error_column = column.replace("perplexity[", "standard_error[")
    _, axes = pyplot.subplots(figsize=(6.0, 4.0), layout="constrained")
    for mark, method in zip(MARKS, dict.fromkeys(r["method"] for *_, r in points)):
        chosen = [p for p in points if p[2]["method"] == method]
        errors = [float(p[2].get(error_column) or 0.0) for p in chosen]
        axes.errorbar([p[0] for p in chosen], [p[1] for p in chosen], yerr=errors if any(errors) else None,
                      fmt=mark, markersize=4, linewidth=0.8, label=method)
    front = front_of(points)
    axes.plot([p[0] for p in front], [p[1] for p in front], "--", color="grey", linewidth=0.8, zorder=0)
    for bits, loss, row in front:
        axes.annotate(row["label"], (bits, loss), textcoords="offset points", xytext=(4, 4), fontsize=6)
    for row in rows:
        if row["method"] == "float" and column in row:
            axes.axhline(float(row[column]), color="black", linewidth=0.6, label="float")
    axes.set_xlabel("bits a weight, with scales, zero points and g_idx")
    axes.set_ylabel(column)
    if logarithmic:
        axes.set_yscale("log")
    axes.legend(fontsize=7)
    pyplot.savefig(figure_path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", help="results.csv of a study")
    parser.add_argument("figure", help="file to write")
    parser.add_argument("--text", help="name of the text; default: the first")
    parser.add_argument("--log", action="store_true", help="logarithmic losses")
    arguments = parser.parse_args()
    rows = read_rows(arguments.results)
    if not rows:
        raise SystemExit(f"plot.py: {arguments.results} has no rows")
    draw(rows, loss_column(rows, arguments.text), arguments.figure, arguments.log)


if __name__ == "__main__":
    main()
