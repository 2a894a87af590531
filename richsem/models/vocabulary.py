"""The classes of a detector as text features, kept with its weights."""

import math

import torch
from torch import Tensor, nn


class WithVocabulary(nn.Module):
    """A detector that compares with CLIP's text features; CLIP itself is not needed for that.

    Attributes:
        text: Raw text features F [C, D]; a buffer.
        log_scale: Logarithm of tau, the factor on cosines; a buffer.
    """

    def keep_vocabulary(
        self, num_classes: int, text_dim: int, scale: float, text: Tensor | None
    ) -> None:
        """Makes the buffers; without `text`, weights must be loaded that hold it."""
        # NaN, not zero: a vocabulary that was never set must not look like a weak model.
        self.register_buffer("text", torch.full((num_classes, text_dim), torch.nan))
        self.register_buffer("log_scale", torch.tensor(math.log(scale)))
        if text is not None:
            self.set_vocabulary(text)

    def set_vocabulary(self, text: Tensor) -> None:
        """Take raw text features F [C, D]; CLIP itself is not needed from then on.

        Raises:
            ValueError: Another number of classes or another CLIP than the configuration says.
        """
        if text.shape != self.text.shape:
            raise ValueError(
                f"text features {tuple(text.shape)} do not fit num_classes and text_dim "
                f"{tuple(self.text.shape)} of the detector"
            )
        self.text.copy_(text)
