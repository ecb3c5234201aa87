"""What the fork server does once for all children: slow imports, and reading the library's own code."""

import pytest  # noqa: F401  each child imports the main module of the session
import torch._dynamo
import torch.utils.tensorboard  # noqa: F401

from longctx import notebooks, runs, training  # noqa: F401

training.code_fingerprint(training.__file__)
