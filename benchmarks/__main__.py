"""``python -m benchmarks SUITE``: run the claims of a suite and write what was measured."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from benchmarks import machine

RESULTS = Path(__file__).resolve().parent / "results"

#: Suite → claim → module.
SUITES: dict[str, dict[str, str]] = {
    "documents": {
        "accuracy": "benchmarks.documents.accuracy",
        "speed": "benchmarks.documents.speed",
        "memory": "benchmarks.documents.memory",
        "ocr": "benchmarks.ocr_speed",
        "tables": "benchmarks.table_structure",
    },
    "memory": {
        "policies": "benchmarks.memory.policies",
        "disk": "benchmarks.memory.disk",
        "store": "benchmarks.memory.store",
        "codecs": "benchmarks.memory.codecs",
        "pools": "benchmarks.memory.pools",
    },
    "models": {
        "load": "benchmarks.cold_load",
        "first_token": "benchmarks.first_token",
        "plan": "benchmarks.plan_peak",
        "quantized": "benchmarks.quantized_linear",
    },
    "engine": {
        "streaming": "benchmarks.streaming",
        "batch_streaming": "benchmarks.streaming_batch",
        "kv": "benchmarks.kv",
        "peak": "benchmarks.peak",
        "batching": "benchmarks.batching",
        "second_question": "benchmarks.second_question",
        "faults": "benchmarks.faults",
        "long_run": "benchmarks.long_run",
        "compile": "benchmarks.compile",
    },
    "gpu": {"cuda": "benchmarks.gpu"},
}


class Claim(Protocol):
    """What the module of a claim offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, options: argparse.Namespace) -> Mapping[str, object]: ...


def main(arguments: list[str] | None = None) -> int:
    given = _one_claim(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--only", action="append", help="one claim of the suite; may be repeated")
    parser.add_argument("--fast", action="store_true", help="a small part, to see that it works")
    parser.add_argument("--no-write", action="store_true", help="print only")
    known, _ = parser.parse_known_args([word for word in given if word not in ("-h", "--help")])
    claims = SUITES[known.suite]
    for name in known.only or ():
        if name not in claims:
            parser.error(f"{known.suite} has no claim {name!r}; it has {', '.join(claims)}")
    modules: dict[str, Claim] = {
        name: _load(claims[name]) for name in claims if not known.only or name in known.only
    }
    for module in modules.values():
        module.add_arguments(parser)
    options = parser.parse_args(given)
    for name, module in modules.items():
        measured = module.run(options)
        if not options.no_write and not options.fast:
            _write(f"{known.suite}-{name}", measured)
    return 0


def _one_claim(given: list[str]) -> list[str]:
    """``memory_policies`` is short for ``memory --only policies``."""
    suite, _, claim = given[0].partition("_") if given else ("", "", "")
    if claim and claim in SUITES.get(suite, {}):
        return [suite, "--only", claim, *given[1:]]
    return given


def _load(name: str) -> Claim:
    return cast(Claim, importlib.import_module(name))


def _write(name: str, measured: Mapping[str, object]) -> None:
    RESULTS.mkdir(exist_ok=True)
    place = RESULTS / f"{name}.json"
    whole = {"claim": name, "machine": machine.facts(), **measured}
    place.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {place}")


if __name__ == "__main__":
    raise SystemExit(main())
