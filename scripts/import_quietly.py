"""Imported by each script before hf_vtp: leaves out what libraries that nobody asked for log on import.

Transformers imports torchao wherever it is installed, and that tells of its own missing parts. Nothing else
is left out.
"""

import logging

NOT_OURS = (  # (logger, words of its message)
    ("torchao", "Failed to load"),
    ("torchao.kernel.intmm", "Detected no triton"),
    ("torch.utils._pytree", "Calling register_constant() on Enum"),
)

for name, words in NOT_OURS:
    logging.getLogger(name).addFilter(lambda record, words=words: words not in record.getMessage())
