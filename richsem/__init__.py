"""RichSem as a workbook: long-tailed detection with rich semantics from CLIP."""

__version__ = "0.1.0"
