"""The fork server does this once for all children.

It makes the slow imports, and reads the library's own code.
"""

import pytest  # noqa: F401  each child imports the main module of the session
import torch._dynamo
import torch.utils.tensorboard  # noqa: F401

from farcontext.app import notebooks  # noqa: F401
from farcontext.train import keys

keys.training_code()
