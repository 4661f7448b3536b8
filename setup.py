"""Build the package, with the file that Hermes's dashboard reads; everything else is declared in setup.cfg."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithSchema(build_py):
    """Add the generated `config_schema.py` to the plugin folder, which Hermes also finds by the entry point."""

    def run(self) -> None:
        """Build, then write the file; an editable build writes it into the source tree, where git ignores it."""
        super().run()
        sys.path.insert(0, str(ROOT))
        from honcho_exec.cli.hermes.dashboard import schema_source  # noqa: PLC0415 - once its folder is in the path

        package = ROOT if getattr(self, "editable_mode", False) else Path(self.build_lib)
        target = package / "honcho_exec" / "hermes" / "plugin" / "config_schema.py"
        target.write_text(schema_source(), encoding="utf-8")


setup(cmdclass={"build_py": BuildWithSchema})
