"""Plug-and-Play image restoration with a convergence guarantee.

The public names are those of `__init__.pyi`. Each is loaded when it is first used, so importing the package
costs next to nothing. Tensors are (B, C, H, W); pixel values and noise levels are on the [0, 1] scale.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
