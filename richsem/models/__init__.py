"""Networks: backbones, both detectors and the frozen CLIP teacher; no loss is computed here."""
