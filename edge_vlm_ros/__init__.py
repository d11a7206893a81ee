"""Ask a robot about what its cameras see, answered by a vision-language model on its own chip.

The generated `msg`, `srv` and `action` may be installed apart from these modules (a source folder
in front of a colcon workspace, say). The lines below make one package of both.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
