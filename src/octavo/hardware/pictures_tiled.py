"""How many patches and tokens a picture becomes that is cut into tiles (LLaVA-NeXT's anyres)."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.hardware.pictures import PictureCost


@dataclass(frozen=True, slots=True)
class TiledPicture:
    """The whole picture in one tile, and again enlarged in a grid of tiles.

    The grid is the one of ``grids`` that keeps most of the picture and wastes least. Rows and
    columns of padding are taken out of its features, and each row that is left ends with a token
    of its own. Source: LLaVA-NeXT (Liu et al. 2024), as transformers computes it.

    Attributes:
        tile, patch: pixels of a side.
        grids: height and width in pixels of what tiles may make up.
        extra: tokens of the tower in each tile that are no patches.
        kept: tokens beside the patches that the decoder sees of the whole picture.
    """

    tile: int
    patch: int
    grids: tuple[tuple[int, int], ...]
    extra: int = 1
    kept: int = 0

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Height and width in pixels of the grid for a picture.

        Raises:
            ValueError: the picture has no pixels.
        """
        if width < 1 or height < 1:
            raise ValueError(f"a picture of {width} x {height} pixels is empty")

        def score(grid: tuple[int, int]) -> tuple[int, int]:
            high, wide = grid
            scale = min(wide / width, high / height)
            used = min(int(width * scale) * int(height * scale), width * height)
            return used, used - wide * high

        return max(self.grids, key=score)

    def cost(self, width: int, height: int) -> PictureCost:
        high, wide = self.grid(width, height)
        across = self.tile // self.patch
        tiles = 1 + -(-high // self.tile) * -(-wide // self.tile)
        rows, columns = self._unpadded(width, height)
        tokens = across**2 + self.kept + rows * columns + rows
        return PictureCost(wide, high, tiles * (across**2 + self.extra), tokens, tiles)

    def _unpadded(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of features that show the picture."""
        high, wide = self.grid(width, height)
        across = self.tile // self.patch
        rows, columns = across * (high // self.tile), across * (wide // self.tile)
        # Rounded to seven places before cutting off, so that 23.9999999 counts as 24.
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        return rows, columns
