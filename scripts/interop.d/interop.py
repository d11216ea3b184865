#!/usr/bin/env python3
"""Passes checkpoints between gptq and the programs that read and write the same files, and compares what they compute.

    interop.py MODEL --calib FILE --text FILE --program GPTQ --logits LOGITS --work DIR [--checkpoint FOLDER]...

1. gptq quantizes MODEL with many settings; GPTQModel and transformers load what it wrote.
2. GPTQModel quantizes MODEL; gptq loads what that wrote, as it does the folders given by --checkpoint.

Each time both sides compute, in float32, the logits of the first tokens of the text and its perplexity. Prints a line
for each pair and exits with 1 if any of them disagrees or fails. Run by scripts/interop, which installs the others.
"""

import argparse
import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "peers"))
import gptqmodel_side
import peers

import torch

LOGIT_TOKENS = 96
WINDOW = 128
EVAL_TOKENS = 4096
CALIBRATION = {"nsamples": 16, "seqlen": 128}

# Largest difference of the logits against the largest logit, and difference of the perplexities against theirs. Both
# sides compute in float32 and add in different orders, which makes 1e-6; a wrong code, zero or group makes far more.
FLOAT_TOLERANCE = 1e-5
# Where the reader rounds each dequantized weight to half precision once more, it makes 4e-4.
HALF_TOLERANCE = 2e-3


@dataclasses.dataclass
class Settings:
    """What `gptq quantize` is asked for, and who is expected to read the result."""

    bits: int
    group_size: int
    order: str = "natural"
    asym: bool = False
    format: str = "gptq"
    method: str = "gptq"
    dynamic: dict | None = None
    readers: tuple = ("GPTQModel", "transformers")

    @property
    def tolerance(self):
        rounded = self.asym and self.format == "compressed-tensors"  # see peers.load_by_transformers
        rounded = rounded or self.format == "awq"  # GPTQModel's kernel for CPUs
        return HALF_TOLERANCE if rounded else FLOAT_TOLERANCE

    def __str__(self):
        grid = "asym" if self.asym else "sym"
        rules = "" if self.dynamic is None else ", dynamic rules"
        return f"{self.bits} bit, group {self.group_size}, {grid}, {self.order}, {self.method}, {self.format}{rules}"


def all_settings():
    """Every bits and group size once, every order for every bits, and each of the formats with what it can hold."""
    every_bits, group_sizes = (2, 3, 4, 8), (32, 64, 128, -1)
    for bits in every_bits:
        for group_size in group_sizes:
            yield Settings(bits, group_size)
        for order in ("act", "gar", "static"):
            yield Settings(bits, 32, order)
        yield Settings(bits, 32, method="rtn")
        for order in ("natural", "act"):
            yield Settings(bits, 32, order, asym=True, format="gptq_v2")
        yield Settings(bits, -1, asym=True, format="gptq_v2")
    for group_size in (32, 128, -1):
        yield Settings(4, group_size, asym=True, format="awq", readers=("transformers",))
    # Rules are GPTQModel's invention; transformers does not know them.
    rules = {"-:.*\\.o_proj": {}, "+:.*\\.down_proj": {"bits": 8, "group_size": 64}}
    yield Settings(4, 32, dynamic=rules, readers=("GPTQModel",))
    for bits in (4, 8):
        for group_size in (32, 128, -1):
            yield Settings(bits, group_size, format="compressed-tensors", readers=("transformers",))
        # Act-order with groups has gone from compressed-tensors (0.20); what it became is the static order.
        yield Settings(bits, 32, "static", format="compressed-tensors", readers=("transformers",))
        for group_size in (32, -1):
            yield Settings(bits, group_size, asym=True, format="compressed-tensors", readers=("transformers",))


def input_features(model):
    """How many inputs the linears of a block have, by the model's config.json."""
    config = json.loads((model / "config.json").read_text())
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    return {config["hidden_size"], heads * head, config["intermediate_size"]}


def fits(settings, model):
    """Whether the groups divide every linear; gptq refuses others, since not every reader takes a short last group."""
    return settings.group_size == -1 or all(inputs % settings.group_size == 0 for inputs in input_features(model))


READERS = {"GPTQModel": peers.load_by_gptqmodel, "transformers": peers.load_by_transformers}


@dataclasses.dataclass
class Answer:
    """What a program computes from a checkpoint: logits [tokens, vocabulary] and the perplexity of the text."""

    logits: torch.Tensor
    perplexity: float


class Gptq:
    """The programs under test."""

    def __init__(self, program, logits, work):
        self.program, self.logits_program, self.work = program, logits, work

    def run(self, *command):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
        return done.stdout

    def quantize(self, model, out, settings, calib):
        options = ["--bits", settings.bits, "--group-size", settings.group_size, "--order", settings.order]
        options += ["--method", settings.method, "--format", settings.format, "--calib", calib]
        options += ["--nsamples", CALIBRATION["nsamples"], "--seqlen", CALIBRATION["seqlen"]]
        if settings.asym:
            options.append("--asym")
        if settings.dynamic is not None:
            rules = self.work / "rules.json"
            rules.write_text(json.dumps(settings.dynamic))
            options += ["--dynamic", rules]
        self.run(self.program, "quantize", model, out, "--json", *options)

    def tokens(self, model, text):
        return [int(line) for line in self.run(self.program, "tokenize", model, "--text", text).split()]

    def answer(self, folder, ids, text):
        ids_file, logits_file = self.work / "ids.txt", self.work / "logits.f32"
        ids_file.write_text("\n".join(map(str, ids[:LOGIT_TOKENS].tolist())) + "\n")
        self.run(self.logits_program, folder, ids_file, logits_file)
        logits = torch.frombuffer(bytearray(logits_file.read_bytes()), dtype=torch.float32)
        evaluation = self.run(self.program, "eval", folder, "--json", "--text", text,
                              "--seqlen", WINDOW, "--max-tokens", EVAL_TOKENS)
        return Answer(logits.reshape(min(LOGIT_TOKENS, len(ids)), -1), json.loads(evaluation)["perplexity"])


@torch.inference_mode()
def answer_of(model, ids):
    logits = model(ids[None, :LOGIT_TOKENS]).logits[0].float()
    return Answer(logits, peers.perplexity(model, ids[:EVAL_TOKENS], WINDOW)[0])


class Table:
    """Prints one line for each comparison and remembers whether all of them held."""

    def __init__(self, output):
        self.output = output
        self.rows = self.failures = 0
        self.print("written by read by       logits differ  perplexity      theirs  settings")

    def print(self, line):
        print(line, file=self.output)

    def add(self, writer, reader, what, ours, theirs, tolerance=FLOAT_TOLERANCE):
        difference = ((ours.logits - theirs.logits).abs().max() / theirs.logits.abs().max()).item()
        relative = abs(ours.perplexity / theirs.perplexity - 1)
        agree = difference <= tolerance and relative <= tolerance
        self.line(writer, reader, f"{difference:13.1e} {ours.perplexity:11.5f} {theirs.perplexity:11.5f}", what, agree)

    def fail(self, writer, reader, what, error):
        message = " ".join(str(error).split()) or type(error).__name__
        self.line(writer, reader, f"{'failed':>13} {'':11} {'':11}", f"{what}: {message[:300]}", False)

    def line(self, writer, reader, figures, what, good):
        self.rows += 1
        self.failures += not good
        self.print(f"{writer:<10} {reader:<13} {figures}  {what}{'' if good else '   <-- MISMATCH'}")


def check_ours(table, gptq, arguments, ids):
    """Direction 1: gptq writes, the others read."""
    for settings in all_settings():
        if not fits(settings, arguments.model):
            table.print(f"{'gptq':<10} {'not tried':<51} {settings}: groups do not divide the linears")
            continue
        folder = gptq.work / "ours"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            gptq.quantize(arguments.model, folder, settings, arguments.calib)
            ours = gptq.answer(folder, ids, arguments.text)
        except Exception as error:
            table.fail("gptq", "gptq", settings, error)
            continue
        for reader in settings.readers:
            try:
                theirs = answer_of(READERS[reader](folder), ids)
                table.add("gptq", reader, settings, ours, theirs, settings.tolerance)
            except Exception as error:
                table.fail("gptq", reader, settings, error)


def write_by_gptqmodel(arguments, out, **settings):
    """GPTQModel quantizes the model in a process of its own, so that its state cannot leak from run to run."""
    command = [sys.executable, gptqmodel_side.__file__, arguments.model, out, "--calib", arguments.calib]
    command += ["--nsamples", CALIBRATION["nsamples"], "--seqlen", CALIBRATION["seqlen"]]
    for name, value in settings.items():
        command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [value])
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])


def check_theirs(table, gptq, arguments):
    """Direction 2: GPTQModel writes, gptq reads."""
    made = [
        {"bits": 4, "group_size": 32, "order": "gar"},
        {"bits": 4, "group_size": 32, "order": "act"},
        {"bits": 2, "group_size": 64, "order": "natural", "asym": True, "format": "gptq_v2"},
        {"bits": 3, "group_size": 64, "order": "act", "asym": True, "format": "gptq_v2"},
        {"bits": 8, "group_size": -1, "order": "natural"},
    ]
    for settings in made:
        folder = gptq.work / "theirs"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            write_by_gptqmodel(arguments, folder, **settings)
        except Exception as error:
            table.fail("GPTQModel", "GPTQModel", settings, error)
            continue
        compare_reading(table, gptq, folder, ", ".join(f"{k} {v}" for k, v in settings.items()), arguments.text)
    for folder in arguments.checkpoint:
        compare_reading(table, gptq, folder, folder.name, arguments.text)


def compare_reading(table, gptq, folder, what, text):
    """gptq and GPTQModel read the same folder."""
    try:
        ids = peers.token_ids(folder, text, EVAL_TOKENS)
        table.add("GPTQModel", "gptq", what, gptq.answer(folder, ids, text), answer_of(peers.load(folder), ids))
    except Exception as error:
        table.fail("GPTQModel", "gptq", what, error)


def check_float(table, gptq, arguments, ids):
    """The model as it came: if this differs, nothing below means anything."""
    what = "as it came"
    try:
        if gptq.tokens(arguments.model, arguments.text) != peers.token_ids(arguments.model, arguments.text).tolist():
            raise RuntimeError("gptq and the tokenizers library cut the text into different tokens")
        ours = gptq.answer(arguments.model, ids, arguments.text)
        table.add("the model", "transformers", what, ours, answer_of(peers.load_float(arguments.model), ids))
    except Exception as error:
        table.fail("the model", "transformers", what, error)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--text", required=True, type=pathlib.Path, help="text to compare on")
    parser.add_argument("--calib", required=True, type=pathlib.Path, help="text to calibrate with")
    parser.add_argument("--program", required=True, type=pathlib.Path)
    parser.add_argument("--logits", required=True, type=pathlib.Path)
    parser.add_argument("--checkpoint", action="append", default=[], type=pathlib.Path,
                        help="another folder that GPTQModel or AutoGPTQ wrote, to be read as well; may be repeated")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="where checkpoints are written; emptied again")
    arguments = parser.parse_args()

    arguments.work.mkdir(parents=True, exist_ok=True)
    ids = peers.token_ids(arguments.model, arguments.text, EVAL_TOKENS)
    table = Table(peers.take_stdout())
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        gptq = Gptq(arguments.program, arguments.logits, pathlib.Path(work))
        check_float(table, gptq, arguments, ids)
        check_ours(table, gptq, arguments, ids)
        check_theirs(table, gptq, arguments)
    table.print(f"{table.rows - table.failures} of {table.rows} agree")
    return 1 if table.failures else 0


if __name__ == "__main__":
    sys.exit(main())
