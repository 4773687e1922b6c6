"""Between PyTorch's rectangles with masks and the library's packed sequences. Shapes: B rows, S columns, T tokens in all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ._engine import RefusedError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Padding:
    """Which places of a [B, S] rectangle hold tokens: all, or in each row what is left when one or both ends are padding."""

    def __init__(self, shape: tuple[int, int], mask: Any = None) -> None:
        self.shape = shape
        self.mask: NDArray[np.bool_] | None = None
        self.first: NDArray[np.int64] = np.zeros(shape[0], np.int64)  # column of each row's first token
        if 0 in shape:
            raise RefusedError(f"input of shape {list(shape)}")
        if mask is not None:
            self._read(mask)

    def _read(self, mask: Any) -> None:
        if tuple(mask.shape) != self.shape:
            raise RefusedError(f"attention_mask of shape {list(mask.shape)} over {list(self.shape)} tokens")
        values = numpy_of(mask)
        tokens = values != 0
        if tokens.all() and (values == 1).all():
            return
        if not ((values == 0) | (values == 1)).all():
            raise RefusedError("attention_mask with other values than 0 and 1")
        self.first = tokens.argmax(axis=1)
        behind = self.shape[1] - tokens[:, ::-1].argmax(axis=1)
        if not (behind - self.first == tokens.sum(axis=1)).all():
            raise RefusedError("attention_mask with holes, or a row without tokens")
        self.mask = tokens

    @property
    def left(self) -> bool:
        return bool(self.first.any())

    @property
    def right(self) -> bool:
        return self.mask is not None and not self.mask[:, -1].all()

    def rows(self, tensor: Any) -> Any:
        """[B, S, ...] as NumPy holds it: itself where nothing is padding, else a list of [tokens, ...]."""
        array = numpy_of(tensor)
        return array if self.mask is None else [row[mask] for row, mask in zip(array, self.mask)]

    def padding_is(self, tensor: Any, value: int | None) -> bool:
        """Whether all that is padding in [B, S] has that value."""
        return self.mask is None or bool((numpy_of(tensor)[~self.mask] == value).all())

    def counts(self, positions: Any) -> bool:
        """Whether positions [B or 1, S] are 0, 1, 2, ... over each row's tokens."""
        return all((row == np.arange(len(row))).all() for row in self.rows(positions.expand(self.shape)))

    def spread(self, packed: NDArray[np.float32]) -> Any:
        """[T, ...] as a tensor [B, S, ...], which has 0 where there is padding."""
        values = torch.from_numpy(packed)
        if self.mask is None:
            return values.reshape(*self.shape, *packed.shape[1:])
        full = values.new_zeros((*self.shape, *packed.shape[1:]))
        full[torch.from_numpy(self.mask)] = values
        return full


def numpy_of(tensor: Any) -> NDArray[Any]:
    """A tensor of any device; bfloat16, which NumPy lacks, as float32."""
    tensor = tensor.detach()
    array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
    return array
