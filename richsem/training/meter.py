"""Running means of losses that need no transfer from the device until somebody looks."""

from collections.abc import Mapping, Sequence

from torch import Tensor

Sums = dict[str, dict[str, list[float]]]  # kind of batch -> name -> [sum, count]


class Meter:
    """Sums of named scalars by kind of batch."""

    def __init__(self, sums: Sums | None = None) -> None:
        """Starts from nothing, or goes on from what `sums` returned."""
        self._values: dict[str, dict[str, tuple[Tensor | float, float]]] = {
            kind: {name: (total, count) for name, (total, count) in values.items()}
            for kind, values in (sums or {}).items()
        }

    def add(self, kind: str, values: Mapping[str, Tensor]) -> None:
        """Adds one observation of each scalar."""
        sums = self._values.setdefault(kind, {})
        for name, value in values.items():
            total, count = sums.get(name, (0.0, 0.0))
            # On an accelerator without float64 the sum of a few hundred losses bears float32.
            wide = value.detach().double() if value.device.type == "cpu" else value.detach()
            sums[name] = total + wide, count + 1

    def sums(self) -> Sums:
        """[sum, count] of each scalar by kind, as plain numbers."""
        return {
            kind: {name: [float(total), count] for name, (total, count) in values.items()}
            for kind, values in self._values.items()
        }


def joined(parts: Sequence[Sums]) -> Sums:
    """Sums and counts of several meters together."""
    together: Sums = {}
    for part in parts:
        for kind, values in part.items():
            for name, (total, count) in values.items():
                entry = together.setdefault(kind, {}).setdefault(name, [0.0, 0.0])
                entry[0] += total
                entry[1] += count
    return together


def means(parts: Sequence[Sums]) -> dict[str, dict[str, float]]:
    """Means over several meters."""
    return {
        kind: {name: total / count for name, (total, count) in values.items()}
        for kind, values in joined(parts).items()
    }
