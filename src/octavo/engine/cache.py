"""transformers' modules over the paged KV cache.

``update()`` of a cache layer gives the attention function a handle instead of the history; the
function reads the blocks and then appends the new tokens. So both belong together::

    model.set_attn_implementation(ATTENTION)
    model.generate(**inputs, past_key_values=OctavoCache.of(model.config, "int8", max_length=4096))

Rows of a batch are sequences of their own; what pads them on the left is never stored. Layers of
full and of sliding-window attention are served; masks of other kinds are refused.

Shapes: ``b`` rows of a batch, ``h`` heads of keys, ``g`` query heads to each, ``t`` new tokens,
``d`` channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, CacheLayerMixin, get_layer_types_and_kwargs
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from octavo.engine.attention import attend
from octavo.engine.kv import KvSequence, KvShape, KvSizes, PagedKV
from octavo.engine.kv_extent import KvStore
from octavo.engine.kv_layout import BLOCK_TOKENS, RECENT_TOKENS, KvPrecision
from octavo.errors import ConfigError
from octavo.memory.ledger import Ledger

#: The name to give to ``set_attn_implementation``.
ATTENTION: Final = "octavo_paged"

_WINDOWED: Final = "sliding_attention"
_KINDS: Final = ("full_attention", _WINDOWED)


def shape_of(config: Any, dtype: torch.dtype) -> KvShape:
    """Keys and values of a transformers model.

    Args:
        config: of the model, or of its text decoder.
        dtype: in which it computes.

    Raises:
        ConfigError: it has layers of a kind that is not served.
    """
    text = config.get_text_config(decoder=True)
    kinds, options = get_layer_types_and_kwargs(text)
    other = sorted(set(kinds) - set(_KINDS))
    if other:
        raise ConfigError(
            f"layers of {', '.join(other)} have no paged KV cache",
            where=str(text.model_type),
            next_step="use transformers' DynamicCache for this model",
        )
    # In transformers 5.17 one mapping has the options of all layers.
    each: Any = [options] * len(kinds) if isinstance(options, Mapping) else options
    windows = tuple(
        option["sliding_window"] if kind == _WINDOWED else None
        for kind, option in zip(kinds, each, strict=True)
    )
    heads = text.num_attention_heads
    return KvShape(
        layers=len(kinds),
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        dtype=dtype,
        windows=windows if any(windows) else (),
    )


class OctavoCache(Cache):
    """A ``past_key_values`` over a :class:`PagedKV`, for one batch at a time.

    Args:
        kv: the blocks; not closed with the cache.
        owner: of the sequences, for refusals.
    """

    def __init__(self, kv: PagedKV, owner: str = "generate") -> None:
        self.kv = kv
        self.owner = owner
        self.sequences: list[KvSequence] = []
        count = kv.sizes.shape.layers
        self.paged = [OctavoLayer(self, layer) for layer in range(count)]
        super().__init__(layers=list(self.paged))

    @classmethod
    def of(
        cls,
        config: Any,
        precision: KvPrecision = "int8",
        *,
        max_length: int,
        dtype: torch.dtype | None = None,
        batch: int = 1,
        block_tokens: int = BLOCK_TOKENS,
        recent: int = RECENT_TOKENS,
        ledger: Ledger | None = None,
        store: KvStore | None = None,
        device: torch.device | str = "cpu",
    ) -> OctavoCache:
        """A cache with blocks of its own, as many as ``batch`` rows of ``max_length`` need.

        Args:
            config: of the model.
            precision: of all but the newest ``recent`` tokens.
            dtype: in which the model computes; of its configuration by default.
            ledger: with room in ``device``; one of just that size by default.
            store: of lower tiers.

        Raises:
            ConfigError: the model has layers that are not served.
            BudgetExceeded: the ledger has no room.
        """
        shape = shape_of(config, dtype or getattr(config, "dtype", None) or torch.float32)
        sizes = KvSizes(shape, precision, block_tokens, recent)
        budget = sizes.nbytes_for(max_length) + (batch - 1) * sizes.nbytes_for(max_length)
        ledger = ledger or Ledger({"device": budget})
        kv = PagedKV(
            ledger,
            sizes,
            budget=budget,
            sequences=batch,
            max_length=max_length,
            store=store,
            device=device,
        )
        return cls(kv)

    def begin(self, skipped: list[int], tokens: int) -> None:
        """Makes room for a pass of ``tokens`` over all rows, in all layers.

        Args:
            skipped: for each row, how many of its first tokens only pad it.

        Raises:
            BudgetExceeded, TierFull: there is no room; the cache is as before.
            ConfigError: the pass before this one was broken off.
        """
        if not self.sequences:
            self.sequences = [
                self.kv.sequence(f"{self.owner} {row}") for row in range(len(skipped))
            ]
        if len(self.sequences) != len(skipped):
            raise ConfigError(
                f"{len(skipped)} rows, and the cache holds {len(self.sequences)}",
                where=self.owner,
                next_step="use one cache for each batch, or reset it",
            )
        if any(layer.seen != self.paged[0].seen for layer in self.paged):
            raise ConfigError(
                "the pass before this one was broken off", where=self.owner, next_step="reset()"
            )
        done: list[KvSequence] = []
        try:
            for sequence, pads in zip(self.sequences, skipped, strict=True):
                sequence.reserve(tokens - pads)
                done.append(sequence)
        except BaseException:
            for sequence in done:
                sequence.unreserve()
            raise

    def reset(self) -> None:
        """Empties it; its blocks go back to the pools."""
        for sequence in self.sequences:
            sequence.release()
        self.sequences = []
        for layer in self.paged:
            layer.seen = 0

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row ``i`` goes on as row ``beam_idx[i]``; full blocks are shared by rows."""
        beams = beam_idx.tolist()
        for beam in set(range(len(self.sequences))) - set(beams):
            # First: the copies of tails need the room of those that end.
            self.sequences[beam].release()
        taken: set[int] = set()
        made: list[KvSequence] = []
        for beam in beams:
            again = beam in taken
            made.append(self.sequences[beam].fork() if again else self.sequences[beam])
            taken.add(beam)
        self.sequences = made


class OctavoLayer(CacheLayerMixin):
    """One layer of an :class:`OctavoCache`. ``seen`` counts tokens with their padding."""

    is_croppable = False
    supports_early_init = False

    def __init__(self, cache: OctavoCache, layer: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cache = cache
        self.layer = layer
        self.seen = 0
        self.is_sliding = cache.kv.sizes.shape.window(layer) is not None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        del key_states, value_states
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        """A handle twice; nothing is stored before the attention function has run."""
        del args, kwargs
        shape = self.cache.kv.sizes.shape
        for states in (key_states, value_states):
            if (states.shape[1], states.shape[3]) != (shape.kv_heads, shape.head_dim):
                raise ConfigError(
                    f"{states.shape[1]} heads of {states.shape[3]} channels do not fit blocks of "
                    f"{shape.kv_heads} of {shape.head_dim}",
                    where=f"layer {self.layer}",
                    next_step="use transformers' DynamicCache for this model",
                )
        self.lazy_initialization(key_states, value_states)
        handle = NewTokens(self, key_states, value_states)
        return handle, handle

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen + query_length, 0

    def get_seq_length(self) -> int:
        return self.seen

    def get_max_length(self) -> int:
        longest = self.cache.kv.max_length
        return -1 if longest is None else longest

    def reset(self) -> None:
        self.cache.reset()


class Handle(ABC):
    """What stands for keys and values in the cache until attention has run."""

    __slots__ = ()

    @abstractmethod
    def attend(
        self, query_bhtd: torch.Tensor, padding: Padding | None, scale: float
    ) -> torch.Tensor:
        """The answer, ``[b, t, heads, d]``; afterwards the tokens are in the cache."""


class NewTokens(Handle):
    """Keys and values of one pass that are not in the cache yet; what stands for its history."""

    __slots__ = ("_keys", "_layer", "_values")

    def __init__(self, layer: OctavoLayer, keys: torch.Tensor, values: torch.Tensor) -> None:
        self._layer = layer
        self._keys: torch.Tensor | None = keys
        self._values: torch.Tensor | None = values

    @torch.no_grad()
    def attend(
        self, query_bhtd: torch.Tensor, padding: Padding | None, scale: float
    ) -> torch.Tensor:
        """The answer, ``[b, t, heads, d]``; afterwards the tokens are in the cache.

        Raises:
            BudgetExceeded, TierFull: there is no room; the cache is as before.
            ConfigError: this was done already, as by layers that share keys.
        """
        keys_bhtd, values_bhtd = self._keys, self._values
        if keys_bhtd is None or values_bhtd is None:
            raise ConfigError(
                "keys are used by two layers",
                where=f"layer {self._layer.layer}",
                next_step="use transformers' DynamicCache for this model",
            )
        layer, cache = self._layer, self._layer.cache
        rows, heads, tokens, _ = keys_bhtd.shape
        skipped = padding.skipped(layer.seen, tokens) if padding is not None else [0] * rows
        if layer.layer == 0:
            cache.begin(skipped, tokens)
        out_bthd = query_bhtd.new_zeros(rows, tokens, query_bhtd.shape[1], query_bhtd.shape[3])
        for row, (sequence, pads) in enumerate(zip(cache.sequences, skipped, strict=True)):
            if pads == tokens:
                continue
            # After the last layer comes the first one of the next pass.
            sequence.prefetch((layer.layer + 1) % len(cache.paged))
            keys_htd, values_htd = keys_bhtd[row, :, pads:], values_bhtd[row, :, pads:]
            query_hgtd = query_bhtd[row, :, pads:].unflatten(0, (heads, -1))
            out_hgtd = attend(
                sequence.layers[layer.layer], query_hgtd, keys_htd, values_htd, scale=scale
            )
            out_bthd[row, pads:] = out_hgtd.flatten(0, 1).transpose(0, 1)
            sequence.append(layer.layer, keys_htd, values_htd)
        layer.seen += tokens
        self._keys = self._values = None
        return out_bthd


class Padding:
    """What the mask function hands to the attention function in place of a mask.

    Args:
        kept_bt: True where a token is no padding, of all tokens so far and the new ones.
        plain: whether the mask is causal, with a window or without.
        build: makes the mask itself, for attention without this cache.
    """

    def __init__(
        self,
        kept_bt: torch.Tensor,
        plain: bool,
        build: Callable[[], torch.Tensor | None],
    ) -> None:
        self._kept_bt = kept_bt
        self._plain = plain
        self.build = build
        self._pads: list[int] | None = None

    def skipped(self, seen: int, tokens: int) -> list[int]:
        """For each row, how many of ``tokens`` after ``seen`` only pad it.

        Raises:
            ConfigError: the mask hides something else than the future and padding on the left.
        """
        if self._pads is None:
            self._pads = self._left_pads()
        return [min(max(pads - seen, 0), tokens) for pads in self._pads]

    def _left_pads(self) -> list[int]:
        if not self._plain:
            raise ConfigError(
                "the mask is not just causal",
                where=ATTENTION,
                next_step="use transformers' DynamicCache for this model",
            )
        length = self._kept_bt.shape[1]
        pads_b = length - self._kept_bt.sum(1)
        left_b = (self._kept_bt.cumsum(1) == 0).sum(1)
        if not torch.equal(pads_b, left_b):
            raise ConfigError(
                "rows are padded elsewhere than on the left",
                where="attention_mask",
                next_step='use padding_side="left"',
            )
        found: list[int] = pads_b.tolist()
        return found


def paged_mask(
    batch_size: int,
    attention_mask: torch.Tensor | None = None,
    allow_is_causal_skip: bool = True,
    use_vmap: bool = False,
    **rest: Any,
) -> Padding:
    """transformers' mask interface: the mask itself is only made where it is needed."""

    def build() -> torch.Tensor | None:
        made: torch.Tensor | None = sdpa_mask(
            batch_size=batch_size,
            attention_mask=attention_mask,
            allow_is_causal_skip=allow_is_causal_skip,
            use_vmap=use_vmap,
            **rest,
        )
        return made

    kept_bt = attention_mask
    if kept_bt is None:
        kept_bt = torch.ones(batch_size, 1, dtype=torch.bool)
    return Padding(kept_bt, allow_is_causal_skip and not use_vmap, build)


def paged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface. Without an :class:`OctavoCache` it is ``sdpa``.

    Raises:
        ConfigError: a mask, or a kind of attention, that is not served.
    """
    if not isinstance(key, Handle):
        mask = attention_mask.build() if isinstance(attention_mask, Padding) else attention_mask
        return sdpa_attention_forward(
            module, query, key, value, mask, dropout=dropout, scaling=scaling, **rest
        )
    asked = [name for name in ("softcap", "position_bias", "s_aux") if rest.get(name) is not None]
    if dropout or asked or getattr(module, "sinks", None) is not None:
        raise ConfigError(
            f"attention with {', '.join(asked) or 'dropout or sinks'} is not served",
            where=ATTENTION,
            next_step="use transformers' DynamicCache for this model",
        )
    if attention_mask is not None and not isinstance(attention_mask, Padding):
        raise ConfigError(
            "a mask of your own", where=ATTENTION, next_step="give a mask of rows and tokens"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return key.attend(query, attention_mask, scale), None


AttentionInterface.register(ATTENTION, paged_attention)
AttentionMaskInterface.register(ATTENTION, paged_mask)
