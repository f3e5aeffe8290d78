"""Settings for all tests: no hub, no progress bars, nothing outside temporary directories."""

import os
from tempfile import TemporaryDirectory

from hypothesis import settings

_TRACKIO = TemporaryDirectory(prefix="pgenrm-trackio-")

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRACKIO_DIR"] = _TRACKIO.name  # read once, when anything first imports it

settings.register_profile("pgenrm", deadline=None)  # a busy machine is no fault
settings.load_profile("pgenrm")
