"""Where the declarations lie: ``catalog/``, ``schemas/`` and ``training/``.

They stand at the top of the project, where people edit them. A wheel carries them inside the package; an editable
install and a checkout read them where they are.
"""

from __future__ import annotations

from pathlib import Path


def declarations_folder(name: str) -> Path:
    """The folder of the declarations ``name``: ``"catalog"``, ``"schemas"`` or ``"training"``.

    Raises
    ------
    FileNotFoundError
        If the installation is incomplete.

    Examples
    --------
    >>> (declarations_folder("catalog") / "vocabularies").is_dir()
    True
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "declarations" / name, package.parent / name):
        if folder.is_dir() and not (folder / "__init__.py").exists():
            return folder
    raise FileNotFoundError(f"the declarations {name}/ are not in this installation of chammi75; install it again")
