"""``octavo.load``: a name, a budget and a few wishes become a model that answers.

This is where the two stacks meet: the model is handed a decoder of media.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from octavo.hardware.spec import Precision
from octavo.media.decode import Decoder

if TYPE_CHECKING:
    from pathlib import Path

    from octavo.hardware.plan import Workload
    from octavo.models.loading import LoadProgress
    from octavo.models.model import Model


def load(
    name: str,
    *,
    memory: int | str | None = None,
    device: str | None = None,
    precision: str | Precision | None = None,
    llm_precision: str | Precision | None = None,
    vision_precision: str | Precision | None = None,
    audio_precision: str | Precision | None = None,
    lazy: Collection[str] = (),
    workload: Workload | str | None = None,
    on_progress: Callable[[LoadProgress], None] | None = None,
    kv_precision: str | None = None,
    kv_cache_max_length: int | None = None,
    kv_disk: tuple[str | Path, int | str] | None = None,
    compile: bool = False,
    wait: bool = True,
    debug: bool = False,
) -> Model:
    """Opens a model within a budget.

    Args:
        name: a folder, a ``.gguf`` file, a packaged model or a hub's ``owner/name`` that was
            pulled.
        memory: ``"4GB"`` or bytes: of this process on a CPU, of the device elsewhere. Weights that
            do not fit are read from disk while the model runs. None takes what is free.
        device: ``cpu``, ``cuda``, ``mps`` ...; the best one that is there by default.
        precision: of every component that is not named: ``fp32``, ``bf16``, ``fp16``, ``int8``,
            ``int4``; as stored by default. ``auto`` lowers it where nothing else fits.
        llm_precision, vision_precision, audio_precision: of one component.
        lazy: components that are loaded when a request first needs them (``vision``).
        workload: the largest request to plan for, as in ``octavo plan --workload``.
        on_progress: called with bytes by component, from loading threads.
        kv_precision: keys and values in blocks: ``exact``, ``int8`` or ``int4``; by default they
            are transformers' own.
        kv_cache_max_length: tokens of prompt and answer at most.
        kv_disk: a folder, and bytes of it for keys and values that do not fit in the budget.
        compile: has ``torch.compile`` compile what it can of the decoder; it takes a minute, and
            on a CPU it does not pay.
        wait: False returns at once: a question waits only for the components it needs, and what
            goes wrong is raised there.
        debug: errors on a GPU point to their line; slow.

    Raises:
        BudgetExceeded: it does not fit; names the smallest change that would make it.
        SourceNotFound, UnsupportedFormat, BrokenFile, InputError: the model cannot be used.
    """
    from octavo.models.opening import Wishes, open_model

    precisions = {
        "language": llm_precision,
        "vision": vision_precision,
        "audio": audio_precision,
    }
    wishes = Wishes(
        memory=memory,
        device=device,
        precision=precision,
        precisions={part: wish for part, wish in precisions.items() if wish is not None},
        lazy=frozenset({lazy} if isinstance(lazy, str) else lazy),
        workload=workload,
        on_progress=on_progress,
        wait=wait,
        debug=debug,
    )
    model = open_model(name, wishes, Decoder())
    wished = kv_precision is not None or kv_cache_max_length is not None
    if not wished and not model.family.paged and not compile:
        return model
    from octavo.engine.caching import use_paged_cache
    from octavo.engine.serving import use_engine

    try:
        alone = use_engine(model, kv_precision, kv_cache_max_length, kv_disk)
        if alone is not None and wished:
            use_paged_cache(model, kv_precision, kv_cache_max_length)
        if compile:
            from octavo.engine.compile import compile_layers

            model.wait()
            compile_layers(model.family.layers(model.module, "language"))
    except BaseException:
        model.close()
        raise
    return model
