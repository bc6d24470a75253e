"""Pages to elements. The embedded reader needs no GPU and no download."""

import os

# onnxruntime reads this once, when it is imported; reading a document is nobody's business.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
