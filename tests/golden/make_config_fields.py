#!/usr/bin/env python3
"""Writes tests/golden/config_fields.json: the fields of each supported family's configuration class, with their defaults.

    pip install torch transformers        (made with transformers 5.24)
    python3 tests/golden/make_config_fields.py

"*" has the fields that all classes have; a family has those that its class adds. Run it again with a newer transformers: the
test unit/architecture then names fields that are new.
"""
import dataclasses
import json
import pathlib
import re

from transformers import CONFIG_MAPPING, PreTrainedConfig

ROOT = pathlib.Path(__file__).parents[2]


def fields_of(cls):
    return {f.name: f.default for f in dataclasses.fields(cls) if f.init and f.default is not dataclasses.MISSING}


def main():
    table = (ROOT / "include" / "gptq" / "model" / "architecture.hpp").read_text()
    common = {f.name: None for f in dataclasses.fields(PreTrainedConfig)}
    common.update(fields_of(PreTrainedConfig))
    found = {"*": common}
    for family in sorted(re.findall(r'\.model_type = "(\w+)"', table)):
        own = fields_of(CONFIG_MAPPING[family])
        found[family] = {name: default for name, default in own.items() if name not in common or common[name] != default}
    lines = ",\n".join(f"{json.dumps(family)}: {json.dumps(fields)}" for family, fields in found.items())
    (ROOT / "tests" / "golden" / "config_fields.json").write_text("{\n" + lines + "\n}\n")


main()
